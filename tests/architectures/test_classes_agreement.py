"""Encoders, encoder-decoders, vision and larger models against transformers' own, each declared class.

As `test_transformers_agreement.py` has it for causal language models: names, shapes, ties and buffers of
random small configs and of the defaults; and of encoder-decoders the cache of a real run.
"""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch as safetensors_torch

import minilm
from minilm.architectures import layout_of_class
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError, FormatError
from tests.architectures.record import (
    CLASS_DRAWS,
    CLASSES,
    PATH,
    class_key,
    digest,
    drawn_class,
    tied_names,
)
from tests.architectures.required import REQUIRED

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tests.architectures.test_transformers_agreement import (  # noqa: E402
    IS_VERSION_4,
    assert_agrees,
    stored,
    ties,
)

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="transformers 4 writes some otherwise")

NUM_DRAWS = 20
# What, of types and of classes, transformers does not build of its own defaults.
UNBUILT = {
    **dict.fromkeys(("ConvNextBackbone", "ConvNextV2Backbone"), "widths that are no list"),
    **dict.fromkeys(
        ("PerceiverForImageClassificationFourier", "PerceiverForImageClassificationConvProcessing"),
        "heads that do not divide the inputs' width",
    ),
    "HieraForPreTraining": "no decoder",
    "ReformerModelWithLMHead": "no decoder",
    "aya_vision": "heads that do not divide the tower's width",
    "chameleon": "no vocabulary_map",
    "cohere_compass": "rope_parameters of no kind of layer",
    "deepseek_ocr2": "no mlp_layer_types",
    "detr": "a network of timm's",
    "diffusion_gemma": "no experts",
    "esm": "no vocabulary",
    "granite4_vision": "no downsample_rate",
    "hunyuan_vl": "no head_dim",
    "table-transformer": "a network of timm's",
    "moonshine_streaming": "no num_key_value_heads",
    "Wav2Vec2BertForCTC": "no vocab_size",
    "Wav2Vec2ConformerForCTC": "no vocab_size",
}


def build_class(
    class_name: str, config: dict[str, Any], device: str = "meta", **options: bool
) -> Any:
    """transformers' model of a class for a config.json, with options that it does not have."""
    parsed = transformers.AutoConfig.for_model(**config)
    with torch.device(device):
        return getattr(transformers, class_name)._from_config(parsed, **options)


def assert_class_agrees(class_name: str, config: dict[str, Any]) -> None:
    model = build_class(class_name, config)
    written = json.loads(model.config.to_json_string(use_diff=False))
    layouts = [
        layout_of_class(each | {"architectures": [class_name]}) for each in (config, written)
    ]
    assert None not in layouts
    assert_agrees(model, *(layout for layout in layouts if layout))


@pytest.mark.parametrize("model_type", CLASS_DRAWS)
def test_random_configs_agree_name_by_name(model_type: str) -> None:
    classes, draw = CLASS_DRAWS[model_type]
    for seed in range(max(NUM_DRAWS, 3 * len(classes))):
        config = {"model_type": model_type} | draw(Random(seed))
        assert_class_agrees(classes[seed % len(classes)], config)


# Whatever their text_config says, transformers ties OPT, and T5, whose published files are not tied.
OTHER_TIES = {"blip-2", "instructblip", "instructblipvideo"}
JOINT = [
    each
    for each in CLASSES
    if isinstance(drawn_class(*each).get("text_config"), dict) and each[0] not in OTHER_TIES
]


@pytest.mark.parametrize(("model_type", "class_name"), JOINT)
def test_both_places_of_a_tie_mean_what_they_mean_there(model_type: str, class_name: str) -> None:
    for whole, text in itertools.product((None, True, False), repeat=2):
        config = drawn_class(model_type, class_name)
        for part, tied in ((config, whole), (config["text_config"], text)):
            part.pop("tie_word_embeddings", None)
            if tied is not None:
                part["tie_word_embeddings"] = tied
        try:
            layout = layout_of_class(config)
        except ConfigError:
            continue
        model = build_class(class_name, copy.deepcopy(config))
        if layout is not None:
            assert layout.count() == model.num_parameters(), (whole, text)
            assert tied_names(layout.ties) == ties(model), (whole, text)


