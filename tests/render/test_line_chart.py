"""Curves of a run: what is drawn, where, and the round numbers beside it."""

from __future__ import annotations

import math
import re

import pytest

from minilm.render.line_chart import MAX_POINTS, LineChart, line_chart, run_charts, ticks


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def titles(charts: list[LineChart]) -> list[tuple[str, str]]:
    return [(chart.title, chart.axis) for chart in charts]


def test_what_is_not_there_or_not_finite_is_left_out() -> None:
    charts = run_charts(
        [
            {"step": 1, "seconds": 0.5, "train_loss": 3.0},
            {"step": 2, "seconds": math.inf, "train_loss": math.nan, "val_loss": 2.5},
            {"step": 3, "train_loss": "4", "lr": True},
        ]
    )
    assert titles(charts) == [("loss", "steps"), ("loss", "seconds")]
    steps, seconds = charts
    assert [(line.name, line.x, line.y) for line in steps.lines] == [
        ("training", (1,), (3.0,)),
        ("validation", (2,), (2.5,)),
    ]
    assert [(line.name, line.x) for line in seconds.lines] == [("training", (0.5,))]
    assert run_charts([]) == []


def test_points_stand_where_the_ticks_say() -> None:
    chart = line_chart("loss", "steps", {"training": [(0, 4.0), (50, 1.0), (100, 2.0)]})
    assert chart.x_ticks == ((0, "0"), (20, "20"), (40, "40"), (60, "60"), (80, "80"), (100, "100"))
    assert [text for _, text in chart.y_ticks] == ["1", "2", "3", "4"]
    assert [position for position, _ in chart.y_ticks] == pytest.approx([0, 100 / 3, 200 / 3, 100])
    (line,) = chart.lines
    assert points(line.path) == [(0, 0), (500, 1000), (1000, 666.7)]
    assert line.markers == "M0.0 0.0h0M500.0 1000.0h0M1000.0 666.7h0"


@pytest.mark.parametrize(
    "values", [(5.0, 5.0), (0.0, 0.0), (-3.0, 7.0), (1e-9, 2e-9), (1e18, 1e19)]
)
def test_every_point_is_inside(values: tuple[float, float]) -> None:
    chart = line_chart("loss", "steps", {"a": [(n, value) for n, value in enumerate(values)]})
    for x, y in points(chart.lines[0].path):
        assert 0 <= x <= 1000
        assert 0 <= y <= 1000


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.12, 0.35), (4.2, 4.2), (-7, 90), (0, 1234567)]
)
def test_ticks_are_few_round_and_around_the_values(low: float, high: float) -> None:
    numbers = ticks(low, high)
    assert 2 <= len(numbers) <= 8
    assert numbers[0] <= low + 1e-9
    assert numbers[-1] >= high - 1e-9
    for number in numbers:
        assert number == pytest.approx(float(f"{number:.2g}"))


def test_a_mark_is_placed_on_both_axes() -> None:
    lines = [{"step": n, "seconds": 2.0 * n, "val_loss": 1.0 / n} for n in (5, 10, 20)]
    steps, seconds = run_charts(lines, lines[0])
    assert (steps.mark, seconds.mark) == (25, 25)
    assert run_charts(lines, {"step": math.nan})[0].mark is None
    assert run_charts(lines)[0].mark is None


@pytest.mark.parametrize("count", [999, 1000, 1001, 100_000])
def test_long_curves_are_thinned_and_keep_their_ends(count: int) -> None:
    lines = [{"step": n, "seconds": n, "train_loss": 1.0} for n in range(count)]
    (line,) = run_charts(lines)[0].lines
    assert len(line.x) == len(points(line.path)) <= MAX_POINTS
    assert (line.x[0], line.x[-1]) == (0, count - 1)
    assert not line.markers
