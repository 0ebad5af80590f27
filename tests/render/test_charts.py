"""What the page draws: bounded in size, and adding up."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

import minilm
from minilm.inspection.names import layer_and_matrix
from minilm.inspection.report import Component, Report, TensorRow
from minilm.render import charts
from minilm.render.sections import build_document
from tests.render.reports import hostile_report, large_report, layers_of


def tensor_table(report: Report) -> dict[str, Any]:
    return charts.tensor_table(build_document(report, tensors=True).sections[-1].tables()[0])


def children_add_up(boxes: list[charts.Box]) -> bool:
    return all(sum(b.count for b in box.boxes) == box.count for box in boxes if box.boxes)


def test_the_treemap_adds_up_to_the_total() -> None:
    boxes = charts.treemap(minilm.inspect("gpt2"))
    assert sum(box.count for box in boxes) == 124_439_808
    assert children_add_up(boxes)
    assert "blocks.11.attention.query.weight" in {i.label for box in boxes for i in box.boxes}


def test_areas_are_shares_and_boxes_do_not_overlap() -> None:
    boxes = charts.treemap(minilm.inspect("gpt2"))
    for box in boxes:
        _, _, width, height = box.rectangle
        assert width * height / 100 == pytest.approx(100 * box.share)
        for inner in box.boxes:
            assert inner.rectangle[2] * inner.rectangle[3] / 100 == pytest.approx(
                100 * inner.count / box.count
            )
    for one, other in itertools.combinations([box.rectangle for box in boxes], 2):
        across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
        down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
        assert min(across, down) < 1e-6


@pytest.mark.parametrize("areas", [[], [1], [5, 3, 2], [10**12, 1, 1], [7] * 600])
def test_squarified_rectangles_stay_inside_and_are_nearly_square(areas: list[int]) -> None:
    rectangles = charts.squarified(areas, 2.4)
    assert len(rectangles) == len(areas)
    for left, top, width, height in rectangles:
        assert min(left, top) >= 0
        assert max(left + width, top + height) <= 100 + 1e-6
    if areas == [7] * 600:
        assert all(0.4 < 2.4 * width / height < 2.5 for _, _, width, height in rectangles)


def test_a_large_model_is_drawn_by_layer() -> None:
    report = large_report()
    boxes = charts.treemap(report)
    assert len(report.tensors) > 44_000
    assert [len(box.boxes) for box in boxes] == [58] * 3
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
    report = one_component_each(3000)
    boxes = charts.treemap(report)
    assert len(boxes) == charts.MAX_COMPONENTS
    assert {"c2999", "2,951 others"} <= {box.label for box in boxes}
    assert sum(box.count for box in boxes) == report.parameters.total


def test_tensors_that_do_not_add_up_to_their_component_are_not_drawn_in_it() -> None:
    report = minilm.inspect("nano")
    name = "attention query"
    larger = tuple(
        replace(each, count=each.count + (each.name == name)) for each in report.components
    )
    boxes = charts.treemap(replace(report, components=larger))
    (box,) = (box for box in boxes if box.label == name)
    assert not box.boxes
    assert children_add_up(boxes)


def test_a_model_without_parameters_has_no_boxes() -> None:
    report = minilm.inspect("nano")
    empty = replace(
        report, components=(), tensors=(), parameters=replace(report.parameters, total=0)
    )
    assert charts.treemap(empty) == []
    assert charts.heat_map(empty) is None


@pytest.mark.parametrize("target", ["gpt2", "nano", "llama-3-70b"])
def test_layers_that_are_all_alike_have_no_heat_map(target: str) -> None:
    assert charts.heat_map(minilm.inspect(target)) is None


def test_the_heat_map_has_runs_of_layers_in_order() -> None:
    heat = charts.heat_map(layers_of(*[8] * 11, 16, 0))
    assert heat is not None
    assert heat.matrices == ("mlp.up", "norm")
    assert [label for label, _ in heat.rows] == ["0 to 10", "11", "12"]
    assert [cells[0] for _, cells in heat.rows] == [
        (pytest.approx(math.log(8) / math.log(16)), "32 elements: 4 × 8, float32"),
        (1.0, "64 elements: 4 × 16, float32"),
        (None, "no such tensor"),
    ]
    assert {cells[1][0] for _, cells in heat.rows} == {0.0}
    assert heat.note == "1 tensor of no layer (35 elements) is not drawn."


def test_cells_of_experts_are_summed() -> None:
    report = large_report(layers=2, experts=3)
    extra = TensorRow("model.layers.0.norm.weight", (64,), "bfloat16", 64, "norm")
    heat = charts.heat_map(replace(report, tensors=(*report.tensors, extra)))
    assert heat is not None
    assert heat.matrices == (*(f"mlp.experts.*.{m}_proj" for m in ("gate", "up", "down")), "norm")
    assert heat.rows[0][1][0][1] == "24,576 elements: 3 tensors of 64 × 128, bfloat16"


def test_the_heat_map_is_bounded_and_says_so() -> None:
    rows = tuple(
        TensorRow(f"l.{i}.m{j}", (i + 1,), "float32", i + 1, "c")
        for i in range(300)
        for j in range(60)
    )
    heat = charts.heat_map(replace(minilm.inspect("nano"), tensors=rows))
    assert heat is not None
    assert len(heat.rows) == charts.MAX_ROWS
    assert {len(cells) for _, cells in heat.rows} == {charts.MAX_MATRICES}
    assert f"The first {charts.MAX_ROWS} of 300 rows" in heat.note
    assert f"The first {charts.MAX_MATRICES} of 60 matrices" in heat.note


def test_a_number_too_long_to_be_one_is_part_of_a_name() -> None:
    rows = tuple(TensorRow(f"{'9' * 5000}.{i}.w", (i,), "float32", i, "c") for i in (10, 2))
    heat = charts.heat_map(replace(minilm.inspect("nano"), tensors=rows))
    assert heat is not None
    assert [label for label, _ in heat.rows] == ["2", "10"]


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
    assert layer_and_matrix(name) == place


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


def test_the_tensor_table_says_what_repeats_once() -> None:
    table = tensor_table(large_report(layers=2))
    assert len(table["names"]) == 2 * len(table["rows"]) == 2 * 2 * 256 * 3
    assert table["kinds"] == [["64 × 128", "bfloat16", "8,192", m] for m in ("gate", "up", "down")]
    assert table["rows"][:4] == [0, 1, 2, 0]
    assert table["names"][:6] == [0, 0, 29, 1, 29, 2]
    assert table["endings"][:2] == [
        "model.layers.0.mlp.experts.0.gate_proj.weight",
        "up_proj.weight",
    ]
    assert len(table["endings"]) < 2 * 256


def test_names_share_no_prefix_that_a_script_would_measure_otherwise() -> None:
    report = minilm.inspect("nano")
    names = ("a\U0001d4d0b.x", "a\U0001d4d0b.y")
    rows = tuple(TensorRow(name, (1,), "float32", 1, "c") for name in names)
    table = tensor_table(replace(report, tensors=rows))
    assert (table["names"], table["endings"]) == ([0, 0, 0, 1], [*names])


def test_all_that_is_drawn_is_printable() -> None:
    report = hostile_report()
    heat, table = charts.heat_map(report), tensor_table(report)
    assert heat is not None
    texts = [box.label + box.detail for box in charts.treemap(report)]
    texts += [
        *heat.matrices,
        *map(str, table["names"]),
        *(text for k in table["kinds"] for text in k),
    ]
    texts += [label + detail for label, cells in heat.rows for _, detail in cells]
    assert all(text.isprintable() for text in texts)
