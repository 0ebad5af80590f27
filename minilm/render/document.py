"""A report as a document: sections of paragraphs, code, lists and tables, all of plain text.

What a report says is decided where these values are made (`sections.py`); terminal, Markdown and HTML
draw them. A text has no control characters and is not yet escaped for Markdown or HTML. ``full_only``
marks what a short report leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from minilm.render.line_chart import LineChart


@dataclass(frozen=True)
class Column:
    """A table's column. ``kind``: text, number (to the right), code (a name or a formula)."""

    title: str
    kind: Literal["text", "number", "code"] = "text"
    full_only: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text. ``bars`` in 0..1, one a row, are drawn where there is room for bars."""

    kind: ClassVar[str] = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bars: tuple[float, ...] = ()
    total_last: bool = False
    """Whether the last row is the sum of the others."""
    full_only: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A sentence or a few."""

    kind: ClassVar[str] = "paragraph"
    text: str
    full_only: bool = False


@dataclass(frozen=True)
class Code:
    """A formula under its label. Where a text has double spaces, lines are broken at those alone."""

    kind: ClassVar[str] = "code"
    label: str
    text: str
    full_only: bool = False


@dataclass(frozen=True)
class Listing:
    """Lines of text under a title, which may be empty; a short report shows ``brief_lines`` of them."""

    kind: ClassVar[str] = "listing"
    title: str
    lines: tuple[str, ...]
    brief_lines: int = 20
    full_only: bool = False


Block = Table | Paragraph | Code | Listing


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it. ``requested`` sections are what an option asked for.

    The page draws ``charts`` below the blocks.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]
    requested: bool = False
    charts: tuple[LineChart, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """The tables of the section, in order."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    def listings(self) -> tuple[Listing, ...]:
        """The lists of the section, in order."""
        return tuple(block for block in self.blocks if isinstance(block, Listing))


@dataclass(frozen=True)
class Document:
    """What is inspected, its total (exact, and as 124.4M), the verdict, and the sections in reading order.

    The brief verdict has the same in at most 80 columns.
    """

    target: str
    architecture: str
    total: str
    about: str
    status: str
    verdict: str
    brief_verdict: str
    sections: tuple[Section, ...]


def brief(section: Section) -> Section | None:
    """The section without its details; None where nothing is left."""
    blocks = tuple(_brief_blocks(section))
    return replace(section, blocks=blocks) if blocks else None


def with_brief_lines(section: Section, count: int) -> Section:
    """The section with at most ``count`` lines of each list in a short report."""
    return replace(
        section,
        blocks=tuple(
            replace(block, brief_lines=min(block.brief_lines, count))
            if isinstance(block, Listing)
            else block
            for block in section.blocks
        ),
    )


def _brief_blocks(section: Section) -> Iterator[Block]:
    for block in section.blocks:
        if block.full_only:
            continue
        if isinstance(block, Table):
            yield _brief_table(block)
        elif isinstance(block, Listing):
            yield _brief_listing(block)
        else:
            yield block


def _brief_table(table: Table) -> Table:
    indices = [index for index, column in enumerate(table.columns) if not column.full_only]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in indices),
        rows=tuple(tuple(row[index] for index in indices) for row in table.rows),
    )


def _brief_listing(listing: Listing) -> Listing:
    hidden = len(listing.lines) - listing.brief_lines
    if hidden <= 0:
        return listing
    lines = (*listing.lines[: listing.brief_lines], f"and {hidden:,} more")
    return replace(listing, lines=lines)
