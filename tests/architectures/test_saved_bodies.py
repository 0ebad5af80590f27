"""Folders that transformers writes of bodies alone, and of models without a class in config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of_class
from minilm.architectures.task_heads import is_body
from tests.architectures.record import CLASSES, drawn, drawn_class

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

from tests.architectures.test_classes_agreement import build_class
from tests.architectures.test_transformers_agreement import IS_VERSION_4

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="transformers 4 writes some otherwise")


def assert_verified(
    folder: Path, class_name: str, config: dict[str, Any], *, named: bool, **options: bool
) -> None:
    model = build_class(class_name, config, "cpu", **options)
    model.save_pretrained(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    if not named:
        del fields["architectures"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    report = minilm.inspect(folder)
    assert report.verified, report.mismatches
    total = sum(parameter.numel() for parameter in model.parameters())
    assert report.witnesses.formula == report.parameters.total == total


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("bailing_hybrid", "BailingHybridModel"),
        ("deepseek_v4", "DeepseekV4Model"),
        ("hy_v4", "HYV4Model"),
        ("inkling2_text", "Inkling2TextModel"),
        ("llama", "LlamaModel"),
    ],
)
def test_a_body_alone(model_type: str, class_name: str, named: bool, tmp_path: Path) -> None:
    """transformers renames some tensors otherwise where no prefix stands before them."""
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        assert_verified(folder, class_name, drawn(model_type, seed), named=named)


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("llama", "LlamaForQuestionAnswering"),
        ("qwen2", "Qwen2ForTokenClassification"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("qwen3", "Qwen3ForSequenceClassification"),
    ],
)
def test_the_body_of_the_class_that_its_config_names(
    model_type: str, class_name: str, tmp_path: Path
) -> None:
    config = drawn(model_type) | {"architectures": [class_name]}
    model = build_class(class_name, config, "cpu")
    model.save_pretrained(tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path)
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    total = sum(parameter.numel() for parameter in model.base_model.parameters())
    assert report.witnesses.formula == report.parameters.total == total
    assert any("the body alone, without the head" in note for note in report.notes)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("detr", "DetrForObjectDetection"),
        ("detr", "DetrForSegmentation"),
        ("table-transformer", "TableTransformerForObjectDetection"),
        ("yolos", "YolosForObjectDetection"),
    ],
)
def test_a_detector(model_type: str, class_name: str, named: bool, tmp_path: Path) -> None:
    """The norms of a backbone are frozen: what they hold are buffers."""
    assert_verified(tmp_path, class_name, drawn_class(model_type, class_name), named=named)


ALWAYS_POOLED = ("LayoutLMModel", "SqueezeBertModel", "ClapModel", "VisionEncoderDecoderModel")
WITH_POOLERS = [
    (model_type, class_name)
    for model_type, class_name in CLASSES
    if is_body(class_name) and class_name not in ALWAYS_POOLED
    for layout in [layout_of_class(drawn_class(model_type, class_name))]
    if layout and any(".pooler." in f".{tensor.name}" for tensor in layout.tensors)
]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("model_type", "class_name"), WITH_POOLERS)
def test_a_body_without_its_pooler(
    model_type: str, class_name: str, named: bool, tmp_path: Path
) -> None:
    """config.json does not say `add_pooling_layer=False`."""
    config = drawn_class(model_type, class_name)
    assert_verified(tmp_path, class_name, config, named=named, add_pooling_layer=False)
