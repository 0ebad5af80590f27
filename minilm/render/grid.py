"""Tables for the terminal that cut nothing: long names fold, and figures keep their width.

Where even that is too wide for the terminal, its lines are longer than it is: rich would put an
ellipsis into the numbers instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

# A cell up to this long stays in one line; every number below 2**63 and most shapes are shorter.
WHOLE = 26
# What is longer folds, as narrow as this where it must.
FOLDED = 12
GAP = 2


def grid(*columns: tuple[str, str]) -> Table:
    """An empty table without lines: (title, "left" or "right") a column. `settle` it when filled."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in columns:
        table.add_column(title, justify="left" if justify == "left" else "right", overflow="fold")
    return table


@dataclass(frozen=True)
class Settled:
    """A table that is never narrower than ``least``, for rich to print."""

    table: Table
    least: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, in the width that there is or else in what it needs."""
        width = max(options.max_width, self.least)
        yield from console.render(self.table, options.update_width(width))


def settle(table: Table, *, first_folds: bool = True) -> Settled:
    """A filled table with no column narrower than what it must show in one line.

    With ``first_folds`` the first column gives way to the others even where it is short.
    """
    for index, column in enumerate(table.columns):
        longest = _longest(column)
        column.no_wrap = longest <= WHOLE and not (first_folds and index == 0)
        column.min_width = longest if column.no_wrap else min(longest, FOLDED)
    least = sum((column.min_width or 0) + GAP for column in table.columns) - GAP
    return Settled(table, least)


def width_of(cells: Iterable[str]) -> int:
    """Columns of the terminal that these cells take one below the other, and the gap after them."""
    return max(map(cell_len, cells), default=0) + GAP


def stacked(rows: Iterable[Sequence[str]]) -> list[RenderableType]:
    """For a narrow terminal: the first cell of a row on a line of its own, the others below it."""
    lines: list[RenderableType] = []
    for name, *cells in rows:
        lines += [Text(name, overflow="fold"), Text("  " + "  ".join(cells), overflow="fold")]
    return lines


def _longest(column: Column) -> int:
    """In columns of the terminal; what is drawn and not written has none of its own."""
    cells = (cell for cell in (column.header, *column.cells) if isinstance(cell, (str, Text)))
    return max(cell_len(str(cell)) for cell in cells)
