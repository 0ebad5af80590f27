"""Qwen-Omni: the published counts of whole models and of their parts, and what is said of the talker.

Qwen2.5-Omni-3B's are those of its modules as transformers loads it; Qwen3-Omni's those that the Hub counts
in its safetensors files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of_class
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError
from minilm.ledger import components

QWEN2_5 = {
    "model_type": "qwen2_5_omni",
    "architectures": ["Qwen2_5OmniModel"],  # so in the published config.json
    "thinker_config": {
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "audio_config": {"output_dim": 2048},
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
    },
    "talker_config": {
        "embedding_size": 2048,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "head_dim": 64,
    },
}
QWEN3 = {
    "model_type": "qwen3_omni_moe",
    "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
    "thinker_config": {
        "text_config": {
            "vocab_size": 152064,
            "head_dim": 128,
            "num_attention_heads": 32,
            "num_hidden_layers": 48,
        },
        "audio_config": {"output_dim": 2048},
        "vision_config": {"out_hidden_size": 2048},
    },
    "talker_config": {
        "text_config": {
            "head_dim": 128,
            "num_local_experts": 128,
            "num_experts_per_tok": 6,
            "shared_expert_intermediate_size": 768,
        },
        "code_predictor_config": {"num_code_groups": 16},
    },
}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        pytest.param(QWEN2_5, 5_537_120_640, id="Qwen2.5-Omni-3B"),
        pytest.param(QWEN3, 35_259_818_545, id="Qwen3-Omni-30B-A3B-Instruct"),
        pytest.param(
            QWEN3 | {"enable_audio_output": False},
            31_719_205_488,
            id="Qwen3-Omni-30B-A3B-Thinking",
        ),
    ],
)
def test_the_published_count(config: dict[str, Any], count: int) -> None:
    layout = layout_of_class(config)
    assert layout is not None
    assert layout.count() == count


def test_the_parts_of_qwen2_5_omni_have_their_published_counts() -> None:
    layout = layout_of_class(QWEN2_5)
    assert layout is not None
    assert layout.count(components=(components.TALKER,)) == 384_604_928
    assert layout.count(components=(components.VOCODER,)) == 449_051_264
    heard_and_seen = (components.AUDIO, components.VISION, components.PROJECTOR)
    assert layout.count(components=heard_and_seen) == 637_676_544 + 668_684_288


@pytest.mark.parametrize("config", [QWEN2_5, QWEN3])
def test_costs_are_the_thinker_s(config: dict[str, Any]) -> None:
    whole, silent = (
        layout_of_class({**config, "enable_audio_output": each}) for each in (True, False)
    )
    thinker = layout_of_class(
        {**config["thinker_config"], "model_type": f"{config['model_type']}_thinker"}
    )
    assert whole is not None
    assert silent is not None
    assert thinker is not None
    assert silent.count() == thinker.count() < whole.count()
    for layout in (whole, silent):
        assert kv_cache_elements(layout, context=9, batch=1) == kv_cache_elements(
            thinker, context=9, batch=1
        )


def test_the_talker_and_vocoder_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN2_5), encoding="utf-8")
    report = minilm.inspect(path)
    note = "the talker and vocoder, 833,656,192 parameters, make sound of its tokens"
    assert f"FLOPs and KV cache are the thinker's; {note}" in report.notes


@pytest.mark.parametrize(
    ("config", "part", "wrong"),
    [
        (QWEN3, "talker_config", {"text_config": {}}),
        (QWEN3, "code2wav_config", {"decoder_dim": 8}),
        (QWEN2_5, "token2wav_config", {"dit_config": {"enc_kernel_sizes": [5, 3]}}),
        (QWEN2_5, "token2wav_config", {"dit_config": {"enc_res2net_scale": 300}}),
        (QWEN2_5, "token2wav_config", {"bigvgan_config": {"upsample_initial_channel": 9}}),
        (QWEN2_5, "token2wav_config", {"bigvgan_config": {"upsample_kernel_sizes": [3]}}),
    ],
)
def test_a_wrong_field_of_a_part_is_named(
    config: dict[str, Any], part: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: "):
        layout_of_class({**config, part: wrong})


def test_a_folder_of_a_thinker_alone_gives_sizes(tmp_path: Path) -> None:
    """They are two objects deep."""
    config = {"model_type": "qwen3_omni_moe", "enable_audio_output": False}
    text = {"num_hidden_layers": 1, "vocab_size": 9, "hidden_size": 4, "num_experts": 2}
    text |= {"num_attention_heads": 1, "num_key_value_heads": 1, "moe_intermediate_size": 3}
    audio = {"encoder_layers": 1, "d_model": 4, "encoder_ffn_dim": 4, "downsample_hidden_size": 2}
    vision = {"depth": 1, "hidden_size": 4, "intermediate_size": 4, "deepstack_visual_indexes": []}
    config["thinker_config"] = {
        "text_config": text | {"num_experts_per_tok": 1},
        "audio_config": audio | {"output_dim": 4},
        "vision_config": vision | {"out_hidden_size": 4},
    }
    layout = layout_of_class(config)
    assert layout is not None
    tensors = {t.name: np.zeros(t.shape, np.float32) for t in layout.named_tensors()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert minilm.inspect(tmp_path).verified


def test_the_thinker_alone_under_the_whole_s_type_is_not_guessed() -> None:
    name = "Qwen2_5OmniThinkerForConditionalGeneration"
    assert layout_of_class({**QWEN2_5, "architectures": [name]}) is None
