"""What is said of a text below it, on stderr, and of how it was computed in its JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from minilm.units import counted

if TYPE_CHECKING:
    from minilm.generation.decoder import Decoder


def note(text: str) -> None:
    """A line of its own."""
    print(f"note: {text}", file=sys.stderr)


def note_fallback(began_with: Decoder, decoder: Decoder) -> None:
    """A note where the last tokens came from another decoder than the first ones."""
    if decoder is not began_with:
        before, after = _dtype(began_with), _dtype(decoder)
        note(f"an output in {before} was not finite: from there on in {after}")


def note_overflow(context_length: int) -> None:
    """A note where a text was longer than the context."""
    note(
        f"longer than the context of {context_length} tokens, the older half of which was dropped each "
        "time it was full"
    )


def print_rate(tokens: int, seconds: float, decoder: Decoder, dtype_option: str) -> None:
    """Tokens per second; and the dtype where `auto` became another than float32."""
    dtype = _dtype(decoder)
    where = f", in {dtype}" if dtype_option == "auto" and dtype != "float32" else ""
    print(f"{counted(tokens, 'token')}, {tokens / seconds:.1f} tokens/s{where}", file=sys.stderr)


def computed_by(decoder: Decoder) -> dict[str, Any]:
    """The dtype of the last tokens, and the ways of products and attention that were measured, by rows."""
    return {"dtype": _dtype(decoder), **decoder.choices}


def _dtype(decoder: Decoder) -> str:
    return str(decoder.dtype).removeprefix("torch.")
