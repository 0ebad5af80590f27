"""How the values of a report are written in a cell of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minilm.ledger.symbols import letter_meaning
from minilm.render.document import Column
from minilm.safe_text import one_line
from minilm.units import format_bytes

_OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}


def number_columns(first: str, *titles: str) -> tuple[Column, ...]:
    """A column of text and columns of numbers."""
    return (Column(first), *(Column(title, "number") for title in titles))


def bar_lengths(values: Sequence[float | None]) -> tuple[float, ...]:
    """Each value over the largest."""
    largest = max((value or 0 for value in values), default=0) or 1
    return tuple((value or 0) / largest for value in values)


def format_shape(shape: Sequence[int]) -> str:
    """(50257, 768) -> 50,257 × 768."""
    return " × ".join(f"{dimension:,}" for dimension in shape) or "scalar"


def format_letters(symbols: Mapping[str, int], family: str) -> str:
    """V=50257 vocabulary  d=768 model width: the letters of a formula with their value and meaning."""
    return "  ".join(
        one_line(f"{letter}={value} {letter_meaning(letter, family)}".rstrip())
        for letter, value in symbols.items()
    )


def format_index(index: Sequence[int] | None) -> str:
    """(3, 14) -> 3, 14."""
    return "" if index is None else ", ".join(map(str, index))


def format_size(count: int | None) -> str:
    """Bytes in binary units; nothing for None."""
    return "" if count is None else format_bytes(count)


def format_number(value: float | None) -> str:
    """An integer whole, another number to four digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def format_tokens(batch: int, context: int) -> str:
    """2 × 1,024 tokens."""
    return f"{batch:,} × {context:,} tokens"


def key_label(key: str) -> str:
    """A JSON key as words: forward_per_token -> forward per token."""
    return one_line(key).replace("_", " ")


def training_method_label(key: str) -> str:
    """A key of ``memory.training.variants``: adamw_bfloat16 -> AdamW, bfloat16 + master."""
    method, _, dtype = key.partition("_")
    if method == "lora":
        return f"LoRA on {key_label(dtype)}"
    dtypes = {"bfloat16": "bfloat16 + master", "autocast": "bfloat16 autocast"}
    return f"{_OPTIMIZERS.get(method, one_line(method))}, {dtypes.get(dtype, key_label(dtype))}"
