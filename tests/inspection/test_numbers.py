"""Numbers as people write them, and what is none."""

from __future__ import annotations

import time

import pytest

from minilm.errors import InputError
from minilm.inspection.reconciliation.numbers import parse_number


@pytest.mark.parametrize(
    ("text", "value", "rounding"),
    [
        ("124439808", 124_439_808, 1),
        ("7,217,189,760", 7_217_189_760, 1),
        ("124_439_808", 124_439_808, 1),
        ("124 439 808", 124_439_808, 1),
        (" 42 ", 42, 1),
        ("117M", 117_000_000, 1_000_000),
        ("117 million", 117_000_000, 1_000_000),
        ("1,542M", 1_542_000_000, 1_000_000),
        ("8.03B", 8_030_000_000, 10_000_000),
        ("8.03bn params", 8_030_000_000, 10_000_000),
        ("6.7 billion parameters", 6_700_000_000, 100_000_000),
        ("1.24e8", 124_000_000, 1_000_000),
        ("1e9", 1_000_000_000, 1_000_000_000),
        ("1E+9", 1_000_000_000, 1_000_000_000),
        ("20k", 20_000, 1_000),
        ("1.5T", 1_500_000_000_000, 100_000_000_000),
        ("8.0302612481B", 8_030_261_248, 1),
        ("548 MB", 548_000_000, 1_000_000),
        ("474.7MiB", 497_759_027, 104_857),
        ("497759232 bytes", 497_759_232, 1),
    ],
)
def test_what_is_written(text: str, value: int, rounding: int) -> None:
    number = parse_number(text)
    assert (number.value, number.rounding) == (value, rounding)
    assert number.is_rounded == (rounding > 1)
    assert number.is_bytes == text.lower().rstrip("s").endswith(("b", "byte")) * (
        "M" in text or "byte" in text
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-5",
        "0",
        "0.0M",
        "nan",
        "inf",
        "1e999999",
        "1e99",
        "1e-3",
        "9" * 1_000_000,
        "9" * 30,
        "1.5",
        "1.2.3",
        "7,5B",
        "12,34,567",
        "1,234_567",
        "117Q",
        "0x10",
        "１２３",
        "117M\n5",
        "\x1b[31m",
        "1 2",
    ],
)
def test_what_is_no_number_is_one_short_line_at_once(text: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        parse_number(text)
    assert time.perf_counter() - begin < 0.5
    message = str(caught.value)
    assert message.startswith("--reconcile: ")
    assert message.isprintable()
    assert len(message) < 400