@pytest.mark.parametrize(("model_type", "class_name"), JOINT)
def test_a_text_that_is_null_has_the_fields_that_it_has_there(
    model_type: str, class_name: str
) -> None:
    """Those of Qwen2-VL, for one, may stand beside the tower's; LLaVA's may not."""
    reason = UNBUILT.get(class_name) or UNBUILT.get(model_type)
    if reason:
        pytest.skip(reason)
    fields = {"model_type": model_type, "text_config": None, "vocab_size": 77}
    assert_class_agrees(class_name, fields)


@pytest.mark.parametrize("model_type", ["qwen2_5_omni_thinker", "qwen2_5_vl", "qwen2_vl"])
def test_the_window_of_a_text_is_that_by_default(model_type: str) -> None:
    fields = {"use_sliding_window": True, "num_hidden_layers": 90}
    parsed = transformers.AutoConfig.for_model(model_type, text_config=fields).get_text_config()
    layout = layout_of_class({"model_type": model_type, "text_config": fields})
    assert layout is not None
    windows = {kind.window: kind.layers.value(layout.symbols) for kind in layout.attention}
    sliding = parsed.layer_types.count("sliding_attention")
    assert windows == {parsed.sliding_window: sliding, 0: 90 - sliding}


def test_a_table_of_no_token_types_is_there_where_it_is_there() -> None:
    for model_type, (classes, draw) in CLASS_DRAWS.items():
        if getattr(transformers.CONFIG_MAPPING[model_type], "type_vocab_size", None):
            config = {"model_type": model_type} | draw(Random(0)) | {"type_vocab_size": 0}
            assert_class_agrees(classes[0], config)


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_the_record_is_what_is_built(model_type: str, class_name: str) -> None:
    model = build_class(class_name, drawn_class(model_type, class_name))
    recorded = json.loads(PATH.read_text(encoding="utf-8"))[class_key(model_type, class_name)]
    assert digest(*stored(model), ties(model)) == recorded, (
        "run: python -m tests.architectures.record"
    )


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_the_defaults_are_the_architectures(model_type: str, class_name: str) -> None:
    reason = UNBUILT.get(class_name) or UNBUILT.get(model_type)
    if reason:
        pytest.skip(reason)
    assert_class_agrees(class_name, {"model_type": model_type} | REQUIRED.get(model_type, {}))


SAVED = {
    "bert": "BertForMaskedLM",
    "distilbert": "DistilBertForSequenceClassification",
    "clip": "CLIPModel",
    "internvl": "InternVLForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "modernbert": "ModernBertForMaskedLM",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "resnet": "ResNetForImageClassification",
    "t5": "T5ForConditionalGeneration",
    "vit": "ViTForImageClassification",
    "whisper": "WhisperForConditionalGeneration",
}


@pytest.mark.parametrize("model_type", SAVED)
def test_a_saved_folder_is_verified(model_type: str, tmp_path: Path) -> None:
    config = drawn_class(model_type, SAVED[model_type], seed=3)
    model = build_class(SAVED[model_type], config, "cpu")
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert report.verified, report.mismatches
    assert report.witnesses.formula == report.witnesses.file == report.parameters.total == total


