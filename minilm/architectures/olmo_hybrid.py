"""OLMo Hybrid as transformers stores it: three layers in four have Gated DeltaNet, a matrix for each part.

Those have norms in front of each part as Llama; the layers with attention have them behind, as OLMo 2.
Names, shapes and defaults: huggingface/transformers `models/olmo_hybrid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    gated_feed_forward,
    linear,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import flag, size, size_or_null
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.recurrent import (
    HEADS,
    KEY_HEADS,
    KEY_WIDTH,
    TAPS,
    VALUE_WIDTH,
    Mixer,
    convolution,
    decay,
    kinds_of_layers,
    mixer_layers,
    only_used,
    within,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_DEFAULTS = Defaults(100352, 32, (3840, 30, None, None), 11008, 65536)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of OlmoHybridForCausalLM for a config.json."""
    heads, num_layers = heads_and_layers(config, _DEFAULTS, head_dim=None)
    last = num_layers - 1 if num_layers < 4 else -1  # fewer than four: the last one attends
    kinds = kinds_of_layers(
        config,
        num_layers,
        lambda i: "full_attention" if i % 4 == 3 or i == last else "linear_attention",
    )
    mixers = mixer_layers(kinds)
    mixer = _delta_net(config, heads.symbols["d"], heads.symbols["h"])
    bias = flag(config, "attention_bias", False)
    before = f"{BLOCK}.attention_layer_norm", f"{BLOCK}.feedforward_layer_norm"
    after = f"{BLOCK}.feedforward_layer_norm", f"{BLOCK}.post_feedforward_layernorm"
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *within(mixers.recurrent, *pre_norms(*before), *mixer.tensors),
        *within(
            mixers.attention,
            *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
            *query_key_norms(widths=(heads.queries, heads.keys)),
            *post_norms(*after),
        ),
        *gated_feed_forward(MLP),
        symbols=only_used(mixer, mixers.recurrent),
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
    )


def _delta_net(config: Mapping[str, Any], d_model: int, num_heads: int) -> Mixer:
    key_heads = size_or_null(config, "linear_num_key_heads", num_heads)
    key_width = size_or_null(config, "linear_key_head_dim", int(0.75 * d_model / key_heads))
    symbols = {
        "a": key_heads,
        "H": size_or_null(config, "linear_num_value_heads", num_heads),
        "Q": key_width,
        "O": size_or_null(config, "linear_value_head_dim", 2 * key_width),
        "z": size(config, "linear_conv_kernel_dim", 4),
    }
    prefix = f"{BLOCK}.linear_attn"
    keys, values = KEY_HEADS * KEY_WIDTH, HEADS * VALUE_WIDTH
    inputs, gates = components.MIXER_INPUT, components.MIXER_GATES
    parts = (("q", keys), ("k", keys), ("v", values))
    tensors = (
        *(each for x, width in parts for each in linear(f"{prefix}.{x}_proj", width, d, inputs)),
        *linear(f"{prefix}.a_proj", HEADS, d, gates),
        *linear(f"{prefix}.b_proj", HEADS, d, gates),
        *linear(f"{prefix}.g_proj", values, d, gates),
        *(each for x, width in parts for each in convolution(f"{prefix}.{x}_conv1d", width)),
        decay(f"{prefix}.A_log", HEADS),
        decay(f"{prefix}.dt_bias", HEADS, role=Role.ADDED),
        *norm(f"{prefix}.o_norm", components.MIXER_NORM, width=VALUE_WIDTH),
        *linear(f"{prefix}.o_proj", d, values, components.MIXER_OUTPUT),
    )
    return Mixer(tensors, symbols, values * KEY_WIDTH + (2 * keys + values) * TAPS)
