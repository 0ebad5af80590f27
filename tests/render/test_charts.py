"""What the page draws: bounded in size, and adding up."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

import minilm
from minilm.inspection.report import Component, Report, TensorRow
from minilm.render import charts
from minilm.render.sections import build_document
from tests.render.reports import hostile_report, large_report


def tensor_table(report: Report) -> dict[str, Any]:
    return charts.tensor_table(build_document(report, tensors=True).sections[-1].tables()[0])


def children_add_up(boxes: list[dict[str, object]]) -> bool:
    sums: dict[object, int] = {}
    for box in boxes:
        assert isinstance(box["count"], int)
        sums[box["parent"]] = sums.get(box["parent"], 0) + box["count"]
    return all(sums.get(box["id"], box["count"]) == box["count"] for box in boxes)


def test_the_treemap_adds_up_to_the_total() -> None:
    boxes = charts.treemap(minilm.inspect("gpt2"))
    assert boxes[0]["count"] == 124_439_808
    assert children_add_up(boxes)
    assert "blocks.11.attention.query.weight" in {box["label"] for box in boxes}


def test_a_large_model_is_drawn_by_layer() -> None:
    report = large_report()
    boxes = charts.treemap(report)
    assert len(report.tensors) > 44_000
    assert len(boxes) == 1 + 3 + 3 * 58
    assert children_add_up(boxes)


def one_component_each(count: int) -> Report:
    rows = tuple(TensorRow(f"t{i}", (i + 1,), "float32", i + 1, f"c{i}") for i in range(count))
    total = sum(row.count for row in rows)
    components = tuple(
        Component(row.component, row.count, row.count / total, "", "", row.count, 0) for row in rows
    )
    report = minilm.inspect("nano")
    parameters = replace(report.parameters, total=total)
    return replace(report, parameters=parameters, components=components, tensors=rows)


def test_thousands_of_components_become_the_largest_and_the_rest() -> None:
    boxes = charts.treemap(one_component_each(3000))
    assert len(boxes) == 1 + charts.MAX_COMPONENTS
    assert boxes[1]["label"] == "c2999"
    assert boxes[-1]["label"] == "2,951 others"
    assert children_add_up(boxes)


def test_tensors_that_do_not_add_up_to_their_component_are_not_drawn_in_it() -> None:
    report = minilm.inspect("nano")
    name = "attention query"
    larger = tuple(
        replace(each, count=each.count + (each.name == name)) for each in report.components
    )
    boxes = charts.treemap(replace(report, components=larger))
    box = next(box["id"] for box in boxes if box["label"] == name)
    assert not [each for each in boxes if each["parent"] == box]
    assert children_add_up(boxes)


def test_a_model_without_parameters_has_no_boxes() -> None:
    report = minilm.inspect("nano")
    empty = replace(
        report, components=(), tensors=(), parameters=replace(report.parameters, total=0)
    )
    assert charts.treemap(empty) == []
    assert charts.heat_map(empty) is None


def test_the_heat_map_has_layers_in_order_and_matrices_as_a_token_meets_them() -> None:
    heat = charts.heat_map(minilm.inspect("gpt2"))
    assert heat is not None
    assert heat["layers"] == [str(n) for n in range(12)]
    assert heat["matrices"][:3] == ["attention_norm", "attention_norm.bias", "attention.query"]
    assert heat["counts"][11][2] == 768 * 768
    assert heat["note"] == "4 tensors of no layer (39,385,344 elements) are not drawn."


def test_cells_of_experts_are_summed_and_missing_ones_are_empty() -> None:
    report = large_report(layers=2, experts=3)
    extra = TensorRow("model.layers.0.norm.weight", (64,), "bfloat16", 64, "norm")
    heat = charts.heat_map(replace(report, tensors=(*report.tensors, extra)))
    assert heat is not None
    assert heat["matrices"] == [f"mlp.experts.*.{m}_proj" for m in ("gate", "up", "down")] + [
        "norm"
    ]
    assert heat["counts"] == [[3 * 8192] * 3 + [64], [3 * 8192] * 3 + [None]]
    assert heat["details"][0][0] == "24,576 elements: 3 tensors of 64 × 128, bfloat16"
    assert heat["details"][1][3] == "no such tensor"


def test_the_heat_map_is_bounded_and_says_so() -> None:
    rows = tuple(
        TensorRow(f"l.{i}.m{j}", (2,), "float32", 2, "c") for i in range(300) for j in range(60)
    )
    heat = charts.heat_map(replace(minilm.inspect("nano"), tensors=rows))
    assert heat is not None
    assert len(heat["counts"]) == charts.MAX_LAYERS
    assert {len(row) for row in heat["counts"]} == {charts.MAX_MATRICES}
    assert "The first 256 of 300 layers" in heat["note"]
    assert "The first 48 of 60 matrices" in heat["note"]


def test_a_number_too_long_to_be_one_is_part_of_a_name() -> None:
    rows = tuple(TensorRow(f"{'9' * 5000}.{i}.w", (2,), "float32", 2, "c") for i in (10, 2))
    heat = charts.heat_map(replace(minilm.inspect("nano"), tensors=rows))
    assert heat is not None
    assert heat["layers"] == ["2", "10"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.3.attention.query.weight", ("blocks.3", "attention.query.weight")),
        ("h.0.mlp.experts.12.w1", ("h.0", "mlp.experts.*.w1")),
        ("encoder.block.2.layer.0.k", ("encoder.block.2", "layer.*.k")),
        ("0.weight", ("0", "weight")),
        ("lm_head.weight", None),
        ("conv1.weight", None),
        ("fc.0", None),
    ],
)
def test_a_name_says_its_layer_and_its_matrix(name: str, place: tuple[str, str] | None) -> None:
    assert charts.layer_and_matrix(name) == place


def test_curves_leave_out_what_is_not_there_and_what_is_not_finite() -> None:
    found = charts.curves(
        [
            {"step": 1, "seconds": 0.5, "train_loss": 3.0},
            {"step": 2, "seconds": math.inf, "train_loss": math.nan, "val_loss": 2.5},
            {"step": 3, "train_loss": "4", "lr": True},
        ]
    )
    assert found == {
        "loss": [
            {"name": "train_loss", "steps": [1], "seconds": [0.5], "values": [3.0]},
            {"name": "val_loss", "steps": [2], "seconds": [None], "values": [2.5]},
        ]
    }


def test_a_mark_is_placed_on_both_axes() -> None:
    line = {"step": 5, "seconds": 2.5, "val_loss": 1.5}
    assert charts.mark_position(line) == {"steps": 5, "seconds": 2.5}
    assert charts.mark_position({"step": 5, "seconds": math.nan}) == {"steps": 5, "seconds": None}
    assert charts.mark_position(None) is None


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (12, 12), (13, 12), (1000, 12)])
def test_samples_are_spread_evenly_with_the_first_and_the_last(count: int, shown: int) -> None:
    lines = [{"step": n} for n in range(count)]
    steps = [line["step"] for line in charts.evenly_spaced(lines, 12)]
    assert len(steps) == shown
    assert steps == sorted(set(steps))
    if count:
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = [b - a for a, b in itertools.pairwise(steps)] or [0]
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("count", [1999, 2000, 2001, 100_000])
def test_long_curves_are_thinned_and_keep_their_ends(count: int) -> None:
    lines = [{"step": n, "seconds": n, "train_loss": 1.0} for n in range(count)]
    (curve,) = charts.curves(lines)["loss"]
    assert len(curve["steps"]) <= charts.MAX_POINTS
    assert (curve["steps"][0], curve["steps"][-1]) == (0, count - 1)


def test_the_tensor_table_says_what_repeats_once() -> None:
    table = tensor_table(large_report(layers=2))
    assert len(table["names"]) == len(table["rows"]) == 2 * 256 * 3
    assert table["shapes"] == [["64 × 128", "8192"]]
    assert table["dtypes"] == ["bfloat16"]
    assert table["components"] == ["gate", "up", "down"]
    assert table["rows"][:3] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]


def test_all_that_is_drawn_is_printable() -> None:
    report = hostile_report()
    heat, table = charts.heat_map(report), tensor_table(report)
    assert heat is not None
    texts = [box["label"] + box["detail"] for box in charts.treemap(report)]
    texts += [*heat["matrices"], *table["names"], *table["dtypes"], *table["components"]]
    texts += [detail for row in heat["details"] for detail in row]
    assert all(text.isprintable() for text in texts)
