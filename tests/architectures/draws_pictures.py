"""Random small configs of classifiers of images with stages and their kin, and the declared classes."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels
from tests.architectures.draws_vision import _clip, _sam, _vit, outputs, text, text_tower, vision

DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}
IMAGES = "Model ForImageClassification"
MASKED = f"{IMAGES} ForMaskedImageModeling"


def _declare(model_type: str, start: str, classes: str, draw: Draw) -> None:
    DRAWS[model_type] = tuple(start + each for each in classes.split()), draw


def _numbers(random: Random, count: int, low: int, high: int) -> list[int]:
    return [random.randint(low, high) for _ in range(count)]


def _square(random: Random, side: int) -> Any:
    """One number for both sides, or two."""
    return side if _flag(random) else [side, side * random.randint(1, 2)]


def _doubling(random: Random, **more: Any) -> Config:
    """Stages of which each is twice as wide; ``more`` are drawn or left out."""
    count = random.randint(1, 4)
    patch = random.randint(1, 4)
    return {
        "embed_dim": 4 * random.randint(1, 4),
        "depths": _numbers(random, count, 1, 3),
        "image_size": _square(random, patch * random.randint(8, 12)),
        "patch_size": patch,
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            mlp_ratio=random.choice([1.0, 2.3, 3.0]),
            encoder_stride=random.randint(1, 8),
            **more,
        ),
    }


def _swin(random: Random) -> Config:
    config = _doubling(
        random,
        window_size=random.randint(1, 8),
        qkv_bias=_flag(random),
        use_absolute_embeddings=_flag(random),
    )
    heads = [random.choice([1, 2, 4]) for _ in config["depths"]]
    return config | {"num_heads": heads} | outputs(random, len(heads))


_declare("donut-swin", "DonutSwin", IMAGES, _swin)
_declare("swin", "Swin", f"{MASKED} Backbone", _swin)
_declare("swinv2", "Swinv2", f"{MASKED} Backbone", _swin)


def _pyramid(random: Random, reduced: str, **more: Any) -> Config:
    """Stages with widths of their own: a heads' multiple."""
    count = random.randint(1, 4)
    heads = _numbers(random, count, 1, 3)
    config: Config = {
        "num_encoder_blocks": count,
        "hidden_sizes": [4 * each * random.randint(1, 3) for each in heads],
        "num_attention_heads": heads,
        "depths": _numbers(random, count, 1, 3),
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            patch_sizes=_numbers(random, count, 1, 4),
            strides=_numbers(random, count, 1, 4),
            mlp_ratios=_numbers(random, count, 1, 4),
            **{reduced: _numbers(random, count, 1, 4)},
            **more,
        ),
    }
    if count > 1 and _flag(random):
        config["num_encoder_blocks"] -= 1  # the lists may be longer
    return config


def _segformer(random: Random) -> Config:
    return _pyramid(random, "sr_ratios", decoder_hidden_size=random.randint(1, 20))


def _pvt(random: Random) -> Config:
    return _pyramid(
        random,
        "sequence_reduction_ratios",
        image_size=random.randint(64, 80),
        num_labels=random.randint(1, 4),
        qkv_bias=_flag(random),
    )


def _pvt_v2(random: Random) -> Config:
    return _pyramid(random, "sr_ratios", qkv_bias=_flag(random), linear_attention=_flag(random))


def _poolformer(random: Random) -> Config:
    config = _pyramid(
        random,
        "pool_sizes",
        mlp_ratio=random.choice([1.0, 2.3, 3.0]),
        use_layer_scale=_flag(random),
    )
    for name in ("num_attention_heads", "mlp_ratios", "pool_sizes"):
        config.pop(name, None)
    return config


_declare("poolformer", "PoolFormer", IMAGES, _poolformer)
_declare("pvt", "Pvt", IMAGES, _pvt)
_declare("pvt_v2", "PvtV2", f"{IMAGES} Backbone", _pvt_v2)


