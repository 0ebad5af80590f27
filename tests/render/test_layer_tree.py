"""The tree of layers: folded by what they hold, and adding up to the whole."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import minilm
from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.config.presets import PRESETS
from minilm.inspection.report import Report, TensorRow
from minilm.render.document import Table
from minilm.render.layer_tree import MAX_DEPTH, MAX_ROWS, layer_table
from minilm.render.sections import build_document
from tests.architectures.required import shallow
from tests.render.reports import hostile_report, large_report


def tree(report: Report) -> Table:
    (section,) = [each for each in build_document(report).sections if each.key == "layers"]
    return section.tables()[0]


def row(name: str, *shape: int) -> TensorRow:
    count = 1
    for size in shape:
        count *= size
    return TensorRow(name, shape, "float32", count, "c")


def labels(*rows: TensorRow) -> list[str]:
    return [cells[0] for cells in layer_table(rows)[0].rows]


def test_gpt2_is_one_block_twelve_times() -> None:
    table = tree(minilm.inspect("gpt2"))
    assert [column.title for column in table.columns] == [
        *("layer", "shape", "elements", "FLOPs a token")
    ]
    rows = {cells[0]: cells[1:] for cells in table.rows}
    assert rows["│ 0-11: 12 × block"] == ("", "12 × 7,087,872", "12 × 14.2M")
    assert rows["│ │ │ query"] == ("768 × 768, bias 768", "590,592", "1.18M")
    # The head is the token embedding, whose lookup is free.
    assert rows["│ token"] == ("50,257 × 768", "38,597,376", "77.2M")
    assert table.rows[-1][0] == "total"
    assert next(iter(rows)) == "embedding"


def sums(table: Table, column: int) -> float:
    """The sum over the rows that stand at the outermost level."""
    return sum(
        float(cells[column].replace(",", "")) for cells in table.rows[:-1] if "│" not in cells[0]
    )


@pytest.mark.parametrize("target", ["gpt2", "nano-fast", "llama-3-70b", "small"])
def test_the_tree_adds_up(target: str) -> None:
    report = minilm.inspect(target)
    table = tree(report)
    total = report.parameters.total
    assert sums(table, 2) == total == int(table.rows[-1][2].replace(",", ""))


@pytest.mark.parametrize("kind", [*MODEL_TYPES, *PRESETS])
def test_flops_of_the_tensors_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    target: str | Path = kind
    if kind in MODEL_TYPES:
        target = tmp_path
        (tmp_path / "config.json").write_text(json.dumps(shallow(kind)))
    report = minilm.inspect(target)
    flops = sum(each.flops or 0 for each in report.tensors)
    if report.flops is None:  # nothing is a token's
        assert flops == 0
        return
    expected = report.flops["forward_per_token"] - report.flops["attention_per_token"]
    if kind in MODEL_TYPES:  # residual streams that are mixed with each other are no tensor's
        layout = layout_of(shallow(kind))
        expected -= 2 * layout.mixing.value(layout.symbols)
    assert flops == pytest.approx(expected, rel=1e-9)


def test_layers_are_folded_by_what_they_hold_and_not_by_their_place() -> None:
    wide = [row(f"model.layers.{i}.up.weight", 8, 4) for i in (0, 2, 4, 6, 8)]
    narrow = [row(f"model.layers.{i}.up.weight", 4, 4) for i in (1, 3)]
    assert labels(*wide, *narrow) == [
        "model",
        "│ layers",
        "│ │ 0, 2, 4, …, 8: 5 × layer",
        "│ │ │ up",
        "│ │ 1, 3: 2 × layer",
        "│ │ │ up",
        "total",
    ]


def test_experts_are_folded_within_folded_layers() -> None:
    rows = [cells[0] for cells in tree(large_report(layers=3, experts=4)).rows]
    assert rows[2] == "│ │ 0-2: 3 × layer"
    assert rows[5] == "│ │ │ │ │ 0-3: 4 × expert"


def test_an_expert_counts_for_the_share_of_tokens_that_use_it(tmp_path: Path) -> None:
    config = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    (expert,) = (t for t in report.tensors if re.search(r"layers\.0\..*experts\.0\.w1", t.name))
    assert expert.flops == 2 * expert.count / 4


def test_a_checkpoint_that_no_formula_describes_has_no_flops() -> None:
    table, _ = layer_table([row("0.weight", 4, 2), row("0.bias", 4), row("2.weight", 4, 2)])
    assert [column.title for column in table.columns] == ["layer", "shape", "elements"]
    assert table.rows == (
        ("0", "4 × 2, bias 4", "12"),
        ("2", "4 × 2", "8"),
        ("total", "", "20"),
    )
    assert labels(row("scale", 3), row("0.w", 2), row("1.w", 2)) == [
        *("scale", "0-1: 2 × layer", "│ w", "total")
    ]


def test_flops_are_spoken_of_where_they_are_shown() -> None:
    report = minilm.inspect("nano")
    rows = tuple(replace(each, flops=None) for each in report.tensors)
    for each, shown in ((report, True), (replace(report, tensors=rows), False)):
        (section,) = [s for s in build_document(each).sections if s.key == "layers"]
        assert ("FLOPs" in vars(section.blocks[0])["text"]) == shown
        assert ("FLOPs a token" in [c.title for c in section.tables()[0].columns]) == shown


def test_a_tree_too_long_is_cut_and_says_so() -> None:
    rows = [row(f"m{i}.weight", i) for i in range(1, 1000)]
    table, cut = layer_table(rows)
    assert len(table.rows) == MAX_ROWS + 1
    assert table.rows[-1] == ("total", "", f"{sum(range(1000)):,}")
    assert cut is not None
    assert cut.text == f"The first {MAX_ROWS} of 999 rows are shown."


def test_names_of_any_depth_and_any_letters_are_printable_rows() -> None:
    deep = row("a." * 100_000 + "b", 2)
    assert len(labels(deep)) == MAX_DEPTH + 2
    assert labels(row("h.٣.w", 2), row("h.²_.w", 2), row(f"h.{'9' * 5000}.w", 2))[0] == "h"
    for cells in tree(hostile_report()).rows:
        assert all(cell.isprintable() for cell in cells)
