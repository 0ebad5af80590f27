"""Qwen3-Next and Qwen3.5 as transformers stores them: three layers in four have Gated DeltaNet.

Attention has a gate of its own in the queries' matrix. Qwen3.5 without experts has one feed-forward;
the others have experts beside a shared one behind a gate. Names, shapes and defaults:
huggingface/transformers `models/{qwen3_next,qwen3_5,qwen3_5_moe}`; expert by expert as the files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import Heads, d, linear, s, separate_attention
from minilm.architectures.config_fields import (
    flag,
    layer_numbers,
    layers,
    size,
    size_or_null,
    whole_number,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    dense_feed_forward,
    read_experts,
    routed_experts,
    shared_expert,
    split_layers,
)
from minilm.architectures.mtp import N, check_expert_layers
from minilm.architectures.recurrent import (
    delta_net,
    kinds_of_layers,
    mixer_layers,
    only_used,
    within,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial

_DEFAULTS = {
    "qwen3_next": Defaults(151936, 48, (2048, 16, 2, 256), 5632, 32768, experts=(512, 10, 512)),
    "qwen3_5_text": Defaults(248320, 32, (4096, 16, 4, 256), 12288, 32768),
    "qwen3_5_moe_text": Defaults(248320, 40, (2048, 16, 2, 256), 0, 32768, experts=(256, 8, 512)),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Qwen3Next, Qwen3_5 and Qwen3_5MoeForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads, num_layers = heads_and_layers(config, defaults)
    every = size_or_null(config, "full_attention_interval", 4)
    kinds = kinds_of_layers(
        config, num_layers, lambda i: "linear_attention" if (i + 1) % every else "full_attention"
    )
    mixers = mixer_layers(kinds)
    recurrent = delta_net(f"{BLOCK}.linear_attn", config, is_joined=family == "qwen3_next")
    split = split_layers(num_layers, _has_experts(config))
    symbols = {**split.symbols, **only_used(recurrent, mixers.recurrent)}
    feed_forward: tuple[Tensor, ...] = dense_feed_forward(MLP, split.dense)
    if split.experts:
        symbols |= read_experts(config, layers=split.expert_layers, defaults=defaults.experts)
        symbols["s"] = size(config, "shared_expert_intermediate_size", 512)
        gate = linear(f"{MLP}.shared_expert_gate", ONE, d, components.SHARED_EXPERT_GATE)
        feed_forward += (
            *routed_experts(MLP, split.experts),
            *shared_expert(f"{MLP}.shared_expert", split.experts, width=s),
            *within(split.experts, *gate),
        )
    bias = flag(config, "attention_bias", False)
    attention = (*_gated_attention(heads, bias), *query_key_norms())
    result = decoder(
        config,
        defaults,
        heads,
        *pre_norms(),
        *within(mixers.recurrent, *recurrent.tensors),
        *within(mixers.attention, *attention),
        *feed_forward,
        symbols=symbols,
        attention=mixers.attention_costs(heads),
        state=mixers.state(recurrent),
    )
    return _with_mtp(result, config, (*pre_norms(), *attention, *feed_forward))


def _with_mtp(layout: Layout, config: Mapping[str, Any], layer: tuple[Tensor, ...]) -> Layout:
    """With the module `mtp` that the files have: layers with attention over the model's own tables.

    Names: sgl-project/sglang `qwen3_next_mtp.py`.
    """
    number = whole_number(config, "mtp_num_hidden_layers", 0)
    if not number:
        return layout
    layers(config, "mtp_num_hidden_layers")
    check_expert_layers(layout, number)

    def tensor(name: str, role: Role, *shape: Polynomial) -> Tensor:
        return Tensor(f"mtp.{name}.weight", shape, components.MTP, role)

    own = tuple(
        replace(
            each,
            name=each.name.replace(BLOCK, "mtp.layers.{i}", 1),
            component=components.MTP,
            repeat=N,
            layers=range(number),
        )
        for each in layer
    )
    gains = ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
    module = (
        tensor("fc", Role.MULTIPLIED, d, 2 * d),
        *(tensor(gain, Role.SCALED, d) for gain in gains),
        *own,
    )
    return replace(layout, mtp=module, symbols={**layout.symbols, "N": number})


def _gated_attention(heads: Heads, bias: bool) -> tuple[Tensor, ...]:
    """The queries' matrix makes a gate for each of them as well."""
    own = separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias)
    part = components.ATTENTION_QUERY
    others = (each for each in own if each.component != part)
    return (*linear(f"{ATTENTION}.q_proj", 2 * heads.queries, d, part, bias=bias), *others)


def _has_experts(config: Mapping[str, Any]) -> Callable[[int], bool]:
    """Whether layer i has experts: in Qwen3-Next as in Qwen3's, in Qwen3.5 all or none."""
    if config["model_type"] != "qwen3_next":
        return lambda i: config["model_type"] == "qwen3_5_moe_text"
    step = size(config, "decoder_sparse_step", 1)
    without = layer_numbers(config, "mlp_only_layers")
    return lambda i: i not in without and (i + 1) % step == 0
