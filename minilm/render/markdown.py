"""A Report as GitHub-flavoured Markdown: the same facts as the other reports, in tables that diff well.

Every text is hostile: what Markdown or HTML could read as anything but a character is written as a
numeric character reference, which is never more than that character (CommonMark, 2.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from minilm.inspection.report import Report
from minilm.render.document import Block, Code, Listing, Paragraph, Section, Table
from minilm.render.sections import build_document, components_section
from minilm.safe_text import one_line

if TYPE_CHECKING:
    from minilm.runs.history import RunHistory

_RULES = {"text": ":--", "code": ":--", "number": "--:"}
# Brackets, quotes, emphasis, tables, HTML, strikethrough, mathematics, mentions, issue numbers.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$@#]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_")
_AUTOLINK = re.compile(r"(?<=www)\.|:(?=//)|(?<=mailto):|(?<=xmpp):", re.IGNORECASE)
# What begins a list or a rule at the start of a line.
_BLOCK = re.compile(r"^([0-9]{0,9})([-+=.)])(?=[-+=\s]|$)")
_ORDINARY = re.compile(r"[\w./ :,+*^()=×²³{}│…-]+")


def markdown(report: Report, *, history: RunHistory | None = None, tensors: bool = False) -> str:
    """The whole report; ``tensors`` adds the list of every tensor, ``history`` what a run left."""
    document = build_document(report, history=history, tensors=tensors)
    lines = [
        f"# {text(document.target)}",
        "",
        f"**{document.total} parameters** ({document.about}), {text(document.architecture)}.",
        "",
        f"**{text(document.verdict)}.**",
    ]
    for section in document.sections:
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"


def section_lines(
    section: Section, *, level: int = 2, phrase: Callable[[str], str] | None = None
) -> list[str]:
    """A section below a heading of that level. ``phrase`` writes its texts, by default `text`."""
    lines = [f"{'#' * level} {text(section.title)}"]
    for block in section.blocks:
        lines += _block(block, phrase or text)
    return lines


def component_table(report: Report) -> str:
    """The parameters by component: that table alone."""
    (table,) = components_section(report).tables()
    return "\n".join(_table(table, text))


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


def _block(block: Block, phrase: Callable[[str], str]) -> Iterable[str]:
    if isinstance(block, Paragraph):
        yield from ("", phrase(block.text))
    elif isinstance(block, Code):
        yield from ("", f"{text(block.label).capitalize()}:", "", f"    {block.text}")
    elif isinstance(block, Listing):
        if block.title:
            yield from ("", f"### {text(block.title)}")
        yield from ("", *(f"- {phrase(line)}" for line in block.lines))
    else:
        if block.caption:
            yield from ("", f"### {text(block.caption)}")
        yield from ("", *_table(block, phrase))


def _table(table: Table, phrase: Callable[[str], str]) -> Iterable[str]:
    yield _row([phrase(column.title) for column in table.columns])
    yield _row([_RULES[column.kind] for column in table.columns])
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        yield _row([code(c) if column.kind == "code" else phrase(c) for column, c in cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
