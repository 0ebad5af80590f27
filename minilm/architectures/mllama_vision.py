"""Llama 3.2 Vision whole: the language model of `multimodal_text.py`, a tower over tiles, and a projection.

Pictures are used once, not once a token. Names, shapes and defaults: huggingface/transformers
`models/mllama`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, layers, listed, sides, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import whole_or_body
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    matrix,
    once,
    projector,
    vector,
    vision_symbols,
    without_bias,
)
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, symbol

z = symbol("z")  # global layers
_MODEL = Model(
    "mllama_text_model",
    "",
    lambda config, vision, name: (),
    inside="language_model.",
    own_ties=True,
)


def layout(config: Config) -> Layout:
    """The tensors of MllamaForConditionalGeneration, and of its body, for a config.json."""
    vision = sub_config(config, "vision_config")
    symbols = vision_symbols(vision, width=1280, depth=32, inner=5120, image=448, patch=14)
    symbols["z"] = layers(vision, "num_global_layers", 8)
    outputs = size(vision, "vision_output_dim", 7680)
    between = projector(matrix("multi_modal_projector", (d, outputs)))
    seen = size(vision, "max_num_tiles", 4) * (symbols["P"] + 1)
    text = _with_picture(text_layout(config, _MODEL), seen)
    whole = joined(text, "mllama", Part((*_tower(vision), *between), symbols))
    return whole_or_body(whole, config)


def _with_picture(text: Layout, entries: int) -> Layout:
    """With the keys and values of a picture of all tiles in the layers with cross-attention."""
    matrices = {
        part: tensor
        for tensor in text.tensors
        for part in "qko"
        if tensor.name.endswith(f"cross_attn.{part}_proj.weight")
    }
    if not matrices:
        return text
    query, key = matrices["q"], matrices["k"]
    width, cache = query.shape[0], 2 * key.shape[0]
    of_tokens = (query, matrices["o"])
    tensors = (replace(t, role=Role.MULTIPLIED) if t in of_tokens else t for t in text.tensors)
    spec = AttentionSpec(query.repeat, cache, width, width, fixed=entries)
    return replace(text, tensors=tuple(tensors), attention=(*text.attention, spec))


def _tower(config: Config) -> tuple[Tensor, ...]:
    name, patch = "vision_model", size(config, "patch_size", 14)
    tiles = size(config, "max_num_tiles", 4)
    field = "supported_aspect_ratios"
    rows = len([sides({field: pair}, field, 1) for pair in listed(config, field, [1] * 8)]) + 1
    positions = f"{name}.gated_positional_embedding"
    pictures = size(config, "num_channels", 3)
    return (
        once(f"{name}.class_embedding", (W,)),
        without_bias(f"{name}.patch_embedding", W, pictures, patch, patch),
        once(f"{positions}.gate", (1,), Role.SCALED),
        once(f"{positions}.embedding", (P + 1, W)),
        without_bias(f"{positions}.tile_embedding", rows, tiles * (P + 1) * W),
        *(
            tensor
            for where in ("pre", "post")
            for tensor in (
                once(f"{name}.{where}_tile_positional_embedding.gate", (1,), Role.SCALED),
                without_bias(
                    f"{name}.{where}_tile_positional_embedding.embedding", rows, tiles * W
                ),
            )
        ),
        *vector(f"{name}.layernorm_pre", W),
        *vector(f"{name}.layernorm_post", W),
        *_layers(f"{name}.transformer.layers.{{i}}", Y),
        *_layers(f"{name}.global_transformer.layers.{{i}}", z),
        *(
            once(f"{name}.global_transformer.layers.{{i}}.gate_{part}", (1,), Role.SCALED, z)
            for part in ("attn", "ffn")
        ),
    )


def _layers(block: str, repeat: Polynomial) -> tuple[Tensor, ...]:
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return (
        *(without_bias(f"{block}.self_attn.{name}", W, W, repeat=repeat) for name in names),
        *vector(f"{block}.input_layernorm", W, repeat),
        *matrix(f"{block}.mlp.fc1", (F, W), repeat),
        *matrix(f"{block}.mlp.fc2", (W, F), repeat),
        *vector(f"{block}.post_attention_layernorm", W, repeat),
    )
