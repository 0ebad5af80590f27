"""Language models that see: a declared text model by its text_config, a tower, and a projector between.

LLaVA and its kin, PaliGemma, InternVL, Mistral 3, Idefics, Qwen-VL, GLM-V and others: `picture_models.py`
and `video_models.py` list them. Pictures are used once, not once a token; transformers 5 writes CLIP's and
SigLIP's towers without `vision_model.`.
"""

from __future__ import annotations

from minilm.architectures.config_fields import Config, is_version_4, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.picture_models import PICTURES
from minilm.architectures.task_heads import (
    class_name_of,
    is_body,
    undeclared_class,
    whole_or_body,
)
from minilm.architectures.towers import TOWERS, tower
from minilm.architectures.video_models import VIDEOS
from minilm.architectures.vision_tower import Part, in_numbers, projector
from minilm.ledger.layout import Layout

MODELS: dict[str, Model] = {**PICTURES, **VIDEOS}
# Their bodies, which are not declared, have names of their own in files.
_OTHER_BODIES = [
    "deepseek_ocr2",
    "hunyuan_vl",
    "hyperclovax_vision_v2",
    "paddleocr_vl",
    "unlimited_ocr",
]


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration, and of their bodies, for a config.json."""
    family = config["model_type"]
    model = MODELS[family]
    if family in _OTHER_BODIES and is_body(class_name_of(config)):
        raise undeclared_class(config)
    text = text_layout(config, model)
    vision = _vision_config(config, model)
    kind = str(vision.get("model_type") or model.vision)
    if f"{kind}_vision" in TOWERS:  # published files leave out the ending
        kind = f"{kind}_vision"
    vision = {**vision, "model_type": kind}
    part = tower(vision, _tower_name(config, model, kind), model.vision)
    if model.second_tower:
        second = tower(vision, model.second_tower, model.vision)
        part = part._replace(tensors=(*part.tensors, *second.tensors))
    others = (in_numbers(model.beside(config)),) if model.beside else ()
    between = projector(model.projector(config, vision, model.between))
    more = model.buffers(config, vision, model.between) if model.buffers else ()
    whole = joined(text, family, part, *others, Part(between, {}, more))
    return whole_or_body(whole, config, model.ending)


def _vision_config(config: Config, model: Model) -> Config:
    if config.get("vision_config") is None:
        return model.bare_vision
    return sub_config(config, "vision_config")


def _tower_name(config: Config, model: Model, kind: str) -> str:
    """Before transformers 5 CLIP's and SigLIP's towers were inside `vision_model`."""
    if is_version_4(config) and kind in ("clip_vision_model", "siglip_vision_model"):
        return f"{model.tower}.vision_model"
    return model.tower
