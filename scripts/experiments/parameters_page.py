"""The tables of docs/parameters.md and its picture, from the results of `parameters.py`."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm.architectures.minilm import layout
from minilm.config.presets import find_preset
from minilm.quantization.packing import make_packing, quantized_matrices
from scripts.experiments.parameter_cases import CASES, FLOAT, QUANTIZED, Case
from scripts.experiments.training_page import write_table
from scripts.tools.pictures import IMAGES, screenshot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"
PICTURE = IMAGES / "loss-against-bytes.png"
WIDTH, HEIGHT = 1200, 860
HIGHEST_LOSS = 3.42  # in the picture; what lost more is in the tables
COLORS = ("black", "#1f77b4", "#d62728", "#2ca02c", "#9467bd")

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
    options = case.steps[0][1]
    packing = make_packing(options["format"], options.get("group_size"))
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
    """A page with loss against bytes of all cases, and the line of those that none beats in both."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    drawn = [case for case in CASES if case.name in results]
    points = {
        case.name: (_bytes(results[case.name]) / 1e6, results[case.name]["loss"]) for case in drawn
    }
    best = front(list(points.values()))
    figure.add_scatter(
        x=[x for x, _ in best],
        y=[y for _, y in best],
        mode="lines",
        line={"color": "#999", "dash": "dot", "shape": "hv"},
        name="no case is below and to the left",
    )
    groups = itertools.groupby(
        sorted(drawn, key=lambda case: _GROUPS.index(case.group)), lambda c: c.group
    )
    for (group, cases), color in zip(groups, COLORS, strict=False):
        shown = [case for case in cases if points[case.name][1] <= HIGHEST_LOSS]
        figure.add_scatter(
            x=[points[case.name][0] for case in shown],
            y=[points[case.name][1] for case in shown],
            text=[case.label for case in shown],
            textposition=[case.position for case in shown],
            mode="markers+text",
            marker={"size": 9, "color": color},
            textfont={"color": color, "size": 12},
            name=group,
        )
    ticks = (0.6, 0.7, 0.8, 1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 5)
    figure.update_xaxes(type="log", title="bytes of weights, MB (logarithmic)", tickvals=ticks)
    figure.update_yaxes(title="loss over the whole validation split, nats a token")
    figure.update_layout(
        template="simple_white",
        width=WIDTH,
        height=HEIGHT,
        title="nano on Python's standard library: what each method costs, and what it saves",
        legend={"x": 0.99, "y": 0.99, "xanchor": "right", "yanchor": "top"},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page


_GROUPS = list(dict.fromkeys((FLOAT, QUANTIZED, *(case.group for case in CASES))))


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (bytes, loss), those that no other has fewer bytes and less loss than, by bytes."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best
