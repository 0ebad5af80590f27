"""FLOPs of every type against torch's own formulas, on a forward pass of transformers' small models.

Each product is counted as torch.utils.flop_counter does, apart by whether a weight is one of its factors: a
scan of a recurrent layer has products of activations alone, in as many pieces as its kernel wants. Attention
is written out, so that every token is multiplied with every other, as the last token is. What a causal
convolution makes of its padding, and cuts off, is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.costs.flops import flops_per_token
from minilm.ledger.layout import AttentionSpec, Layout
from tests.architectures.record import DRAWS

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.architectures.test_transformers_agreement import (
    IS_VERSION_4,
    Config,
    build,
    runnable,
)

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="the declarations follow transformers 5")

TOKENS = 4
SEEDS = range(3)
# Of these the recurrence is a scan, whose products `flops_per_token` leaves out.
SCANS = {
    *("mamba", "falcon_mamba", "mamba2", "jamba", "bamba", "falcon_h1", "granitemoehybrid"),
    *(
        "nemotron_h",
        "zamba",
        "zamba2",
        "qwen3_next",
        "qwen3_5_text",
        "qwen3_5_moe_text",
        "olmo_hybrid",
    ),
    *("kimi_linear", "bailing_hybrid", "lara_mini", "minimax", "xlstm"),
}
# Values without which a count would depend on the router's choice.
COUNTED_WITH: dict[str, Config] = {
    "longcat_flash": {"zero_expert_num": 0},  # whose experts compute nothing
}


def _product(*letters: str) -> Callable[[Layout, Config], int]:
    """FLOPs of a product of so many multiplications; T are the tokens."""

    def flops(layout: Layout, config: Config) -> int:
        sizes = {**layout.symbols, "T": TOKENS}
        result = 2
        for letter in letters:
            result *= sizes[letter]
        return result

    return flops


def _all_experts(layout: Layout, config: Config) -> int:
    every = replace(layout, symbols={**layout.symbols, "e": layout.symbols["E"]})
    return TOKENS * (_forward(every, TOKENS) - _forward(layout, TOKENS))


def _prompt(layout: Layout, config: Config) -> int:
    prompt = config.get("prompt_length", 32)
    sizes = layout.symbols
    with_prompt = (TOKENS + prompt) * _forward(layout, TOKENS + prompt)
    return with_prompt - TOKENS * _forward(layout, TOKENS) - prompt * 2 * sizes["V"] * sizes["d"]


def _positions(layout: Layout, config: Config) -> int:
    projected, scores = _product("L", "T", "d", "d"), _product("L", "T", "T", "d")
    return projected(layout, config) + scores(layout, config)


def _own_tokens(layout: Layout, config: Config) -> int:
    return 2 * config.get("ngram", 2) * _product("L", "T", "T", "d")(layout, config)


def _cross_layers(layout: Layout, config: Config) -> int:
    own = sum(kind.layers.value(layout.symbols) for kind in layout.attention if not kind.fixed)
    return -3 * (layout.symbols["L"] - own) * _product("T", "d", "f")(layout, config)


# Where transformers computes something else than a token needs: why, and how much in all.
OTHERWISE: dict[str, tuple[str, Callable[[Layout, Config], int]]] = {
    "big_bird": ("the pooler runs, whose output nothing reads", _product("d", "d")),
    "cpmant": ("the prompt's tokens run before the text's, but for the head", _prompt),
    "diffllama": ("scores are computed anew for either half of values", _product(*"LTThk")),
    "llama4_text": ("experts that are not chosen are given zeros", _all_experts),
    "mllama": ("layers with cross-attention are left out without a picture", _cross_layers),
    "prophetnet": ("predicting streams multiply their own tokens, masked but for one", _own_tokens),
    "xlnet": ("distances to later tokens, which no token needs but in training", _positions),
    "zaya": ("half of the values of what is before the first token", _product("L", "v", "d")),
}


@pytest.mark.parametrize("model_type", DRAWS)
def test_torch_counts_the_same_products(model_type: str) -> None:
    for seed in SEEDS:
        config = runnable(model_type, seed) | COUNTED_WITH.get(model_type, {})
        config |= {"attn_implementation": "eager"}
        model = build(config, "cpu").eval().requires_grad_(False)
        layout = _without_windows(layout_of(config))
        with (
            _Products(model) as counted,
            sdpa_kernel(SDPBackend.MATH),
        ):  # one kernel's are not counted
            model(torch.arange(TOKENS)[None], use_cache=False)
        forward = TOKENS * _forward(layout, TOKENS)
        if model_type in OTHERWISE:
            _, beside = OTHERWISE[model_type]
            forward += beside(layout, config)
        if model_type in SCANS:
            attention = TOKENS * flops_per_token(layout, context=TOKENS)["attention_per_token"]
            assert counted.with_weights == forward - attention
            assert counted.others >= attention
        else:
            assert counted.with_weights + counted.others == forward


def test_the_tables_name_declared_types() -> None:
    assert SCANS | COUNTED_WITH.keys() | OTHERWISE.keys() <= DRAWS.keys()
    assert not SCANS & OTHERWISE.keys()


def _forward(layout: Layout, context: int) -> int:
    return flops_per_token(layout, context=context)["forward_per_token"]


def _without_windows(layout: Layout) -> Layout:
    """Eager attention multiplies all pairs, and masks some."""

    def opened(kind: AttentionSpec) -> AttentionSpec:
        return replace(kind, window=0, beside=kind.beside and opened(kind.beside))

    return replace(layout, attention=tuple(opened(kind) for kind in layout.attention))


class _Products(TorchDispatchMode):
    """FLOPs by torch's formulas: of products with one of the ``model``'s parameters, and of ``others``."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.with_weights = 0
        self.others = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in flop_registry:
            tensors = [each for each in args if isinstance(each, torch.Tensor)]
            flops = flop_registry[operation](*args, **(kwargs or {}), out_val=result)
            if operation is torch.ops.aten.convolution:
                positions = result.shape[2]
                flops = flops // positions * min(positions, TOKENS)
            if any(each.untyped_storage().data_ptr() in self.weights for each in tensors):
                self.with_weights += flops
            else:
                self.others += flops
        return result
