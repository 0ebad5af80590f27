"""Tables of findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from minilm.render.document import Column, Table

Kind = Literal["text", "number", "code"]


def table(caption: str, columns: dict[str, Kind], rows: Iterable[Iterable[str]]) -> Table:
    """A table of ``columns`` by their titles."""
    titles = tuple(Column(title, kind) for title, kind in columns.items())
    return Table(titles, tuple(tuple(row) for row in rows), caption=caption)
