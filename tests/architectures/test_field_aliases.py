"""Second names of fields: a config.json that has them alone counts as with the first ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from minilm.architectures import layout_of_class
from minilm.architectures.model_types import MODEL_TYPES
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout
from tests.architectures.record import CLASS_DRAWS
from tests.architectures.required import REQUIRED

Config = dict[str, Any]

# What transformers builds, of the class with the language model's head.
COUNTS: dict[str, tuple[Config, str, int]] = {
    "bart": ({"num_hidden_layers": 3}, "BartForConditionalGeneration", 292_925_440),
    "deepseek_v2": (
        {"num_experts": 32, "num_hidden_layers": 4},
        "DeepseekV2ForCausalLM",
        3_347_001_344,
    ),
    "distilbert": (
        {"hidden_size": 384, "num_hidden_layers": 3},
        "DistilBertForMaskedLM",
        20_963_898,
    ),
}
# A field's second name, the first, and a value.
PAIRS = {
    "deepseek_v3": ("num_mtp_layers", "num_nextn_predict_layers", 2),
    "distilbert": ("hidden_size", "dim", 384),
    "glm4_moe_lite": ("head_dim", "qk_rope_head_dim", 32),
    "led": ("num_hidden_layers", "encoder_layers", 6),
    "longt5": ("head_dim", "d_kv", 32),
    "moonshine": ("num_hidden_layers", "decoder_num_hidden_layers", 4),
    "pop2piano": ("hidden_size", "d_model", 256),
    "recurrent_gemma": ("sliding_window", "attention_window_size", 1024),
    "seamless_m4t": ("num_hidden_layers", "decoder_layers", 12),
    "segformer": ("num_hidden_layers", "num_encoder_blocks", 2),
    "speecht5": ("num_attention_heads", "encoder_attention_heads", 6),
    "t5": ("head_dim", "d_kv", 32),
    "trocr": ("num_hidden_layers", "decoder_layers", 6),
    "xglm": ("num_attention_heads", "attention_heads", 8),
}
PARTS = {
    "cohere_compass": ("vision_config", "num_hidden_layers", "depth", 14),
    "deepseek_ocr2": ("text_config", "num_experts", "n_routed_experts", 32),
    "florence2": ("text_config", "num_hidden_layers", "encoder_layers", 6),
    "kosmos-2": ("text_config", "num_hidden_layers", "layers", 12),
    "moss_transcribe_diarize": ("audio_config", "d_model", "hidden_size", 512),
    "pix2struct": ("text_config", "encoder_layers", "num_layers", 6),
    "qwen2_vl": ("vision_config", "num_hidden_layers", "depth", 16),
    "voxtral": ("audio_config", "encoder_ffn_dim", "intermediate_size", 2560),
}


@pytest.mark.parametrize("model_type", COUNTS)
def test_counts(model_type: str) -> None:
    fields, name, count = COUNTS[model_type]
    assert _layout({"model_type": model_type, "architectures": [name], **fields}).count() == count


@pytest.mark.parametrize("model_type", PAIRS)
def test_second_name(model_type: str) -> None:
    second, first, value = PAIRS[model_type]
    fields = {"model_type": model_type}
    named = _layout({**fields, first: value})
    assert named != _layout(fields)
    assert _layout({**fields, second: value}) == named
    assert _layout({**fields, second: None, first: value}) == named
    assert _layout({**fields, second: value, first: 2 * value}) == named


@pytest.mark.parametrize("model_type", PARTS)
def test_second_name_in_a_part(model_type: str) -> None:
    part, second, first, value = PARTS[model_type]
    fields = {"model_type": model_type, **REQUIRED.get(model_type, {})}
    named = _layout({**fields, part: {first: value}})
    assert named != _layout(fields)
    assert _layout({**fields, part: {second: value}}) == named


def test_default_is_of_the_first_name() -> None:
    """T5's decoder is as deep as `num_layers` says, whatever `num_hidden_layers` does."""
    symbols = _layout({"model_type": "t5", "num_hidden_layers": 3}).symbols
    assert (symbols["Y"], symbols["L"]) == (3, 6)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_as_transformers(model_type: str) -> None:
    mapping = pytest.importorskip("transformers", minversion="5").CONFIG_MAPPING
    if model_type not in mapping:
        pytest.skip("not in transformers")
    cls, required = mapping[model_type], REQUIRED.get(model_type, {})
    names = [None, *([CLASS_DRAWS[model_type][0][0]] if model_type in CLASS_DRAWS else [])]
    for second, first, value, others in _honoured(cls, required):
        for name in names:
            fields = {"model_type": model_type, "architectures": name and [name], **required}
            _assert_same({**fields, second: value}, {**fields, **others, first: value})
    default = _as_json(cls, required)
    for part in cls.sub_configs:
        if not isinstance(default.get(part), dict):
            continue
        kind, given = default[part].get("model_type"), required.get(part, {})
        fields = {"model_type": model_type, **required}
        part_class = mapping[kind] if kind in mapping else cls.sub_configs[part]
        for second, first, value, others in _honoured(part_class, given):
            inside = {"model_type": kind, **given}
            _assert_same(
                {**fields, part: {**inside, second: value}},
                {**fields, part: {**inside, **others, first: value}},
            )


def _honoured(cls: Any, required: Mapping[str, Any]) -> list[tuple[str, str, Any, Config]]:
    """Second names of whole numbers, the first ones, other values than the default, and what else differs."""
    default = _as_json(cls, required)
    pairs = []
    for second, first in getattr(cls, "attribute_map", {}).items():
        value = default.get(first)
        if type(value) is not int or value < 1 or second.endswith(("_id", "_index")):
            continue
        value = 2 * value if value % 2 or value < 4 else value // 2
        try:
            got = _as_json(cls, {**required, second: value})
            wanted = _as_json(cls, {**required, first: value})
        except Exception:
            continue
        if got.get(first) == value:
            others = {key: got[key] for key in got if got[key] != wanted.get(key)}
            pairs.append((second, first, value, others))
    return pairs


def _as_json(cls: Any, fields: Mapping[str, Any]) -> Config:
    whole: Config = json.loads(cls(**fields).to_json_string(use_diff=False))
    return whole


def _assert_same(second: Config, first: Config) -> None:
    try:
        wanted = layout_of_class(first)
    except ConfigError:
        with pytest.raises(ConfigError):
            layout_of_class(second)
    else:
        assert layout_of_class(second) == wanted


def _layout(config: Config) -> Layout:
    layout = layout_of_class(config)
    assert layout is not None
    return layout
