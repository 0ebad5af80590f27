"""Parameters through time, from parameters.jsonl: for each component a histogram that moves, and lines.

Of bounded size, however long the run and however deep the model. A histogram of a moment is a string of
`LEVELS`, one letter a bin; the page's script draws that of the moment that its slider is at. The file is one
like any other: a component of which something is not a number is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.render.charts import evenly_spaced
from minilm.render.component_groups import component_group
from minilm.render.line_chart import is_finite
from minilm.runs.attention_maps import LEVELS
from minilm.runs.logs import HISTOGRAM_BINS
from minilm.safe_text import one_line

MAX_MOMENTS = 48
MAX_COMPONENTS = 24
MAX_LINES = 8  # layers of a component
MAX_BINS = 64  # of a histogram that is drawn
WIDTH, HEIGHT = 100, 40  # units of a drawing


_SMALLEST_SHARE = 0.002  # of the values of a moment, in a bin that an axis reaches to
_HALF = HISTOGRAM_BINS // 2

_CURVES = (("norm", "norm"), ("update", "update / norm"), ("gradient", "gradient norm"))


@dataclass(frozen=True)
class Curve:
    """A quantity of a component: a path a layer, its range, and its value in each moment."""

    key: str
    title: str
    paths: tuple[str, ...]
    low: str
    high: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ComponentChart:
    """``frames``: the histogram of each moment; ``low`` to ``high`` is their axis, on which 0 is at ``zero``
    percent, or None where it is outside. ``last`` is the path of the last moment.
    """

    name: str
    group: str
    frames: tuple[str, ...]
    low: str
    high: str
    zero: float | None
    last: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class ParameterCharts:
    """``steps`` are the moments, ``places`` where they are on the lines, in percent."""

    steps: tuple[int, ...]
    places: tuple[float, ...]
    components: tuple[ComponentChart, ...]
    note: str

    def script_values(self) -> dict[str, Any]:
        """What the page's script draws from."""
        return {
            "steps": self.steps,
            "places": [round(place, 2) for place in self.places],
            "levels": LEVELS,
            "components": [
                {"frames": each.frames, "values": [curve.values for curve in each.curves]}
                for each in self.components
            ],
        }


def parameter_charts(lines: Sequence[Mapping[str, Any]]) -> ParameterCharts | None:
    """The charts of the lines of a parameters.jsonl; None where there are not two moments of anything."""
    increasing: list[Mapping[str, Any]] = []
    for line in lines:
        before = increasing[-1]["step"] if increasing else -1
        if before < line["step"] < 2**53:
            increasing.append(line)
    moments = evenly_spaced(increasing, MAX_MOMENTS)
    if len(moments) < 2:
        return None
    steps = [line["step"] for line in moments]
    places = [100 * step / steps[-1] for step in steps]
    names = list(moments[-1]["components"])
    charts = (_chart(name, moments, places) for name in names[:MAX_COMPONENTS])
    components = tuple(chart for chart in charts if chart is not None)
    if not components:
        return None
    return ParameterCharts(tuple(steps), tuple(places), components, _left_out(len(names)))


