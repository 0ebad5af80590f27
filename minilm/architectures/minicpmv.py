"""MiniCPM-V 2.6 of remote code: Qwen2, SigLIP, and a resampler, whose queries attend to the picture.

Other versions have the same type, and other language models. The tower is used once a picture. Names, shapes
and defaults: openbmb/MiniCPM-V-2_6 `modeling_minicpmv.py`, `configuration_minicpm.py` and `resampler.py`.
"""

from __future__ import annotations

from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, flag, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import UndeclaredClassError, class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    Part,
    W,
    matrix,
    once,
    projector,
    siglip_part,
    vector,
    without_bias,
)
from minilm.ledger.layout import Layout, Role, Tensors

_MODEL = Model(
    "qwen2",
    "",
    lambda config, vision, name: (),
    inside="llm.",
    has_text_beside=True,
    own_ties=True,
)
_SIGLIP = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


def layout(config: Config) -> Layout:
    """The tensors of MiniCPMV for a config.json."""
    name = class_name_of(config)
    if name and name != "MiniCPMV":
        raise undeclared_class(config)
    if str(config.get("version")) != "2.6":
        raise UndeclaredClassError("config.json: version", shortened(config.get("version")), "2.6")
    text = text_layout(config, _MODEL)
    vision = sub_config(config, "vision_config", bare=_SIGLIP)
    depth = layers(vision, "num_hidden_layers", 12)
    if flag(config, "drop_vision_last_layer", True):
        depth = layers({"num_hidden_layers": depth - 1}, "num_hidden_layers")
    tower = siglip_part({**vision, "num_hidden_layers": depth}, "vpm", patch=16)
    queries, own = size(config, "query_num", 64), text.symbols["d"]
    maps = _resampler("resampler", queries, has_map=tower.symbols["W"] != own)
    return joined(text, config["model_type"], tower, Part(projector(maps)))


def _resampler(name: str, queries: int, *, has_map: bool) -> Tensors:
    attention = f"{name}.attn"
    return (
        once(f"{name}.query", (queries, d)),
        *((without_bias(f"{name}.kv_proj", d, W),) if has_map else ()),
        once(f"{attention}.in_proj_weight", (3 * d, d)),
        once(f"{attention}.in_proj_bias", (3 * d,), Role.ADDED),
        *matrix(f"{attention}.out_proj", (d, d)),
        *(t for each in ("ln_q", "ln_kv", "ln_post") for t in vector(f"{name}.{each}", d)),
        once(f"{name}.proj", (d, d)),
    )
