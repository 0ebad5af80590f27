"""Random small configs of vision transformers and of towers, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def vision(random: Random, **more: Any) -> Config:
    """The sizes of a vision transformer; ``more`` are drawn or left out."""
    heads = random.randint(1, 3)
    patch = random.randint(1, 4)
    return {
        "hidden_size": heads * 4 * random.randint(1, 3),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "patch_size": patch,
        "image_size": patch * random.randint(1, 4),
        **_maybe(
            random,
            intermediate_size=random.randint(1, 60),
            num_channels=random.randint(1, 4),
            **more,
        ),
    }


def _vit(random: Random) -> Config:
    return vision(random, qkv_bias=_flag(random), pooler_output_size=5) | labels(random)


def _beit(random: Random) -> Config:
    return labels(random) | vision(
        random,
        use_mask_token=_flag(random),
        use_absolute_position_embeddings=_flag(random),
        use_relative_position_bias=_flag(random),
        use_shared_relative_position_bias=_flag(random),
        layer_scale_init_value=random.choice([0.0, 0.1]),
        use_mean_pooling=_flag(random),
    )


def _dinov2(random: Random) -> Config:
    config = labels(random) | vision(
        random, qkv_bias=_flag(random), mlp_ratio=random.randint(1, 4), use_swiglu_ffn=_flag(random)
    )
    config.pop("intermediate_size", None)
    return config


def _dinov2_masked(random: Random) -> Config:
    return _dinov2(random) | _maybe(random, use_mask_token=_flag(random))


def _dinov2_with_registers(random: Random) -> Config:
    return _dinov2(random) | _maybe(random, num_register_tokens=random.randint(1, 5))


def _dinov3(random: Random) -> Config:
    names = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp")
    return vision(random, num_register_tokens=3, **{name: _flag(random) for name in names})


def text_tower(random: Random) -> Config:
    """The sizes of the tower over text."""
    heads = random.randint(1, 3)
    return {
        "hidden_size": heads * 4,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            intermediate_size=random.randint(1, 60),
            max_position_embeddings=random.randint(4, 20),
        ),
    }


def _clip(random: Random) -> Config:
    return {
        "text_config": text_tower(random),
        "vision_config": vision(random),
        **labels(random),
        **_maybe(random, projection_dim=7),
    }


def _siglip_vision(random: Random) -> Config:
    return vision(random, vision_use_head=_flag(random))


def _siglip(random: Random) -> Config:
    text = text_tower(random)
    text["projection_size"] = random.randint(1, 9)
    return {"text_config": text, "vision_config": _siglip_vision(random), **labels(random)}


def _siglip2_vision(random: Random) -> Config:
    config = _siglip_vision(random) | _maybe(random, num_patches=9)
    del config["image_size"]
    return config


def _siglip2(random: Random) -> Config:
    return _siglip(random) | {"vision_config": _siglip2_vision(random)}


def declare(model_type: str, start: str, classes: tuple[str, ...], draw: Draw) -> None:
    """Add a type to DRAWS."""
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


IMAGES = ("{}Model", "{}ForImageClassification")
PROJECTED = ("{}Model", "{}ModelWithProjection")
declare("beit", "Beit", IMAGES, _beit)
declare("clip", "CLIP", IMAGES, _clip)
declare("clip_text_model", "CLIPText", PROJECTED, text_tower)
declare("clip_vision_model", "CLIPVision", PROJECTED, vision)
declare("data2vec-vision", "Data2VecVision", IMAGES, _beit)
declare("deit", "DeiT", (*IMAGES, "{}ForImageClassificationWithTeacher"), _vit)
declare("dinov2", "Dinov2", IMAGES, _dinov2_masked)
declare("dinov2_with_registers", "Dinov2WithRegisters", IMAGES, _dinov2_with_registers)
declare("dinov3_vit", "DINOv3ViT", IMAGES[:1], _dinov3)
declare("ijepa", "IJepa", IMAGES, _vit)
declare("siglip", "Siglip", IMAGES, _siglip)
declare("siglip2", "Siglip2", IMAGES, _siglip2)
declare("siglip2_vision_model", "Siglip2Vision", IMAGES[:1], _siglip2_vision)
declare("siglip_text_model", "SiglipText", IMAGES[:1], text_tower)
declare("siglip_vision_model", "SiglipVision", IMAGES[:1], _siglip_vision)
declare("vit", "ViT", IMAGES, _vit)
