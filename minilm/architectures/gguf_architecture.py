"""How the files of an architecture of llama.cpp say what a config.json says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minilm.architectures.building_blocks import h
from minilm.architectures.gguf_parts import Part, Parts, half, sized
from minilm.ledger.symbols import symbol

Fields = dict[str, tuple[str, ...]]
Flags = dict[str, str]
Kinds = dict[str, tuple[str, tuple[tuple[str, str], ...]]]
# The fields that follow from a number for each layer under every key, and the model's width; None for none.
OfLayers = Callable[[Mapping[str, Sequence[int]], int], dict[str, Any] | None]

c, n, v = (symbol(letter) for letter in "cnv")


@dataclass(frozen=True, kw_only=True)
class GgufArchitecture:
    """How files of one architecture say what a config.json says; all keys stand behind its name.

    ``model_type`` is the declared one where no entry of `MODEL_TYPES` has the architecture's name; of
    ``variants``, (key or tensor, model_type), the first that a file has is its type. Files with a
    tensor of ``unlike`` are of another class, and not mapped. ``sizes`` are keys and the fields that
    they are read as, in place of the usual ones; ``may_have`` those that a file need not have, and
    ``without`` the usual ones. ``ratios`` and ``differences`` are fields that two keys give. ``kinds``
    name each layer, by the first of some lists of numbers that is not 0 for it, and otherwise.
    ``periods`` are two fields, the period and offset of the layers with a tensor, or with a number in a
    list. ``present`` are fields that are true where layers have a tensor, ``absent`` where they do not.
    ``shapes`` are those that only the shape of a tensor gives: (its name, the axis),
    ``shapes_if_stored`` where it is there. ``by_kind`` are lists of two numbers: (the list that tells
    where, the field where that is 0, the field elsewhere); ``doubled`` are fields that are true where a
    list has a number and its double, ``fewer`` where fewer layers have a tensor than another. ``fixed``
    is the same in all files. ``listed`` are keys with a number for each layer, that may all differ, and
    ``of_layers`` the fields that they give. Declared tensors whose names begin with one of ``left_out``
    are in no file. ``parts`` are what declared tensors become, ``parts_with`` in files whose
    layers have a tensor. ``everywhere`` are those that some files have in all layers, also where
    nothing uses them.
    """

    model_type: str = ""
    variants: tuple[tuple[str, str], ...] = ()
    unlike: tuple[str, ...] = ()
    sizes: Fields = field(default_factory=dict)
    may_have: Fields = field(default_factory=dict)
    without: tuple[str, ...] = ()
    ratios: dict[str, tuple[str, str]] = field(default_factory=dict)
    differences: dict[str, tuple[str, str]] = field(default_factory=dict)
    kinds: Kinds = field(default_factory=dict)
    periods: dict[tuple[str, str], str] = field(default_factory=dict)
    present: Flags = field(default_factory=dict)
    absent: Flags = field(default_factory=dict)
    shapes: dict[str, tuple[str, int]] = field(default_factory=dict)
    shapes_if_stored: dict[str, tuple[str, int]] = field(default_factory=dict)
    by_kind: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    doubled: Flags = field(default_factory=dict)
    fewer: dict[str, tuple[str, str]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    of_layers: OfLayers | None = None
    left_out: tuple[str, ...] = ()
    parts: Parts = field(default_factory=dict)
    parts_with: tuple[tuple[str, Parts], ...] = ()
    everywhere: tuple[str, ...] = ()


SHARED_EXPERTS: Parts = {
    f"{name}.{matrix}_proj": (Part(f"ffn_{matrix}_shexp"),)
    for name in ("shared_experts", "shared_expert", "shared_mlp")
    for matrix in ("gate", "up", "down")
}
CORRECTION: Parts = {
    name: (Part("exp_probs_b", suffix=".bias"),)
    for name in ("e_score_correction_bias", ".expert_bias")
}
LATENT: Parts = {
    "q_a_layernorm": (Part("attn_q_a_norm"),),
    "kv_a_layernorm": (Part("attn_kv_a_norm"),),
    "q_b_proj": (Part("attn_q_b"),),
    # Of files before multi-head latent attention was absorbed, whole.
    "kv_b_proj": (Part("attn_k_b", sized(h, c, n)), Part("attn_v_b", sized(h, v, c))),
}
POST_ATTENTION: Parts = {"post_attention_layernorm": (Part("post_attention_norm"),)}


def gate_and_up(name: str, stem: str = "ffn_{}_exps") -> Parts:
    """One matrix apart, gate above up."""
    return {name: tuple(Part(stem.format(each), half) for each in ("gate", "up"))}


DENSE_FIRST: Fields = {"leading_dense_block_count": ("first_k_dense_replace",)}
SHARED_WIDTH: Fields = {"expert_shared_feed_forward_length": ("shared_expert_intermediate_size",)}
SLIDES: Kinds = {
    "layer_types": (
        "full_attention",
        (("attention.sliding_window_pattern", "sliding_attention"),),
    )
}
