"""Tables for the terminal that cut nothing: long names fold, and figures keep their width.

Where even that is too wide for the terminal, its lines are longer than it is: rich would put an
ellipsis into the numbers instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

# A cell up to this long stays in one line; every number below 2**63 and most shapes are shorter.
WHOLE = 26
# What is longer folds, as narrow as this where it must.
FOLDED = 12


def grid(*columns: tuple[str, str]) -> Table:
    """An empty table without lines: (title, "left" or "right") a column. `settle` it when filled."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in columns:
        table.add_column(title, justify="left" if justify == "left" else "right", overflow="fold")
    return table


def settle(table: Table, *, first_folds: bool = False) -> Table:
    """The same table with no column narrower than what it must show in one line.

    ``first_folds`` lets the first column give way to the others however short it is.
    """
    for index, column in enumerate(table.columns):
        longest = _longest(column)
        column.no_wrap = longest <= WHOLE and not (first_folds and index == 0)
        column.min_width = longest if column.no_wrap else min(longest, FOLDED)
    return table


def width_of(cells: Iterable[str]) -> int:
    """Columns of the terminal that these cells take one below the other, and the gap after them."""
    return max(map(cell_len, cells), default=0) + 1


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
