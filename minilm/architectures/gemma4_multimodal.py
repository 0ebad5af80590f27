"""Gemma 4 with images and sound: the language model of `gemma3n.py`, and towers where config.json has
them.

Both towers are of Gemma's own kind. A linear map may clip what goes in and out, at limits in buffers.
The unified model has none: a map over pixels and one over samples. Names, shapes and defaults:
huggingface/transformers `models/{gemma4,gemma4_unified}` (their ForConditionalGeneration).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, layers, quotient, size, sizes, sub_config
from minilm.architectures.gemma3n import layout as text_layout
from minilm.architectures.joint_text import is_tied_as_a_whole
from minilm.architectures.vision_tower import F, W, Y, matrix, once, tower_symbols, vector
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

a, z = symbol("a"), symbol("z")

_LIMITS = ("input_min", "input_max", "output_min", "output_max")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma4 and Gemma4UnifiedForConditionalGeneration for a config.json."""
    family = config["model_type"]
    is_unified = family == "gemma4_unified"
    fields = {**sub_config(config, "text_config"), "model_type": f"{family}_text"}
    text = text_layout({**fields, "tie_word_embeddings": is_tied_as_a_whole(config, True)})
    parts = [_inside(text)]
    symbols = dict(text.symbols)
    if config.get("vision_config") is not None:
        vision = sub_config(config, "vision_config")
        if is_unified:
            parts.append(_patches(vision))
        else:
            symbols |= tower_symbols(vision, 768, 16, 3072)
            parts.append(vision_tower(vision, "model"))
    if config.get("audio_config") is not None:
        audio = sub_config(config, "audio_config")
        if is_unified:
            parts.append(_waves(audio))
        else:
            symbols |= {
                "a": size(audio, "hidden_size", 1024),
                "z": layers(audio, "num_hidden_layers", 12),
            }
            parts.append(_audio(audio, symbols["a"]))
    return replace(
        text,
        family=family,
        tensors=tuple(tensor for tensors, _ in parts for tensor in tensors),
        buffers=tuple(buffer for _, buffers in parts for buffer in buffers),
        symbols=symbols,
        ties=tuple((head, _renamed(table)) for head, table in text.ties),
    )


_Part = tuple[list[Tensor], list[Tensor]]


def _renamed(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1)


