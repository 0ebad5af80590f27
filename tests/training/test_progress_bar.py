"""The progress bar in terminals of several widths."""

from __future__ import annotations

import io
from typing import Any

import pytest
from tqdm import tqdm

from minilm.training.progress_bar import progress_bar, show_readings

READINGS = ["loss 2.345", "best val 2.456", "123.4k tok/s", "MFU 12%"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bar_of(width: int, total: int) -> tqdm[Any]:
    bar = progress_bar(total, 0, file=Terminal())
    bar.dynamic_ncols = lambda _: (width, 24)
    bar.n = total - 1
    return bar


@pytest.mark.parametrize(
    ("width", "total", "shown"),
    [
        (120, 20_000, READINGS),
        (80, 1200, READINGS[:3]),
        (80, 20_000, READINGS[:3]),
        (68, 1200, READINGS[:2]),
        (40, 1200, []),
    ],
)
def test_readings_stand_as_a_whole_or_not_at_all(width: int, total: int, shown: list[str]) -> None:
    with bar_of(width, total) as bar:
        show_readings(bar, READINGS)
        line = str(bar)
    assert len(line) <= width
    assert [reading for reading in READINGS if reading in line] == shown
    assert line.endswith(f" left, {' '.join(shown)}" if shown else " left")


def test_later_readings_replace_earlier_ones() -> None:
    with bar_of(80, 1200) as bar:
        show_readings(bar, READINGS)
        show_readings(bar, ["evaluating"])
        assert str(bar).endswith(" left, evaluating")


def test_without_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(3, 0) as bar:
        bar.update(1)
        show_readings(bar, READINGS)
    assert capsys.readouterr() == ("", "")
