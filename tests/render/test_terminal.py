"""Pieces of the terminal report."""

import itertools
import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

import minilm
from minilm.inspection.report import Report, TensorRow
from minilm.render.terminal import curve, print_report
from minilm.safe_text import one_line


def printed(report: Report, width: int) -> str:
    stream = StringIO()
    print_report(report, Console(file=stream, width=width, highlight=False), tensors=True)
    return stream.getvalue()


def with_name(length: int, dtype: str = "bfloat16") -> Report:
    """A small model, one tensor and component of which has a name of ``length`` letters."""
    report = minilm.inspect("nano", live=False)
    name = ("vision_tower.encoder." * length)[:length]
    row = TensorRow(name, (32000, 4096), dtype, 32000 * 4096, name)
    part = replace(report.components[0], name=name, count=row.count, share=0.9)
    return replace(
        report,
        tensors=(row, *report.tensors),
        components=(part, *report.components[1:]),
        tied=((name, name),),
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("length", [8, 27, 75, 900])
def test_a_long_name_gives_way_to_the_numbers(width: int, length: int) -> None:
    report = with_name(length)
    text = printed(report, width)
    assert "…" not in text
    for part in (*report.components, *report.conventions):
        assert f" {part.count:,}" in text
    for component in report.components:
        assert f" {component.share:.2%}" in text
    for row in report.tensors:
        assert " x ".join(map(str, row.shape)) in text
        assert f" {row.count:,}" in text
    assert text.count("float32") >= len(report.tensors) - 1
    assert re.search(r"32000 x 4096 +bfloat16 +131,072,000", text)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_numbers_wider_than_the_terminal_are_whole_too() -> None:
    report = with_name(900)
    text = printed(report, 24)
    for part in (*report.components, *report.conventions, *report.tensors):
        assert f"{part.count:,}" in text.split()
    assert "bfloat16" in text.split()
    assert "32000 x 4096" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_folded_name_is_all_there(width: int) -> None:
    report = with_name(900)
    listed = printed(report, width).partition("\ntensor ")[2].splitlines()
    stacked = width == 40
    column = width if stacked else len("tensor ") + listed[0].index("shape")
    end = "  32000 x 4096" if stacked else "embedding.token"
    parts = itertools.takewhile(lambda line: not line.startswith(end), listed[1:])
    assert "".join(line[:column].rstrip() for line in parts) == report.tensors[0].name


def test_a_dtype_of_any_length_is_one_row() -> None:
    for dtype in ("Q9_X\x1b[31m", "odd" * 100):
        text = printed(with_name(75, dtype), 60)
        assert "131,072,000" in text
        assert "\x1b" not in text
        assert "…" not in text


@pytest.mark.parametrize(("width", "more"), [(40, ""), (60, "Ld"), (80, "█Ld"), (100, "█Ld")])
def test_bars_give_way_first_and_formulas_next(width: int, more: str) -> None:
    lines = printed(minilm.inspect("gpt2", live=False), width).splitlines()
    (line,) = (line for line in lines if line.startswith("feed-forward up"))
    shown = line.partition("22.78%")[2]
    assert ("█" in shown) == ("█" in more)
    assert shown.rstrip().endswith("4Ld² + 4Ld") == ("Ld" in more)


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
    assert one_line("a\nb\x1b[0m") == "a\\x0ab\\x1b[0m"
