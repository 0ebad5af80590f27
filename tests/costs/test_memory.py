"""Bytes by hand: caches of known models, and training state of every variant."""

from __future__ import annotations

import pytest

from minilm.architectures.minilm import layout
from minilm.config.presets import PRESETS
from minilm.costs.memory import (
    kv_cache_bytes,
    lora_parameters,
    lora_state,
    stored_bytes,
    training_bytes,
    training_state,
)
from minilm.ledger.layout import AttentionSpec, Layout
from minilm.ledger.symbols import as_polynomial

GPT2 = layout(PRESETS["gpt2"].model_config())
LLAMA3 = layout(PRESETS["llama-3-8b"].model_config())
TOTAL = 124_439_808
MATRICES = 12 * 12 * 768**2  # of GPT-2, in its blocks
MIB, GIB = 2**20, 2**30


def attention(layers: int, cache: int, window: int = 0) -> AttentionSpec:
    """A kind of attention with ``cache`` elements a token a layer."""
    width = as_polynomial(4096)
    return AttentionSpec(as_polynomial(layers), as_polynomial(cache), width, width, window)


MISTRAL = Layout("mistral", (), {}, attention=(attention(32, 2 * 8 * 128, window=4096),))
MLA = Layout("latent", (), {}, attention=(attention(61, 512 + 64),))
MIXED = Layout("mixed", (), {}, attention=(attention(5, 2048, window=512), attention(1, 2048)))


@pytest.mark.parametrize(
    ("model", "context", "batch", "size"),
    [
        (GPT2, 1024, 1, 36 * MIB),
        (GPT2, 1024, 3, 108 * MIB),
        (LLAMA3, 8192, 1, GIB),
        (MISTRAL, 1024, 1, 128 * MIB),
        (MISTRAL, 4096, 1, 512 * MIB),
        (MISTRAL, 32768, 1, 512 * MIB),
        (MLA, 1, 1, 61 * 576 * 2),
        (MLA, 4096, 1, 61 * 576 * 2 * 4096),
        (MIXED, 256, 1, 6 * 2048 * 256 * 2),
        (MIXED, 8192, 2, 2 * (5 * 512 + 8192) * 2048 * 2),
    ],
)
def test_caches_of_known_models(model: Layout, context: int, batch: int, size: int) -> None:
    cache = kv_cache_bytes(model, context=context, batch=batch)
    assert cache == {
        "float32": 2 * size,
        "float16": size,
        "bfloat16": size,
        "int8": size // 2,
    }


def test_own_training_keeps_sixteen_bytes_a_parameter() -> None:
    assert training_bytes(TOTAL) == {
        "weights": 4 * TOTAL,
        "gradients": 4 * TOTAL,
        "optimizer": 8 * TOTAL,
        "total": 16 * TOTAL,
    }


@pytest.mark.parametrize(
    ("variant", "weights", "master", "optimizer"),
    [
        ("adamw_float32", 4 * TOTAL, 0, 8 * TOTAL),
        ("adamw_bfloat16", 2 * TOTAL, 4 * TOTAL, 8 * TOTAL),
        ("muon_float32", 4 * TOTAL, 0, 8 * TOTAL - 4 * MATRICES),
        ("muon_bfloat16", 2 * TOTAL, 4 * TOTAL, 8 * TOTAL - 4 * MATRICES),
    ],
)
def test_variants_of_full_training(variant: str, weights: int, master: int, optimizer: int) -> None:
    state = training_state(GPT2, variant)
    assert state == {
        "weights": weights,
        "master": master,
        "gradients": weights,
        "optimizer": optimizer,
        "total": 2 * weights + master + optimizer,
    }


def test_an_untied_head_is_left_to_adamw() -> None:
    untied = layout(PRESETS["gpt2"].model_config(tied_embeddings=False))
    saved_by_muon = [
        training_state(each, "adamw_float32")["total"]
        - training_state(each, "muon_float32")["total"]
        for each in (GPT2, untied)
    ]
    assert saved_by_muon == [4 * MATRICES, 4 * MATRICES]


def test_lora_state() -> None:
    # Four d x d and two d x 4d matrices a layer, rank * (in + out) each.
    adapters = 12 * 16 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert lora_parameters(GPT2, 16) == adapters
    assert lora_parameters(GPT2, 8) == adapters // 2
    assert lora_state(GPT2, "bfloat16") == {
        "weights": 2 * TOTAL,
        "adapters": 4 * adapters,
        "gradients": 4 * adapters,
        "optimizer": 8 * adapters,
        "total": 2 * TOTAL + 16 * adapters,
    }


@pytest.mark.parametrize(
    ("precision", "of_matrices"),
    [
        ("float32", MATRICES * 4),
        ("bfloat16", MATRICES * 2),
        ("int8", MATRICES + 2 * MATRICES // 64),
        ("int4", MATRICES // 2 + 2 * MATRICES // 64),
        ("nf4", MATRICES // 2 + MATRICES // 64 + 4 * MATRICES // 16384),
    ],
)
def test_quantization_leaves_the_embeddings_in_16_bits(precision: str, of_matrices: int) -> None:
    others = (TOTAL - MATRICES) * (4 if precision == "float32" else 2)
    assert stored_bytes(GPT2, precision) == of_matrices + others


def test_nf4_with_double_quantization_takes_the_bits_of_its_paper() -> None:
    saved = stored_bytes(GPT2, "bfloat16") - stored_bytes(GPT2, "nf4")
    assert 16 - 8 * saved / MATRICES == pytest.approx(4.127, abs=5e-4)


def test_a_report_has_every_variant() -> None:
    variants = training_bytes(TOTAL, layout=GPT2)["variants"]
    assert list(variants) == [
        *("adamw_float32", "muon_float32", "adamw_bfloat16", "muon_bfloat16"),
        *("lora_bfloat16", "lora_int8", "lora_nf4"),
    ]
    assert variants["adamw_float32"]["total"] == training_bytes(TOTAL)["total"]
    for sizes in variants.values():
        assert sizes["total"] == sum(size for name, size in sizes.items() if name != "total")
