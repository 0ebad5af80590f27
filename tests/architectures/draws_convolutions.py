"""Random small configs of convolutional networks, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels
from tests.architectures.draws_vision import outputs, vision

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def _declare(
    model_type: str, start: str, classes: str, draw: Draw, head: str = "ForImageClassification"
) -> None:
    endings = (head, *classes.split())
    DRAWS[model_type] = tuple(start + ending for ending in endings), draw


def _stages(random: Random, step: int = 4, **more: Any) -> Config:
    """Widths in multiples of ``step`` and depths of some stages; ``more`` are drawn or left out."""
    count = random.randint(1, 4)
    return {
        "hidden_sizes": [step * random.randint(1, 4) for _ in range(count)],
        "depths": [random.randint(1, 3) for _ in range(count)],
        **labels(random),
        **_maybe(random, num_channels=random.randint(1, 4), **more),
    }


def _resnet(random: Random) -> Config:
    return _stages(
        random,
        embedding_size=4 * random.randint(1, 4),
        layer_type=random.choice(["basic", "bottleneck"]),
        downsample_in_first_stage=_flag(random),
        downsample_in_bottleneck=_flag(random),
    )


def _regnet(random: Random) -> Config:
    return _stages(
        random,
        embedding_size=4 * random.randint(1, 4),
        layer_type=random.choice(["x", "y"]),
        downsample_in_first_stage=_flag(random),
        groups_width=random.choice([2, 4]),
    )


def _bit(random: Random) -> Config:
    more = {
        "layer_type": random.choice(["preactivation", "bottleneck"]),
        "width_factor": random.randint(1, 2),
        "global_padding": "same",
    }
    return _stages(random, 8, embedding_size=8 * random.randint(1, 3), **more) | {"num_groups": 2}


def _convnext(random: Random) -> Config:
    patch = random.choice([2, [2, 3]])
    config = _stages(random, 2, patch_size=patch, layer_scale_init_value=random.choice([0.0, 0.1]))
    count = len(config["depths"])
    return config | {"num_stages": count} | outputs(random, count)


_declare("bit", "Bit", "Model Backbone", _bit)
_declare("convnext", "ConvNext", "Model Backbone", _convnext)
_declare("convnextv2", "ConvNextV2", "Model Backbone", _convnext)
_declare("regnet", "RegNet", "Model", _regnet)
_declare("resnet", "ResNet", "Model Backbone", _resnet)


def _mobilenet(random: Random, **more: Any) -> Config:
    return labels(random) | _maybe(
        random,
        num_channels=random.randint(1, 4),
        depth_multiplier=random.choice([0.1, 0.25, 0.35, 1.0, 1.4]),
        min_depth=random.choice([3, 8, 16]),
        **more,
    )


def _mobilenet_v2(random: Random) -> Config:
    return _mobilenet(
        random,
        depth_divisible_by=random.choice([4, 8]),
        expand_ratio=random.choice([1.0, 2.5, 6.0]),
        first_layer_is_expansion=_flag(random),
        finegrained_output=_flag(random),
    )


def _efficientnet(random: Random) -> Config:
    count = random.randint(1, 7)

    def sizes(low: int, high: int) -> list[int]:
        return [random.randint(low, high) for _ in range(count)]

    lists = {
        "in_channels": sizes(4, 20),
        "out_channels": sizes(4, 20),
        "kernel_sizes": sizes(1, 5),
        "strides": sizes(1, 2),
        "num_block_repeats": sizes(1, 3),
        "expand_ratios": sizes(1, 3),
    }
    return {
        **(lists if _flag(random) else {}),
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            width_coefficient=random.choice([0.3, 1.0, 1.1]),
            depth_coefficient=random.choice([0.5, 1.0, 1.2]),
            depth_divisor=random.choice([4, 8]),
            squeeze_expansion_ratio=random.choice([0.01, 0.3]),
            hidden_dim=random.randint(1, 50),
        ),
    }


def _mobilevit(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_sizes": [heads * random.randint(1, 5) for _ in range(3)],
        "num_attention_heads": heads,
        **labels(random),
        **_maybe(
            random,
            num_channels=random.randint(1, 4),
            neck_hidden_sizes=[random.randint(1, 20) for _ in range(7)],
            mlp_ratio=random.choice([1.0, 2.5]),
            expand_ratio=random.choice([1.0, 2.5]),
            conv_kernel_size=random.choice([1, 5]),
            qkv_bias=_flag(random),
            aspp_out_channels=random.randint(1, 9),
            output_stride=random.choice([8, 16]),
        ),
    }


def _mobilevitv2(random: Random) -> Config:
    return labels(random) | _maybe(
        random,
        num_channels=random.randint(1, 4),
        width_multiplier=random.choice([0.2, 0.5, 0.75, 2.0, 2.3]),
        expand_ratio=random.choice([1.0, 2.5]),
        conv_kernel_size=random.choice([1, 5]),
        n_attn_blocks=[random.randint(1, 3) for _ in range(3)],
        base_attn_unit_dims=[random.randint(8, 40) for _ in range(3)],
        ffn_multiplier=random.randint(2, 4),
        aspp_out_channels=random.randint(1, 9),
    )


def _hgnet(random: Random) -> Config:
    count = random.randint(1, 3)

    def sizes(low: int, high: int) -> list[int]:
        return [random.randint(low, high) for _ in range(count)]

    stages = {
        "stage_in_channels": sizes(2, 9),
        "stage_mid_channels": sizes(2, 9),
        "stage_out_channels": sizes(2, 9),
        "stage_num_blocks": sizes(1, 3),
        "stage_downsample": [_flag(random) for _ in range(count)],
        "stage_light_block": [_flag(random) for _ in range(count)],
        "stage_kernel_size": sizes(1, 5),
        "stage_numb_of_layers": sizes(1, 3),
    }
    return {
        **(stages if random.random() < 0.8 else {}),
        **labels(random),
        **_maybe(
            random,
            stem_channels=[random.randint(1, 3), 2 * random.randint(1, 5), random.randint(1, 9)],
            hidden_sizes=[8, random.randint(1, 9)],
            use_learnable_affine_block=_flag(random),
        ),
    }


def _pp_lcnet(random: Random) -> Config:
    def block() -> list[Any]:
        side, inputs, outputs = (random.randint(1, high) for high in (5, 30, 30))
        return [side, inputs, outputs, random.randint(1, 2), _flag(random)]

    return labels(random) | _maybe(
        random,
        scale=random.choice([0.25, 0.5, 1.5]),
        block_configs=[[block() for _ in range(random.randint(1, 3))] for _ in range(5)],
        stem_channels=random.randint(1, 20),
        reduction=random.randint(1, 4),
        class_expand=random.randint(1, 30),
        divisor=random.choice([4, 8]),
    )


def _textnet(random: Random) -> Config:
    numbers = [random.randint(1, 3) for _ in range(4)]
    stages = {
        "conv_layer_kernel_sizes": [
            [[random.choice([1, 3]), random.choice([1, 3])] for _ in range(n)] for n in numbers
        ],
        "conv_layer_strides": [[random.randint(1, 2) for _ in range(n)] for n in numbers],
    }
    return {
        **(stages if random.random() < 0.7 else {}),
        **labels(random),
        **_maybe(
            random,
            hidden_sizes=[random.randint(1, 3) for _ in range(5)],
            stem_kernel_size=random.choice([1, 5]),
            stem_num_channels=random.randint(1, 4),
            stem_out_channels=random.randint(1, 9),
        ),
    }


_declare("efficientnet", "EfficientNet", "Model", _efficientnet)
_declare("hgnet_v2", "HGNetV2", "Backbone", _hgnet)
_declare("mobilenet_v1", "MobileNetV1", "Model", _mobilenet)
_declare("mobilenet_v2", "MobileNetV2", "Model ForSemanticSegmentation", _mobilenet_v2)
_declare("mobilevit", "MobileViT", "Model ForSemanticSegmentation", _mobilevit)
_declare("mobilevitv2", "MobileViTV2", "Model ForSemanticSegmentation", _mobilevitv2)
_declare("pp_lcnet", "PPLCNet", "Backbone", _pp_lcnet)
_declare("textnet", "TextNet", "Model Backbone", _textnet)


def _detr(random: Random) -> Config:
    network = _resnet(random)
    count = random.randint(3, 4)
    network |= {"hidden_sizes": [4 * random.randint(1, 4) for _ in range(count)]}
    network |= {"depths": [random.randint(1, 2) for _ in range(count)]}
    network |= {"out_indices": list(range(random.randint(0, count - 2), count + 1))}
    network.pop("id2label", None)
    return {
        "backbone_config": {"model_type": "resnet", **network},
        "use_timm_backbone": False,
        **labels(random),
        **_maybe(
            random,
            d_model=128,  # group norms over its sixteenth
            num_queries=random.randint(1, 9),
            encoder_layers=random.randint(1, 3),
            decoder_layers=random.randint(1, 3),
            encoder_ffn_dim=random.randint(1, 50),
            decoder_ffn_dim=random.randint(1, 50),
            encoder_attention_heads=8,
            position_embedding_type=random.choice(["sine", "learned"]),
        ),
    }


def _yolos(random: Random) -> Config:
    config = vision(random, qkv_bias=_flag(random), use_mid_position_embeddings=_flag(random))
    patch = config["patch_size"]
    config["image_size"] = [patch * random.randint(1, 4) + random.randint(0, 2) for _ in range(2)]
    return config | labels(random) | _maybe(random, num_detection_tokens=random.randint(1, 9))


def _rt_detr(random: Random) -> Config:
    network = _resnet(random)
    network.pop("id2label", None)
    count = random.randint(2, 4)
    network |= {"hidden_sizes": [4 * random.randint(1, 4) for _ in range(count)]}
    network |= {"depths": [random.randint(1, 2) for _ in range(count)]}
    network |= {"out_indices": list(range(random.randint(1, count), count + 1))}
    network |= {"embedding_size": 4 * random.randint(1, 4)}
    heads, maps = random.randint(1, 2), random.randint(1, 3)
    return {
        "backbone_config": {"model_type": "rt_detr_resnet", **network},
        "encoder_hidden_dim": 4 * heads,
        "encoder_attention_heads": heads,
        "d_model": 8 * heads,
        "decoder_attention_heads": heads,
        "decoder_in_channels": [random.randint(1, 9) for _ in range(maps)],
        "num_feature_levels": random.randint(maps, 4),
        **labels(random),
        **_maybe(
            random,
            encoder_in_channels=[1] * random.randint(1, 4),
            encode_proj_layers=list(range(random.randint(1, 2))),
            freeze_backbone_batch_norms=_flag(random),
            encoder_layers=random.randint(1, 3),
            encoder_ffn_dim=random.randint(1, 50),
            hidden_expansion=random.choice([0.5, 1.0]),
            num_queries=random.randint(1, 9),
            decoder_ffn_dim=random.randint(1, 50),
            decoder_n_points=random.randint(1, 3),
            decoder_layers=random.randint(1, 3),
            num_denoising=random.choice([0, 5]),
            learn_initial_query=_flag(random),
        ),
    }


_FINDS = "ForObjectDetection"
_declare("detr", "Detr", "Model ForSegmentation", _detr, _FINDS)
_declare("rt_detr", "RTDetr", "Model", _rt_detr, _FINDS)
_declare("table-transformer", "TableTransformer", "Model", _detr, _FINDS)
_declare("yolos", "Yolos", "Model", _yolos, _FINDS)
