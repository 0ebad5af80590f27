"""Step-3.5 Flash: another number of heads where it slides, a gate for each, experts after the first layers.

Names and shapes: stepfun-ai/Step-3.5-Flash `modeling_step3p5.py`, as vllm-project/vllm `models/step3p5.py`
and `step3p5_mtp.py` load it; defaults, huggingface/transformers `models/step3p7`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    V,
    d,
    h,
    k,
    layer_kinds,
    linear,
    s,
    separate_attention,
    window_size,
)
from minilm.architectures.config_fields import (
    flag,
    layers,
    require,
    size,
    sub_config,
    whole_number,
    with_fields_of,
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
    LayerGroup,
    correction_bias,
    dense_feed_forward,
    group_of,
    read_experts,
    router,
    shared_expert,
    split_layers,
)
from minilm.architectures.mtp import N
from minilm.architectures.step3 import experts_in_one, has_experts
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import Polynomial, as_polynomial

_DEFAULTS = Defaults(128815, 45, (4096, 64, 8, 128), 11264, 128000, experts=(288, 8, 1280))
_SLIDES, _SEES_ALL = _KINDS = ("sliding_attention", "full_attention")
_SPARSE, _DENSE = _FORWARDS = ("sparse", "dense")


_HUB_FIELDS = {
    "num_attention_groups": "num_key_value_heads",
    "moe_num_experts": "n_routed_experts",
    "moe_top_k": "num_experts_per_tok",
    "share_expert_dims": "share_expert_dim",
    "num_mtp_layers": "num_nextn_predict_layers",
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Step3p5ForCausalLM for a config.json."""
    config = with_fields_of(config, _HUB_FIELDS)
    heads, num_layers = heads_and_layers(config, _DEFAULTS)
    number = whole_number(config, "num_nextn_predict_layers", 0)
    if number:
        layers({"num_nextn_predict_layers": number}, "num_nextn_predict_layers")
    has_own = has_experts(config, lambda i: 3 <= i < num_layers)
    every = num_layers + number
    kinds = _kinds(config, "layer_types", _KINDS, every, number, [_SEES_ALL] * every)
    forwards = [_SPARSE if has_own(i) else _DENSE for i in range(every)]
    forwards = _kinds(config, "mlp_layer_types", _FORWARDS, every, number, forwards)
    split = split_layers(num_layers, lambda i: forwards[i] == _SPARSE)
    symbols = dict(split.symbols)
    if _DENSE in forwards:
        symbols["f"] = size(config, "intermediate_size", _DEFAULTS.feed_forward)
    if sparse := forwards.count(_SPARSE):
        symbols["s"] = size(config, "share_expert_dim", 1280)
        symbols |= read_experts(
            config, layers=sparse, total="n_routed_experts", defaults=_DEFAULTS.experts
        )
    block: list[Tensor] = []
    spans: list[AttentionSpec] = []
    for kind, window in ((_SLIDES, window_size(config, 0)), (_SEES_ALL, 0)):
        group = group_of([i for i in range(num_layers) if kinds[i] == kind], num_layers)
        if group:
            own, count = _heads_of(config, kind, heads)
            block += _attention(config, own, count, group)
            spans.append(own.attention(layers=group.repeat, window=window))
    whole = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *block,
        *query_key_norms(),
        *_feed_forward(config, split.dense, split.experts),
        symbols=symbols,
        attention=spans,
        buffers=correction_bias(f"{BLOCK}.moe.router_bias", split.experts),
    )
    if not number:
        return whole
    mtp = _mtp(config, heads, kinds, forwards, range(num_layers, every))
    return replace(whole, mtp=mtp, symbols={**whole.symbols, "N": number})


def _kinds(
    config: Mapping[str, Any],
    name: str,
    names: Sequence[str],
    every: int,
    number: int,
    otherwise: Sequence[str],
) -> list[str]:
    """Each layer's kind, and each MTP module's: those are in the list behind the layers, or in their own."""
    listed, own = config.get(name), config.get(f"mtp_{name}")
    if isinstance(listed, list) and isinstance(own, list) and len(listed) == every - number:
        listed = [*listed, *own]
    elif isinstance(listed, list) and len(listed) == every - number:
        listed = [*listed, *otherwise[every - number :]]
    return layer_kinds({name: listed}, name, every, names, lambda i: otherwise[i])


def _heads_of(config: Mapping[str, Any], kind: str, heads: Heads) -> tuple[Heads, Polynomial]:
    """The heads of such layers, and how many of queries they are."""
    usual, other = heads.symbols["h"], sub_config(config, "attention_other_setting")
    for name, letter in (("num_attention_groups", "g"), ("head_dim", "k")):
        require(other, name, heads.symbols[letter])
    sliding = size(other, "num_attention_heads", usual)
    number = size(config, "num_sliding_attention_heads", sliding) if kind == _SLIDES else usual
    if number == usual:
        return heads, h
    count = as_polynomial(number)
    return heads._replace(queries=count * k), count


def _attention(
    config: Mapping[str, Any], heads: Heads, count: Polynomial, group: LayerGroup
) -> Tensors:
    repeat, at = group.repeat, group.layers
    bias = flag(config, "attention_bias", False)
    by_head = config.get("gating", True) in (True, "per-head", None)
    gate, name = count if by_head else heads.queries, f"{ATTENTION}.g_proj"
    return (
        *separate_attention(
            ATTENTION, heads, qkv_bias=bias, output_bias=bias, repeat=repeat, layers=at
        ),
        *linear(name, gate, d, components.ATTENTION_GATE, repeat=repeat, layers=at),
    )


def _feed_forward(
    config: Mapping[str, Any], dense: LayerGroup | None, experts: LayerGroup | None
) -> Tensors:
    bias = flag(config, "mlp_bias", False)
    return (
        *dense_feed_forward(MLP, dense, bias=bias),
        *router(f"{BLOCK}.moe.gate", experts),
        *experts_in_one(experts),
        *shared_expert(f"{BLOCK}.share_expert", experts, width=s, bias=bias),
    )


def _mtp(
    config: Mapping[str, Any],
    heads: Heads,
    kinds: Sequence[str],
    forwards: Sequence[str],
    at: range,
) -> Tensors:
    """The modules behind the layers: a projection, a layer, and a head and its norm."""

    def group(values: Sequence[str], value: str) -> LayerGroup | None:
        chosen = [i for i in at if values[i] == value]
        return LayerGroup(as_polynomial(len(chosen)), chosen) if chosen else None

    def own(name: str, role: Role, *shape: Polynomial) -> Tensor:
        return Tensor(f"{BLOCK}.{name}.weight", shape, components.MTP, role, N, at)

    layer: list[Tensor] = [
        *(replace(tensor, repeat=N, layers=at) for tensor in (*pre_norms(), *query_key_norms())),
        *_feed_forward(config, group(forwards, _DENSE), group(forwards, _SPARSE)),
        *correction_bias(f"{BLOCK}.moe.router_bias", group(forwards, _SPARSE)),
    ]
    for kind in _KINDS:
        if slides := group(kinds, kind):
            layer += _attention(config, *_heads_of(config, kind, heads), slides)
    return (
        own("enorm", Role.SCALED, d),
        own("hnorm", Role.SCALED, d),
        own("eh_proj", Role.MULTIPLIED, d, 2 * d),
        *(replace(tensor, component=components.MTP) for tensor in layer),
        own("transformer.shared_head.norm", Role.SCALED, d),
        own("transformer.shared_head.output", Role.MULTIPLIED, V, d),
    )
