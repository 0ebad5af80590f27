"""Claims 4 and 7: the published models that stand beside the model at hand."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from minilm.architectures import layout_of
from minilm.claims import bytes_per_parameter, majority
from tests.claims.subjects import bigram_model, subject_of
from tests.conftest import ROOT


def test_published_models_have_the_counts_that_are_published() -> None:
    for name, config in majority.published_models().items():
        assert layout_of(config).count() == config["parameters"], name
        assert config["source"], name
    shares = {
        name: majority.shares_of(layout_of(c)) for name, c in majority.published_models().items()
    }
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8").replace("\n", " ")
    with_majority = sum(each.of_all > 0.5 for each in shares.values())
    right = sum(each.has_predicted_majority is not None for each in shares.values())
    close = sum(abs(each.error) <= 0.02 for each in shares.values())
    assert f"In {with_majority} of the {len(shares)} published models" in text
    assert f"for all {right} whose feed-forward has 8d²" in text
    assert f"within 2% for {close} of the {len(shares)}" in text
    assert shares["pythia-70m"].of_all == pytest.approx(0.179, abs=5e-4)
    assert shares["gpt2"].error == pytest.approx(0.303, abs=5e-4)
    assert all(each.has_predicted_majority in (None, each.of_all > 0.5) for each in shares.values())


def test_no_family_is_left_out_of_the_published_models_without_a_reason() -> None:
    file = resources.files("minilm.claims").joinpath("published_models.json")
    entries = json.loads(file.read_text(encoding="utf-8"))
    models, left_out = entries["models"], entries["left_out"]
    assert (len(models), len(left_out)) == (87, 6)
    assert not models.keys() & left_out.keys()
    assert all(left_out.values())
    for name in (
        *("gpt3-175b", "cerebras-gpt-13b", "gpt-neo-125m", "qwen1.5-7b", "falcon-40b", "mpt-30b"),
        *("opt-2.7b", "opt-6.7b", "opt-30b", "phi-1", "phi-3-mini-4k", "gemma-3-4b"),
        *("gemma-3-27b", "mixtral-8x22b", "qwen3-235b-a22b", "llama-2-70b", "llama-3.1-405b"),
    ):
        assert name in models
    errors = {
        name: majority.shares_of(layout_of(models[name])).error
        for name in ("qwen3-32b", "gemma-7b", "llama-2-70b")
    }
    assert errors == pytest.approx(
        {"qwen3-32b": -0.338, "gemma-7b": -0.444, "llama-2-70b": -0.058}, abs=5e-4
    )


def test_reasons_of_the_formula_are_those_of_its_errors() -> None:
    *_, formula = majority.measure(subject_of(bigram_model("random")))
    for reason in ("a tied head", "share keys", "heads wider than d/h", "gated", "experts"):
        assert reason in formula.text


def test_the_limit_of_four_bits_says_that_it_was_moved() -> None:
    subject = subject_of(bigram_model("random", d_feed_forward=64))
    _, finding = bytes_per_parameter.measure(subject)
    (rows,) = (each.rows for each in finding.tables)
    bits, first, now = zip(*(row[-3:] for row in rows), strict=True)
    assert len(rows) == 9
    assert set(first) == {"no"}
    assert now.count("yes") == 5
    for each, verdict in zip(bits, now, strict=True):
        assert (float(each) <= bytes_per_parameter.MOST_BITS) == (verdict == "yes"), (
            "as it is shown"
        )
    assert "The limit was 4.2 bits first" in finding.text
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert f"the lowest is {min(map(float, bits)):.2f}" in text
