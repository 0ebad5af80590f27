"""Step-3.7 Flash whole: the language model of `step3p5.py`, a tower, and convolutions to fewer places.

Names, shapes and defaults: huggingface/transformers `models/step3p7`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import (
    Config,
    flag,
    layers,
    quotient,
    scaled_size,
    size,
    sub_config,
    with_fields_of,
)
from minilm.architectures.joint_text import is_tied_as_a_whole, joined
from minilm.architectures.step3p5 import layout as text_layout
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
    without_bias,
)
from minilm.ledger.layout import Layout, Role, Tensors

_NAME = "vision_model"
_HUB_FIELDS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}


def layout(config: Config) -> Layout:
    """The tensors of Step3p7ForConditionalGeneration for a config.json."""
    # Whatever type it says: published files have those of remote code.
    own = {**sub_config(config, "text_config"), "model_type": "step3p5"}
    text = text_layout({**own, "tie_word_embeddings": is_tied_as_a_whole(config, False)})
    vision = with_fields_of(sub_config(config, "vision_config"), _HUB_FIELDS)
    width = size(vision, "hidden_size", 1536)
    patch = size(vision, "patch_size", 14)
    side = quotient(size(vision, "image_size", 728), patch, "image_size", "patch_size")
    symbols = {
        "W": width,
        "Y": layers(vision, "num_hidden_layers", 47),
        "F": scaled_size(vision, "mlp_ratio", 8960 / 1536, width),
        "P": side**2,
    }
    between = matrix("vit_large_projector", (d, 4 * W), bias=flag(config, "projector_bias", False))
    tower = Part(_tower(size(vision, "num_channels", 3), patch), symbols)
    return joined(text, "step3p7", tower, Part(projector(between)))


def _tower(channels: int, patch: int) -> Tensors:
    block = f"{_NAME}.transformer.resblocks.{{i}}"
    return (
        without_bias(f"{_NAME}.conv1", W, channels, patch, patch),
        once(f"{_NAME}.positional_embedding", (P, W)),
        *vector(f"{_NAME}.ln_pre", W),
        *vector(f"{block}.ln_1", W, Y),
        once(f"{block}.attn.in_proj_weight", (3 * W, W), repeat=Y),
        once(f"{block}.attn.in_proj_bias", (3 * W,), Role.ADDED, Y),
        *matrix(f"{block}.attn.out_proj", (W, W), Y),
        once(f"{block}.ls_1.gamma", (W,), Role.SCALED, Y),
        *vector(f"{block}.ln_2", W, Y),
        *matrix(f"{block}.mlp.c_fc", (F, W), Y),
        *matrix(f"{block}.mlp.c_proj", (W, F), Y),
        once(f"{block}.ls_2.gamma", (W,), Role.SCALED, Y),
        *matrix(f"{_NAME}.vit_downsampler1", (2 * W, W, 3, 3)),
        *matrix(f"{_NAME}.vit_downsampler2", (4 * W, 2 * W, 3, 3)),
    )
