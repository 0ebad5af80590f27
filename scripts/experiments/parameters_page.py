"""The tables of docs/parameters.md and its picture, from the results of `parameters.py`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm.architectures.minilm import layout
from minilm.config.presets import find_preset
from minilm.quantization.packing import quantized_matrices
from minilm.quantization.packings import make_packing
from scripts.experiments.parameter_cases import CASES, FLOAT, Case
from scripts.experiments.training_page import write_table
from scripts.tools.pictures import IMAGES, screenshot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"
PICTURE = IMAGES / "loss-against-bytes.png"
WIDTH, HEIGHT = 1200, 860
HIGHEST_LOSS = 3.46  # in the picture; what lost more is in the tables
COLORS = ("black", "#1f77b4", "#d62728", "#2ca02c", "#9467bd")

GROUPS = tuple(dict.fromkeys(case.group for case in CASES))
Results = Mapping[str, Mapping[str, Any]]


def write_pages(results: Results) -> None:
    """Write what the cases that have results give."""
    for name, table in (
        ("quantized", quantized_table(results)),
        ("pruned", pruned_table(results)),
        ("others", others_table(results)),
    ):
        write_table(name, table, PAGE)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(picture(results), encoding="utf-8")
        screenshot(page, PICTURE, width=WIDTH, height=HEIGHT)


def quantized_table(results: Results) -> str:
    """Bits, bytes and perplexity of the quantized ones."""
    lines = [
        "| | bits a weight | bytes of weights | perplexity | change |",
        "|---|---|---|---|---|",
    ]
    for case in (case for case in CASES if case.table in ("", "quantized")):
        if case.name in results:
            row = results[case.name]
            bits = _bits(case)
            lines.append(
                f"| {case.name} | {bits:.4g} | {row['bytes']:,} | {row['perplexity']:.3f} "
                f"| {_change(row, results) if case.steps else ''} |"
            )
    return "\n".join(lines) + "\n"


def _bits(case: Case) -> float:
    """Bits a weight of the matrices, scales included."""
    if not case.steps:
        return 32.0
    options = {name: value for name, value in case.steps[0][1].items() if name != "calibrate"}
    packing = make_packing(**options)
    matrices = quantized_matrices(layout(find_preset("nano").model_config()))
    sizes = [sum(packing.predicted(name, shape)) for name, shape in matrices.items()]
    return 8 * sum(sizes) / sum(math.prod(shape) for shape in matrices.values())


def pruned_table(results: Results) -> str:
    """Parameters, bytes, and perplexity at once and after recovery."""
    lines = [
        "| | parameters | not zero | bytes of weights | at once | after 300 steps |",
        "|---|---|---|---|---|---|",
    ]
    names = [case.name.rpartition(" at once")[0] for case in CASES if case.table == "pruned"]
    for name in dict.fromkeys(name for name in names if name):
        cells = [
            f"{row['perplexity']:.3f} ({_change(row, results)})" if row else "not run"
            for row in (results.get(f"{name} {when}") for when in ("at once", "recovered"))
        ]
        row = results.get(f"{name} at once") or results.get(f"{name} recovered")
        if row:
            lines.append(
                f"| {name} | {row['parameters']:,} | {row['nonzero']:,} | {_bytes(row):,} "
                f"| {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def others_table(results: Results) -> str:
    """What was made of several steps, and what was smaller from the start."""
    lines = ["| | parameters | bytes of weights | perplexity | change |", "|---|---|---|---|---|"]
    for case in CASES:
        row = results.get(case.name)
        if row and case.table not in ("", "quantized", "pruned"):
            lines.append(
                f"| {case.name} | {row['parameters']:,} | {row['bytes']:,} "
                f"| {row['perplexity']:.3f} | {_change(row, results)} |"
            )
    return "\n".join(lines) + "\n"


def _bytes(row: Mapping[str, Any]) -> int:
    """On disk, zeros left out where that is less."""
    return min(row["bytes"], row["sparse_bytes"] or row["bytes"])


def _change(row: Mapping[str, Any], results: Results) -> str:
    return f"{row['perplexity'] / results[FLOAT]['perplexity'] - 1:+.2%}"


def picture(results: Results) -> str:
    """A page with loss against bytes of all cases, and the line of those that none beats in both.

    Cases of 4 bits are near each other: they are drawn large in a corner.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure()
    points = {
        case: (_bytes(results[case.name]) / 1e6, results[case.name]["loss"])
        for case in CASES
        if case.name in results and results[case.name]["loss"] <= HIGHEST_LOSS
    }
    best = front(list(points.values()))
    figure.add_scatter(
        x=[x for x, _ in best],
        y=[y for _, y in best],
        mode="lines",
        line={"color": "#999", "dash": "dot", "shape": "hv"},
        name="none has both fewer bytes and less loss",
    )
    for group, color in zip(GROUPS, COLORS, strict=True):
        cases = [case for case in points if case.group == group]
        for in_corner in (False, True):
            shown = [case for case in cases if is_four_bits(case)] if in_corner else cases
            is_labelled = {case: in_corner or not is_four_bits(case) for case in shown}
            figure.add_scatter(
                x=[points[case][0] for case in shown],
                y=[points[case][1] for case in shown],
                xaxis="x2" if in_corner else "x",
                yaxis="y2" if in_corner else "y",
                text=[case.label if is_labelled[case] else "" for case in shown],
                textposition=[case.position for case in shown],
                mode="markers+text",
                marker={"size": 9, "color": color},
                textfont={"color": color, "size": 12},
                name=group,
                showlegend=not in_corner,
            )
    first = min((point for case, point in points.items() if is_four_bits(case)), default=(1, 1))
    figure.add_annotation(
        x=math.log10(first[0]), y=first[1], text="4 bits: in the corner", ax=-10, ay=-60
    )
    ticks = (1.2, 1.5, 2, 2.5, 3, 3.5, 4, 5)
    figure.update_layout(
        template="simple_white",
        width=WIDTH,
        height=HEIGHT,
        title="nano on Python's standard library: what each method costs and saves",
        xaxis={
            "type": "log",
            "title": "bytes of weights, MB (logarithmic)",
            "tickvals": ticks,
            "range": [math.log10(1.2), math.log10(5.0)],
        },
        yaxis={"title": "loss over the whole validation split, nats a token"},
        xaxis2={"domain": [0.04, 0.33], "anchor": "y2", "range": [1.486, 1.59], "mirror": True},
        yaxis2={"domain": [0.52, 0.98], "anchor": "x2", "mirror": True},
        legend={"x": 0.99, "y": 0.42, "xanchor": "right", "yanchor": "top"},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
    )
    page: str = figure.to_html(
        include_plotlyjs=True, full_html=True, config={"displayModeBar": False}
    )
    return page


def is_four_bits(case: Case) -> bool:
    """Whether it is one of those that are drawn large."""
    return case.table == "quantized" and case.steps[0][1]["format"] != "int8"


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (bytes, loss), those that no other has fewer bytes and less loss than, by bytes."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best
