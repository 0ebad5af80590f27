"""What fits: sums by hand, and limits that are the last that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilm.architectures.minilm import layout
from minilm.config.presets import PRESETS
from minilm.costs.activation_estimate import estimate
from minilm.costs.fits import (
    CONTEXT_BYTES,
    PREFILL_TOKENS,
    SEARCHED,
    Fit,
    fits,
    overhead_bytes,
)
from minilm.costs.memory import kv_cache_bytes, lora_state
from minilm.ledger.layout import Layout

LLAMA3 = layout(PRESETS["llama-3-8b"].model_config())
GPT2 = layout(PRESETS["gpt2"].model_config())
GB = 10**9


def find(all_fits: tuple[Fit, ...], precision: str, *, checkpointing: bool = False) -> Fit:
    (fit,) = (f for f in all_fits if (f.precision, f.checkpointing) == (precision, checkpointing))
    return fit


def test_llama_in_bfloat16_on_24_gb() -> None:
    fit = find(fits(LLAMA3, 24 * GB), "bfloat16")
    assert (fit.use, fit.context, fit.batch, fit.states) == ("inference", 8192, 1, 0)
    assert fit.weights == 2 * 8_030_261_248
    assert fit.kv_cache == 2**30
    block = estimate(LLAMA3)
    assert block is not None
    assert fit.activations == PREFILL_TOKENS * block.blocks // 32 + 4 * 128256
    tensors = fit.weights + fit.kv_cache + fit.activations
    assert fit.overhead == overhead_bytes(tensors) == CONTEXT_BYTES + -(-tensors // 20)
    assert fit.required == tensors + fit.overhead
    assert fit.fits
    assert fit.max_context == 8192


def test_lora_and_training_add_their_state() -> None:
    uses = fits(LLAMA3, 24 * GB, rank=8, context=512)
    lora = find(uses, "lora_nf4", checkpointing=True)
    state = lora_state(LLAMA3, "nf4", rank=8)
    assert lora.weights + lora.states == state["total"]
    per_token = estimate(LLAMA3)
    assert per_token is not None
    # Besides the saved activations: the logits in 16 bits and their gradient in 32.
    assert lora.activations == per_token.checkpointed(512) + 512 * 128256 * 6
    full = find(uses, "adamw_bfloat16")
    assert full.weights + full.states == 16 * 8_030_261_248
    assert full.activations == per_token.total(512) + 512 * 128256 * 6
    assert not full.fits
    assert (full.max_context, full.max_batch) == (0, 0)


@pytest.mark.parametrize("budget", [1_200_000_000, 3 * GB, 24 * GB])
def test_limits_are_the_last_that_fit(budget: int) -> None:
    for fit in fits(GPT2, budget):

        def fits_with(context: int, batch: int, fit: Fit = fit) -> bool:
            again = fits(GPT2, budget, context=context, batch=batch)
            return find(again, fit.precision, checkpointing=fit.checkpointing).fits

        if fit.max_context:
            assert fits_with(fit.max_context, 1)
        assert fit.max_context == 1024 or not fits_with(fit.max_context + 1, 1)
        if fit.max_batch:
            assert fits_with(1024, fit.max_batch)
        assert not fits_with(1024, fit.max_batch + 1)
        assert fit.fits == (fit.max_batch >= 1) == (fit.max_context == 1024)


def test_given_batch_and_context_are_used() -> None:
    one, four = (find(fits(LLAMA3, 24 * GB, batch=n, context=2048), "int4") for n in (1, 4))
    assert (
        four.kv_cache
        == 4 * one.kv_cache
        == kv_cache_bytes(LLAMA3, context=2048, batch=4)["bfloat16"]
    )
    assert four.max_context <= one.max_context == 8192
    assert four.max_batch == one.max_batch


def test_a_longer_context_than_the_models_may_be_requested() -> None:
    fit = find(fits(GPT2, 24 * GB, context=4096), "bfloat16")
    assert (fit.context, fit.max_context) == (4096, 4096)


def test_float32_weights_have_a_float32_cache() -> None:
    uses = fits(GPT2, GB)
    assert find(uses, "float32").kv_cache == 2 * find(uses, "bfloat16").kv_cache


def test_a_model_without_a_context_length_is_bounded() -> None:
    fit = find(fits(replace(GPT2, context_length=0), 10**18), "bfloat16")
    assert fit.context == 2048
    assert fit.max_context == SEARCHED


def test_the_search_limit_is_at_least_the_request() -> None:
    bare = replace(GPT2, context_length=0)
    assert find(fits(GPT2, 10**18), "bfloat16").max_batch == SEARCHED
    more = find(fits(bare, 10**18, context=2 * SEARCHED, batch=3 * SEARCHED), "bfloat16")
    assert more.fits
    assert (more.max_context, more.max_batch) == (2 * SEARCHED, 3 * SEARCHED)


def test_without_attention_only_inference_is_known() -> None:
    bare = Layout("bare", GPT2.tensors, GPT2.symbols)
    assert {fit.use for fit in fits(bare, GB)} == {"inference"}
    assert find(fits(bare, GB), "bfloat16").activations == 4 * 50257


def test_nothing_fits_into_a_byte() -> None:
    assert not any(fit.fits or fit.max_context or fit.max_batch for fit in fits(GPT2, 1))
