"""Tables for the terminal that cut nothing, within a width as long as every number is narrower.

What is too long gives way in this order: bars are left out, the last column folds if it is text, a long
first cell stands on a line of its own, and then the columns that are left stand in a further table below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len, chop_cells
from rich.text import Text

from minilm.render.document import Column, Table

GAP = 2
BAR_WIDTH = 16
FOLDED = 16  # the narrowest last column
NARROW = 4  # the narrowest first column: a longer cell has a line of its own

_EIGHTHS = " ▏▎▍▌▋▊▉"


def table_lines(table: Table, width: int) -> Iterator[Text]:
    """The lines of a table: its caption, its titles and a row each, in further tables if need be."""
    if table.caption:
        yield from (Text(line, "bold") for line in wrapped(table.caption, width))
    table = _with_bars(table, width)
    while table.columns[1:]:
        count = _columns_that_fit(table, width)
        yield from _grid(_columns_of(table, range(count)), width)
        table = _columns_of(table, (0, *range(count, len(table.columns))))
        if table.columns[1:]:
            yield Text()


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns of the terminal, without a break inside a word that fits.

    Where there are double spaces, lines are broken at those alone.
    """
    separator = "  " if "  " in text.strip() else " "
    width = max(width, 1)
    lines: list[str] = []
    line = ""
    for word in text.split(separator):
        longer = f"{line}{separator}{word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        if cell_len(word) > width and separator != " ":
            *whole, line = wrapped(word, width)
        else:
            *whole, line = chop_cells(word, width) or [""]
        lines += whole
    return [*lines, line]


def bar(length: float, width: int = BAR_WIDTH) -> str:
    """A bar of ``length`` in 0..1 of the width, in eighths of a character."""
    whole, eighths = divmod(round(length * width * 8), 8)
    return ("█" * whole + _EIGHTHS[eighths]).rstrip()


def _with_bars(table: Table, width: int) -> Table:
    """The bars as one more column, before a last one of text, where there is room for it."""
    if not table.bars or sum(_natural(table)) + GAP * len(table.columns) + BAR_WIDTH > width:
        return table
    index = len(table.columns) - (table.columns[-1].kind != "number")
    column = Column("")

    def inserted(cells: Sequence[str], cell: str) -> tuple[str, ...]:
        return (*cells[:index], cell, *cells[index:])

    return replace(
        table,
        columns=(*table.columns[:index], column, *table.columns[index:]),
        rows=tuple(
            inserted(row, f"{bar(length):{BAR_WIDTH}}")
            for row, length in zip(table.rows, table.bars, strict=True)
        ),
        bars=(),
    )


def _columns_of(table: Table, indices: Sequence[int]) -> Table:
    return replace(
        table,
        columns=tuple(table.columns[index] for index in indices),
        rows=tuple(tuple(row[index] for index in indices) for row in table.rows),
        bars=(),
    )


def _natural(table: Table) -> list[int]:
    """The width of each column whose cells all stand in one line."""
    titles = tuple(column.title for column in table.columns)
    return [max(map(_width, cells)) for cells in zip(titles, *table.rows, strict=True)]


def _columns_that_fit(table: Table, width: int) -> int:
    """How many of the first columns fit beside each other: two at least."""
    natural = _natural(table)
    for count in range(len(table.columns), 2, -1):
        if _widths(table.columns[:count], natural[:count], width) is not None:
            return count
    return 2


def _widths(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int] | None:
    """The columns' widths, if they fit into ``width`` with a narrower first and last one."""
    widths = list(natural)
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    if excess > 0 and columns[-1].kind != "number":
        narrowest = min(widths[-1], FOLDED)
        given = min(excess, widths[-1] - narrowest)
        widths[-1] -= given
        excess -= given
    if excess > 0:
        given = min(excess, max(widths[0] - NARROW, 0))
        widths[0] -= given
        excess -= given
    return widths if excess <= 0 else None


def _grid(table: Table, width: int) -> Iterator[Text]:
    columns, natural = table.columns, _natural(table)
    widths = _widths(columns, natural, width)
    if widths is None:
        widths = [min(natural[0], NARROW), *natural[1:]]
    yield from _row([column.title for column in columns], columns, widths, width, "bold")
    for number, row in enumerate(table.rows, 1):
        is_total = table.total_last and number == len(table.rows)
        yield from _row(row, columns, widths, width, "bold" if is_total else "")


def _row(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], width: int, style: str
) -> Iterator[Text]:
    first, *others = cells
    if _width(first) > widths[0]:
        yield from (Text(line, style) for line in wrapped(first, width))
        first = ""
    last = wrapped(others[-1], widths[-1])
    for index in range(len(last)):
        before = [first, *others[:-1]] if index == 0 else [""] * len(others)
        line = [*before, last[index]]
        text = (" " * GAP).join(map(_aligned, line, columns, widths))
        yield Text(text.rstrip(), style)


def _aligned(cell: str, column: Column, width: int) -> str:
    space = " " * (width - _width(cell))
    return space + cell if column.kind == "number" else cell + space


def _width(cell: str) -> int:
    """`cell_len`, which looks at every character, where it is not the number of characters."""
    return len(cell) if cell.isascii() else cell_len(cell)
