"""The table before and after: each number is measured, and the change is that of the numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import minilm
from minilm.checkpoint import load
from minilm.operations.comparison import Comparison, measure
from minilm.training.evaluation_text import evaluation_text
from minilm.training.runtime import Runtime

RUNTIME = Runtime(torch.device("cpu"), torch.float32, compile=False)


def test_a_model_is_measured_as_it_is(tiny_run: Path) -> None:
    model, tokenizer = load(tiny_run, trainable=True)
    weights = tiny_run / "model.safetensors"
    with torch.no_grad():
        model.final_norm.weight[:3] = 0
    model.lm_head.weight.requires_grad_(False)
    measured = measure(model, [weights], evaluation_text(tiny_run, tokenizer), RUNTIME)
    total = minilm.inspect(tiny_run).parameters.total
    assert measured.parameters == total
    assert measured.trainable == total - model.lm_head.weight.numel()
    zeros = sum(int((p == 0).sum()) for p in model.parameters())
    assert zeros >= 3
    assert measured.nonzero == total - zeros
    assert measured.bytes == weights.stat().st_size
    assert measured.tokens_per_second > 0
    assert measured.evaluation is not None
    assert model.training


def test_the_table_has_both_and_their_change(tiny_run: Path) -> None:
    model, tokenizer = load(tiny_run)
    text = evaluation_text(tiny_run, tokenizer)
    before = measure(model, [tiny_run / "model.safetensors"], text, RUNTIME)
    assert before.evaluation is not None
    after = replace(
        before,
        bytes=before.bytes // 4,
        evaluation=replace(before.evaluation, perplexity=before.evaluation.perplexity * 1.5),
    )
    comparison = Comparison(before, after)
    changes = {row[0]: row[-1] for row in comparison.table().rows}
    assert changes["parameters"] == "="
    assert changes["bytes of weights"] == f"{before.bytes // 4 / before.bytes - 1:+.2%}"
    assert changes["perplexity"] == "+50.00%"
    assert "trainable" not in changes  # nothing is, before and after
    trained = Comparison(before, replace(after, trainable=3))
    assert "trainable" in [row[0] for row in trained.table().rows]
    assert before.evaluation is not None
    huge = replace(before, evaluation=replace(before.evaluation, perplexity=1.35e13))
    rows = {row[0]: row for row in Comparison(before, huge).table().rows}
    assert rows["perplexity"][2] == "1.35e+13"
    assert len(rows["perplexity"][3]) < 12
    assert comparison.note().startswith(
        f"loss over {before.evaluation.tokens:,} tokens, the validation"
    )
    without = Comparison(replace(before, evaluation=None), replace(after, evaluation=None))
    assert [row[0] for row in without.table().rows][-1] == "tokens/s generated"
    assert not any("loss" in row[0] for row in without.table().rows)
    assert "no --data was given" in without.note()
    assert comparison.to_dict()["after"]["evaluation"]["perplexity"] == after.evaluation.perplexity
