"""A Report as GitHub-flavoured Markdown: the same facts as the other reports, in tables that diff well.

Every text is hostile: what Markdown or HTML could read as anything but a character is written as a
numeric character reference, which is never more than that character (CommonMark, 2.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from minilm.inspection.report import Report
from minilm.render.sections import sections, verdict, witnesses
from minilm.render.tables import Column, Section, Table, shape_text
from minilm.safe_text import one_line
from minilm.units import format_count

_RULES = {"text": ":--", "code": ":--", "number": "--:"}
# Brackets, quotes, emphasis, tables, HTML, strikethrough, mathematics, mentions, issue numbers.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$@#]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_")
_AUTOLINK = re.compile(r"(?<=www)\.|:(?=//)|(?<=mailto):|(?<=xmpp):", re.IGNORECASE)
# What begins a list or a rule at the start of a line.
_BLOCK = re.compile(r"^([0-9]{0,9})([-+=.)])(?=[-+=\s]|$)")
_ORDINARY = re.compile(r"[\w./ :,+*^()=×²³{}-]+")


def markdown(report: Report, *, tensors: bool = False) -> str:
    """The whole report; ``tensors`` adds the list of every tensor."""
    lines = [f"# {text(report.target)}", ""]
    total = report.parameters.total
    lines += [
        f"**{total:,} parameters** ({format_count(total)}), {text(report.architecture)}.",
        "",
        f"**{verdict(report)[1]}.**",
        "",
        *_table(_witnesses(report)),
    ]
    if report.mismatches:
        lines += ["", *(f"- {text(line)}" for line in report.mismatches)]
    if report.notes:
        lines += ["", *(f"- {text(note)}" for note in report.notes)]
    for section in sections(report):
        lines += ["", *_section(section)]
    if tensors:
        lines += ["", "## Tensors", "", *_table(_tensors(report))]
    return "\n".join(lines) + "\n"


def parameters(report: Report) -> str:
    """The parameters by component: that section alone, without its title."""
    section = sections(report)[0]
    return "\n".join(line for table in section.tables for line in _table(table))


def text(value: str) -> str:
    """Text that shows as itself wherever Markdown puts it, on one line."""
    value = _SPECIAL.sub(_reference, one_line(value).strip())
    return _BLOCK.sub(lambda m: m[1] + f"&#{ord(m[2])};", _AUTOLINK.sub(_reference, value))


def code(value: str) -> str:
    """A name or a formula in the font of code, in a table's cell too."""
    value = one_line(value)
    if not value:
        return ""
    if _ORDINARY.fullmatch(value) and value == value.strip():
        return f"`{value}`"
    # A code span cannot hold every name: backticks end it and a pipe ends the cell.
    return f"<code>{re.sub(r'[^A-Za-z0-9 ]', _reference, value)}</code>"


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _section(section: Section) -> Iterable[str]:
    yield f"## {text(section.title)}"
    for paragraph in section.text:
        yield from ("", text(paragraph))
    for table in section.tables:
        if table.caption:
            yield from ("", f"### {text(table.caption)}")
        yield from ("", *_table(table))
    for label, formula in section.code:
        yield from ("", f"{text(label).capitalize()}:", "", f"    {formula}")


def _table(table: Table) -> Iterable[str]:
    yield _row([text(column.title) for column in table.columns])
    yield _row([_RULES[column.kind] for column in table.columns])
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        yield _row([code(c) if column.kind == "code" else text(c) for column, c in cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _witnesses(report: Report) -> Table:
    rows = tuple(
        (name, "not heard" if count is None else f"{count:,}") for name, count in witnesses(report)
    )
    return Table((Column("witness"), Column("parameters", "number")), rows)


def _tensors(report: Report) -> Table:
    columns = (
        Column("name", "code"),
        Column("shape", "number"),
        Column("dtype"),
        Column("elements", "number"),
        Column("component"),
    )
    rows = tuple(
        (row.name, shape_text(row.shape), row.dtype, f"{row.count:,}", row.component)
        for row in report.tensors
    )
    return Table(columns, rows)
