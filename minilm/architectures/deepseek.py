"""DeepSeek-V2 and V3 as their files store them: latent attention (MLA), shared and routed experts.

Queries (where q is given) and keys with values pass through latents of widths q and c; r of each
head's n + r query and key elements are rotated by RoPE, and those of the key are the same in all heads.
The first layers are dense. V3's router holds a correction bias, which is a buffer, and its files add
multi-token prediction modules as layers L and after. Names: deepseek-ai/DeepSeek-V2 and V3. Defaults:
huggingface/transformers `models/deepseek_v2` and `models/deepseek_v3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    E,
    L,
    V,
    d,
    embedding,
    h,
    linear,
    lm_head,
    m,
    norm,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    optional_size,
    size,
    whole_number,
)
from minilm.architectures.moe import (
    LayerGroup,
    dense_feed_forward,
    read_experts,
    routed_experts,
    shared_expert,
    split_layers,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

q, c, r, n, v, N = (symbol(letter) for letter in "qcrnvN")


@dataclass(frozen=True)
class _Defaults:
    vocabulary: int
    d_model: int
    layers: int
    heads: int
    feed_forward: int
    experts: tuple[int, int | None, int]
    shared: int
    dense: int
    mtp: int
    context: int


_DEFAULTS = {
    "deepseek_v2": _Defaults(
        vocabulary=102400,
        d_model=4096,
        layers=32,
        heads=32,
        feed_forward=11008,
        experts=(64, None, 1407),
        shared=2,
        dense=0,
        mtp=0,
        context=2048,
    ),
    "deepseek_v3": _Defaults(
        vocabulary=129280,
        d_model=7168,
        layers=61,
        heads=128,
        feed_forward=18432,
        experts=(256, 8, 2048),
        shared=1,
        dense=3,
        mtp=1,
        context=4096,
    ),
}


@dataclass(frozen=True)
class _Block:
    """What is the same in every layer."""

    has_query_latent: bool
    attention_bias: bool
    feed_forward_bias: bool
    num_shared_experts: int


def _shared(config: Mapping[str, Any], defaults: _Defaults) -> int:
    """Shared experts where the number is left out, or null for none."""
    return 0 if "n_shared_experts" in config else defaults.shared


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DeepseekV{2,3}ForCausalLM for a config.json."""
    family = config["model_type"]
    is_v3 = family == "deepseek_v3"
    defaults = _DEFAULTS[family]
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    num_mtp = _mtp_modules(config, defaults.mtp) if is_v3 else 0
    first = whole_number(config, "first_k_dense_replace", defaults.dense)
    frequency = size(config, "moe_layer_freq", 1)
    split = split_layers(num_layers, lambda i: i >= first and i % frequency == 0)
    tied = flag(config, "tie_word_embeddings", False)
    query_latent = optional_size(config, "q_lora_rank", 1536)
    symbols = {
        "V": size(config, "vocab_size", defaults.vocabulary),
        "L": num_layers,
        **split.symbols,
        "d": size(config, "hidden_size", defaults.d_model),
        "h": size(config, "num_attention_heads", defaults.heads),
        **({"q": query_latent} if query_latent else {}),
        "c": size(config, "kv_lora_rank", 512),
        "r": size(config, "qk_rope_head_dim", 64),
        "n": size(config, "qk_nope_head_dim", 128),
        "v": size(config, "v_head_dim", 128),
    }
    if split.dense:
        symbols["f"] = size(config, "intermediate_size", defaults.feed_forward)
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers + num_mtp,
            total=field_name(config, "n_routed_experts", "num_local_experts"),
            defaults=defaults.experts,
        )
    block = _Block(
        has_query_latent=query_latent is not None,
        attention_bias=flag(config, "attention_bias", False),
        feed_forward_bias=not is_v3 and flag(config, "mlp_bias", False),
        num_shared_experts=whole_number(config, "n_shared_experts", _shared(config, defaults)),
    )
    tensors = (
        embedding("model.embed_tokens"),
        *_attention(block, LayerGroup()),
        *_feed_forward(block, split.dense, split.experts),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    mtp: tuple[Tensor, ...] = ()
    if num_mtp:
        symbols["N"] = num_mtp
        modules = LayerGroup(N, range(num_layers, num_layers + num_mtp))
        mtp = _mtp(block, modules, has_experts=split.experts is not None)
    return Layout(
        family,
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        buffers=_correction_bias(split.experts) if is_v3 else (),
        mtp=mtp,
        # The latent and the rotary part of the key are all that is cached.
        attention=(AttentionSpec(L, c + r, h * (n + r), h * v),),
        context_length=size(config, "max_position_embeddings", defaults.context),
    )


def _attention(block: _Block, group: LayerGroup) -> tuple[Tensor, ...]:
    """The norm in front, the way down to the latents and up to the heads, and the output."""

    def matrix(
        name: str, outputs: Polynomial, inputs: Polynomial, component: str, bias: bool = False
    ) -> tuple[Tensor, ...]:
        return linear(
            f"model.layers.{{i}}.self_attn.{name}",
            outputs,
            inputs,
            component,
            bias=bias,
            repeat=group.repeat,
            layers=group.layers,
        )

    def latent_norm(name: str, width: Polynomial) -> tuple[Tensor, ...]:
        return norm(
            f"model.layers.{{i}}.self_attn.{name}",
            components.ATTENTION_LATENT_NORM,
            width=width,
            repeat=group.repeat,
            layers=group.layers,
        )

    bias = block.attention_bias
    queries = h * (n + r)
    if block.has_query_latent:
        query = (
            *matrix("q_a_proj", q, d, components.ATTENTION_QUERY_LATENT, bias),
            *latent_norm("q_a_layernorm", q),
            *matrix("q_b_proj", queries, q, components.ATTENTION_QUERY),
        )
    else:
        query = matrix("q_proj", queries, d, components.ATTENTION_QUERY)
    return (
        *norm(
            "model.layers.{i}.input_layernorm",
            components.ATTENTION_NORM,
            repeat=group.repeat,
            layers=group.layers,
        ),
        *query,
        *matrix("kv_a_proj_with_mqa", c + r, d, components.ATTENTION_KEY_VALUE_LATENT, bias),
        *latent_norm("kv_a_layernorm", c),
        *matrix("kv_b_proj", h * (n + v), c, components.ATTENTION_KEY_VALUE),
        *matrix("o_proj", d, h * v, components.ATTENTION_OUTPUT, bias),
        *norm(
            "model.layers.{i}.post_attention_layernorm",
            components.FEED_FORWARD_NORM,
            repeat=group.repeat,
            layers=group.layers,
        ),
    )


def _feed_forward(
    block: _Block, dense: LayerGroup | None, experts: LayerGroup | None
) -> tuple[Tensor, ...]:
    mlp = "model.layers.{i}.mlp"
    shared = block.num_shared_experts
    return (
        *dense_feed_forward(mlp, dense, bias=block.feed_forward_bias),
        *routed_experts(mlp, experts),
        # The shared experts are stored as one that is as wide as all of them.
        *shared_expert(
            f"{mlp}.shared_experts",
            experts if shared else None,
            width=shared * m,
            bias=block.feed_forward_bias,
        ),
    )


def _mtp_modules(config: Mapping[str, Any], default: int) -> int:
    """How many there are; ``default`` where the field is absent."""
    name = "num_nextn_predict_layers"
    return layers(config, name, default) if whole_number(config, name, default) else 0


def _correction_bias(group: LayerGroup | None) -> tuple[Tensor, ...]:
    """What V3 adds to the router's scores when it chooses; set by the load, not by gradients."""
    if group is None:
        return ()
    name = "model.layers.{i}.mlp.gate.e_score_correction_bias"
    return (Tensor(name, (E,), components.ROUTER, Role.ADDED, group.repeat, group.layers),)


def _mtp(block: _Block, group: LayerGroup, *, has_experts: bool) -> tuple[Tensor, ...]:
    """Each module: its copies of embedding and head, two norms, a projection, and one more layer."""
    module = "model.layers.{i}"
    repeat, at = group.repeat, group.layers

    def table(name: str, role: Role) -> Tensor:
        return Tensor(f"{module}.{name}.weight", (V, d), components.MTP, role, repeat, at)

    def gain(name: str) -> tuple[Tensor, ...]:
        return norm(f"{module}.{name}", components.MTP, repeat=repeat, layers=at)

    tensors = (
        table("embed_tokens", Role.LOOKED_UP),
        *gain("enorm"),
        *gain("hnorm"),
        *linear(f"{module}.eh_proj", d, 2 * d, components.MTP, repeat=repeat, layers=at),
        *_attention(block, group),
        *_feed_forward(block, None if has_experts else group, group if has_experts else None),
        *(_correction_bias(group) if has_experts else ()),
        *gain("shared_head.norm"),
        table("shared_head.head", Role.MULTIPLIED),
    )
    return tuple(replace(tensor, component=components.MTP) for tensor in tensors)
