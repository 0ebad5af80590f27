"""Published convolutional networks, with 1,000 classes, counted from their config.json alone.

The counts are torchvision's, in the `num_params` of its weights, which transformers' models have too; that of
MobileNet 1 is Keras's of its trainable parameters. Of facebook/detr-resnet-50 the Hub counts buffers, too.
"""

from __future__ import annotations

from typing import Any

import pytest

from minilm.architectures import layout_of_class

_BASIC = {"model_type": "resnet", "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
_DEEP = {"model_type": "convnext", "depths": [3, 3, 27, 3]}
# name: the start of the class, config.json, parameters
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("ResNet", {**_BASIC, "depths": [2, 2, 2, 2]}, 11_689_512),
    "resnet34": ("ResNet", {**_BASIC, "depths": [3, 4, 6, 3]}, 21_797_672),
    "resnet50": ("ResNet", {"model_type": "resnet"}, 25_557_032),
    "resnet101": ("ResNet", {"model_type": "resnet", "depths": [3, 4, 23, 3]}, 44_549_160),
    "resnet152": ("ResNet", {"model_type": "resnet", "depths": [3, 8, 36, 3]}, 60_192_808),
    "convnext_tiny": ("ConvNext", {"model_type": "convnext"}, 28_589_128),
    "convnext_small": ("ConvNext", _DEEP, 50_223_688),
    "convnext_base": (
        "ConvNext",
        {**_DEEP, "hidden_sizes": [128, 256, 512, 1024]},
        88_591_464,
    ),
    "convnext_large": (
        "ConvNext",
        {**_DEEP, "hidden_sizes": [192, 384, 768, 1536]},
        197_767_336,
    ),
    "mobilenet": ("MobileNetV1", {"model_type": "mobilenet_v1"}, 4_231_976),
    "mobilenet_v2": ("MobileNetV2", {"model_type": "mobilenet_v2"}, 3_504_872),
    "efficientnet_b0": (
        "EfficientNet",
        {
            "model_type": "efficientnet",
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "hidden_dim": 1280,
        },
        5_288_548,
    ),
    "efficientnet_b7": ("EfficientNet", {"model_type": "efficientnet"}, 66_347_960),
    "regnet_y_400mf": (
        "RegNet",
        {
            "model_type": "regnet",
            "hidden_sizes": [48, 104, 208, 440],
            "depths": [1, 3, 6, 6],
            "groups_width": 8,
        },
        4_344_144,
    ),
    "regnet_x_400mf": (
        "RegNet",
        {
            "model_type": "regnet",
            "layer_type": "x",
            "hidden_sizes": [32, 64, 160, 400],
            "depths": [1, 2, 7, 12],
            "groups_width": 16,
        },
        5_495_976,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_count(name: str) -> None:
    start, config, count = PUBLISHED[name]
    named = {"architectures": [f"{start}ForImageClassification"]}
    labels = {"id2label": {str(number): f"{number}" for number in range(1000)}}
    layout = layout_of_class(config | named | labels)
    assert layout is not None
    assert layout.count() == count


def test_the_published_count_of_detr() -> None:
    """Its network is under timm's names, as a detector of 91 classes and none."""
    labels = {"id2label": {str(number): f"{number}" for number in range(91)}}
    config = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], **labels}
    layout = layout_of_class(config)
    assert layout is not None
    kept = sum(tensor.count for tensor in layout.named_tensors(layout.buffers))
    assert (layout.count(), layout.count() + kept) == (41_524_768, 41_631_008)
    names = {tensor.name for tensor in layout.named_tensors()}
    assert "model.backbone.conv_encoder.model.layer4.0.downsample.0.weight" in names