def _segment(random: Random) -> Config:
    tower = _sam(random) | _maybe(random, num_pos_feats=5, mlp_ratio=1.5)
    heads = random.randint(1, 2)
    masks = {"num_attention_heads": heads, "hidden_size": 8 * heads} | _maybe(
        random,
        mlp_dim=7,
        num_hidden_layers=random.randint(1, 3),
        attention_downsample_rate=random.choice([1, 2, 4]),
        num_multimask_outputs=random.randint(1, 4),
        iou_head_depth=random.randint(1, 4),
        iou_head_hidden_dim=5,
    )
    prompts = _maybe(random, hidden_size=6, mask_input_channels=random.choice([4, 9]))
    prompts |= _maybe(random, num_point_embeddings=random.randint(1, 3))
    config: Config = {"vision_config": tower, "mask_decoder_config": masks}
    config |= {"prompt_encoder_config": prompts}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


_declare("sam", "Sam", "Model", _segment)
_declare("segformer", "Segformer", f"{IMAGES} ForSemanticSegmentation", _segformer)


def _hiera(random: Random) -> Config:
    config = _doubling(
        random,
        embed_dim_multiplier=random.choice([1.0, 1.5, 3.0]),
        patch_stride=[random.randint(1, 4), random.randint(1, 4)],
    )
    stages = len(config["depths"])
    pools = random.randint(0, stages - 1)
    config |= {
        "image_size": [random.randint(64, 70), random.randint(64, 70)],
        "patch_size": [random.randint(1, 7), random.randint(1, 7)],
        "num_heads": [random.choice([1, 2, 4]) for _ in range(stages)],
        "num_query_pool": pools,
        "decoder_hidden_size": 12,
        "decoder_num_heads": 2,
        "decoder_depth": random.randint(1, 3),
        "masked_unit_attention": [_flag(random) for _ in range(stages)],
    }
    if config.get("embed_dim_multiplier") == 1.5:
        config["embed_dim"] = 8 * 4
    config |= _maybe(random, masked_unit_size=[8, 16])
    return config | outputs(random, stages)


def _imagegpt(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "n_embd": 4 * heads,
        "n_head": heads,
        "n_layer": random.randint(1, 3),
        **labels(random),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            n_positions=random.randint(4, 20),
            n_inner=random.choice([None, 7]),
            tie_word_embeddings=_flag(random),
        ),
    }


_declare("hiera", "Hiera", f"{IMAGES} ForPreTraining Backbone", _hiera)
_declare("imagegpt", "ImageGPT", f"{IMAGES} ForCausalImageModeling", _imagegpt)
_declare("metaclip_2", "MetaClip2", IMAGES, _clip)
_declare("metaclip_2_text_model", "MetaClip2Text", "Model ModelWithProjection", text_tower)
_declare("metaclip_2_vision_model", "MetaClip2Vision", "Model ModelWithProjection", vision)
_declare("vit_msn", "ViTMSN", IMAGES, _vit)


def _levit(random: Random) -> Config:
    patch = random.randint(1, 4)
    widths = [8 * random.randint(1, 4) for _ in range(3)]
    return {
        "image_size": patch * random.randint(1, 6),
        "patch_size": patch,
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            kernel_size=random.randint(1, 4),
            hidden_sizes=[16 * width for width in widths],
            num_attention_heads=_numbers(random, 3, 1, 4),
            depths=_numbers(random, 3, 1, 3),
            key_dim=_numbers(random, 3, 1, 16),
            mlp_ratio=_numbers(random, 3, 1, 3),
            attention_ratio=_numbers(random, 3, 1, 3),
        ),
    }


