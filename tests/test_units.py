"""Numbers as people read them."""

import math

import pytest

from minilm.dtypes import storage_bytes
from minilm.errors import InputError
from minilm.units import (
    counted,
    format_bytes,
    format_count,
    format_decimal,
    format_seconds,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1500, "1.50K"), (124439808, "124.4M"), (8030261248, "8.03B")],
)
def test_counts(count: int, text: str) -> None:
    assert format_count(count) == text


def test_one_is_no_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
    assert [counted(n, "copy", "copies") for n in (1, 2)] == ["1 copy", "2 copies"]


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


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("80GiB", 80 * 2**30),
        ("512MB", 512 * 10**6),
        ("8e9", 8 * 10**9),
        ("40g", 40 * 10**9),
        (" 1.5 kib ", 1536),
        ("0.1TB", 10**11),
        ("1000000", 10**6),
        ("7B", 7),
        ("7.99b", 7),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_a_number_whose_unit_was_forgotten_is_not_bytes() -> None:
    for text in ("24", "24.5", " 999999", "1e3"):
        with pytest.raises(InputError, match=rf"^--fits: '{text.strip()}' without a unit, .*24GB"):
            parse_bytes(text, "--fits")


@pytest.mark.parametrize(
    "text",
    [
        *("", "GB", "24XB", "-24GB", "inf", "nan", "1e999", "1e99", "0", "0.1", "24 GB GB", "1_0"),
        *("9" * 5000, "9223372036854775808", "1e9" * 100, "٣GB", "7i", "1.GB", ".5GB", "0x10"),
    ],
)
def test_an_invalid_size_is_one_short_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--fits: ") as caught:
        parse_bytes(text, "--fits")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [(22.497, "22.4970"), (123456.7, "123,456.7000"), (1.35e13, "1.35e+13"), (math.inf, "inf")],
)
def test_decimals(value: float, text: str) -> None:
    assert format_decimal(value, 4) == text
