"""Folders under both kinds of names: of image-text and audio-text models, or their bodies, and of others.

`save_pretrained` writes the names of published files, and each expert; a `state_dict` what the modules have.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minilm
from tests.architectures.record import CLASS_DRAWS, drawn, drawn_class

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)

from tests.architectures.test_classes_agreement import build_class  # noqa: E402
from tests.architectures.test_mapped_classes import draw  # noqa: E402
from tests.architectures.test_transformers_agreement import IS_VERSION_4  # noqa: E402

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="transformers 4 has one kind of names")

WIDTHS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
GEMMA3 = {
    "model_type": "gemma3",
    "text_config": WIDTHS | {"num_attention_heads": 4, "head_dim": 8, "vocab_size": 128},
    "vision_config": WIDTHS | {"num_attention_heads": 2, "image_size": 56, "patch_size": 14},
    "mm_tokens_per_image": 4,
}
TYPES = (
    *("aria", "aya_vision", "fuyu", "gemma3", "got_ocr2", "granite_speech", "granite_speech_plus"),
    *("internvl", "llava", "llava_next", "llava_next_video", "llava_onevision", "mistral3"),
    *("mllama", "musicflamingo", "paligemma", "qwen2_5_omni_thinker", "qwen2_5_vl", "qwen2_audio"),
    *("qwen2_vl", "qwen3_omni_moe_thinker", "vibevoice_asr", "video_llava", "vipllava", "voxtral"),
)


def _model(model_type: str, body: bool, seed: int) -> Any:
    """transformers' model of a draw, on the CPU."""
    if model_type in CLASS_DRAWS:
        whole = CLASS_DRAWS[model_type][0][0]
        config = drawn_class(model_type, whole, seed)
    elif model_type == "gemma3":
        whole, config = "Gemma3ForConditionalGeneration", GEMMA3
    else:
        config = drawn(model_type, seed)
        parsed = transformers.AutoConfig.for_model(**config)
        whole = transformers.AutoModelForCausalLM._model_mapping[type(parsed)].__name__
    name = f"{whole.partition('For')[0]}Model" if body else whole
    return build_class(name, copy.deepcopy(config), "cpu")


def _save(model: Any, folder: Path, *, own_names: bool, named: bool) -> None:
    model.save_pretrained(folder)
    if own_names:
        tables = model.all_tied_weights_keys
        tied = dict(model.named_parameters(remove_duplicate=False)).keys()
        tied -= {tables.get(name, name) for name, _ in model.named_parameters()}
        tensors = {n: t.numpy() for n, t in model.state_dict().items() if n not in tied}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if not named:
        path = folder / "config.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        del fields["architectures"]
        path.write_text(json.dumps(fields), encoding="utf-8")


@pytest.mark.parametrize("own_names", [False, True], ids=["saved", "own"])
@pytest.mark.parametrize("body", [False, True], ids=["whole", "body"])
@pytest.mark.parametrize("model_type", TYPES)
def test_a_folder_is_verified(model_type: str, body: bool, own_names: bool, tmp_path: Path) -> None:
    for seed in (1, 2):
        model = _model(model_type, body, seed)
        total = sum(parameter.numel() for parameter in model.parameters())
        for named in (True, False):
            _save(model, tmp_path, own_names=own_names, named=named)
            report = minilm.inspect(tmp_path)
            assert report.verified, report.mismatches
            assert report.parameters.total == total
            if (model_type, body, own_names, named) != ("mllama", True, True, False):
                assert report.witnesses.formula == total


EXPERTS = (
    *("afmoe", "glm4_moe", "jamba", "lfm2_moe", "minimax_m2", "mixtral", "olmoe", "qwen2_moe"),
    *("qwen3_5_moe", "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_thinker"),
)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_experts_in_one_tensor_are_verified(model_type: str, tmp_path: Path) -> None:
    own = assert_both_verified(_model(model_type, False, 3), tmp_path)
    assert any(row.name.endswith(".experts.gate_up_proj") for row in own.tensors)


