"""Hunyuan 1, dense and with experts, and Hy 3 as transformers stores them: query and key norms.

Hunyuan 1's experts and its shared one are as wide as the feed-forward; Hy 3 chooses as DeepSeek-V3
does, and its first layer is dense. Names, shapes and defaults: huggingface/transformers
`models/{hunyuan_v1_dense,hunyuan_v1_moe,hy_v3}`. Hunyuan-Large (`hunyuan`), of its own code, shares keys and
values between layers: MindIE-LLM `flash_causal_hunyuan.py` and its `modeling` file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import Heads, f, gated_feed_forward, m, separate_attention
from minilm.architectures.config_fields import field_name, flag, size, whole_number
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import (
    LayerGroup,
    group_of,
    shared_expert,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout
from minilm.ledger.symbols import ZERO, as_polynomial

_V1 = Defaults(290943, 32, (4096, 32, None, None), 11008, experts=(1, 1, 11008))
_CACHED = (components.ATTENTION_KEY, components.ATTENTION_VALUE)
_V3 = Defaults(120832, 80, (4096, 64, 8, 128), 13312, 131072, experts=(192, 8, 1536))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of HunYuan, HunYuanDenseV1, HunYuanMoEV1 and HYV3ForCausalLM for a config.json."""
    if config["model_type"] == "hy_v3":
        return _v3(config)
    heads, num_layers = heads_and_layers(config, _V1)
    bias = flag(config, "attention_bias", False)
    is_large = config["model_type"] == "hunyuan"
    owners = _owners(config, num_layers) if is_large else LayerGroup()
    has_norms = not is_large or flag(config, "use_qk_norm", False)
    norms = query_key_norms(f"{ATTENTION}.query_layernorm", f"{ATTENTION}.key_layernorm")
    attention = (
        *pre_norms(),
        *(
            replace(t, repeat=owners.repeat, layers=owners.layers) if t.component in _CACHED else t
            for t in separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias)
        ),
        *(norms if has_norms else ()),
    )
    is_dense = is_large and size(config, "num_experts", 1) == 1
    if is_dense or config["model_type"] == "hunyuan_v1_dense":
        kinds = _attention(heads, num_layers, owners)
        return decoder(config, _V1, heads, *attention, *gated_feed_forward(MLP), attention=kinds)
    active = field_name(config, "moe_topk", "num_experts_per_tok")
    sparse = sparse_feed_forward(
        {**config, **_of_all_layers(config, active, num_layers)},
        MLP,
        split_layers(num_layers, lambda i: True),
        _V1.experts,
        fields=(
            field_name(config, "num_experts", "num_local_experts"),
            active,
            "intermediate_size",
        ),
        router="gate.wg",
    )
    return decoder(
        config,
        _V1,
        heads,
        *attention,
        *sparse.tensors,
        *shared_expert(f"{MLP}.shared_mlp", LayerGroup(), width=m),
        symbols=sparse.symbols,
        attention=_attention(heads, num_layers, owners),
    )


def _owners(config: Mapping[str, Any], num_layers: int) -> LayerGroup:
    """The layers with keys and values of their own; those between attend to the last ones'."""
    step = size(config, "cla_share_factor", 1) if flag(config, "use_cla", False) else 1
    group = group_of(range(0, num_layers, step), num_layers)
    assert group is not None  # the first layer is one
    return group


def _attention(heads: Heads, num_layers: int, owners: LayerGroup) -> tuple[AttentionSpec, ...]:
    own = heads.attention(layers=owners.repeat)
    if owners.layers is None:
        return (own,)
    others = as_polynomial(num_layers - len(owners.layers))
    return (own, replace(own, layers=others, cache=ZERO))


def _of_all_layers(config: Mapping[str, Any], name: str, num_layers: int) -> dict[str, Any]:
    """A field that lists one value for every layer, which must be the same, with that value."""
    value = config.get(name)
    if not isinstance(value, list):
        return {}
    if len(value) < num_layers or any(each != value[0] for each in value):
        raise ConfigError(f"config.json: {name}", shortened(value), "the same for every layer")
    return {name: value[0]}


def _v3(config: Mapping[str, Any]) -> Layout:
    heads, num_layers = heads_and_layers(config, _V3)
    bias, mlp_bias = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i > 0))
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _V3.experts,
        fields=(
            field_name(config, "num_experts", "num_local_experts"),
            "num_experts_per_tok",
            "moe_intermediate_size",
        ),
        router="router.gate",
        shared=("shared_mlp", "num_shared_experts", 1),
        correction="expert_bias",
        bias=mlp_bias,
    )
    shares = whole_number(config, "num_shared_experts", 1) > 0
    # Without a shared expert transformers makes one as wide as a dense layer.
    dense = shared_expert(
        f"{MLP}.shared_mlp", None if shares else split.experts, width=f, bias=mlp_bias
    )
    return decoder(
        config,
        _V3,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *query_key_norms(),
        *sparse.tensors,
        *dense,
        symbols=sparse.symbols,
        buffers=sparse.buffers,
    )
