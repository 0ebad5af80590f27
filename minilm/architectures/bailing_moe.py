"""Ling and Ring: fused queries, keys and values, and DeepSeek's experts with those of every token.

Their second release normalises queries and keys and corrects the router; Ring-linear has lightning
attention in all but the last of each group of layers. Names, shapes and defaults:
inclusionAI/Ling-lite `modeling_bailing_moe.py`, inclusionAI/Ling-mini-2.0
`modeling_bailing_moe_v2.py`, ml-explore/mlx-lm `models/bailing_moe_linear.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    d,
    fused_attention,
    h,
    k,
    linear,
    norm,
)
from minilm.architectures.config_fields import field_name, flag, layers, size, whole_number
from minilm.architectures.decoder import (
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    correction_bias,
    shared_expert,
    sparse_feed_forward,
    split_layers,
)
from minilm.architectures.mtp import with_mtp
from minilm.architectures.recurrent import ATTENTION, RECURRENT, Mixer, mixer_layers, within
from minilm.architectures.task_heads import class_name_of
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import as_polynomial

_DEFAULTS = Defaults(30592, 24, (1024, 16, None, None), 4096, 16384, experts=(16, 2, 1024))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of BailingMoe, BailingMoeV2 and BailingMoeLinearV2ForCausalLM for a config.json."""
    if config.get("num_key_value_heads") == 0:
        config = {**config, "num_key_value_heads": None}
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    is_linear = config["model_type"] == "bailing_moe_linear"
    mixers = mixer_layers(_kinds(config, num_layers) if is_linear else [ATTENTION] * num_layers)
    mixer = _lightning_attention(heads, bias=flag(config, "use_qkv_bias", False))
    name = f"{BLOCK}.attention"
    attention = fused_attention(
        f"{name}.query_key_value", f"{name}.dense", heads, bias=flag(config, "use_qkv_bias", False)
    )
    norms = query_key_norms(f"{name}.query_layernorm", f"{name}.key_layernorm")
    is_second = is_linear or _is_second(config)
    dense = whole_number(config, "first_k_dense_replace", 0)
    split = split_layers(num_layers, lambda i: i >= dense)
    width = field_name(config, "intermediate_size", "moe_intermediate_size")
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=("num_experts", "num_experts_per_tok", width),
    )
    shared = whole_number(config, "num_shared_experts", 0)
    shared *= size(config, "moe_shared_expert_intermediate_size", sparse.symbols.get("m", 1))
    group = split.experts if shared else None
    corrects = flag(config, "moe_router_enable_expert_bias", is_second)
    layout = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *within(mixers.recurrent, *mixer.tensors),
        *within(mixers.attention, *attention),
        *(norms if flag(config, "use_qk_norm", is_second) else ()),
        *sparse.tensors,
        *shared_expert(f"{MLP}.shared_experts", group, width=as_polynomial(shared)),
        symbols=sparse.symbols,
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
        table="model.word_embeddings",
        buffers=correction_bias(f"{MLP}.gate.expert_bias", split.experts) if corrects else (),
    )
    layout = with_mtp(layout, config, "num_nextn_predict_layers", 0, has_tables=False)
    names = ("shared_head.norm", "final_layernorm")
    return replace(
        layout, mtp=tuple(replace(each, name=each.name.replace(*names)) for each in layout.mtp)
    )


def _is_second(config: Mapping[str, Any]) -> bool:
    """Both releases have the same model_type: the class tells, and a field that only the second has."""
    named = config["model_type"] == "bailing_moe_v2" or "V2" in class_name_of(config)
    return named or config.get("n_group") is not None


def _kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    group = layers(config, "layer_group_size", 8)
    whole = num_layers // group * group
    return [RECURRENT if (i + 1) % group and i < whole else ATTENTION for i in range(num_layers)]


def _lightning_attention(heads: Heads, *, bias: bool) -> Mixer:
    name, width = f"{BLOCK}.attention", heads.queries
    tensors = (
        *linear(f"{name}.query_key_value", 3 * width, d, components.MIXER_INPUT, bias=bias),
        *linear(f"{name}.g_proj", width, d, components.MIXER_GATES),
        *norm(f"{name}.g_norm", components.MIXER_NORM, width=width),
        *linear(f"{name}.dense", d, width, components.MIXER_OUTPUT),
    )
    return Mixer(tensors, {}, h * k * k)