def test_computed_positions_need_not_be_in_the_file(tmp_path: Path) -> None:
    model = build_class("MarianMTModel", drawn_class("marian", "MarianMTModel"), "cpu")
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert "the file does not hold its positions, which are computed" in report.notes


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("bart", "BartForConditionalGeneration"),
        ("marian", "MarianMTModel"),
        ("mllama", "MllamaForConditionalGeneration"),
    ],
)
def test_a_config_without_a_class_is_that_of_its_file(
    model_type: str, class_name: str, tmp_path: Path
) -> None:
    """Not the decoder alone, which a config.json without weights is."""
    model = build_class(class_name, drawn_class(model_type, class_name), "cpu")
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["architectures"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert (
        "the file is that of a class ForConditionalGeneration; config.json names none"
        in report.notes
    )


def test_frequencies_in_a_file_are_buffers(tmp_path: Path) -> None:
    """ESM 2's are in its files, as those of any rotary embedding were."""
    config = drawn_class("esm", "EsmForMaskedLM") | {"position_embedding_type": "rotary"}
    model = build_class("EsmForMaskedLM", config, "cpu")
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert report.parameters.buffers


CACHED = ("bart", "m2m_100", "marian", "mbart", "pegasus", "t5", "umt5", "whisper")


@pytest.mark.parametrize("model_type", CACHED)
def test_the_caches_of_both_attentions_are_those_of_a_real_run(model_type: str) -> None:
    """Two tokens each of encoder and decoder; of Whisper a sound of its one length."""
    class_name = CLASS_DRAWS[model_type][0][0]
    for seed in range(3):
        config = drawn_class(model_type, class_name, seed) | {"vocab_size": 11}
        config |= {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
        layout = layout_of_class(config)
        assert layout is not None
        model = build_class(class_name, config, "cpu").eval()
        tokens = torch.tensor([[1, 2]])
        inputs = {"input_ids": tokens}
        if model_type == "whisper":
            bands = model.config.num_mel_bins
            inputs = {"input_features": torch.zeros(1, bands, 2 * layout.symbols["P"])}
        with torch.no_grad():
            cache = model(**inputs, decoder_input_ids=tokens, use_cache=True).past_key_values
        parts = (cache.self_attention_cache, cache.cross_attention_cache)
        cached = [layer for part in parts for layer in part.layers]
        elements = sum(layer.keys.numel() + layer.values.numel() for layer in cached)
        assert elements == kv_cache_elements(layout, context=2, batch=1)


def test_the_cache_of_a_picture_is_that_of_a_real_run(tmp_path: Path) -> None:
    """Llama 3.2 Vision's cross-attention: two tokens and a picture of all tiles, then another token."""
    class_name = "MllamaForConditionalGeneration"
    for seed in range(6):
        config = drawn_class("mllama", class_name, seed) | {"attn_implementation": "eager"}
        config["text_config"] |= {"vocab_size": 11, "num_hidden_layers": 3}
        config["text_config"] |= {"cross_attention_layers": [1, 2]}  # its cache counts on the first
        config["vision_config"] |= {"num_channels": 3, "image_size": 8, "patch_size": 2}
        config["vision_config"]["vision_output_dim"] = 2 * config["vision_config"]["hidden_size"]
        layout = layout_of_class(config)
        assert layout is not None
        model = build_class(class_name, config, "cpu").eval()
        tiles = model.config.vision_config.max_num_tiles
        inputs = {
            "input_ids": torch.tensor([[1, 2]]),
            "pixel_values": torch.zeros(1, 1, tiles, 3, 8, 8),
            "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
            "cross_attention_mask": torch.ones(1, 2, 1, tiles, dtype=torch.long),
        }
        with torch.no_grad():
            cache = model(**inputs, use_cache=True).past_key_values
        cached = [layer.keys.numel() + layer.values.numel() for layer in cache.layers]
        assert sum(cached) == kv_cache_elements(layout, context=2, batch=1)
        next_token = {"input_ids": torch.tensor([[3]]), "past_key_values": cache}
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**next_token)
        per_token = flops_per_token(layout, context=3)["forward_per_token"]
        assert counter.get_total_flops() == per_token
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = "KV cache and FLOPs are with one picture: "
    assert any(note.startswith(told) for note in minilm.inspect(tmp_path).notes)


def test_a_file_of_another_class_is_counted_as_that(tmp_path: Path) -> None:
    """bert-base-uncased: both heads and the pooler, gamma and beta, under the name BertForMaskedLM."""
    config = drawn_class("bert", "BertForPreTraining") | {"tie_word_embeddings": True}
    model = build_class("BertForPreTraining", config, "cpu")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in safetensors_torch.load_file(path).items():
        for new, old in older.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    safetensors_torch.save_file(tensors, path)
    fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    fields["architectures"] = ["BertForMaskedLM"]
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert report.parameters.total == sum(p.numel() for p in model.parameters())
    note = "the file is that of a class ForPreTraining; config.json names BertForMaskedLM"
    assert note in report.notes


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("bert", "BertForMaskedLM"),
        ("distilbert", "DistilBertForMaskedLM"),
        ("electra", "ElectraForMaskedLM"),
        ("eurobert", "EuroBertForMaskedLM"),
        ("nomic_bert", "NomicBertForMaskedLM"),
        ("roberta", "RobertaForTokenClassification"),
    ],
)
def test_flops_are_those_that_torch_counts(model_type: str, class_name: str) -> None:
    """An encoder's tokens see each other: all of them cost the same."""
    length = 5
    config = drawn_class(model_type, class_name) | {"vocab_size": 11, "tie_word_embeddings": True}
    config |= {"max_position_embeddings": 16, "attn_implementation": "eager"}
    layout = layout_of_class(config)
    assert layout is not None
    model = build_class(class_name, config, "cpu").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.arange(length)[None] + 2)
    per_token = flops_per_token(layout, context=length)["forward_per_token"]
    assert counter.get_total_flops() == length * per_token
    assert kv_cache_elements(layout, context=length, batch=1) == 0


