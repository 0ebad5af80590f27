"""Sections of titled tables of text, and how their cells are written: what both reports are made of.

A cell is plain text without control characters, not yet escaped for Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minilm.safe_text import one_line
from minilm.units import format_bytes


@dataclass(frozen=True)
class Column:
    """A table's column. ``kind``: text, number (to the right), code (a name or a formula)."""

    title: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows of text. ``bars`` in 0..1, one a row, are drawn where there can be bars."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bars: tuple[float, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, formulas as (label, text), tables."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    code: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()


def columns(first: str, *numbers: str) -> tuple[Column, ...]:
    """A column of text and columns of numbers."""
    return (Column(first), *(Column(title, "number") for title in numbers))


def relative(values: Sequence[float | None]) -> tuple[float, ...]:
    """Bars: each value over the largest."""
    largest = max((value or 0 for value in values), default=0) or 1
    return tuple((value or 0) / largest for value in values)


def shape_text(shape: Sequence[int]) -> str:
    """(50257, 768) -> 50,257 × 768."""
    return " × ".join(f"{dimension:,}" for dimension in shape) or "scalar"


def words(key: str) -> str:
    """A JSON key as words."""
    return one_line(key).replace("_", " ")


def size(count: int | None) -> str:
    """Bytes as people read them."""
    return "" if count is None else format_bytes(count)


def number(value: Any) -> str:
    """A number, nothing for None: integers whole, others to six digits."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def way(key: str) -> str:
    """A way to train by its key: adamw_float32 -> AdamW, float32."""
    method, _, dtype = key.partition("_")
    return f"{_METHODS.get(method, one_line(method))}, {words(dtype)}"


_METHODS = {"adamw": "AdamW", "muon": "Muon", "lora": "LoRA"}
