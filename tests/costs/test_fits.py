"""What fits: sums by hand, and limits that are the last that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.config.presets import PRESETS
from minilm.costs.activation_estimate import estimate
from minilm.costs.common_needs import PREFILL_TOKENS
from minilm.costs.fits import SEARCHED, Fit, fits, largest
from minilm.costs.gguf_types import gguf_bytes
from minilm.costs.memory import kv_cache_bytes, lora_state
from minilm.costs.memory_need import CONTEXT_BYTES, overhead_bytes
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


@pytest.mark.parametrize(
    ("file_type", "bits"),
    [("q8_0", 8.5008), ("q6_k", 6.5633), ("q5_k_m", 5.7036), ("q4_k_m", 4.8944)],
)
def test_file_types_of_llama_cpp(file_type: str, bits: float) -> None:
    """Bits a weight of Llama 3.1 8B, whose shapes are those of 3, in llama.cpp's tools/quantize/README.md."""
    size = gguf_bytes(LLAMA3, file_type)
    assert 8 * size / LLAMA3.count() == pytest.approx(bits, abs=6e-5)
    assert find(fits(LLAMA3, 24 * GB), file_type).weights == size


def test_rows_that_are_no_whole_number_of_blocks() -> None:
    """Of 64 columns q4_k becomes q5_0 and q6_k becomes q8_0; of 20 columns everything is float16."""
    config = ModelConfig(vocab_size=10, num_layers=1, d_model=64, num_heads=2, d_feed_forward=20)
    model = layout(config)
    q5, q8 = 22 * 2, 34 * 2  # bytes of a row of 64
    d_rows = 64 * 3 + 20  # query, key, output; up
    vectors = sum(model.value(t) for t in model.tensors if len(t.shape) == 1)
    value = 64 * q8  # the one layer is in the last eighth
    expected = 10 * q5 + d_rows * q5 + value + 64 * 20 * 2 + 10 * q8 + 4 * vectors
    assert gguf_bytes(model, "q4_k_m") == expected


def test_a_tied_embedding_is_stored_as_a_head() -> None:
    assert find(fits(GPT2, GB), "q4_0").weights > 50257 * 768 * 6.5 / 8


def test_fp8_has_a_scale_for_each_block() -> None:
    linear = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    expected = linear + 4 * linear // 128**2 + 2 * (LLAMA3.count() - linear)
    assert find(fits(LLAMA3, GB), "fp8").weights == expected


def test_the_file_as_it_is_stored() -> None:
    assert all(fit.precision != "as stored" for fit in fits(GPT2, GB))
    first = fits(GPT2, GB, stored=200_000_000)[0]
    assert (first.use, first.precision, first.weights) == ("inference", "as stored", 200_000_000)
    assert first.cache_dtype == "bfloat16"
    assert fits(GPT2, GB, stored=4 * GPT2.count())[0].cache_dtype == "float32"


def test_a_smaller_cache() -> None:
    """q8_0 and q4_0 have 34 and 18 bytes for 32 elements."""
    elements = kv_cache_bytes(LLAMA3, context=8192, batch=1)["bfloat16"] // 2
    for dtype, size in (("fp8", 1), ("q8_0", 34 / 32), ("q4_0", 18 / 32)):
        fit = find(fits(LLAMA3, 24 * GB, cache_dtype=dtype), "bfloat16")
        assert (fit.kv_cache, fit.cache_dtype) == (elements * size, dtype)
        assert fit.max_batch > 5


def test_several_cards_share_weights_and_state() -> None:
    one, two = (fits(LLAMA3, 24 * GB, cards=n, batch=3, context=4096) for n in (1, 2))
    alone, shared = (find(uses, "bfloat16") for uses in (one, two))
    assert shared.weights == alone.weights // 2
    assert shared.kv_cache == alone.kv_cache // 2
    assert shared.activations == alone.activations
    assert (shared.budget, shared.cards) == (24 * GB, 2)
    alone, shared = (find(uses, "adamw_float32", checkpointing=True) for uses in (one, two))
    assert shared.states == alone.states // 2
    # Half of the weights, and one of 32 layers gathered; two of the three sequences.
    assert shared.weights == alone.weights // 2 + -(-alone.weights // 32)
    pair = find(fits(LLAMA3, 24 * GB, batch=2, context=4096), "adamw_float32", checkpointing=True)
    assert shared.activations == pair.activations


def test_the_rank_of_lora() -> None:
    uses = fits(LLAMA3, 24 * GB, rank=64)
    assert {fit.lora_rank for fit in uses if fit.use == "LoRA"} == {64}
    assert {fit.lora_rank for fit in uses if fit.use != "LoRA"} == {0}


def test_the_largest_that_holds() -> None:
    for limit in (1, 2, 7, 8, 9):
        for last in range(11):
            assert largest(lambda number, last=last: number <= last, limit) == min(last, limit)
