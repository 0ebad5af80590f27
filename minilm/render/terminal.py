"""A Report drawn for the terminal: short, on one screen, or in full.

The short report fits `SHORT_LINES` lines of 80 columns: the smallest components give way to their sum,
then mismatches and notes to their number, then the memory, beside a long formula, or all components.
What an option asked for comes alone, below one line with the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from minilm.inspection.report import Report
from minilm.render.document import (
    Block,
    Code,
    Document,
    Paragraph,
    Section,
    Table,
    brief,
    with_brief_lines,
)
from minilm.render.grid import table_lines, wrapped
from minilm.render.sections import build_document, components_section

if TYPE_CHECKING:
    from minilm.runs.history import RunHistory

SHORT_LINES = 24
FEWEST_COMPONENTS = 3
MOST_LISTED = 4  # mismatches, and notes
READ_ON = "More: inspect --full, --html FILE, --tensors, --stats, --fits 24GB, --diff OTHER"
LINES_AT_ONCE = 1000  # rich asks for the terminal's size and colours with every print
_STYLES = {"verified": "green", "mismatch": "bold red"}

Lines = list[Text]


def print_report(
    report: Report,
    console: Console,
    *,
    history: RunHistory | None = None,
    full: bool = False,
    tensors: bool = False,
) -> None:
    """Print the short report, or what an option asked for; a line that is too long is not cut."""
    lines = report_lines(report, console.width, history=history, full=full, tensors=tensors)
    for start in range(0, len(lines), LINES_AT_ONCE):
        part = lines[start : start + LINES_AT_ONCE]
        console.print(*part, sep="\n", crop=False, no_wrap=True, overflow="ignore")


def report_lines(
    report: Report,
    width: int,
    *,
    history: RunHistory | None = None,
    full: bool = False,
    tensors: bool = False,
) -> Lines:
    """The lines for a terminal of ``width`` columns; only a number makes one longer than that.

    The whole report has the ``history`` of a run too.
    """
    document = build_document(report, history=history, layers=full, tensors=tensors)
    if full:
        return [*_heading(document, width), *section_lines(document.sections, width)]
    if any(section.requested for section in document.sections):
        selection = [s for s in document.sections if s.requested or s.key in ("notes", "tensors")]
        return [*_verdict_line(document, width), *_brief(selection, width)]
    lines = _short(report, document, width)
    selection = [section for section in document.sections if section.key == "tensors"]
    return [*lines, *_brief(selection, width)]


def section_lines(sections: Sequence[Section], width: int) -> Lines:
    """Sections with their titles, an empty line before each."""
    lines: Lines = []
    for section in sections:
        lines += [Text(), _rule(section, width), *_section(section, width)]
    return lines


def _short(report: Report, document: Document, width: int) -> Lines:
    """As many components, then mismatches and notes, then sections, as there is room for on one screen."""
    heading = _heading(document, width)
    end = [Text(line, "dim") for line in wrapped(READ_ON, width)]
    most = min(max(len(report.components), FEWEST_COMPONENTS), SHORT_LINES)
    everything: tuple[str, ...] = ()
    sizes = [(rows, MOST_LISTED, everything) for rows in range(most, FEWEST_COMPONENTS, -1)]
    sizes += [(FEWEST_COMPONENTS, listed, everything) for listed in range(MOST_LISTED, 0, -1)]
    sizes += [(FEWEST_COMPONENTS, 1, ("memory",)), (0, 1, ("components",))]
    sizes += [(0, 0, ("components",))]
    lines: Lines = []
    for rows, listed, without in sizes:
        sections = [
            components_section(report, most_rows=rows)
            if section.key == "components"
            else with_brief_lines(section, listed)
            for section in document.sections
            if section.key != "tensors" and section.key not in without
        ]
        lines = [*heading, *_brief(sections, width), *end]
        if len(lines) <= SHORT_LINES:
            break
    return lines


def _heading(document: Document, width: int) -> Lines:
    count = f"{document.total} parameters ({document.about})"
    if cell_len(f"{document.target}  {document.architecture}  {count}") <= width:
        first = Text.assemble(
            (document.target, "bold"), f"  {document.architecture}  ", (count, "bold")
        )
        lines = [first]
    else:
        lines = [Text(line, "bold") for line in wrapped(document.target, width)]
        lines += [Text(line) for line in wrapped(f"{document.architecture}  {count}", width)]
    style = _STYLES.get(document.status, "")
    return [*lines, *(Text(line, style) for line in wrapped(document.verdict, width))]


def _verdict_line(document: Document, width: int) -> Lines:
    """The verdict in one line, below the target where both are too long for it."""
    style = _STYLES.get(document.status, "")
    for verdict in (document.verdict, document.brief_verdict):
        if cell_len(text := f"{document.target}: {verdict}") <= width:
            return [Text(text, style)]
    fits = cell_len(document.verdict) <= width
    verdict = document.verdict if fits else document.brief_verdict
    target = [Text(line, "bold") for line in wrapped(document.target, width)]
    return [*target, *(Text(line, style) for line in wrapped(verdict, width))]


def _brief(sections: Sequence[Section], width: int) -> Lines:
    """The sections without their details and titles, an empty line before each."""
    lines: Lines = []
    for section in map(brief, sections):
        if section is not None:
            lines += [Text(), *_section(section, width)]
    return lines


def _rule(section: Section, width: int) -> Text:
    title = f"── {section.title} "
    return Text(title + "─" * (width - len(title)), "bold")


def _section(section: Section, width: int) -> Lines:
    """The blocks; an empty line between two but for lines of code."""
    label_width = max((len(b.label) for b in section.blocks if isinstance(b, Code)), default=0)
    lines: Lines = []
    before: Block | None = None
    for block in section.blocks:
        if before is not None and (not isinstance(block, Code) or not isinstance(before, Code)):
            lines.append(Text())
        lines += _block(block, width, label_width)
        before = block
    return lines


def _block(block: Block, width: int, label_width: int) -> Iterator[Text]:
    if isinstance(block, Table):
        yield from table_lines(block, width)
    elif isinstance(block, Paragraph):
        yield from map(Text, wrapped(block.text, width))
    elif isinstance(block, Code):
        label = block.label
        for line in wrapped(block.text, width - label_width - 2):
            yield Text.assemble((f"{label:{label_width}}", "bold"), f"  {line}")
            label = ""
    else:
        if block.title:
            yield Text(block.title, "bold")
        indent = 2 if block.title else 0
        for text in block.lines:
            yield from (Text(" " * indent + line) for line in wrapped(text, width - indent))


def curve(values: Sequence[float], width: int = 40) -> str:
    """A loss curve in one line of block characters between its first and its last value."""
    size = max(1, -(-len(values) // width))
    means = [
        sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)
    ]
    low, high = min(means), max(means)
    glyphs = "▁▂▃▄▅▆▇█"
    span = (high - low) or 1
    line = "".join(glyphs[round((len(glyphs) - 1) * ((mean - low) / span))] for mean in means)
    return f"{values[0]:.3f} {line} {values[-1]:.3f}"
