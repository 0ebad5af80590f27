"""Tables of a chapter, and tensors as text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from minilm.render.document import Column, Table


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    """A table of any rows."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows))


def rows_text(values: torch.Tensor) -> str:
    """A tensor with two decimals, row by row; never -0.00."""
    rows = values.detach().reshape(-1, values.shape[-1]).tolist()
    return "; ".join(", ".join(f"{round(value, 2) + 0.0:.2f}" for value in row) for row in rows)
