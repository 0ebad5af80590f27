"""Curves of a run as line charts: ticks in percent of the plot, paths on a square of `SIDE` units.

The page draws them as inline SVG; nothing here is specific to a page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SIDE = 1000
MAX_POINTS = 1000
MAX_MARKERS = 60  # points of a line that has fewer are marked
_TICKS = 5
SMALLEST_SPAN = 1e-300  # of an axis: smaller numbers have no parts of full precision

_CURVES = (
    ("loss", (("training", "train_loss"), ("validation", "val_loss"))),
    ("bits per byte", (("validation", "val_bits_per_byte"),)),
    ("learning rate", (("training", "lr"),)),
    ("tokens per second", (("training", "tokens_per_second"),)),
)
AXES = ("steps", "seconds")
_FIELDS = {"steps": "step", "seconds": "seconds"}


@dataclass(frozen=True)
class Line:
    """A line and its points; ``path`` is SVG path data, ``markers`` a mark at each of few points."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    path: str
    markers: str


@dataclass(frozen=True)
class LineChart:
    """Ticks are (position in percent, text); ``mark`` is a position on the x axis in percent."""

    title: str
    axis: str
    end: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    mark: float | None


def run_charts(
    metrics: Sequence[Mapping[str, Any]], turned: Mapping[str, Any] | None = None
) -> list[LineChart]:
    """What a run's metrics have of loss, bits a byte, learning rate and speed, against both axes.

    ``turned`` is the line of metrics that is marked.
    """
    charts = []
    for title, keys in _CURVES:
        for axis in AXES:
            x_key = _FIELDS[axis]
            series = {
                name: [
                    (line[x_key], line[key])
                    for line in metrics
                    if is_finite(line.get(key)) and is_finite(line.get(x_key))
                ]
                for name, key in keys
            }
            mark = turned.get(x_key) if turned is not None else None
            points = {name: thinned(values) for name, values in series.items() if values}
            if points:
                charts.append(line_chart(title, axis, points, mark if is_finite(mark) else None))
    return charts


def line_chart(
    title: str,
    axis: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    mark: float | None = None,
) -> LineChart:
    """The chart of one or more series of points, x from 0 to the largest."""
    values = [y for points in series.values() for _, y in points]
    end = max(x for points in series.values() for x, _ in points)
    end = end if end > 0 else 1
    y_ticks = ticks(min(values), max(values))
    low, high = min(y_ticks[0], *values), max(y_ticks[-1], *values)
    height = (high - low) or 1

    def position(x: float, y: float) -> str:
        return f"{SIDE * x / end:.1f} {SIDE * (1 - (y - low) / height):.1f}"

    lines = []
    for name, points in series.items():
        places = [position(x, y) for x, y in points]
        markers = "".join(f"M{place}h0" for place in places) if len(places) <= MAX_MARKERS else ""
        x, y = zip(*points, strict=True)
        lines.append(Line(name, x, y, "M" + "L".join(places), markers))
    return LineChart(
        title,
        axis,
        end,
        x_ticks=tuple((100 * x / end, f"{x:,.6g}") for x in ticks(0, end) if x <= end),
        y_ticks=tuple((100 * (y - low) / height, f"{y:,.6g}") for y in y_ticks),
        lines=tuple(lines),
        mark=None if mark is None else 100 * min(mark / end, 1),
    )


def log_chart(
    title: str, axis: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> LineChart | None:
    """The same on logarithmic axes, of what is above zero; None where that is less than two points."""
    positive = {
        name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()
    }
    positive = {name: points for name, points in positive.items() if points}
    values = [point for points in positive.values() for point in points]
    if len(values) < 2:
        return None
    (left, right), (low, high) = (_decades([each[i] for each in values]) for i in (0, 1))

    def position(x: float, y: float) -> str:
        across = (math.log10(x) - left) / (right - left)
        up = (math.log10(y) - low) / (high - low)
        return f"{SIDE * across:.1f} {SIDE * (1 - up):.1f}"

    lines = []
    for name, points in positive.items():
        places = [position(x, y) for x, y in points]
        markers = "".join(f"M{place}h0" for place in places) if len(places) <= MAX_MARKERS else ""
        x, y = zip(*points, strict=True)
        lines.append(Line(name, x, y, "M" + "L".join(places), markers))
    return LineChart(
        title,
        axis,
        10.0**right,
        x_ticks=_powers(left, right),
        y_ticks=_powers(low, high),
        lines=tuple(lines),
        mark=None,
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten from at or below all values to at or above them."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return first, max(last, first + 1)


def _powers(first: int, last: int) -> tuple[tuple[float, str], ...]:
    """Ticks at powers of ten, at most `_TICKS` or so."""
    stride = -(-(last - first) // _TICKS)
    return tuple(
        (100 * (power - first) / (last - first), f"{10.0**power:,.6g}")
        for power in range(first, last + 1, stride)
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, some `_TICKS` of them."""
    span = max((high - low) or abs(high) or 1, SMALLEST_SPAN)
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(size * power for size in (1, 2, 5, 10) if size * power * _TICKS >= span * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def thinned(points: list[Any]) -> list[Any]:
    """Every n-th point and the last one, at most MAX_POINTS."""
    stride = -(-len(points) // (MAX_POINTS - 1)) or 1
    some = points[::stride]
    return some if not points or some[-1] is points[-1] else [*some, points[-1]]


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