def _inside(text: Layout) -> _Part:
    def moved(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        return [replace(each, name=_renamed(each.name)) for each in tensors]

    return moved(text.tensors), moved(text.buffers)


def _limits(maps: list[Tensor], has_limits: bool) -> list[Tensor]:
    """The buffers of linear maps that clip."""
    if not has_limits:
        return []
    ending = ".linear.weight"
    return [
        replace(each, name=f"{each.name.removesuffix(ending)}.{limit}", shape=(), role=Role.ONCE)
        for each in maps
        for limit in _LIMITS
    ]


def _patches(config: Mapping[str, Any]) -> _Part:
    """Gemma 4's unified model has a map of a picture's squares in the tower's place, with two norms."""
    name, width = "model.vision_embedder", size(config, "mm_embed_dim", 3840)
    side = size(config, "patch_size", 16) * size(config, "pooling_kernel_size", 3)
    pixels, outputs = 3 * side**2, size(config, "output_proj_dims", 3840)
    rows = size(config, "mm_posemb_size", 1120)
    return [
        *vector(f"{name}.patch_ln1", pixels),
        *matrix(f"{name}.patch_dense", (width, pixels)),
        *vector(f"{name}.patch_ln2", width),
        once(f"{name}.pos_embedding", (rows, 2, width)),
        *vector(f"{name}.pos_norm", width),
        once("model.embed_vision.embedding_projection.weight", (d, outputs)),
    ], []


def _waves(config: Mapping[str, Any]) -> _Part:
    """A sound's samples are projected as they are."""
    inputs = size(config, "output_proj_dims", size(config, "audio_embed_dim", 640))
    name = "model.embed_audio.embedding_projection.weight"
    return [once(name, (d, inputs), component=components.AUDIO)], []


def vision_tower(config: Mapping[str, Any], above: str) -> _Part:
    """The tower and the projection of what it puts out, both below ``above``, and its buffers."""
    tower = f"{above}.vision_tower"
    block = f"{tower}.encoder.layers.{{i}}"
    patch = size(config, "patch_size", 16)
    head = size(config, "head_dim", 64)
    queries = size(config, "num_attention_heads", 12) * head
    keys = size(config, "num_key_value_heads", 12) * head

    def linear(name: str, rows: Polynomial | int, columns: Polynomial | int) -> Tensor:
        return once(f"{block}.{name}.linear.weight", (rows, columns), repeat=Y)

    maps = [
        linear("self_attn.q_proj", queries, W),
        linear("self_attn.k_proj", keys, W),
        linear("self_attn.v_proj", keys, W),
        linear("self_attn.o_proj", W, queries),
        linear("mlp.gate_proj", F, W),
        linear("mlp.up_proj", F, W),
        linear("mlp.down_proj", W, F),
    ]
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    positions = size(config, "position_embedding_size", 10240)
    tensors = [
        once(f"{tower}.patch_embedder.position_embedding_table", (2, positions, W)),
        once(f"{tower}.patch_embedder.input_proj.weight", (W, 3 * patch**2)),
        *maps,
        *(once(f"{block}.self_attn.{n}_norm.weight", (head,), repeat=Y) for n in "qk"),
        *(once(f"{block}.{name}_layernorm.weight", (W,), repeat=Y) for name in norms),
        once(f"{above}.embed_vision.embedding_projection.weight", (d, W)),
    ]
    buffers = _limits(maps, flag(config, "use_clipped_linears", False))
    if flag(config, "standardize", False):
        buffers += [once(f"{tower}.std_{name}", (W,)) for name in ("bias", "scale")]
    return tensors, buffers


def _audio(config: Mapping[str, Any], width: int) -> _Part:
    tower = "model.audio_tower"
    block = f"{tower}.layers.{{i}}"
    first, second = sizes(config, "subsampling_conv_channels", (128, 32), 2)
    outputs = size(config, "output_proj_dims", 1536)
    heads = size(config, "num_attention_heads", 8)
    head = quotient(width, heads, "hidden_size", "num_attention_heads")
    queries = heads * head

    def part(
        name: str, *shape: Polynomial | int, role: Role = Role.ONCE, repeat: Polynomial = z
    ) -> Tensor:
        prefix = block if repeat == z else tower
        return once(f"{prefix}.{name}", shape, role, repeat, components.AUDIO)

    maps = [
        *(part(f"feed_forward{n}.ffw_layer_1.linear.weight", 4 * a, a) for n in (1, 2)),
        *(part(f"feed_forward{n}.ffw_layer_2.linear.weight", a, 4 * a) for n in (1, 2)),
        *(part(f"self_attn.{n}_proj.linear.weight", queries, a) for n in "qkv"),
        part("self_attn.post.linear.weight", a, a),
        part("lconv1d.linear_start.linear.weight", 2 * a, a),
        part("lconv1d.linear_end.linear.weight", a, a),
    ]
    norms = (
        *(f"feed_forward{n}.{kind}_layer_norm" for n in (1, 2) for kind in ("pre", "post")),
        *("lconv1d.pre_layer_norm", "lconv1d.conv_norm"),
        *("norm_pre_attn", "norm_post_attn", "norm_out"),
    )
    subsampling = "subsample_conv_projection"
    tensors = [
        part(f"{subsampling}.layer0.conv.weight", first, 1, 3, 3, repeat=ONE),
        part(f"{subsampling}.layer0.norm.weight", first, repeat=ONE),
        part(f"{subsampling}.layer1.conv.weight", second, first, 3, 3, repeat=ONE),
        part(f"{subsampling}.layer1.norm.weight", second, repeat=ONE),
        part(f"{subsampling}.input_proj_linear.weight", a, first // 4 * second, repeat=ONE),
        *maps,
        *(part(f"{name}.weight", a) for name in norms),
        part("self_attn.per_dim_scale", head),
        part("self_attn.relative_k_proj.weight", queries, a),
        part("lconv1d.depthwise_conv1d.weight", a, 1, size(config, "conv_kernel_size", 5)),
        part("output_proj.weight", outputs, a, repeat=ONE),
        part("output_proj.bias", outputs, role=Role.ADDED, repeat=ONE),
        once(
            "model.embed_audio.embedding_projection.weight",
            (d, outputs),
            component=components.AUDIO,
        ),
    ]
    return tensors, _limits(maps, flag(config, "use_clipped_linears", True))
