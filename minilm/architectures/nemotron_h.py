"""Nemotron-H as transformers stores it: a layer is Mamba-2, attention, a feed-forward or experts, and a norm.

Feed-forward and experts have no gate; the experts may work in a narrower space between two projections.
Names, shapes and defaults: huggingface/transformers `models/nemotron_h`; expert by expert as the files
have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    Heads,
    d,
    feed_forward,
    linear,
    m,
    norm,
    read_heads,
    s,
    separate_attention,
)
from minilm.architectures.config_fields import field_name, flag, layers, optional_size, size
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.moe import LayerGroup, correction_bias, read_experts, router
from minilm.architectures.recurrent import (
    Mamba2Sizes,
    Mixer,
    MixerLayers,
    kinds_of_layers,
    layers_of,
    mamba2,
    only_used,
    within,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, symbol

_DEFAULTS = Defaults(131072, 4, (4096, 32, 8, 128), 21504, 4096, experts=(8, 2, 7688))
_KINDS = ("linear_attention", "moe", "full_attention", "mlp")
_LETTERS = {"M": _KINDS[0], "E": _KINDS[1], "*": _KINDS[2], "-": _KINDS[3]}
_BLOCK = "backbone.layers.{i}"
_MIXER = f"{_BLOCK}.mixer"
_LATENT = symbol("o")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of NemotronHForCausalLM for a config.json."""
    heads = read_heads(config, defaults=_DEFAULTS.heads)
    kinds = _kinds(config)
    of_kind = {kind: layers_of(kinds, kind) for kind in _KINDS}
    mixers = MixerLayers(of_kind["full_attention"], of_kind["linear_attention"])
    mixer = _mamba2(config, heads)
    experts = of_kind["moe"]
    symbols = only_used(mixer, mixers.recurrent)
    sparse: tuple[Tensor, ...] = ()
    if experts:
        sparse, more = _experts(config, kinds.count("moe"))
        symbols |= more
    dense = feed_forward(
        f"{_MIXER}.up_proj", f"{_MIXER}.down_proj", bias=flag(config, "mlp_bias", False)
    )
    of_attention = norm(f"{_BLOCK}.norm", components.ATTENTION_NORM)
    of_feed_forward = norm(f"{_BLOCK}.norm", components.FEED_FORWARD_NORM)
    return decoder(
        {**config, "num_hidden_layers": len(kinds), "tie_word_embeddings": False},
        _DEFAULTS,
        heads,
        *within(mixers.recurrent, *norm(f"{_BLOCK}.norm", components.MIXER_NORM), *mixer.tensors),
        *within(mixers.attention, *of_attention, *separate_attention(_MIXER, heads)),
        *within(of_kind["mlp"], *of_feed_forward, *dense),
        *within(experts, *of_feed_forward, *sparse),
        symbols=symbols,
        attention=mixers.attention_costs(heads),
        state=mixers.state(mixer),
        buffers=correction_bias(f"{_MIXER}.gate.e_score_correction_bias", experts),
        table="backbone.embeddings",
        final_norm="backbone.norm_f",
    )


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """Each layer's kind: a list of names, or one letter a layer in `hybrid_override_pattern`."""
    name = field_name(config, "layers_block_type", "layer_types")
    listed, pattern = config.get(name), config.get("hybrid_override_pattern")
    if listed is None and pattern is not None:
        name = "hybrid_override_pattern"
        if not isinstance(pattern, str) or not set(pattern) <= _LETTERS.keys():
            letters = " ".join(_LETTERS)
            raise ConfigError(f"config.json: {name}", shortened(pattern), f"the letters {letters}")
        listed = [_LETTERS[letter] for letter in pattern]
    if listed is None:
        return list(_KINDS)
    number = layers({name: len(listed) if isinstance(listed, list) else listed}, name)
    return kinds_of_layers({name: listed}, number, lambda i: "", name=name, names=_KINDS)


def _mamba2(config: Mapping[str, Any], heads: Heads) -> Mixer:
    num_heads = size(config, "mamba_num_heads", 128)
    bias = flag(config, "use_bias", False)
    sizes = Mamba2Sizes(
        num_heads * size(config, "mamba_head_dim", 64),
        num_heads,
        size(config, field_name(config, "n_groups", "mamba_n_groups"), 8),
        size(config, "ssm_state_size", 128),
        size(config, field_name(config, "conv_kernel", "mamba_d_conv"), 4),
    )
    conv_bias = flag(config, field_name(config, "use_conv_bias", "mamba_conv_bias"), True)
    return mamba2(_MIXER, sizes, heads.symbols["d"], bias=bias, conv_bias=conv_bias)


def _experts(
    config: Mapping[str, Any], num_layers: int
) -> tuple[tuple[Tensor, ...], dict[str, int]]:
    """Router, experts of two matrices, the shared expert, and the way into a narrower space and back."""
    symbols = read_experts(
        config,
        layers=num_layers,
        total=field_name(config, "n_routed_experts", "num_local_experts"),
        defaults=_DEFAULTS.experts,
    )
    symbols["s"] = size(config, "moe_shared_expert_intermediate_size", 7688)
    bias = flag(config, "mlp_bias", False)
    latent = optional_size(config, "moe_latent_size")
    between: tuple[Tensor, ...] = ()
    inputs = d
    if latent:
        symbols["o"] = latent
        inputs = _LATENT
        down, up = components.EXPERTS_DOWN, components.EXPERTS_UP
        between = (
            *linear(f"{_MIXER}.fc1_latent_proj", _LATENT, d, up, bias=bias),
            *linear(f"{_MIXER}.fc2_latent_proj", d, _LATENT, down, bias=bias),
        )
    shared = f"{_MIXER}.shared_experts"
    return (
        *router(f"{_MIXER}.gate", LayerGroup()),
        *between,
        _expert("up_proj", m, inputs, components.EXPERTS_UP),
        _expert("down_proj", inputs, m, components.EXPERTS_DOWN),
        *linear(f"{shared}.up_proj", s, d, components.SHARED_EXPERT, bias=bias),
        *linear(f"{shared}.down_proj", d, s, components.SHARED_EXPERT, bias=bias),
    ), symbols


def _expert(name: str, rows: Polynomial, columns: Polynomial, component: str) -> Tensor:
    full = f"{_MIXER}.experts.{{e}}.{name}.weight"
    return Tensor(full, (rows, columns), component, Role.MULTIPLIED, experts=E, routed=True)
