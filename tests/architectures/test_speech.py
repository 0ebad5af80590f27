"""Encoders over speech where draws by type do not reach: adapters, older names, FLOPs, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of_class
from minilm.costs.flops import flops_per_token
from minilm.errors import ConfigError
from tests.architectures.draws_speech import DRAWS

WITH_ADAPTER = {
    "data2vec-audio": ("Data2VecAudioModel", "Data2VecAudioForCTC", "Data2VecAudioForXVector"),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining"),
    "wav2vec2-bert": ("Wav2Vec2BertModel", "Wav2Vec2BertForCTC", "Wav2Vec2BertForXVector"),
    "wav2vec2-conformer": ("Wav2Vec2ConformerModel", "Wav2Vec2ConformerForCTC"),
    "wavlm": ("WavLMModel", "WavLMForCTC", "WavLMForXVector"),
}


def drawn(model_type: str, seed: int, **more: Any) -> dict[str, Any]:
    return {"model_type": model_type} | DRAWS[model_type][1](Random(seed)) | more


@pytest.mark.parametrize("model_type", WITH_ADAPTER)
def test_adapters_agree_name_by_name(model_type: str) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    from tests.architectures.test_classes_agreement import assert_class_agrees

    classes = WITH_ADAPTER[model_type]
    for seed in range(20):
        config = drawn(model_type, seed, add_adapter=True)
        if model_type == "wav2vec2-bert":
            config["use_intermediate_ffn_before_adapter"] = seed % 2 == 0
        assert_class_agrees(classes[seed % len(classes)], config)


@pytest.mark.parametrize(
    ("model_type", "field", "value", "message"),
    [
        ("wav2vec2", "conv_kernel", [3, 3], "conv_kernel, conv_stride"),
        ("wav2vec2", "conv_dim", 3, "conv_dim"),
        ("wav2vec2", "feat_extract_norm", "batch", "feat_extract_norm"),
        ("wav2vec2", "num_conv_pos_embedding_groups", 7, "num_conv_pos_embedding_groups"),
        ("wav2vec2", "codevector_dim", 7, "codevector_dim"),
        ("wav2vec2-conformer", "conv_depthwise_kernel_size", 4, "conv_depthwise_kernel_size"),
        ("wav2vec2-conformer", "position_embeddings_type", 4, "position_embeddings_type"),
    ],
)
def test_fields_that_cannot_be(model_type: str, field: str, value: Any, message: str) -> None:
    config = {"model_type": model_type, "architectures": ["XForPreTraining"], field: value}
    with pytest.raises(ConfigError, match=message):
        layout_of_class(config)


def test_a_head_without_its_letters_or_behind_an_adapter_is_refused() -> None:
    config = {"model_type": "wav2vec2-bert", "architectures": ["Wav2Vec2BertForCTC"]}
    with pytest.raises(ConfigError, match="vocab_size"):
        layout_of_class(config)
    config = {"model_type": "wavlm", "architectures": ["WavLMForSequenceClassification"]}
    with pytest.raises(ConfigError, match="add_adapter"):
        layout_of_class(config | {"add_adapter": True})


@pytest.mark.parametrize(
    "class_name", ["Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining", "Wav2Vec2ForXVector"]
)
def test_a_file_of_before_parametrizations_is_verified(class_name: str, tmp_path: Path) -> None:
    """facebook/wav2vec2-base's file has weight_g and weight_v; config.json may name another class."""
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    import safetensors.torch as safetensors_torch

    from tests.architectures.test_classes_agreement import build_class

    model = build_class(class_name, drawn("wav2vec2", 3), "cpu")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    older = {
        f"parametrizations.weight.original{i}": f"weight_{name}" for i, name in enumerate("gv")
    }
    tensors = {}
    for name, tensor in safetensors_torch.load_file(path).items():
        for new, old in older.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    assert any(name.endswith("weight_g") for name in tensors)
    safetensors_torch.save_file(tensors, path)
    for named in (class_name, "Wav2Vec2ForSequenceClassification"):
        config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        text = json.dumps(config | {"architectures": [named]})
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        report = minilm.inspect(tmp_path)
        assert report.verified, report.mismatches
        assert report.parameters.total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("hubert", "HubertForCTC"),
        ("data2vec-audio", "Data2VecAudioForCTC"),
        ("sew", "SEWForCTC"),
    ],
)
def test_flops_are_those_that_torch_counts(model_type: str, class_name: str) -> None:
    """Of samples that the convolutions divide without a rest, as taps are no wider than strides."""
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tests.architectures.test_classes_agreement import build_class

    frames = 6
    config = drawn(model_type, 5) | {
        "architectures": [class_name],
        "conv_dim": [4, 6, 8],
        "conv_kernel": [4, 3, 2],
        "conv_stride": [4, 3, 2],
        "num_conv_pos_embeddings": 3,
        "conv_pos_kernel_size": 3,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "attn_implementation": "eager",
    }
    squeezed = config.setdefault("squeeze_factor", 2) if model_type == "sew" else 1
    layout = layout_of_class(config)
    assert layout is not None
    model = build_class(class_name, config, "cpu").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 24 * frames * squeezed))
    per_token = flops_per_token(layout, context=frames)["forward_per_token"]
    assert counter.get_total_flops() == frames * per_token
