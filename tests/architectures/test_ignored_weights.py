"""Weights that transformers' classes do not load: their own lists, and files that hold such."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of, layout_of_class
from minilm.architectures.ignored_weights import ignored_weights
from tests.architectures.record import CLASSES, DRAWS, drawn, drawn_class


def written(folder: Path, config: dict[str, Any], more: dict[str, tuple[int, ...]]) -> Path:
    """A folder of the declared tensors and of ``more``."""
    layout = layout_of_class(config)
    assert layout is not None
    every = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    shapes = {tensor.name: tensor.shape for tensor in every}
    assert not shapes.keys() & more.keys()
    tensors = {name: np.zeros(shape, np.float32) for name, shape in (shapes | more).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CROSS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@pytest.mark.parametrize(
    ("model_type", "class_name", "names"),
    [
        ("t5", "T5ForConditionalGeneration", [CROSS]),
        ("t5", "", [CROSS]),
        ("mt5", "MT5Model", [CROSS]),
        ("longt5", "LongT5ForConditionalGeneration", [CROSS]),
        ("axk1", "AXK1ForCausalLM", ["model.layers.1.mlp.post_mlp_layernorm.weight"]),
        (
            "paddleocr_vl",
            "PaddleOCRVLForConditionalGeneration",
            [
                f"visual.vision_model.{n}"
                for n in ("head.probe", "packing_position_embedding.weight")
            ],
        ),
    ],
)
def test_what_is_not_loaded_is_not_counted(
    model_type: str, class_name: str, names: list[str], tmp_path: Path
) -> None:
    config = drawn(model_type) if model_type in DRAWS else drawn_class(model_type, class_name)
    if not class_name:
        del config["architectures"]
    report = minilm.inspect(written(tmp_path, config, dict.fromkeys(names, (3, 5))))
    assert report.verified, report.mismatches
    elements = 15 * len(names)
    assert report.parameters.total == report.witnesses.formula
    assert {row.name for row in report.tensors if row.component == "not loaded"} == {*names}
    assert any(f"of {elements} elements that transformers does not load" in n for n in report.notes)


@pytest.mark.parametrize("seed", [1, 3, 5])
@pytest.mark.parametrize("model_type", ["gemma3n_text", "gemma4_text"])
def test_keys_and_values_of_layers_that_use_others(
    model_type: str, seed: int, tmp_path: Path
) -> None:
    config = drawn(model_type, seed)
    own = {tensor.name for tensor in layout_of(config).named_tensors()}
    queries = {name for name in own if name.endswith("self_attn.q_proj.weight")}
    keys = {name.replace("q_proj", "k_proj") for name in queries}
    more = {n.replace("k_proj", part) for n in keys - own for part in ("k_proj", "k_norm")}
    report = minilm.inspect(written(tmp_path, config, dict.fromkeys(more, (4,))))
    assert more
    assert report.verified, report.mismatches
    assert {row.name for row in report.tensors if row.component == "not loaded"} == more


def test_a_layer_that_only_transformers_numbers_is_a_next_token_module(tmp_path: Path) -> None:
    config = drawn("hy_v3") | {"num_nextn_predict_layers": None}
    names = ["model.layers.80.enorm.weight", "model.layers.80.mlp.experts.0.up_proj.weight"]
    report = minilm.inspect(written(tmp_path, config, dict.fromkeys(names, (3, 5))))
    assert report.verified, report.mismatches
    counts = {each.name: each.count for each in report.conventions}
    assert counts["with MTP"] == counts["total"] + 30
    assert "next-token (MTP) modules of 30 parameters are not counted" in report.notes


def test_another_type_s_are_told(tmp_path: Path) -> None:
    config = drawn("llama") | {"architectures": ["LlamaForCausalLM"]}
    report = minilm.inspect(written(tmp_path, config, {CROSS: (3, 5)}))
    assert not report.verified


@pytest.mark.parametrize(("model_type", "class_name"), [*((name, "") for name in DRAWS), *CLASSES])
def test_the_lists_are_those_of_transformers(model_type: str, class_name: str) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    from tests.architectures.test_classes_agreement import build_class
    from tests.architectures.test_transformers_agreement import IS_VERSION_4, build

    if IS_VERSION_4:
        pytest.skip("transformers 4 has other lists")
    config = drawn_class(model_type, class_name) if class_name else drawn(model_type)
    model = build_class(class_name, dict(config)) if class_name else build(config)
    config["architectures"] = [type(model).__name__]
    unread = ignored_weights(config)
    theirs = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    own = {name for name, _ in model.named_parameters()}
    for shared in {pattern for pattern in theirs if pattern.startswith("layers.")}:
        if "self_attn" in shared:  # a layer's name, whose number depends on the config
            assert unread.is_other(f"model.{shared}.weight", own)
            theirs.discard(shared)
    layout = layout_of_class(config)
    modules = [tensor.name for tensor in layout.named_tensors(layout.mtp)] if layout else []
    for behind in {pattern for pattern in theirs if pattern.startswith(r"(^|\.)layers\.")}:
        assert any(re.search(behind, name) for name in modules)  # as many as the config says
        theirs.discard(behind)
    ours = {*unread.next_token, *unread.others}
    if class_name.endswith("EncoderModel"):
        assert theirs <= {"decoder"}  # the file's own class is told
    elif config["architectures"] == ["MvpForCausalLM"]:
        assert theirs <= ours  # those of the type's other classes
    else:
        assert theirs == ours
