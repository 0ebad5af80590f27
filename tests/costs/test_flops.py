"""FLOPs against torch's own counter on minilm's model, and attention by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.costs.flops import causal_training_flops, flops_per_token
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial, symbol
from minilm.model.transformer import Transformer, next_token_loss

SHAPE = {
    "vocab_size": 50,
    "context_length": 64,
    "num_layers": 2,
    "d_model": 32,
    "num_heads": 4,
    "head_dim": 6,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied_embeddings": True},
        {"num_kv_heads": 2, "feed_forward": "swiglu"},
        {"num_kv_heads": 1, "position": "learned", "qk_norm": True, "norm": "rmsnorm"},
        {"sliding_window": 8, "dropout": 0.1, "d_feed_forward": 20},
        {"shared_layers": 1, "tied_embeddings": True},
        {"num_layers": 5, "shared_layers": 3, "num_kv_heads": 2},
    ],
)
def test_torch_counts_the_same_products(options: dict) -> None:
    config = ModelConfig(**(SHAPE | options))
    batch, length = 3, 48
    with torch.device("meta"):
        model = Transformer(config)
        tokens = torch.zeros(batch, length, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        loss = next_token_loss(model, tokens, tokens)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    # torch multiplies every query with every key, masked or not, as the last token does without a window.
    costs = flops_per_token(layout(config), context=length)
    every_pair = 4 * config.num_layers * config.num_heads * config.head_dim * length
    a_token = costs["forward_per_token"] - costs["attention_per_token"] + every_pair
    assert forward.get_total_flops() == batch * length * a_token
    assert backward.get_total_flops() == 2 * forward.get_total_flops()
    assert costs["training_per_token"] == 3 * costs["forward_per_token"]
    if not config.sliding_window:
        assert costs["attention_per_token"] == every_pair


def test_a_sound_is_heard_by_every_token_in_full() -> None:
    one = as_polynomial(1)
    kind = AttentionSpec(one, one, as_polynomial(5), as_polynomial(2), fixed=1500)
    heard = Layout("hand", (), {}, attention=(kind,))
    assert causal_training_flops(heard, context=9) == 3 * 2 * (5 + 2) * 1500


def with_window(window: int) -> Layout:
    one = as_polynomial(1)
    kind = AttentionSpec(as_polynomial(3), one, as_polynomial(5), as_polynomial(2), window)
    return Layout("hand", (), {}, attention=(kind,))


@pytest.mark.parametrize(("window", "context"), [(0, 1), (0, 7), (3, 7), (7, 7), (9, 7), (1, 4)])
def test_attention_is_counted_over_the_window(window: int, context: int) -> None:
    positions = min(context, window) if window else context
    flops = flops_per_token(with_window(window), context=context)["attention_per_token"]
    assert flops == 2 * 3 * (5 + 2) * positions


def test_only_the_experts_in_use_are_counted() -> None:
    experts, width = symbol("E"), symbol("d")
    tensors = (
        Tensor("router", (experts, width), "router", Role.MULTIPLIED),
        Tensor("expert.{e}", (width, width), "up", Role.MULTIPLIED, experts=experts, routed=True),
        Tensor("shared", (width, width), "up", Role.MULTIPLIED),
        Tensor("table", (width, width), "token embedding", Role.LOOKED_UP),
    )
    model = Layout("experts", tensors, {"E": 8, "e": 2, "d": 10})
    # The router's 80, two experts of 100, the shared 100.
    assert flops_per_token(model, context=9)["forward_per_token"] == 2 * (80 + 200 + 100)


@pytest.mark.parametrize("window", [0, 3])
def test_causal_attention_by_hand(window: int) -> None:
    """Six tokens attend to 1, 2, ... 6 tokens; with a window of 3 to 1, 2, 3, 3, 3 and 3."""
    config = ModelConfig(**SHAPE, sliding_window=window)
    declared = layout(config)
    spans = [min(position, window or 6) for position in range(1, 7)]
    full = flops_per_token(declared, context=6)
    # Two products of 2 FLOPs over all heads, in 2 layers, forward and twice backward.
    a_span = 3 * 2 * (2 + 2) * 4 * 6
    without = full["training_per_token"] - a_span * max(spans)
    causal = causal_training_flops(declared, context=6)
    assert causal == pytest.approx(without + a_span * sum(spans) / 6)
    assert causal < full["training_per_token"]
