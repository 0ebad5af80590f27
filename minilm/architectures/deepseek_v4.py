"""DeepSeek-V4: one key that is its value too, compressed entries of older tokens, and A residual streams.

Every layer sees a window, and most also entries that stand for a few tokens (an indexer selects among
them) or for many; heads end in groups of a low rank. Hyper-connections mix the streams around each half
of a layer. Experts of the first layers are chosen by a table from token to expert, a buffer; the other
routers have a correction bias. Names: as transformers writes them, and those of the published files
where config.json has their `compress_ratios` (huggingface/transformers `conversion_mapping.py`). Shapes
and defaults: `models/deepseek_v4`. The files' modules for multi-token prediction (`mtp.`) are not
declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    L,
    V,
    d,
    e,
    embedding,
    h,
    k,
    layer_kinds,
    linear,
    lm_head,
    m,
    norm,
    window_size,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    size,
    size_or_null,
    sub_config,
    whole_number,
)
from minilm.architectures.deepseek import j, q, w
from minilm.architectures.moe import LayerGroup, group_of, read_experts, routed_experts
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

A, u, b, y = (symbol(letter) for letter in "Auby")

_SPARSE, _HEAVY = "compressed_sparse_attention", "heavily_compressed_attention"
_KINDS = ("sliding_attention", _SPARSE, _HEAVY)
_RATIOS = {0: _KINDS[0], 4: _SPARSE, 128: _HEAVY}
_BLOCK = "model.layers.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of DeepseekV4ForCausalLM for a config.json."""
    num_layers = layers(config, "num_hidden_layers", 43)
    symbols = {
        "V": size(config, "vocab_size", 129280),
        "L": num_layers,
        "d": size(config, "hidden_size", 4096),
        "h": size(config, "num_attention_heads", 64),
        "k": size(config, "head_dim", 512),
        "q": size(config, "q_lora_rank", 1024),
        "u": size(config, "o_groups", 8),
        "b": size(config, "o_lora_rank", 1024),
        **read_experts(
            config,
            layers=num_layers,
            total=field_name(config, "n_routed_experts", "num_local_experts"),
            width=field_name(config, "moe_intermediate_size", "intermediate_size"),
            defaults=(256, 6, 2048),
        ),
        "j": size(config, "index_n_heads", 64),
        "w": size(config, "index_head_dim", 128),
        "A": size(config, "hc_mult", 4),
    }
    heads = symbols["h"] * symbols["k"]
    if heads % symbols["u"]:
        raise ConfigError("config.json: o_groups", f"{symbols['u']}", f"a divisor of {heads}")
    symbols["y"] = heads // symbols["u"]
    kinds = _layer_kinds(config, num_layers)
    tied = flag(config, "tie_word_embeddings", False)
    is_published = config.get("compress_ratios") is not None
    table = "model.embed" if is_published else "model.embed_tokens"
    hash_layers, chosen = _routers(config, num_layers)
    return Layout(
        "deepseek_v4",
        (
            embedding(table),
            *_attention(),
            *_compressors(config, kinds),
            *_feed_forward(flag(config, "mlp_bias", False)),
            *_streams(is_published),
            *norm("model.norm", components.FINAL_NORM, repeat=ONE),
            *lm_head("head", tied=tied),
        ),
        symbols,
        ties=(("head.weight", f"{table}.weight"),) if tied else (),
        optional_prefix="model.",
        buffers=(
            *_router_buffer("tid2eid", (V, e), hash_layers),
            *_router_buffer("bias", (E,), chosen),
        ),
        attention=_attention_kinds(config, kinds),
        mixing=2 * L * A * A * d,
        context_length=size(config, "max_position_embeddings", 1048576),
    )


def _layer_kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    ratios = config.get("compress_ratios")
    fields = dict(config)
    if isinstance(ratios, list) and config.get("layer_types") is None:
        try:
            fields["layer_types"] = [_RATIOS[ratio] for ratio in ratios[:num_layers]]
        except (KeyError, TypeError) as error:
            problem = "a list of 0, 4 and 128"
            raise ConfigError("config.json: compress_ratios", shortened(ratios), problem) from error

    def by_number(i: int) -> str:
        return _SPARSE if i >= 2 and (i - 2) % 2 else _HEAVY

    return layer_kinds(fields, "layer_types", num_layers, _KINDS, by_number)


def _rate(config: Mapping[str, Any], kind: str) -> int:
    names = {_SPARSE: ("compress_rate_csa", 4), _HEAVY: ("compress_rate_hca", 128)}
    name, default = names[kind]
    return size_or_null(config, name, size(sub_config(config, "compress_rates"), kind, default))


def _attention_kinds(config: Mapping[str, Any], kinds: Sequence[str]) -> tuple[AttentionSpec, ...]:
    # A key is its value, so that one is cached; so is a compressed entry.
    width = h * k
    sliding = AttentionSpec(L, k, width, width, window_size(config, 128))
    specs = []
    for kind in _KINDS:
        group = group_of([i for i, each in enumerate(kinds) if each == kind], len(kinds))
        if group is None:
            continue
        spec = replace(sliding, layers=group.repeat)
        if kind == _KINDS[0]:  # where nothing is compressed transformers keeps it twice
            spec = replace(spec, cache=2 * k)
        else:
            entries = AttentionSpec(group.repeat, k, width, width, every=_rate(config, kind))
            if kind == _SPARSE:
                selected = size(config, "index_topk", 512)
                entries = replace(entries, cache=k + w, selected=selected, index=j * w)
            spec = replace(spec, beside=entries)
        specs.append(spec)
    return tuple(specs)