def _cvt(random: Random) -> Config:
    count = random.randint(1, 3)
    heads = _numbers(random, count, 1, 3)
    flags = [[_flag(random) for _ in range(count)] for _ in range(2)]
    return {
        "embed_dim": [4 * each * random.randint(1, 3) for each in heads],
        "num_heads": heads,
        "depth": [random.randint(stage + 1, 4) for stage in range(count)],  # or it is not built
        "drop_path_rate": [0.0] * count,
        "cls_token": flags[0],
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            patch_sizes=_numbers(random, count, 1, 4),
            kernel_qkv=_numbers(random, count, 1, 4),
            mlp_ratio=[random.choice([1.0, 2.3, 3.0]) for _ in range(count)],
            qkv_bias=flags[1],
            qkv_projection_method=[random.choice(["avg", "dw_bn"]) for _ in range(count)],
        ),
    }


def _swiftformer(random: Random) -> Config:
    count = random.randint(2, 4)
    width = 2 * random.randint(1, 9)
    widths = [width if _flag(random) else 2 * random.randint(1, 9) for _ in range(count)]
    return {
        "embed_dims": widths,
        "depths": _numbers(random, count, 1, 3),
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            down_patch_size=_square(random, random.randint(1, 4)),
            downsamples=[_flag(random) for _ in range(count)],
            mlp_ratio=random.randint(1, 3),
            use_layer_scale=_flag(random),
        ),
    }


_declare("cvt", "Cvt", IMAGES, _cvt)
_declare("levit", "Levit", f"{IMAGES} ForImageClassificationWithTeacher", _levit)
_declare("swiftformer", "SwiftFormer", IMAGES, _swiftformer)


def _focalnet(random: Random) -> Config:
    flags = (
        "use_conv_embed",
        "use_layerscale",
        "use_post_layernorm",
        "use_post_layernorm_in_modulation",
        "normalize_modulator",
    )
    config = _doubling(random, **{name: _flag(random) for name in flags})
    count = len(config["depths"])
    return config | _maybe(
        random,
        focal_levels=_numbers(random, count, 1, 3),
        focal_windows=_numbers(random, count, 1, 5),
    )


def _dinat(random: Random) -> Config:
    config = _doubling(
        random,
        qkv_bias=_flag(random),
        kernel_size=random.choice([3, 5]),
        layer_scale_init_value=random.choice([0.0, 0.1]),
    )
    for name in ("image_size", "patch_size", "encoder_stride"):
        config.pop(name, None)
    heads = [random.choice([1, 2, 4]) for _ in config["depths"]]
    return config | {"num_heads": heads, "dilations": [[1] * depth for depth in config["depths"]]}


_declare("dinat", "Dinat", IMAGES, _dinat)
_declare("focalnet", "FocalNet", MASKED, _focalnet)


def _perceiver(random: Random) -> Config:
    width = 8 * random.randint(1, 3)
    return {
        "d_latents": width,
        "d_model": 8 * random.randint(1, 3),
        "num_self_attends_per_block": random.randint(1, 3),
        "num_self_attention_heads": random.choice([1, 2, 4]),
        "num_cross_attention_heads": 1,
        **labels(random),
        **_maybe(
            random,
            num_latents=random.randint(1, 9),
            vocab_size=random.randint(3, 90),
            max_position_embeddings=random.randint(4, 20),
            image_size=random.randint(4, 9),
            qk_channels=8,
            v_channels=width,
            cross_attention_widening_factor=random.randint(1, 3),
            self_attention_widening_factor=random.randint(1, 3),
            cross_attention_shape_for_attention=random.choice(["q", "kv"]),
        ),
    }


_declare(
    "perceiver",
    "Perceiver",
    "ForMaskedLM Model ForSequenceClassification ForImageClassificationLearned "
    "ForImageClassificationFourier ForImageClassificationConvProcessing",
    _perceiver,
)


def _shieldgemma(random: Random) -> Config:
    tower = vision(random, vision_use_head=_flag(random)) | {"intermediate_size": 7}
    own = text(random) | {"head_dim": 8} | _maybe(random, tie_word_embeddings=_flag(random))
    config = {"text_config": own, "vision_config": tower}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


_declare("shieldgemma2", "ShieldGemma2", "ForImageClassification", _shieldgemma)
