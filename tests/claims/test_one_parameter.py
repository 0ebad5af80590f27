"""Claim 1 with planted effects: two functions that are the same, one of which hangs on single parameters."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minilm.claims import damage, encoded_facts, facts, one_parameter, structures
from minilm.claims.one_parameter import _typical, _worst
from minilm.claims.protocol import Region
from minilm.claims.subject import Subject
from minilm.claims.trials import Scalar, Trials, replaced
from minilm.model.transformer import Transformer
from tests.claims.subjects import bigram_model, phrases, planted_pairs, subject_of


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_parameter, "PERTURBED", 2)
    monkeypatch.setattr(one_parameter, "RANDOM_SCALARS", one_parameter.TYPICAL.least)
    monkeypatch.setattr(one_parameter, "CANDIDATES", 10)
    monkeypatch.setattr(facts, "MOST", 60)
    rule = replace(encoded_facts.RULE, supported=Region(0, 0.1), least=60)
    monkeypatch.setattr(encoded_facts, "RULE", rule)
    for name in ("CANDIDATES", "CONCENTRATED"):
        monkeypatch.setattr(encoded_facts, name, 3)
    monkeypatch.setattr(encoded_facts, "MOST_JOINT", 6)


def test_a_trial_from_a_later_layer_gives_what_the_whole_model_gives() -> None:
    model = bigram_model("random", num_layers=2, output_initialization="scaled")
    subject = subject_of(model)
    with torch.no_grad():
        model.blocks[1].feed_forward.down.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert np.array_equal(subject.trials.losses(1), Trials(model, subject.blocks).base)
    assert not np.array_equal(subject.trials.losses(1), subject.trials.base)


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_parameter, "RANDOM_SCALARS", 20)
    monkeypatch.setattr(damage, "DRAWS", 2)
    monkeypatch.setattr(structures, "DRAWN", 2)
    monkeypatch.setattr(facts, "MOST", 10)
    monkeypatch.setattr(encoded_facts, "RULE", replace(encoded_facts.RULE, least=10))

    def measured(seed: int) -> dict[str, str]:
        subject = subject_of(bigram_model("random", d_feed_forward=32), seed=seed)
        findings = [
            *one_parameter.measure(subject),
            *encoded_facts.measure(subject),
            *damage.measure(subject),
        ]
        return {finding.rule.name: json.dumps(finding.to_dict()) for finding in findings}

    first, again, other = (measured(seed) for seed in (0, 0, 1))
    assert first == again
    assert not set(first.items()) & set(other.items())


def test_a_pair_that_cancels_is_found_as_the_worst_case() -> None:
    planted = _worst(subject_of(planted_pairs(bigram_model("random"), 20.0)))
    assert planted.verdict == "contradicted"
    assert planted.details["worst"].startswith("blocks.0.feed_forward.")
    assert planted.interval is not None
    assert planted.interval.high >= planted.interval.estimate, "the upper bound is of all of them"
    assert planted.half_width is not None
    assert 0 < planted.half_width <= planted.interval.high
    even = _worst(subject_of(planted_pairs(bigram_model("random"), 0.0)))
    assert even.verdict == "supported"


def test_a_parameter_drawn_at_random_does_not_matter() -> None:
    subject = subject_of(bigram_model("random"))
    assert _typical(subject).verdict == "supported"


def test_a_parameter_drawn_at_random_matters_where_most_cancel() -> None:
    model = planted_pairs(bigram_model("random", d_feed_forward=128), 20.0, pairs=64)
    assert _typical(subject_of(model)).verdict == "contradicted"


def test_facts_in_one_parameter_each_are_found_and_the_same_facts_spread_out_are_not() -> None:
    (single,) = encoded_facts.measure(subject_of(bigram_model("units")))
    assert single.verdict == "contradicted"
    assert single.details["encoded"][0]["parameter"].startswith("lm_head.weight[")
    assert single.details["flipped"] > 50
    assert single.details["flipped_by_null"] == 0
    assert single.details["scalars_of_half"] == 1
    (spread,) = encoded_facts.measure(subject_of(bigram_model("random")))
    assert spread.verdict == "supported", (spread.interval, spread.text)
    assert spread.details["scalars_of_half"] > 1
    lost = {(row["kind"], row["name"]): row["share"] for row in spread.details["lost_with"]}
    assert max(share for (kind, _), share in lost.items() if kind == "component") == 1
    assert {share for (kind, _), share in lost.items() if kind in ("head", "layer")} == {0}, "empty"
    assert single.details["encoded_by_null"] == 0


EVERYTHING = Scalar("final_norm.weight", 0)


@pytest.fixture
def _everything_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scalar's zero turns all answers round, and costs every fact more than any other does."""
    zeroed = encoded_facts.scalars_set

    @contextlib.contextmanager
    def broken(model: Transformer, scalars: Sequence[Scalar], value: float = 0.0) -> Iterator[None]:
        head = model.lm_head.weight
        everything = {"lm_head.weight": -3 * head} if EVERYTHING in scalars else {}
        with replaced(model, everything), zeroed(model, scalars, value):
            yield

    monkeypatch.setattr(encoded_facts, "scalars_set", broken)