@pytest.mark.parametrize("kind", ["no_such_tower", ["clip_vision_model"]])
def test_a_tower_or_text_that_is_not_declared_is_not_guessed(kind: Any) -> None:
    config = drawn_class("llava", "LlavaForConditionalGeneration")
    for part in ("vision_config", "text_config"):
        other = config | {part: {**config[part], "model_type": kind}}
        assert layout_of_class(other) is None


def test_a_class_that_is_not_declared_is_said_to_be_that(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    fields = {"model_type": "vit", "architectures": ["ViTForMaskedImageModeling"]}
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(FormatError, match="ViTForMaskedImageModeling of model_type 'vit' without"):
        minilm.inspect(path)


def test_the_encoder_s_share_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    report = minilm.inspect(path)
    assert report.parameters.total == 60_506_624  # t5-small
    note = "FLOPs are a token's in the decoder; the encoder, 18,881,280 parameters, runs once"
    assert note in report.notes


@pytest.mark.parametrize("class_name", ["MvpModel", "MvpForConditionalGeneration"])
def test_prompts_of_mvp_are_counted(class_name: str) -> None:
    """Version 5 of transformers forgets the encoder's, which version 4 had and its files hold."""
    sizes = {"d_model": 12, "encoder_layers": 3, "decoder_layers": 2, "vocab_size": 50}
    prompts = {"use_prompt": True, "prompt_length": 5, "prompt_mid_dim": 7, "pad_token_id": 0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = {"model_type": "mvp", **sizes, **prompts, **heads}
    model = build_class(class_name, config)
    body = model if class_name == "MvpModel" else model.model
    with torch.device("meta"):
        body.encoder = transformers.models.mvp.modeling_mvp.MvpEncoder(
            model.config, use_prompt=True
        )
        body.encoder.embed_tokens = body.shared
    declared = layout_of_class(config | {"architectures": [class_name]})
    assert declared is not None
    assert_agrees(model, declared)
    names = {tensor.name.split(".prompt_")[0] for tensor in declared.tensors}
    assert sum(name.endswith("_attn_prompt") for name in names) == 3


@pytest.mark.parametrize(
    ("model_type", "class_name"), [("clip", "CLIPModel"), ("metaclip_2", "MetaClip2Model")]
)
@pytest.mark.parametrize("beside", [{}, {"hidden_size": 256, "num_hidden_layers": 7}])
def test_older_fields_of_the_parts_of_clip(
    model_type: str, class_name: str, beside: dict[str, Any]
) -> None:
    """CLIP's published config.json has both; the older ones decide."""
    text = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 40}
    config = {"model_type": model_type, "text_config": beside, "text_config_dict": text}
    assert_class_agrees(class_name, config | {"vision_config_dict": {"num_hidden_layers": 1}})
