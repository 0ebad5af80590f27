"""dots3-note's language model as transformers stores it: latent attention of two sizes, with a gate a
head.

Layers that slide have sizes of their own; the others select by DeepSeek-V3.2's indexer, or see
everything. Names, shapes and defaults: huggingface/transformers `models/dots3_note`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import Heads, d, h, layer_kinds, linear, norm, s
from minilm.architectures.config_fields import (
    field_name,
    flag,
    is_whole_number,
    layers,
    size,
    size_or_null,
    whole_number,
    within,
)
from minilm.architectures.decoder import ATTENTION, MLP, Defaults, decoder, pre_norms
from minilm.architectures.deepseek import c, indexer, j, n, q, r, v, w
from minilm.architectures.moe import (
    LayerGroup,
    group_of,
    routed_fields,
    shared_expert,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import Polynomial, as_polynomial

_DEFAULTS = Defaults(152064, 46, (5120, 128, None, None), 13824, 524288, experts=(256, 8, 1536))
_KINDS = ("sliding_attention", "indexed_attention", "full_attention")
# The fields of a layer's attention, their letters, and the values where it does not slide, and where it does.
_SIZES = {
    "num_attention_heads": ("h", 128, 64),
    "q_lora_rank": ("q", 1024, 1024),
    "kv_lora_rank": ("c", 512, 1024),
    "qk_rope_head_dim": ("r", 64, 64),
    "qk_nope_head_dim": ("n", 128, 192),
    "v_head_dim": ("v", 128, 128),
}


@dataclass(frozen=True)
class _Latent:
    """The sizes of latent attention in a group of layers."""

    h: Polynomial
    q: Polynomial
    c: Polynomial
    r: Polynomial
    n: Polynomial
    v: Polynomial


_PLAIN = _Latent(h, q, c, r, n, v)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Dots3NoteForCausalLM for a config.json."""
    num_layers = layers(config, "num_hidden_layers", _DEFAULTS.layers)
    kinds = _layer_kinds(config, num_layers)
    first = whole_number(config, "first_k_dense_replace", 1)
    split = split_layers(num_layers, sparse_layers(config, num_layers, lambda i: i >= first))
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        _DEFAULTS.experts,
        fields=routed_fields(config),
        correction="gate.e_score_correction_bias",
    )
    symbols = {
        **sparse.symbols,
        "d": size(config, "hidden_size", 5120),
        **{letter: size(config, name, plain) for name, (letter, plain, _) in _SIZES.items()},
        "j": size(config, "index_n_heads", 64),
        "w": size(config, "index_head_dim", 128),
    }
    if split.experts:
        width = "moe_shared_expert_intermediate_size"
        symbols["s"] = size(
            config, field_name(config, "shared_experts_intermediate_size", width), 1536
        )
    sliding = [i for i, kind in enumerate(kinds) if kind == _KINDS[0]]
    sizes = dict.fromkeys(_KINDS, _PLAIN) | {_KINDS[0]: _sliding(config, sliding, symbols)}
    bias = flag(config, "attention_bias", False)
    shared = size(config, "n_shared_experts", 1)
    tensors: list[Tensor] = []
    specs: list[AttentionSpec] = []
    for kind in _KINDS:
        chosen = [i for i, each in enumerate(kinds) if each == kind]
        group = group_of(chosen, num_layers)
        if group:
            tensors += _attention(sizes[kind], group, bias)
            tensors += indexer(chosen) if kind == _KINDS[1] else ()
            specs.append(_spec(config, kind, sizes[kind], group))
    return decoder(
        config,
        _DEFAULTS,
        Heads({}, h * n, h * n),
        *pre_norms(),
        *tensors,
        *sparse.tensors,
        *shared_expert(f"{MLP}.shared_experts", split.experts, width=shared * s),
        symbols=symbols,
        buffers=sparse.buffers,
        attention=specs,
    )


