"""The report of a model whose layers share blocks: one line, one table, one object of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.cli.inspect import main
from tests.interop.shapes import GATED, NO_BIASES, make_run

SHAPE: dict[str, Any] = GATED | NO_BIASES | {"num_layers": 5, "num_heads": 8, "num_kv_heads": 2}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", SHAPE | {"shared_layers": 2, "sharing": "cycle"})


def test_the_witnesses_agree_and_the_costs_are_those_of_all_layers(
    run: Path, tmp_path: Path
) -> None:
    report = minilm.inspect(run)
    own = minilm.inspect(make_run(tmp_path / "own", SHAPE))
    assert report.verified
    assert {*report.witnesses.available()} == {"formula", "file", "module"}
    assert {comparison.by for comparison in report.comparisons} == {"names"}
    assert report.parameters.stored_elements == report.parameters.total < own.parameters.total
    assert report.flops == own.flops
    for cost in ("kv_cache", "activations"):
        values = (each.memory[cost] for each in (report, own))
        first, second = ({k: v for k, v in value.items() if k != "symbols"} for value in values)
        assert first == second
    assert report.memory["activations"]["measured"]["relative_error"] == 0
    assert report.memory["training"]["weights"] == 4 * report.parameters.total
    assert own.sharing is None
    assert "shared" not in str(own)
    of_module = minilm.inspect(minilm.load(run).model)
    assert of_module.verified
    assert of_module.sharing == report.sharing
    for page in (report.to_html(), report.to_markdown()):
        assert "Shared layers" in page
        assert "0, 2, 4" in page


def test_it_says_what_is_shared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    unshared = report["sharing"]["unshared"]
    assert report["sharing"] == {
        "layers": 5,
        "distinct_layers": 2,
        "rule": "cycle",
        "unshared": unshared,
        "blocks": {"blocks.0": [0, 2, 4], "blocks.1": [1, 3]},
    }
    by_name = {each["name"]: each for each in report["components"]}
    assert by_name["feed-forward up"]["formula"] == "S*d*f"
    assert report["formula"]["symbols"]["S"] == 2
    assert report["formula"]["symbols"]["L"] == 5
    counts = {each["name"]: each["count"] for each in report["conventions"]}
    assert counts["layers unshared"] == unshared
    assert main([str(run)]) == 0
    short = capsys.readouterr().out
    assert f"2 blocks shared by 5 layers (cycle): stored once; {unshared:,} parameters" in short
    assert "L=5 layers  S=2 distinct layers" in short
    assert main([str(run), "--full"]) == 0
    full = capsys.readouterr().out
    assert "blocks.0       3  0, 2, 4" in full
    assert "textbook rule  2Vd + 12Sd²" in full


def test_blocks_that_run_unequally_often_stand_apart(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--full"]) == 0
    assert "0-1: 2 × block" not in capsys.readouterr().out
    even = make_run(tmp_path / "even", SHAPE | {"num_layers": 4, "shared_layers": 2})
    assert main([str(even), "--full"]) == 0
    assert "0-1: 2 × block" in capsys.readouterr().out


def test_the_count_of_the_unshared_model_is_explained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sharing = minilm.inspect(run).sharing
    assert sharing is not None
    assert main([str(run), "--reconcile", str(sharing.unshared)]) == 0
    assert "the count called 'layers unshared'" in capsys.readouterr().out