@pytest.mark.usefixtures("_everything_breaks")
def test_a_scalar_that_breaks_everything_hides_no_scalar_that_encodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of(bigram_model("units"))
    known = facts.find_facts(subject.model, subject.text, subject.random(3))
    own = [
        encoded_facts._ranked(subject.model, known.one(number), 3) for number in range(len(known))
    ]
    with_it = [[EVERYTHING, *each] for each in own]
    alone = encoded_facts._effects(subject, known, own, "alone")
    beside = encoded_facts._effects(subject, known, with_it, "beside")
    assert beside.flipped == set(range(len(known)))
    assert (
        set(alone.encoded) == set(beside.encoded) != set()
    )  # which are known best, rounding decides
    assert EVERYTHING not in {each.scalar for each in beside.encoding}

    monkeypatch.setattr(encoded_facts, "CHECKED", 1)  # what is not looked at may encode
    few = encoded_facts._effects(subject, known, with_it, "few")
    assert not few.encoded
    assert few.perhaps == alone.flipped
    none = encoded_facts.Effects([], [], [])
    interval, _ = encoded_facts._interval(few, none, len(known))
    assert interval is not None
    assert interval.high > 0.5
    assert encoded_facts.RULE.decide(interval) == "inconclusive"


def test_scalars_that_encode_any_fact_encode_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where those chosen for another fact do as much: here they are those of the fact itself."""
    flips, first = encoded_facts._flips, []

    def same(*arguments: Any) -> list[Any]:
        if not first:
            first.extend(flips(*arguments))
        return first

    monkeypatch.setattr(encoded_facts, "_flips", same)
    (finding,) = encoded_facts.measure(subject_of(bigram_model("units")))
    assert finding.details["encoded_by_null"] == len(finding.details["encoded"]) > 0
    assert finding.verdict == "inconclusive"
    assert finding.why == "the scalars chosen for other facts encode as many"


def test_shuffled_facts_are_never_supported() -> None:
    (shuffled,) = encoded_facts.measure(subject_of(bigram_model("random")), shuffled=True)
    assert shuffled.verdict == "inconclusive"
    assert "needs 60 known facts" in shuffled.why
    (few,) = encoded_facts.measure(subject_of(bigram_model("random"), phrases(2)[:1000]))
    assert few.verdict == "inconclusive"


def test_damage_is_concentrated_where_it_was_planted() -> None:
    (finding,) = damage.measure(subject_of(bigram_model("units")))
    half = finding.details["half"]
    assert half["ranked"] <= 300
    assert half["random"] is None or half["random"] > 10_000
    structures = {row["kind"] for row in finding.details["structures"]}
    assert structures == {"component", "layer", "head", "unit", "row"}


def test_the_model_is_robust_to_a_hundredth_where_parameters_do_not_cancel() -> None:
    (robust,) = damage.measure(subject_of(bigram_model("random")))
    assert robust.verdict == "supported", robust.interval
    cancelling = planted_pairs(bigram_model("random", d_feed_forward=16), 20.0, pairs=8)
    (planted,) = damage.measure(subject_of(cancelling))
    assert planted.verdict == "contradicted", planted.interval


def test_which_hundredth_is_drawn_is_in_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that differ, each alike on all blocks."""
    random = np.random.default_rng(0)

    def effect(subject: Subject, change: dict[str, Any]) -> Any:
        return np.full(len(subject.blocks), random.normal(0.05, 0.02))

    monkeypatch.setattr(damage, "effect_of", effect)
    (finding,) = damage.measure(subject_of(bigram_model("random")))
    draws = finding.details["one_percent"]
    assert finding.interval is not None
    assert len(draws) == damage.TESTED
    assert finding.interval.half_width > 2.5 * np.std(draws) / len(draws) ** 0.5
    assert finding.verdict == "inconclusive"
