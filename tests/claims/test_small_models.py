"""The trainings of claims 2, 3 and 8: what is drawn for them, what they are known by, the text they need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm.claims import (
    initialization,
    knowledge,
    scaling,
    sharing,
    small_models,
)
from minilm.claims.cells import OVER_BUDGET, Cells, Numbers, windows
from minilm.claims.subject import Subject
from minilm.claims.trials import Trials
from tests.claims.subjects import bigram_model, phrases, subject_of


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = bigram_model("random", d_feed_forward=64, output_initialization="scaled")
    return subject_of(model, phrases(2, repeats=48))  # more tokens than any arm reads


def test_another_seed_has_other_facts_dropout_and_pairs(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of the next seeds: the six of one are not five of another's."""
    arm = small_models.Arm({**small_models.SHAPE, "dropout": 0.1}, tokens=100)
    drawn: dict[str, list[object]] = {"facts": [], "dropout": [], "pairs": []}

    def of_facts(*arguments: Any) -> tuple[float, None, None]:
        *_, number, seed = arguments
        drawn["facts"].append(knowledge.new_facts(128, number, seed)[0].numpy().tobytes())
        return 1.0, None, None

    def of_pairs(_: Trials, random: np.random.Generator) -> float:
        drawn["pairs"].append(int(random.integers(2**62)))
        return 1.0

    monkeypatch.setattr(knowledge, "trained_bits", of_facts)
    monkeypatch.setattr(knowledge, "shapley", lambda *_: {})
    monkeypatch.setattr(knowledge, "_arms", lambda: {"all": knowledge.CLASSES})
    monkeypatch.setattr(initialization, "co_adaptation", of_pairs)
    monkeypatch.setattr(
        small_models, "train", lambda *_, **__: drawn["dropout"].append(torch.initial_seed())
    )
    for of_run in range(3):
        other = replace(subject, seed=of_run)
        knowledge._of_rate(other, knowledge.CLASSES, 1e-2)
        for seed in range(small_models.SEEDS):
            knowledge._of_seed(other, {"all": 1e-2}, seed)
            initialization._co_adapted(other, arm, 1e-2, seed)
    for name, each in drawn.items():
        assert len(set(each)) == len(each) >= 3 * small_models.SEEDS, name
    assert np.random.default_rng([1, 2]).random() == np.random.default_rng([1, 2, 0]).random()


def test_cells_of_other_settings_or_blocks_are_others(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def get(settings: Mapping[str, Any], _: object) -> Numbers:
        keys.append(json.dumps(settings, sort_keys=True))
        return {"bits": 1.0, "test": 1.0, "pilot": 1.0, "co-adaptation": 1.0}

    cells = Cells(tmp_path, 0)
    monkeypatch.setattr(cells, "get", get)
    monkeypatch.setattr(knowledge, "_findings", lambda *_: [])
    changes: list[tuple[Any, str]] = [(knowledge, each) for each in ("FACTS", "CUE", "STEPS")]
    changes += [(small_models, "ROWS"), (initialization, "ROWS"), (initialization, "PAIRS")]
    measures = {knowledge: knowledge.measure, small_models: sharing.measure}
    for module, name in changes:
        measure = measures.get(module, initialization._adaptation)
        both = []
        for more in (0, 1):
            monkeypatch.setattr(module, name, getattr(module, name) + more)
            keys.clear()
            measure(subject, cells)
            both.append(set(keys[-1:]))
        assert not both[0] & both[1], name
    part = replace(subject, blocks=subject.pilot, pilot=subject.blocks)
    assert part.blocks_sha256() != subject.blocks_sha256()


@pytest.mark.parametrize("length", [16, 128, 256])
def test_once_is_once_whatever_the_context(length: int) -> None:
    for arm in (small_models.ONCE, small_models.REPEATED):
        text = torch.arange(arm.tokens + 1)
        batches = windows(text, length, small_models.ROWS, np.random.default_rng(0))
        steps = small_models.steps_of(arm, length)
        read = [next(batches) for _ in range(steps)]
        inputs = torch.cat([batch.flatten() for batch, _ in read])
        assert inputs.bincount().tolist() == [arm.passes] * arm.tokens
        assert all(torch.equal(targets, batch + 1) for batch, targets in read)
        assert not torch.equal(inputs[: arm.tokens], text[:-1]), "in random order"


@pytest.mark.parametrize(
    "damage",
    ["", "{}", '{"numbers": 5}', '{"numbers": {"test": null}}', '{"numbers": {}, "sha256": ""}'],
)
def test_a_cell_that_was_damaged_is_trained_again(tmp_path: Path, damage: str) -> None:
    cells = Cells(tmp_path, 100)
    assert cells.get({"rate": 1}, lambda: {"test": 2.0}) == {"test": 2.0}
    assert cells.get({"rate": 1}, dict) == {"test": 2.0}, "it is kept"
    (path,) = tmp_path.iterdir()
    edited = path.read_text().replace("2.0", "3.0")
    for text in (damage, edited):
        path.write_text(text)
        assert cells.get({"rate": 1}, lambda: {"test": 4.0}) == {"test": 4.0}
        assert cells.get({"rate": 1}, dict) == {"test": 4.0}


def test_a_text_that_is_shorter_than_an_arm_reads_is_refused(
    subject: Subject, tmp_path: Path
) -> None:
    """A rung of 65,536 tokens that reads fewer of them again and again measures something else."""

    def whys(tokens: int) -> dict[str, set[str]]:
        short = replace(subject, text=subject.text[:tokens])
        findings = [
            finding
            for claim in (scaling, sharing, initialization)
            for finding in claim.measure(short, Cells(tmp_path, 0))
        ]
        names = {each.why: set[str]() for each in findings}
        for each in findings:
            names[each.why].add(each.rule.name)
        return names

    reason = "not run: it trains on 65,537 tokens of text, beside the blocks there are 65,536"
    missing = f"not run: {OVER_BUDGET}"
    once = whys(65_536)
    assert once.keys() == {reason, missing}
    assert once[missing] == {"initialization/dropout-repeated", "initialization/co-adaptation"}
    assert whys(65_537).keys() == {missing}
    assert missing not in whys(4096)
    cut = replace(subject, text=subject.text[:4096])
    with pytest.raises(AssertionError, match="so many tokens"):
        small_models.trained_model(cut, small_models.REPEATED, 1e-2, 0)
