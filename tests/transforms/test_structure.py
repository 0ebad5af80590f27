"""Structural pruning: the smaller model computes what the whole one does with those parts at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.errors import InputError
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from minilm.transforms.structure import (
    head_scores,
    highest,
    keep_heads,
    keep_layers,
    keep_units,
    least_missed_layer,
    unit_scores,
)

BASE: dict[str, Any] = {
    "vocab_size": 61,
    "context_length": 16,
    "num_layers": 3,
    "d_model": 32,
    "num_heads": 8,
    "num_kv_heads": 2,
    "d_feed_forward": 40,
}
VARIANTS = [
    {},
    {"num_kv_heads": 8, "head_dim": 6},
    {"tied_embeddings": True, "feed_forward": "swiglu", "norm": "rmsnorm"},
    {"qk_norm": True, "qkv_bias": False, "position": "learned", "sliding_window": 5},
    {"rotary_dim": 2, "parallel_residual": True, "attention_output_bias": False},
]


def model(**fields: Any) -> Transformer:
    config = ModelConfig(**(BASE | fields))
    network = Transformer(config, torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():  # biases and gains that are not their initial values
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


TOKENS = torch.randint(0, 61, (2, 11), generator=torch.Generator().manual_seed(2))


def assert_same_logits(smaller: Transformer, masked: Transformer) -> None:
    with torch.no_grad():
        torch.testing.assert_close(smaller(TOKENS), masked(TOKENS), rtol=1e-5, atol=1e-5)
        cache = KVCache(
            smaller.config, 2, max_length=11, device=torch.device("cpu"), dtype=torch.float32
        )
        cached = torch.cat([smaller(TOKENS[:, :4], cache), smaller(TOKENS[:, 4:], cache)], dim=1)
        torch.testing.assert_close(cached, masked(TOKENS), rtol=1e-4, atol=1e-5)
    count = sum(p.numel() for p in smaller.parameters())
    assert layout(smaller.config).count() == count < layout(masked.config).count()


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_model_without_heads_is_the_one_with_their_output_at_zero(fields: dict[str, Any]) -> None:
    whole, masked = model(**fields), model(**fields)
    config = whole.config
    g, group, k = config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim
    kept = torch.tensor([[0], [g - 1], [g // 2]])
    smaller = keep_heads(whole, kept)
    assert (smaller.config.num_heads, smaller.config.num_kv_heads) == (group, 1)
    assert smaller.config.head_dim == k
    with torch.no_grad():
        for block, heads in zip(masked.blocks, kept, strict=True):
            columns = block.attention.output.weight.view(config.d_model, g, group * k)
            for head in set(range(g)) - set(heads.tolist()):
                columns[:, head] = 0
    assert_same_logits(smaller, masked)


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_model_without_units_is_the_one_with_their_output_at_zero(fields: dict[str, Any]) -> None:
    whole, masked = model(**fields), model(**fields)
    kept = torch.stack([torch.randperm(40)[:17].sort().values for _ in range(3)])
    smaller = keep_units(whole, kept)
    assert smaller.config.d_feed_forward == 17
    with torch.no_grad():
        for block, units in zip(masked.blocks, kept, strict=True):
            gone = [unit for unit in range(40) if unit not in units.tolist()]
            block.feed_forward.down.weight[:, gone] = 0
    assert_same_logits(smaller, masked)


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_model_without_a_layer_is_the_one_that_skips_it(fields: dict[str, Any]) -> None:
    whole, masked = model(**fields), model(**fields)
    smaller = keep_layers(whole, [0, 2])
    with torch.no_grad():
        for part in (masked.blocks[1].attention.output, masked.blocks[1].feed_forward.down):
            part.weight.zero_()
            if part.bias is not None:
                part.bias.zero_()
    assert_same_logits(smaller, masked)


def test_a_tied_head_stays_one_parameter() -> None:
    smaller = keep_units(model(tied_embeddings=True), torch.arange(4).repeat(3, 1))
    assert smaller.lm_head.weight is smaller.embedding.token.weight


@settings(max_examples=20, deadline=None)
@given(
    fraction=st.floats(0, 0.95),
    count=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_the_highest_stay_in_their_order(fraction: float, count: int, seed: int) -> None:
    scores = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    removed = int(fraction * count)
    if fraction and not 0 < removed < count:
        with pytest.raises(InputError, match="at least one, and not all"):
            highest(scores, fraction, "heads")
        return
    kept = highest(scores, fraction, "heads")
    assert kept.shape == (2, count - removed)
    for row, indices in zip(scores, kept.tolist(), strict=True):
        assert indices == sorted(indices)
        others = [i for i in range(count) if i not in indices]
        assert not others or row[others].max() <= row[indices].min()


def test_scores_find_what_writes_nothing() -> None:
    network = model()
    with torch.no_grad():
        network.blocks[1].attention.output.weight[:, 16:] = 0  # of the second key/value head
        network.blocks[2].feed_forward.down.weight[:, 7] = 0
    assert head_scores(network, None)[1, 1] == 0
    assert unit_scores(network, None)[2, 7] == 0
    assert int((head_scores(network, None) == 0).sum()) == 1
    norms = {
        f"blocks.{i}.feed_forward.down": torch.where(torch.arange(40) == i, 0.0, 1.0)
        for i in range(3)
    }
    assert unit_scores(network, norms)[0, 0] == 0
    assert unit_scores(network, norms)[0, 1] > 0


def test_the_layer_that_does_nothing_is_missed_least() -> None:
    network = model(attention_output_bias=False, feed_forward_bias=False)
    with torch.no_grad():
        network.blocks[1].attention.output.weight.zero_()
        network.blocks[1].feed_forward.down.weight.zero_()
        whole = network(TOKENS)

    @torch.no_grad()
    def distance(smaller: Transformer) -> float:
        return float((smaller(TOKENS) - whole).norm())

    assert least_missed_layer(network, distance, [0, 1, 2]) == 1
    assert replace(network.config, num_layers=2) == keep_layers(network, [0, 2]).config
