"""Types of remote code whose blocks are Llama's: Aquila, InternLM, MiMo, MiniCPM, Orion, Pangu, Solar, ...

Orion has LayerNorm, early Yi other names of its norms; MiniCPM and XVERSE also exist with experts in every
layer, and MiMo has modules for multi-token prediction. Names and shapes: foldl/chatllm.cpp `convert.py`
(Aquila, MiniCPM and its experts, Orion, Solar, XVERSE's experts), OpenLMLab/InternLM
`modeling_internlm.py`, xiaomimimo/MiMo `modeling_mimo.py`, openPangu `modeling_openpangu_dense.py`,
stepfun-ai/Step-Audio `modeling_step1.py`, 01-ai/Yi `modeling_yi.py` of November 2023, xverse-ai/XVERSE-13B
`modeling_xverse.py`; defaults, the configuration files beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    gated_feed_forward,
    linear,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    pre_norms,
)
from minilm.architectures.moe import SparseFeedForward, sparse_feed_forward, split_layers
from minilm.architectures.mtp import N
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor


@dataclass(frozen=True, kw_only=True)
class _Variant(Defaults):
    """The fields of biases, empty for never, and their default; ``active`` is the field of active experts."""

    qkv_bias: str = ""
    output_bias: str = ""
    feed_forward_bias: str = ""
    has_bias: bool = False
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    norm_bias: bool = False
    kv_heads: str = "num_key_value_heads"
    context_field: str = "max_position_embeddings"
    active: str = ""
    router: str = "gate"
    expert_names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


_SIZES: dict[str, Any] = {
    "vocabulary": 32000,
    "layers": 32,
    "heads": (4096, 32, None, None),
    "feed_forward": 11008,
}
_VARIANTS = {
    "aquila": _Variant(**_SIZES | {"vocabulary": 100008}),
    "internlm": _Variant(
        **_SIZES | {"vocabulary": 103168}, qkv_bias="bias", output_bias="bias", has_bias=True
    ),
    "mimo": _Variant(
        **_SIZES | {"vocabulary": 151936, "heads": (4096, 32, 32, None), "feed_forward": 22016},
        context=32768,
        qkv_bias="attention_bias",
        has_bias=True,
    ),
    "minicpm": _Variant(
        **_SIZES,
        tied=True,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        active="num_experts_per_tok",
        expert_names=("w1", "w3", "w2"),
    ),
    "orion": _Variant(
        vocabulary=84608,
        layers=40,
        heads=(5120, 40, 40, None),
        feed_forward=15360,
        context=4096,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        norm_bias=True,
    ),
    "PanguEmbedded": _Variant(
        vocabulary=153376,
        layers=34,
        heads=(4096, 32, 8, None),
        feed_forward=12800,
        context=32768,
        qkv_bias="bias",
        output_bias="bias",
        has_bias=True,
    ),
    "solar": _Variant(
        **_SIZES,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        feed_forward_bias="mlp_bias",
    ),
    "step1": _Variant(
        vocabulary=65536,
        layers=48,
        heads=(5120, 40, 8, None),
        feed_forward=13312,
        context=4096,
        tied=True,
        kv_heads="num_attention_groups",
        context_field="max_seq_len",
    ),
    "xverse": _Variant(
        vocabulary=100278,
        layers=40,
        heads=(5120, 40, None, None),
        feed_forward=13824,
        context=8192,
        active="moe_top_k",
        router="router",
    ),
    "Yi": _Variant(
        **_SIZES | {"vocabulary": 64000, "heads": (4096, 32, 4, None)},
        context=4096,
        norms=("ln1", "ln2"),
    ),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    variant = _VARIANTS[config["model_type"]]
    heads = read_heads(config, kv_heads=variant.kv_heads, defaults=variant.heads)

    def has(bias: str) -> bool:
        return bool(bias) and flag(config, bias, variant.has_bias)

    sparse = _feed_forward(config, variant, bias=has(variant.feed_forward_bias))
    attention_norm, feed_forward_norm = (f"{BLOCK}.{name}" for name in variant.norms)
    layout = decoder(
        config,
        variant,
        heads,
        *pre_norms(attention_norm, feed_forward_norm, bias=variant.norm_bias),
        *separate_attention(
            ATTENTION,
            heads,
            qkv_bias=has(variant.qkv_bias),
            output_bias=has(variant.output_bias),
        ),
        *sparse.tensors,
        symbols=sparse.symbols,
        norm_bias=variant.norm_bias,
        fields={"max_position_embeddings": variant.context_field},
    )
    if config["model_type"] == "mimo":
        layout = _with_mtp(layout, config)
    return replace(layout, ignored=(f"{ATTENTION}.rotary_emb.inv_freq",))


def _feed_forward(config: Mapping[str, Any], variant: _Variant, *, bias: bool) -> SparseFeedForward:
    """One, or experts as wide as it where the type may have them and there are any."""
    if not variant.active or not whole_number(config, "num_experts", 0):
        return SparseFeedForward(gated_feed_forward(MLP, bias=bias), {}, ())
    return sparse_feed_forward(
        config,
        MLP,
        split_layers(layers(config, "num_hidden_layers", variant.layers), lambda i: True),
        (8, 2, variant.feed_forward),
        fields=("num_experts", variant.active, "intermediate_size"),
        router=variant.router,
        names=variant.expert_names,
        shared=("shared_experts", "num_shared_experts", 0),
    )


def _with_mtp(layout: Layout, config: Mapping[str, Any]) -> Layout:
    """``layout`` with MiMo's modules: a block each; they use the model's embedding and head."""
    if not whole_number(config, "num_nextn_predict_layers", 0):
        return layout
    number = layers(config, "num_nextn_predict_layers")
    prefix = "model.mtp_layers.{i}"

    def own(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(replace(each, component=components.MTP, repeat=N) for each in tensors)

    names = ("token_layernorm", "hidden_layernorm", "final_layernorm")
    block = [
        replace(each, name=each.name.replace(BLOCK, prefix))
        for each in layout.tensors
        if each.name.startswith(BLOCK)
    ]
    module = (
        *own(*linear(f"{prefix}.input_proj", d, 2 * d, components.MTP)),
        *own(*(each for name in names for each in norm(f"{prefix}.{name}", components.MTP))),
        *own(*block),
    )
    return replace(layout, mtp=module, symbols={**layout.symbols, "N": number})