def _attention() -> tuple[Tensor, ...]:
    prefix, latent = f"{_BLOCK}.attn", components.ATTENTION_LATENT_NORM
    output = components.ATTENTION_OUTPUT
    sinks = components.ATTENTION_SINKS
    return (
        *norm(f"{_BLOCK}.attn_norm", components.ATTENTION_NORM),
        *linear(f"{prefix}.wq_a", q, d, components.ATTENTION_QUERY_LATENT),
        *norm(f"{prefix}.q_norm", latent, width=q),
        *linear(f"{prefix}.wq_b", h * k, q, components.ATTENTION_QUERY),
        *linear(f"{prefix}.wkv", k, d, components.ATTENTION_KEY_VALUE),
        *norm(f"{prefix}.norm", latent, width=k),
        Tensor(f"{prefix}.attn_sink", (h,), sinks, Role.SCALED, L),
        *linear(f"{prefix}.wo_a", u * b, y, output),  # each group has b rows of its own
        *linear(f"{prefix}.wo_b", d, u * b, output),
    )


def _compressors(config: Mapping[str, Any], kinds: Sequence[str]) -> tuple[Tensor, ...]:
    """Gated sums over a few tokens; those that overlap have two halves, for each entry's two windows."""
    tensors: list[Tensor] = []
    for kind, halves in ((_SPARSE, 2), (_HEAVY, 1)):
        group = group_of([i for i, each in enumerate(kinds) if each == kind], len(kinds))
        if group is None:
            continue
        rate = as_polynomial(_rate(config, kind))
        part = components.ATTENTION_COMPRESSOR
        tensors += _compressor(f"{_BLOCK}.attn.compressor", halves, k, rate, group, part)
        if kind == _SPARSE:
            prefix, part = f"{_BLOCK}.attn.indexer", components.ATTENTION_INDEXER
            repeat, at = group.repeat, group.layers
            tensors += _compressor(f"{prefix}.compressor", halves, w, rate, group, part)
            tensors += linear(f"{prefix}.wq_b", j * w, q, part, repeat=repeat, layers=at)
            tensors += linear(f"{prefix}.weights_proj", j, d, part, repeat=repeat, layers=at)
    return tuple(tensors)


def _compressor(
    prefix: str, halves: int, width: Polynomial, rate: Polynomial, group: LayerGroup, part: str
) -> tuple[Tensor, ...]:
    repeat, at = group.repeat, group.layers
    positions = (rate, halves * width)
    return (
        *linear(f"{prefix}.wkv", halves * width, d, part, repeat=repeat, layers=at),
        *linear(f"{prefix}.wgate", halves * width, d, part, repeat=repeat, layers=at),
        Tensor(f"{prefix}.ape", positions, part, Role.LOOKED_UP, repeat, at),
        *norm(f"{prefix}.norm", part, width=width, repeat=repeat, layers=at),
    )


def _feed_forward(bias: bool) -> tuple[Tensor, ...]:
    prefix, part = f"{_BLOCK}.ffn", components.SHARED_EXPERT
    return (
        *norm(f"{_BLOCK}.ffn_norm", components.FEED_FORWARD_NORM),
        *routed_experts(prefix, LayerGroup(), names=("w1", "w3", "w2")),
        *linear(f"{prefix}.shared_experts.w1", m, d, part, bias=bias),
        *linear(f"{prefix}.shared_experts.w3", m, d, part, bias=bias),
        *linear(f"{prefix}.shared_experts.w2", d, m, part, bias=bias),
    )


def _streams(is_published: bool) -> tuple[Tensor, ...]:
    """Hyper-connections: of each half of a layer, and what makes one stream of all at the end."""
    part = components.RESIDUAL_STREAMS
    tensors: list[Tensor] = []
    for half in ("attn", "ffn"):
        outputs = 2 * A + A * A
        name = f"{_BLOCK}.hc_{half}"
        tensors += (
            Tensor(f"{name}_fn", (outputs, A * d), part, Role.MULTIPLIED, L),
            Tensor(f"{name}_base", (outputs,), part, Role.ADDED, L),
            Tensor(f"{name}_scale", (as_polynomial(3),), part, Role.SCALED, L),
        )
    head = "model.hc_head_" if is_published else "model.hc_head.hc_"
    return (
        *tensors,
        Tensor(f"{head}fn", (A, A * d), part, Role.MULTIPLIED),
        Tensor(f"{head}base", (A,), part, Role.ADDED),
        Tensor(f"{head}scale", (ONE,), part, Role.SCALED),
    )


def _routers(
    config: Mapping[str, Any], num_layers: int
) -> tuple[LayerGroup | None, LayerGroup | None]:
    """The layers whose experts a table chooses, and the others."""
    first = whole_number(config, "num_hash_layers", 3)
    kinds = layer_kinds(
        config,
        "mlp_layer_types",
        num_layers,
        ("hash_moe", "moe"),
        lambda i: "hash_moe" if i < first else "moe",
    )
    by_table = [i for i, kind in enumerate(kinds) if kind == "hash_moe"]
    others = [i for i, kind in enumerate(kinds) if kind == "moe"]
    return group_of(by_table, num_layers), group_of(others, num_layers)


def _router_buffer(
    name: str, shape: tuple[Polynomial, ...], group: LayerGroup | None
) -> tuple[Tensor, ...]:
    if group is None:
        return ()
    full, part = f"{_BLOCK}.ffn.gate.{name}", components.ROUTER
    return (Tensor(full, shape, part, Role.ADDED, group.repeat, group.layers),)
