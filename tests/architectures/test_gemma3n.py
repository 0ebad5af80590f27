"""Gemma 3n whole: published counts, and all but timm's tower against transformers' own parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.architectures import layout_of_class

WHOLE = "Gemma3nForConditionalGeneration"
# Keys, values and their norm, which the files have of layers that share others' and no loader reads.
UNREAD = 2 * 512 * 2048 + 256


def _config(**parts: Any) -> dict[str, Any]:
    return {"model_type": "gemma3n", "architectures": [WHOLE], **parts}


@pytest.mark.parametrize(
    ("name", "sizes", "sharing", "stored"),
    [
        ("google/gemma-3n-E4B", {"num_hidden_layers": 35}, 15, 7_849_978_192),
        (
            "google/gemma-3n-E2B",
            {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10},
            10,
            5_439_438_272,
        ),
    ],
)
def test_the_published_count(name: str, sizes: dict[str, Any], sharing: int, stored: int) -> None:
    config = _config(text_config=sizes)
    for version, count in (("4.53.0.dev0", stored), ("5.23.0", stored - sharing * UNREAD)):
        layout = layout_of_class(config | {"transformers_version": version})
        assert layout is not None
        assert layout.count() == count, name


AUDIO = {
    "vocab_size": 5,
    "hidden_size": 14,
    "input_feat_size": 11,
    "conf_num_attention_heads": 4,
    "conf_num_hidden_layers": 2,
    "conf_conv_kernel_size": 3,
    "sscp_conv_channel_size": [6, 3],
    "sscp_conv_kernel_size": [[3, 2], [1, 3]],
    "sscp_conv_stride_size": [[2, 2], [2, 1]],
}


@pytest.mark.parametrize("audio", [{}, AUDIO])
def test_the_parts_that_hear_are_transformers(transformers: Any, audio: dict[str, Any]) -> None:
    modelling = transformers.models.gemma3n.modeling_gemma3n
    text = transformers.Gemma3nTextConfig()
    own = transformers.Gemma3nAudioConfig(**audio)
    with torch.device("meta"):
        parts = {
            "model.audio_tower.": modelling.Gemma3nAudioEncoder(own),
            "model.embed_audio.": modelling.Gemma3nMultimodalEmbedder(own, text),
            "model.embed_vision.": modelling.Gemma3nMultimodalEmbedder(
                transformers.Gemma3nVisionConfig(), text
            ),
        }
    layout = layout_of_class(_config(audio_config=audio))
    assert layout is not None
    declared = {
        tensor.name: tensor.shape
        for tensor in layout.named_tensors()
        if tensor.name.startswith(tuple(parts))
    }
    assert declared == {
        prefix + name: tuple(tensor.shape)
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }


def test_another_tower_is_not_guessed() -> None:
    for vision in ({"architecture": "resnet50"}, {"model_args": {"channel_multiplier": 0.5}}):
        assert layout_of_class(_config(vision_config=vision)) is None