def _chart(
    name: str, moments: Sequence[Mapping[str, Any]], places: Sequence[float]
) -> ComponentChart | None:
    """That of one component; None where it is not in all moments, or not in numbers."""
    cells = [line["components"].get(name) for line in moments]
    if not all(isinstance(cell, Mapping) and _is_histogram(cell) for cell in cells):
        return None
    limit = max(cell["limit"] for cell in cells)
    counts = [_rebinned(cell, limit) for cell in cells]
    first, last = _occupied(counts)
    width = -(-(last - first) // MAX_BINS)  # of their bins in one that is drawn
    bins = -(-(last - first) // width)
    frames = tuple(_frame(each, first, width, bins) for each in counts)
    low, high = ((2 * bin / HISTOGRAM_BINS - 1) * limit for bin in (first, first + bins * width))
    return ComponentChart(
        name=one_line(name),
        group=component_group(name),
        frames=frames,
        low=format_short(low),
        high=format_short(high),
        zero=100 * -low / (high - low) if low <= 0 <= high else None,
        last=_path(frames[-1]),
        curves=tuple(_curves(cells, places)),
    )


def _is_histogram(cell: Mapping[str, Any]) -> bool:
    limit, counts = cell.get("limit", 0), cell.get("counts")
    return (
        is_finite(limit)
        and limit > 1e-100
        and isinstance(counts, list)
        and len(counts) == HISTOGRAM_BINS
        and all(type(count) is int and 0 <= count < 2**53 for count in counts)
        and sum(counts) > 0
    )


def _rebinned(cell: Mapping[str, Any], limit: float) -> list[int]:
    """The counts in bins that reach to ``limit``, which is no less than the cell's own."""
    counts, scale = [0] * HISTOGRAM_BINS, cell["limit"] / limit
    for number, count in enumerate(cell["counts"]):
        # The middle of a bin is in one other.
        counts[_HALF + math.floor((number + 0.5 - _HALF) * scale)] += count
    return counts


def _occupied(counts: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The bins that hold more than a few values in some moment: the first, and the one after the last."""
    held = [
        number
        for each in counts
        for number, count in enumerate(each)
        if count >= _SMALLEST_SHARE * sum(each)
    ]
    return max(min(held) - 1, 0), min(max(held) + 2, HISTOGRAM_BINS)


def _frame(counts: Sequence[int], first: int, width: int, bins: int) -> str:
    """One moment, as high as its fullest bin."""
    sums = [sum(counts[first + n * width : first + (n + 1) * width]) for n in range(bins)]
    most = max(sums) or 1
    return "".join(LEVELS[math.ceil((len(LEVELS) - 1) * each / most)] for each in sums)


def _path(frame: str) -> str:
    """A histogram as SVG path data, as the script makes it: in a square of 100 units."""
    parts = ["M0 100"]
    for number, letter in enumerate(frame):
        y = 100 - LEVELS.index(letter) * 100 / (len(LEVELS) - 1)
        parts.append(
            f"L{number * 100 / len(frame):.2f} {y:.2f}H{(number + 1) * 100 / len(frame):.2f}"
        )
    return "".join(parts) + "V100Z"


def _curves(cells: Sequence[Mapping[str, Any]], places: Sequence[float]) -> Iterator[Curve]:
    norms = [_numbers(cell.get("norm")) for cell in cells]
    for key, title in _CURVES:
        rows = [_numbers(cell.get(key)) for cell in cells]
        layers = max(map(len, rows))
        chosen = evenly_spaced(range(layers), MAX_LINES)
        # In the first moment there is no update yet, nor where something was not finite.
        series = [
            [(x, row[layer]) for x, row in zip(places, rows, strict=True) if len(row) > layer]
            for layer in chosen
        ]
        values = [y for points in series for _, y in points]
        if not values:
            continue
        low, high = min(values), max(values)
        scale = _linear(low, high) if key == "norm" else _logarithmic(values)
        yield Curve(
            key,
            title,
            tuple(_line(points, scale) for points in series if points),
            format_short(low),
            format_short(high),
            tuple(_overall(key, row, norm) for row, norm in zip(rows, norms, strict=True)),
        )


def _numbers(values: Any) -> list[float]:
    """A list of numbers that can be drawn; else an empty one."""
    valid = isinstance(values, list) and all(is_finite(each) and each >= 0 for each in values)
    return values if valid else []


def _overall(key: str, row: Sequence[float], norms: Sequence[float]) -> str:
    """A quantity of all layers of a component together."""
    if not row or len(row) != len(norms):
        return "–"
    if key != "update":
        return format_short(math.hypot(*row))
    norm = math.hypot(*norms)
    changes = (share * each for share, each in zip(row, norms, strict=True))
    return format_short(math.hypot(*changes) / norm if norm else 0.0)


Scale = tuple[float, float, bool]  # the value at the bottom, the span, whether logarithms are drawn


def _linear(low: float, high: float) -> Scale:
    """At least a tenth of the value from bottom to top: rounding does not fill a drawing."""
    span = max(high - low, 0.1 * high, 1e-300)
    return (low + high - span) / 2, span, False


def _logarithmic(values: Sequence[float]) -> Scale:
    positive = [math.log10(value) for value in values if value > 0]
    if not positive:
        return 0.0, 1.0, False
    return min(positive), max(max(positive) - min(positive), 0.1), True


def _line(points: Sequence[tuple[float, float]], scale: Scale) -> str:
    bottom, span, is_logarithmic = scale

    def y(value: float) -> float:
        if is_logarithmic:
            value = math.log10(value) if value > 0 else bottom
        return HEIGHT * (1 - (value - bottom) / span)

    return "M" + "L".join(f"{x:.1f} {y(value):.1f}" for x, value in points)


def format_short(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def _left_out(components: int) -> str:
    if components <= MAX_COMPONENTS:
        return ""
    return f"The first {MAX_COMPONENTS} of {components:,} components are drawn."
