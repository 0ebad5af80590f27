"""Numbers as people read them."""

import pytest

from minilm.dtypes import storage_bytes
from minilm.units import format_bytes, format_count, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1500, "1.50K"), (124439808, "124.4M"), (8030261248, "8.03B")],
)
def test_counts(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (497759232, "474.7 MiB"), (2**40, "1.0 TiB")],
)
def test_sizes_are_binary(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(("s", "text"), [(7.25, "7.2 s"), (200, "3 min 20 s"), (7260, "2 h 1 min")])
def test_durations(s: float, text: str) -> None:
    assert format_seconds(s) == text


def test_odd_counts_round_up_to_whole_bytes() -> None:
    assert storage_bytes(3, "int4") == 2
    assert storage_bytes(3, "bfloat16") == 6