# Of which `save_pretrained` writes other names than the modules have, or parts of a tensor.
RENAMED = (
    *("aria_text", "axk1", "axk2", "bailing_hybrid", "beit", "cohere_asr", "deepseek_ocr2"),
    *("colmodernvbert", "colpali", "colqwen2", "deepseek_v4", "inkling2_text", "sam", "segformer"),
    *("layoutlmv3", "rt_detr", "step3p7"),
    *("deit", "detr", "dinov2", "dinov2_with_registers", "dinov3_vit", "ernie4_5_moe", "flint"),
    *("gemma4_unified", "gpt_neox", "granitemoe", "gte", "hrm_text", "hunyuan_vl", "hy_v3"),
    *("hy_v4", "hyperclovax_vision_v2", "ijepa", "jina_embeddings_v3", "kimi_linear", "kolibri1"),
    *("laguna", "lfm3", "lfm3_vl", "mimo_v2_flash", "minimax_m3_vl", "nemotron_h"),
    *("nemotron_h_omni", "nomic_bert", "olmo_hybrid", "paddleocr_vl", "phimoe", "qwen2_5_omni"),
    *("qwen3_omni_moe", "shieldgemma2"),
    *("swin", "t5gemma2", "ultrabert", "ultravbert", "unlimited_ocr", "vit", "yolos"),
)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("model_type", RENAMED)
def test_tensors_of_modules_are_verified(model_type: str, seed: int, tmp_path: Path) -> None:
    assert_both_verified(_model(model_type, False, seed), tmp_path)


def test_colqwen2_as_it_was_published_is_verified(tmp_path: Path) -> None:
    """With the names of a model that had a head."""
    model = _model("colqwen2", False, 1)
    _save(model, tmp_path, own_names=False, named=True)
    path = tmp_path / "model.safetensors"
    tensors = {name.replace("vlm.", "vlm.model."): t for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches


def test_the_head_over_maps_of_detr_is_verified(tmp_path: Path) -> None:
    config = drawn_class("detr", "DetrForSegmentation")
    assert_both_verified(build_class("DetrForSegmentation", config, "cpu"), tmp_path)


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("gemma3", "Gemma3ForSequenceClassification"),
        ("hyperclovax_vision_v2", "HyperCLOVAXVisionV2ForConditionalGeneration"),
        ("t5gemma2", "T5Gemma2ForSequenceClassification"),
        ("t5gemma2", "T5Gemma2Model"),
    ],
)
def test_classes_under_names_of_modules_are_verified(
    model_type: str, class_name: str, tmp_path: Path
) -> None:
    config = draw(model_type, class_name, 3)
    assert_both_verified(build_class(class_name, copy.deepcopy(config), "cpu"), tmp_path)


def assert_both_verified(model: Any, folder: Path) -> minilm.Report:
    """The model saved under either names is verified with the same formula; the report of its own names."""
    reports = []
    for own_names in (False, True):
        _save(model, folder, own_names=own_names, named=True)
        reports.append(minilm.inspect(folder))
    saved, own = reports
    assert own.verified, own.mismatches
    assert own.witnesses == saved.witnesses
    assert own.parameters == saved.parameters
    assert own.formula is not None
    assert saved.formula is not None
    assert own.formula.symbolic == saved.formula.symbolic
    return own


def test_a_wrong_shape_under_the_names_of_the_modules_is_told(tmp_path: Path) -> None:
    model = _model("llava", False, 2)
    _save(model, tmp_path, own_names=True, named=True)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.multi_modal_projector.linear_1.bias"
    tensors[name] = np.append(tensors[name], np.float32(0))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    report = minilm.inspect(tmp_path)
    assert not report.verified
    assert any(f"{name} has shape" in line for line in report.mismatches)
