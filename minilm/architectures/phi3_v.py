"""Phi-3-vision and Phi-3.5-vision of remote code: Phi-3, CLIP's ViT-L/14 over 336 pixels, and a projection.

The tower is used once a picture. Names, shapes and defaults: microsoft/Phi-3.5-vision-instruct
`modeling_phi3_v.py` and, of the tower and projection, microsoft/Phi-3CookBook
`code/06.E2E/phi3imageembedding.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, choice, flag, size
from minilm.architectures.joint_text import joined
from minilm.architectures.phi3 import layout as text_layout
from minilm.architectures.task_heads import (
    CAUSAL,
    UndeclaredClassError,
    class_name_of,
    undeclared_class,
)
from minilm.architectures.vision_tower import Part, clip_tower, matrix, once, projector
from minilm.ledger.layout import Layout, Tensors

_CLIP = "openai/clip-vit-large-patch14-336"
_CLIP_SIZES = {"W": 1024, "Y": 24, "F": 4096, "P": 24**2}
_EMBED = "model.vision_embed_tokens"


def layout(config: Config) -> Layout:
    """The tensors of Phi3VForCausalLM for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(CAUSAL):
        raise undeclared_class(config)
    text = text_layout({**config, "head_dim": None})
    embedding, processor = config.get("embd_layer"), config.get("img_processor")
    if not isinstance(embedding, Mapping):
        return text
    kind = processor.get("model_name") if isinstance(processor, Mapping) else processor
    if not isinstance(processor, Mapping) or kind != _CLIP:
        raise UndeclaredClassError("config.json: img_processor", shortened(kind), _CLIP)
    tower = clip_tower(f"{_EMBED}.img_processor.vision_model", channels=3, patch=14)
    between = projector(_projection(embedding, size(processor, "image_dim_out", 1024)))
    whole = joined(text, config["model_type"], Part(tower, _CLIP_SIZES), Part(between))
    # The projection's module has the text's table too.
    return replace(whole, ignored=(*whole.ignored, f"{_EMBED}.wte.weight"))


def _projection(config: Config, width: int) -> Tensors:
    """Of four patches that are one, with a gain at the ends of lines, or of each by itself."""
    merges = flag(config, "use_hd_transform", False)
    inputs, maps = 4 * width if merges else width, f"{_EMBED}.img_projection"
    ends = (once(f"{_EMBED}.glb_GN", (1, 1, inputs)), once(f"{_EMBED}.sub_GN", (1, 1, 1, inputs)))
    if choice(config, "projection_cls", "linear", ("linear", "mlp")) == "linear":
        return (*(ends if merges else ()), *matrix(maps, (d, width)))
    return (
        *(ends if merges else ()),
        *matrix(f"{maps}.0", (d, inputs)),
        *matrix(f"{maps}.2", (d, d)),
    )
