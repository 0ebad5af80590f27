"""How a Report looks in Python: printed, as the last value of a notebook's cell, as a page, as Markdown."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup, escape

from minilm.errors import InputError
from minilm.inspection.report import Report
from minilm.render.document import Block, Code, Listing, Paragraph, Table, brief
from minilm.render.sections import build_document, components_section
from minilm.render.terminal import report_lines
from minilm.runs import files as run_files
from minilm.runs.history import RunHistory, read_history

WIDTH = 100  # where there is no terminal
MOST_COMPONENTS = 24  # in a notebook

logger = logging.getLogger(__name__)


def text(report: Report) -> str:
    """The short report, without colours, as wide as the terminal."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return "\n".join(line.plain.rstrip() for line in report_lines(report, width))


def page(report: Report) -> str:
    """The page of the report, with the curves of a run that minilm trained."""
    from minilm.render import html

    return html.page(report, history=run_history(report))


def markdown(report: Report, *, tensors: bool = False) -> str:
    """The whole report, with the history of a run that minilm trained."""
    from minilm.render import markdown as drawn

    return drawn.markdown(report, history=run_history(report), tensors=tensors)


def run_history(report: Report) -> RunHistory | None:
    """Of a run that minilm trained; a log that cannot be read costs the page its curves."""
    if report.architecture != run_files.FAMILY:
        return None
    try:
        return read_history(Path(report.target))
    except InputError as error:
        logger.warning("note: no curves: %s", error)
        return None


def notebook(report: Report) -> str:
    """The short report as HTML tables in the notebook's own style."""
    document = build_document(report)
    parts = [
        Markup("<p><b>{}</b> {} <b>{} parameters</b> ({})<br>{}</p>").format(
            document.target,
            document.architecture,
            document.total,
            document.about,
            document.verdict,
        )
    ]
    for section in document.sections:
        if section.key == "components":
            section = components_section(report, most_rows=MOST_COMPONENTS)
        short = brief(section)
        parts += [] if short is None else map(_block, short.blocks)
    return Markup("<div>{}</div>").format(Markup("\n").join(parts))


def _block(block: Block) -> Markup:
    if isinstance(block, Paragraph):
        return Markup("<p>{}</p>").format(block.text)
    if isinstance(block, Code):
        return Markup("<p>{} <code>{}</code></p>").format(block.label, block.text)
    if isinstance(block, Listing):
        items = (Markup("<li>{}</li>").format(line) for line in block.lines)
        return Markup("<p>{}</p><ul>{}</ul>").format(block.title, Markup("").join(items))
    return _table(block)


def _table(table: Table) -> Markup:
    rows = (_row("td", row, table) for row in table.rows)
    heading = _row("th", [column.title for column in table.columns], table)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(
        heading, Markup("").join(rows)
    )


def _row(tag: str, cells: Iterable[str], table: Table) -> Markup:
    sides = ("right" if column.kind == "number" else "left" for column in table.columns)
    return Markup("<tr>{}</tr>").format(
        Markup("").join(
            Markup(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>')
            for side, cell in zip(sides, cells, strict=True)
        )
    )