def _layer_kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    selects = flag(config, "use_dsa", True)
    full, other = _KINDS[1:] if selects else reversed(_KINDS[1:])
    slides = flag(config, "use_sliding_window", True)

    def by_number(i: int) -> str:
        return full if not slides or i < 2 or i % 4 == 1 else _KINDS[0]

    kinds = layer_kinds(config, "layer_types", num_layers, _KINDS, by_number)
    if config.get("use_dsa") is None and config.get("per_layer_config") is not None:
        return kinds  # written by transformers: as listed
    return [full if kind == other else kind for kind in kinds]


def _sliding(
    config: Mapping[str, Any], chosen: Sequence[int], symbols: Mapping[str, int]
) -> _Latent:
    """Of `per_layer_config`, which is the same for all that slide, or fields that begin with `swa_`."""
    listed = config.get("per_layer_config")
    own: Mapping[str, Any] = {}
    if listed is not None:
        problem = ConfigError(
            "config.json: per_layer_config", shortened(listed), "the same for layers that slide"
        )
        if not isinstance(listed, Mapping) or not all(is_whole_number(str(i)) for i in listed):
            raise problem
        by_layer = {int(i): fields for i, fields in listed.items() if fields}
        values = list(by_layer.values())
        is_same = all(each == values[0] for each in values) and by_layer.keys() == set(chosen)
        if values and (not is_same or not isinstance(values[0], Mapping)):
            raise problem
        own = values[0] if values else {}
    sizes: dict[str, Polynomial] = {}
    for name, (letter, _, default) in _SIZES.items():
        if listed is not None:
            value = size(own, name, symbols[letter])
        elif letter == "r" and config.get(f"swa_{name}") is None:  # the rest of a head
            head = size(config, "swa_head_dim", 256)
            field = "swa_qk_nope_head_dim"
            value = head - within(size(config, field, 192), head, "swa_head_dim", field)
        else:
            value = size(config, f"swa_{name}", default)
        same = value == symbols[letter]
        sizes[letter] = getattr(_PLAIN, letter) if same else as_polynomial(value)
    return _Latent(**sizes)


def _attention(sizes: _Latent, group: LayerGroup, bias: bool) -> tuple[Tensor, ...]:
    repeat, at = group.repeat, group.layers
    norms = components.ATTENTION_LATENT_NORM

    def matrix(
        name: str, outputs: Polynomial, inputs: Polynomial, component: str, biased: bool = False
    ) -> tuple[Tensor, ...]:
        full = f"{ATTENTION}.{name}"
        return linear(full, outputs, inputs, component, bias=biased, repeat=repeat, layers=at)

    def gain(name: str, width: Polynomial) -> tuple[Tensor, ...]:
        return norm(f"{ATTENTION}.{name}", norms, width=width, repeat=repeat, layers=at)

    x = sizes
    down = components.ATTENTION_KEY_VALUE_LATENT
    return (
        *matrix("q_a_proj", x.q, d, components.ATTENTION_QUERY_LATENT, bias),
        *gain("q_a_layernorm", x.q),
        *matrix("q_b_proj", x.h * (x.n + x.r), x.q, components.ATTENTION_QUERY),
        *matrix("kv_a_proj_with_mqa", x.c + x.r, d, down, bias),
        *gain("kv_a_layernorm", x.c),
        *gain("k_rope_only_layernorm", x.r),
        *matrix("kv_b_proj", x.h * (x.n + x.v), x.c, components.ATTENTION_KEY_VALUE),
        *matrix("g_proj", x.h, d, components.ATTENTION_GATE),
        *matrix("o_proj", d, x.h * x.v, components.ATTENTION_OUTPUT, bias),
    )


def _spec(config: Mapping[str, Any], kind: str, x: _Latent, group: LayerGroup) -> AttentionSpec:
    cache, scores, values = x.c + x.r, x.h * (x.n + x.r), x.h * x.v
    if kind == _KINDS[0]:
        default = size(config, "sliding_window_size", 512)
        window = size_or_null(config, "sliding_window", default)
        return AttentionSpec(group.repeat, cache, scores, values, window)
    if kind == _KINDS[1]:
        selected = size(config, "index_topk", 2048)
        return AttentionSpec(
            group.repeat, cache + w, scores, values, selected=selected, index=j * (w + 1)
        )
    return AttentionSpec(group.repeat, cache, scores, values)
