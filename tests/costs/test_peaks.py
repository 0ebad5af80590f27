"""Predicted peaks against those of live tensors that torch has on a CPU, for each mode."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, loss_chunks
from minilm.config.lora import LoraConfig
from minilm.costs.training_step import TrainingStep

live_memory = import_module("scripts.experiments.live_memory")
Mode, PeakMemory = live_memory.Mode, live_memory.PeakMemory

# A block without gates, with biases, and one with gates, grouped heads and a tied head.
PLAIN = ModelConfig(
    vocab_size=160, context_length=64, num_layers=2, d_model=64, num_heads=4, d_feed_forward=256
)
GATED = replace(
    PLAIN,
    num_kv_heads=2,
    d_feed_forward=192,
    norm="rmsnorm",
    norm_bias=False,
    feed_forward="swiglu",
    qkv_bias=False,
    attention_output_bias=False,
    feed_forward_bias=False,
    tied_embeddings=True,
)
EVERY = ("query", "key", "value", "output", "up", "down")

MODES = {
    "adamw": Mode(),
    "muon": Mode(optimizer="muon"),
    "frozen attention": Mode(optimizer="muon", freeze=("attention",)),
    "frozen embedding": Mode(freeze=("embedding", "norm")),
    "lora": Mode(lora=LoraConfig(4)),
    "lora on all": Mode(lora=LoraConfig(4, targets=(*EVERY, "lm_head"))),
    "dora": Mode(lora=LoraConfig(4, dora=True)),
    "lora on nf4": Mode(lora=LoraConfig(4), packing="nf4"),
    "lora on all of int8": Mode(lora=LoraConfig(4, targets=EVERY), packing="int8"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_step(mode: str) -> None:
    """With many tokens, where activations decide, and few, where gradients and the optimizer do."""
    for dtype, checkpointing, config, batch, context in (
        ("float32", False, GATED, 4, 64),
        ("float32", True, PLAIN, 4, 64),
        ("bfloat16", True, GATED, 1, 8),
        ("bfloat16", False, PLAIN, 1, 8),
    ):
        chosen = replace(MODES[mode], dtype=dtype, checkpointing=checkpointing)
        measured = chosen.measured(config, batch, context)
        assert chosen.predicted(config, batch, context) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_that_its_logits_decide(dtype: str) -> None:
    config = replace(PLAIN, vocab_size=4096)
    chosen = Mode(dtype=dtype, lora=LoraConfig(4))
    measured = chosen.measured(config, 4, 64)
    assert chosen.predicted(config, 4, 64) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_whose_head_is_adapted(dtype: str, checkpointing: bool) -> None:
    config = replace(PLAIN, vocab_size=4096)
    for dora in (False, True):
        lora = LoraConfig(4, targets=("query", "lm_head"), dora=dora)
        chosen = Mode(dtype=dtype, checkpointing=checkpointing, lora=lora)
        measured = chosen.measured(config, 4, 64)
        assert chosen.predicted(config, 4, 64) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("mode", ["adamw", "muon", "lora", "frozen embedding"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [4, 100])
def test_a_step_whose_loss_is_computed_in_chunks(
    mode: str, dtype: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", rows * 4096)
    for config in (PLAIN, GATED):
        large = replace(config, vocab_size=4096)
        chosen = replace(MODES[mode], dtype=dtype)
        measured = chosen.measured(large, 4, 64)
        assert chosen.predicted(large, 4, 64) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_generation(precision: str) -> None:
    for config, batch, context in ((PLAIN, 1, 8), (GATED, 4, 64)):
        measured = live_memory.measured_generation(config, batch, context, precision)
        predicted = live_memory.predicted_generation(config, batch, context, precision)
        assert predicted == pytest.approx(measured, rel=0.1)


def test_weights_and_state_are_exact_and_the_loss_decides_a_plain_step() -> None:
    step = TrainingStep(PLAIN, layout(PLAIN)).memory(4, 64)
    count = layout(PLAIN).count()
    tensors = len(list(layout(PLAIN).named_tensors()))
    assert (step.weights, step.optimizer) == (4 * count, 8 * count + 4 * tensors)
    assert (step.moment, step.gradients) == ("loss", 0)
    assert TrainingStep(PLAIN, layout(PLAIN)).memory(1, 1).moment == "embedding"
    assert TrainingStep(PLAIN, layout(PLAIN), optimizer="muon").memory(1, 1).moment == "optimizer"


def test_a_peak_counts_a_storage_once_and_what_is_freed_no_more() -> None:
    a = torch.ones(100)
    with PeakMemory() as memory:
        memory.hold((a, a[:10]))
        assert memory.live == 400
        b = a + 1
        c = b.view(10, 10)
        del b
        assert memory.live == 800
        del c
    assert (memory.live, memory.peak) == (400, 800)
