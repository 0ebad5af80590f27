"""Pieces of the terminal report."""

import pytest

from minilm.render.terminal import curve, plain


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([3.0, 1.0], "3.000 █▁ 1.000"),
        ([1.0, 1.0], "1.000 ▁▁ 1.000"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "0.000 ▁▂▃▄▅▆▇█ 7.000"),
    ],
)
def test_a_curve_runs_from_first_to_last(values: list[float], line: str) -> None:
    assert curve(values) == line


def test_a_long_curve_is_averaged_into_its_width() -> None:
    assert len(curve([float(n) for n in range(1000)]).split()[1]) == 40


def test_a_name_is_one_printable_line() -> None:
    assert plain("a\nb\x1b[0m") == "a\\x0ab\\x1b[0m"
