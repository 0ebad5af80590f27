"""Bamba, Falcon-H1 and Granite 4 as transformers stores them: Mamba-2 in the place of attention or beside it.

Bamba lists the layers that attend; Granite's list has a kind for every layer, and experts beside a shared
feed-forward; Falcon-H1 has both mixers in every layer. Names, shapes and defaults: huggingface/transformers
`models/{bamba,falcon_h1,granitemoehybrid}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import Heads, gated_feed_forward, separate_attention
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layer_numbers,
    optional_flag,
    optional_size,
    size,
    whole_number,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.granite_moe import experts_and_shared
from minilm.architectures.moe import LayerGroup, read_experts
from minilm.architectures.recurrent import (
    ATTENTION as ATTENDS,
)
from minilm.architectures.recurrent import (
    RECURRENT,
    Mixer,
    MixerLayers,
    kinds_of_layers,
    mamba2,
    mixer_layers,
    only_used,
    read_mamba2,
    within,
)
from minilm.ledger.layout import Layout, Tensor

_DEFAULTS = {
    "bamba": Defaults(128000, 32, (4096, 32, 8, None), 14336, 262144),
    "falcon_h1": Defaults(128000, 32, (4096, 32, 8, None), 14336, 8192),
    "granitemoehybrid": Defaults(32000, 32, (4096, 32, None, None), experts=(8, 2, 11008)),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Bamba, FalconH1 and GraniteMoeHybridForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    is_granite = family == "granitemoehybrid"
    own_width = "head_dim" if family == "falcon_h1" else None
    heads, num_layers = heads_and_layers(config, defaults, head_dim=own_width)
    mixers = _mixers(config, num_layers)
    mixer = _mixer(config, heads)
    bias = flag(config, "attention_bias", False)
    symbols = only_used(mixer, mixers.recurrent)
    feed_forward: tuple[Tensor, ...]
    if is_granite:
        feed_forward, more = _granite(config, num_layers, defaults)
        symbols |= more
        norms = pre_norms()
    else:
        mlp_bias = flag(config, "mlp_bias", False)
        feed_forward = gated_feed_forward(f"{BLOCK}.feed_forward", bias=mlp_bias)
        norms = pre_norms(feed_forward=f"{BLOCK}.pre_ff_layernorm")
    attention = separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias)
    return decoder(
        config,
        defaults,
        heads,
        *norms,
        *within(mixers.recurrent, *mixer.tensors),
        *within(mixers.attention, *attention),
        *feed_forward,
        symbols=symbols,
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
        final_norm="model.norm" if is_granite else "model.final_layernorm",
    )


def _mixers(config: Mapping[str, Any], num_layers: int) -> MixerLayers:
    if config["model_type"] == "falcon_h1":
        return MixerLayers(LayerGroup(), LayerGroup())
    if config["model_type"] == "bamba":
        listed = layer_numbers(config, "attn_layer_indices")
        return mixer_layers([ATTENDS if i in listed else RECURRENT for i in range(num_layers)])
    name = field_name(config, "layer_types", "layers_block_type")
    return mixer_layers(kinds_of_layers(config, num_layers, lambda i: RECURRENT, name=name))


def _mixer(config: Mapping[str, Any], heads: Heads) -> Mixer:
    d_model = heads.symbols["d"]
    bias = flag(config, "mamba_proj_bias", False)
    is_falcon = config["model_type"] == "falcon_h1"
    width = optional_size(config, "mamba_d_ssm", 1024) if is_falcon else None
    return mamba2(
        f"{BLOCK}.mamba",
        read_mamba2(config, d_model, width=width),
        d_model,
        bias=bias,
        output_bias=flag(config, "projectors_bias", False) if is_falcon else bias,
        conv_bias=optional_flag(config, "mamba_conv_bias", True),
        has_norm=flag(config, "mamba_rms_norm", False) if is_falcon else True,
    )


def _granite(
    config: Mapping[str, Any], num_layers: int, defaults: Defaults
) -> tuple[tuple[Tensor, ...], dict[str, int]]:
    """Experts, unless their number is 0, and the shared feed-forward."""
    symbols = {"s": size(config, "shared_intermediate_size", 1024)}
    has_experts = whole_number(config, "num_local_experts", defaults.experts[0]) > 0
    if has_experts:
        symbols |= read_experts(
            config,
            layers=num_layers,
            total="num_local_experts",
            width="intermediate_size",
            defaults=defaults.experts,
        )
    return experts_and_shared(has_experts=has_experts), symbols
