"""Convolutional networks: what is no parameter of them, what is not told, and fields that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of, layout_of_class
from minilm.errors import ConfigError


def test_running_statistics_are_buffers_and_no_flops_are_told(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "resnet"}), encoding="utf-8")
    report = minilm.inspect(path)
    layout = layout_of({"model_type": "resnet"})
    counts = {t.name.rpartition(".")[2]: 0 for t in layout.buffers}
    for tensor in layout.named_tensors(layout.buffers):
        counts[tensor.name.rpartition(".")[2]] += tensor.count
    # 53 batch norms over 26,560 channels in all.
    assert counts == {"running_mean": 26560, "running_var": 26560, "num_batches_tracked": 53}
    assert report.parameters.total == 23_508_032  # resnet50 without its classifier
    assert report.flops is None


def test_the_formula_is_over_the_layers_of_each_stage() -> None:
    layout = layout_of({"model_type": "convnext"})
    assert layout.formula().symbolic == ("79296*L1 + 306048*L2 + 1201920*L3 + 4763136*L4 + 1557408")
    assert layout.symbols == {"L1": 3, "L2": 3, "L3": 9, "L4": 3}


def test_the_network_under_a_detector() -> None:
    """As older fields name it: of transformers with one map, of timm as deep as its last map; or unknown."""
    plain = layout_of({"model_type": "detr", "use_timm_backbone": False})
    short = {
        "use_timm_backbone": True,
        "backbone": "resnet18",
        "backbone_kwargs": {"out_indices": [1, 3]},
    }
    timm = layout_of({"model_type": "detr", **short})
    prefix = "backbone.conv_encoder.model"
    named = [{t.name: t.shape for t in each.named_tensors()} for each in (plain, timm)]
    assert named[0]["input_projection.weight"] == (256, 2048, 1, 1)
    assert f"{prefix}.embedder.embedder.convolution.weight" in named[0]
    assert named[1]["input_projection.weight"] == (256, 256, 1, 1)
    assert not any(name.startswith(f"{prefix}.layer4") for name in named[1])
    for fields in ({"backbone": "efficientnet_b0"}, {"backbone_config": {"model_type": "swin"}}):
        assert layout_of_class({"model_type": "detr", **fields}) is None


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("bit", {"layer_type": "basic"}),
        ("convnext", {"hidden_sizes": [96, 192]}),
        ("convnext", {"out_features": ["stage9"]}),
        ("convnext", {"out_indices": [True]}),
        ("convnext", {"patch_size": [4, 4, 4]}),
        ("detr", {"architectures": ["DetrForSegmentation"], "use_timm_backbone": False}),
        ("detr", {"d_model": 20}),
        ("detr", {"backbone_config": {"model_type": "timm_backbone", "out_indices": [7]}}),
        ("efficientnet", {"depth_coefficient": 1e300}),
        ("efficientnet", {"kernel_sizes": [3]}),
        ("efficientnet", {"width_coefficient": -1.0}),
        ("hgnet_v2", {"stage_downsample": [False]}),
        ("hgnet_v2", {"stage_light_block": [0, 0, 1, 1]}),
        ("mobilenet_v1", {"depth_multiplier": 0}),
        ("mobilenet_v2", {"expand_ratio": "6"}),
        ("mobilevit", {"num_attention_heads": 7}),
        ("mobilevitv2", {"width_multiplier": 1e300}),
        ("pp_lcnet", {"block_configs": [[[3, 16, 32, 1, False]]]}),
        ("pp_lcnet", {"block_configs": [[[3, 16, 32]]] * 5}),
        ("regnet", {"layer_type": ["y"]}),
        ("resnet", {"depths": 3}),
        ("resnet", {"depths": [10**6]}),
        ("resnet", {"hidden_sizes": []}),
        ("resnet", {"layer_type": "y"}),
        ("textnet", {"conv_layer_kernel_sizes": [[[3]]]}),
        ("textnet", {"hidden_sizes": [64, 64]}),
        ("yolos", {"image_size": [512]}),
    ],
)
def test_a_field_that_cannot_be_is_named(model_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        layout_of({"model_type": model_type, **fields})
    assert "config.json: " in str(caught.value)
    assert "\n" not in str(caught.value)
