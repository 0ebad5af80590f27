"""Beam, Flint, Kolibri 1 and MiniMax-M3 as transformers stores them: query and key norms, and experts.

Beam and Kolibri have norms behind attention and feed-forward too; Beam a gate on attention, with a bias
a head; Flint's heads have an offset in the softmax; MiniMax-M3's layers may select blocks of tokens by
an indexer, and its experts are stacked. Names, shapes and defaults: huggingface/transformers
`models/{beam,flint,kolibri1,minimax_m3_vl}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    L,
    attention_kinds,
    d,
    h,
    layer_kinds,
    linear,
    norm,
    s,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag, layer_numbers, size, sub_config
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
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    group_of,
    read_experts,
    router,
    shared_expert,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
    stacked_experts,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import symbol

j, w = symbol("j"), symbol("w")

_DEFAULTS = {
    "beam": Defaults(
        151936, 52, (5120, 48, 8, 128), 20480, 8192, experts=(256, 8, 2560), window=512
    ),
    "flint": Defaults(
        150144, 49, (2048, 32, 4, 128), 6144, 262144, experts=(256, 6, 512), window=513
    ),
    "kolibri1": Defaults(
        128000, 50, (2560, 48, 4, 128), 0, 262144, experts=(384, 6, 512), window=513
    ),
    "minimax_m3_vl_text": Defaults(
        200064, 60, (6144, 64, 4, 128), 12288, 524288, experts=(128, 4, 3072)
    ),
}
_M3_KINDS = ("minimax_m3_sparse", "full_attention")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Beam, Flint, Kolibri1 and MiniMaxM3VLForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads, num_layers = heads_and_layers(config, defaults)
    if family == "minimax_m3_vl_text":
        return _minimax_m3(config, defaults, heads, num_layers)
    slides, has_experts = _patterns(config, num_layers)
    total = "num_local_experts" if family == "kolibri1" else "num_experts"
    total = field_name(config, total, "num_experts")
    split = split_layers(num_layers, has_experts)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        defaults.experts,
        fields=(total, "num_experts_per_tok", "moe_intermediate_size"),
        correction="gate.e_score_correction_bias" if family == "beam" else "",
    )
    symbols = sparse.symbols
    if split.experts and family != "beam":
        default = 1024 if family == "flint" else 512
        symbols["s"] = size(config, "shared_expert_intermediate_size", default)
    bias = family != "kolibri1" and flag(config, "attention_bias", False)
    window = window_size(config, defaults.window)
    sliding = sliding_layers(config, num_layers, slides)
    buffers = sparse.buffers
    if family == "kolibri1":
        buffers = correction_bias(f"{BLOCK}.moe.router.expert_bias", split.experts)
    return decoder(
        config,
        defaults,
        heads,
        *_norms(family),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *query_key_norms(),
        *_more_attention(family, heads),
        *sparse.tensors,
        *_shared(family, split.experts),
        symbols=symbols,
        buffers=buffers,
        attention=attention_kinds(heads, num_layers, sliding, window),
    )


def _patterns(
    config: Mapping[str, Any], num_layers: int
) -> tuple[Callable[[int], bool], Callable[[int], bool]]:
    """Whether a layer slides, unless `layer_types` says so, and whether it has experts."""
    family, last = config["model_type"], num_layers - 1
    if family == "beam":
        has_experts = sparse_layers(config, num_layers, lambda i: i >= 3)
        return lambda i: (i + 1) % 6 != 0 and i != last, has_experts
    if family == "kolibri1":
        return lambda i: (i + 1) % 5 != 0, lambda i: True
    step = size(config, "decoder_sparse_step", 1)
    dense = layer_numbers(config, "mlp_only_layers", (0, 1))
    return (
        lambda i: not (i < 2 or i % 4 == 1 or i == last),
        lambda i: i not in dense and (i + 1) % step == 0,
    )


def _norms(family: str) -> tuple[Tensor, ...]:
    if family == "flint":
        return pre_norms()
    if family == "beam":
        return (
            *pre_norms(feed_forward=f"{BLOCK}.pre_feedforward_layernorm"),
            *post_norms(f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_feedforward_layernorm"),
        )
    return (*pre_norms(), *post_norms(f"{BLOCK}.post_attn_norm", f"{BLOCK}.post_ffn_norm"))


def _more_attention(family: str, heads: Heads) -> tuple[Tensor, ...]:
    gate, sinks = components.ATTENTION_GATE, components.ATTENTION_SINKS
    if family == "beam":
        return (
            *linear(f"{ATTENTION}.gate_proj", heads.queries, d, gate),
            Tensor(f"{ATTENTION}.gate_bias", (h,), gate, Role.ADDED, L),
        )
    if family == "flint":
        return (Tensor(f"{ATTENTION}.softmax_offset", (h,), sinks, Role.SCALED, L),)
    return ()


def _shared(family: str, group: LayerGroup | None) -> tuple[Tensor, ...]:
    if family == "beam":
        return ()
    name = "shared_expert" if family == "flint" else "shared_experts"
    return shared_expert(f"{MLP}.{name}", group, width=s)


def _minimax_m3(
    config: Mapping[str, Any], defaults: Defaults, heads: Heads, num_layers: int
) -> Layout:
    sparse = {**sub_config(config, "sparse_attention_config"), **config}
    kinds = layer_kinds(config, "layer_types", num_layers, _M3_KINDS, lambda i: _M3_KINDS[1])
    indexed = group_of([i for i in range(num_layers) if kinds[i] == _M3_KINDS[0]], num_layers)
    plain = group_of([i for i in range(num_layers) if kinds[i] == _M3_KINDS[1]], num_layers)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: True))
    symbols = dict(split.symbols)
    if split.dense:
        symbols["f"] = size(config, "dense_intermediate_size", defaults.feed_forward)
    if split.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers,
            total=field_name(config, "num_local_experts", "num_experts"),
            width="intermediate_size",
            defaults=defaults.experts,
        )
        symbols["s"] = size(config, "shared_intermediate_size", 3072)
    specs: list[AttentionSpec] = []
    if plain:
        specs.append(heads.attention(layers=plain.repeat))
    indexer: tuple[Tensor, ...] = ()
    if indexed:
        symbols["j"] = size(
            sparse, field_name(sparse, "index_n_heads", "sparse_num_index_heads"), 4
        )
        symbols["w"] = size(sparse, field_name(sparse, "index_head_dim", "sparse_index_dim"), 128)
        block = size(sparse, field_name(sparse, "index_block_size", "sparse_block_size"), 128)
        blocks = size(sparse, field_name(sparse, "index_topk_blocks", "sparse_topk_blocks"), 16)
        spec = heads.attention(layers=indexed.repeat)
        cache = spec.cache + w
        specs.append(replace(spec, cache=cache, selected=block * blocks, index=j * w))
        indexer = _m3_indexer(indexed)
    return decoder(
        config,
        defaults,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads),
        *query_key_norms(),
        *indexer,
        *_m3_feed_forward(split.dense, split.experts),
        symbols=symbols,
        buffers=correction_bias(f"{MLP}.gate.e_score_correction_bias", split.experts),
        attention=specs,
    )


def _m3_indexer(group: LayerGroup) -> tuple[Tensor, ...]:
    part, repeat, layers = components.ATTENTION_INDEXER, group.repeat, group.layers
    prefix = f"{ATTENTION}.indexer"
    return (
        *linear(f"{prefix}.q_proj", j * w, d, part, repeat=repeat, layers=layers),
        *linear(f"{prefix}.k_proj", w, d, part, repeat=repeat, layers=layers),
        *norm(f"{prefix}.q_norm", part, width=w, repeat=repeat, layers=layers),
        *norm(f"{prefix}.k_norm", part, width=w, repeat=repeat, layers=layers),
    )


def _m3_feed_forward(dense: LayerGroup | None, experts: LayerGroup | None) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    if dense:
        tensors += _fused(MLP, symbol("f"), dense, components.FEED_FORWARD_GATE_UP)
    if experts:
        tensors += router(f"{MLP}.gate", experts)
        stacked = (f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj")
        tensors += stacked_experts(*stacked, experts)
        tensors += _fused(f"{MLP}.shared_experts", s, experts, components.SHARED_EXPERT)
    return tuple(tensors)


def _fused(prefix: str, width: Any, group: LayerGroup, part: str) -> tuple[Tensor, ...]:
    down = components.FEED_FORWARD_DOWN if part != components.SHARED_EXPERT else part
    repeat, layers = group.repeat, group.layers
    return (
        *linear(f"{prefix}.gate_up_proj", 2 * width, d, part, repeat=repeat, layers=layers),
        *linear(f"{prefix}.down_proj", d, width, down, repeat=repeat, layers=layers),
    )
