"""A file with exactly the tensors that are declared, of every class: verified, name by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of, layout_of_class
from minilm.errors import ConfigError, FormatError
from tests.architectures.record import CLASS_DRAWS, CLASSES, DRAWS, drawn, drawn_class

CAUSAL = [pytest.param(name, "", id=name) for name in DRAWS]
OTHERS = [pytest.param(*each, id="-".join(each)) for each in CLASSES]


@pytest.mark.parametrize(("model_type", "class_name"), [*CAUSAL, *OTHERS])
def test_a_folder_of_the_declared_tensors_is_verified(
    model_type: str, class_name: str, tmp_path: Path
) -> None:
    config: dict[str, Any] = (
        drawn_class(model_type, class_name) if class_name else drawn(model_type)
    )
    layout = layout_of_class(config) if class_name else layout_of(config)
    assert layout is not None
    every = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    tensors = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in every}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert report.verified
    if not any("config.json gives no sizes" in note for note in report.notes):
        assert report.witnesses.formula == report.parameters.total == layout.count()


@pytest.mark.parametrize("class_name", CLASS_DRAWS["albert"][0])
def test_albert_without_a_class_is_that_of_its_file(class_name: str, tmp_path: Path) -> None:
    config = drawn_class("albert", class_name)
    layout = layout_of_class(config)
    assert layout is not None
    tensors = {t.name: np.zeros(t.shape, np.float32) for t in layout.named_tensors()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert report.witnesses.formula == report.parameters.total == layout.count()


DEBERTA = {"model_type": "deberta-v2", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
DEBERTA |= {"num_attention_heads": 2, "intermediate_size": 12, "type_vocab_size": 0}


def _deberta_tensors() -> dict[str, Any]:
    """Those of DeBERTa v3's published files: its repository's head, and one that no class has."""
    config = DEBERTA | {"legacy": False, "architectures": ["DebertaV2ForMaskedLM"]}
    layout = layout_of_class(config)
    assert layout is not None
    tensors = {t.name: np.zeros(t.shape, np.float32) for t in layout.named_tensors()}
    return tensors | {"mask_predictions.dense.weight": np.zeros((8, 8), np.float32)}


def test_a_file_of_no_declared_class_is_counted_from_itself(tmp_path: Path) -> None:
    tensors = _deberta_tensors()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(DEBERTA))
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert report.witnesses.formula is None
    assert report.parameters.total == sum(values.size for values in tensors.values())


def test_of_a_class_that_is_named_each_tensor_is_asked_for(tmp_path: Path) -> None:
    save_file(_deberta_tensors(), tmp_path / "model.safetensors", {"format": "pt"})
    config = DEBERTA | {"architectures": ["DebertaV2ForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert not report.verified
    assert any("cls.predictions.bias" in line for line in report.mismatches)


def test_a_tensor_that_is_missing_is_told_where_no_class_is_named(tmp_path: Path) -> None:
    config = DEBERTA | {"legacy": False}
    tensors = _deberta_tensors()
    del tensors["mask_predictions.dense.weight"]
    del tensors["deberta.encoder.layer.0.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert not report.verified
    assert [line for line in report.mismatches if "output.dense.weight" in line]


LLAMA = {"model_type": "llama", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 12}


@pytest.mark.parametrize(
    ("class_name", "without", "more", "checked"),
    [
        ("LlamaForSequenceClassification", "", {}, True),
        ("LlamaModel", "model.", {}, True),
        ("LlamaForSequenceClassification", "", {"score.bias": (2,)}, False),  # of tokens
        ("LlamaModel", "", {"qa_outputs.weight": (2, 8)}, False),
        ("LlamaForCausalLM", "", {"summary.weight": (1, 8)}, False),
    ],
)
def test_a_causal_model_with_another_head_that_is_not_named(
    class_name: str, without: str, more: dict[str, Any], checked: bool, tmp_path: Path
) -> None:
    layout = layout_of_class(LLAMA | {"architectures": [class_name]})
    assert layout is not None
    shapes = {t.name.removeprefix(without): t.shape for t in layout.named_tensors()} | more
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert (report.witnesses.formula is not None) == checked
    assert report.parameters.total == sum(values.size for values in tensors.values())


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("gpt2", "GPT2DoubleHeadsModel"),
        ("qwen2", "Qwen2ForRewardModel"),
        ("bert", "BertForRewardModel"),
        ("t5", "T5ForRewardModel"),
    ],
)
def test_a_class_that_ends_like_a_body_is_none(model_type: str, class_name: str) -> None:
    assert layout_of_class({"model_type": model_type, "architectures": [class_name]}) is None


@pytest.mark.parametrize(
    ("model_type", "class_name"), [("chatglm", "ChatGLM"), ("aquila", "Aquila")]
)
def test_a_class_that_is_named_as_a_body_and_has_the_head(model_type: str, class_name: str) -> None:
    config = {"model_type": model_type}
    named = layout_of_class(config | {"architectures": [f"{class_name}Model"]})
    assert named == layout_of(config)


def test_a_pattern_of_windows_in_letters() -> None:
    config = {"model_type": "exaone4", "num_hidden_layers": 8}
    layouts = [
        layout_of(config | {"sliding_window_pattern": pattern, "layer_types": types})
        for pattern in (4, "LLLG")
        for types in (None, (["sliding_attention"] * 3 + ["full_attention"]) * 2)
    ]
    assert layouts == [layouts[0]] * 4


@pytest.mark.parametrize(
    ("model_type", "class_name", "noted"),
    [
        ("bert", "JinaBertForMaskedLM", True),
        ("deepseek_v3", "DeepseekV3ForCausalLM", False),
        ("git", "Grok1ForCausalLM", True),
        ("llama", "BitnetForCausalLM", True),
        ("llama", "LLaMAForCausalLM", False),
        ("kimi_k2", "DeepseekV3ForCausalLM", False),
    ],
)
@pytest.mark.parametrize("mapped", [{"auto_map": {}}, {}], ids=["mapped", "bare"])
def test_code_of_another_repository_is_noted(
    model_type: str, class_name: str, noted: bool, mapped: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": model_type, "architectures": [class_name], **mapped}
    (tmp_path / "config.json").write_text(json.dumps(config))
    note = (
        f"'{class_name}' is code of its own repository, which is not read and may differ: "
        f"counted as transformers' {model_type}"
    )
    assert (note in minilm.inspect(tmp_path / "config.json").notes) == noted


@pytest.mark.parametrize(
    ("model_type", "class_name", "path", "noted"),
    [
        ("xlm-roberta", "XLMRobertaModel", "modeling_lora.XLMRobertaLoRA", True),
        ("xlm-roberta", "XLMRobertaModel", "owner/code--modeling_xlm.XLMRobertaModel", True),
        ("bert", "BertForMaskedLM", "bert_layers.BertForMaskedLM", True),
        ("bert", "", "bert_layers.BertModel", True),
        ("gpt2", "GPT2LMHeadCustomModel", "modeling_gpt2_mq.GPT2LMHeadCustomModel", True),
        ("deepseek_v3", "DeepseekV3ForCausalLM", "modeling.DeepseekV3ForCausalLM", False),
        ("deepseek_v3", "DeepseekV3ForCausalLM", "modeling.OtherForCausalLM", True),
        ("falcon", "FalconForCausalLM", "modeling_falcon.FalconForCausalLM", False),
        ("mpt", "MPTForCausalLM", "modeling_mpt.MPTForCausalLM", False),
        ("phi3", "Phi3ForCausalLM", "modeling_phi3.Phi3ForCausalLM", False),
        ("internlm2", "InternLM2ForCausalLM", "modeling.InternLM2ForCausalLM", False),
        ("bert", "BertModel", "", False),
    ],
)
def test_code_under_transformers_name_is_noted(
    model_type: str, class_name: str, path: str, noted: bool, tmp_path: Path
) -> None:
    """Not that of a type which transformers took over: its class is the same."""
    config: dict[str, Any] = {"model_type": model_type, "architectures": [class_name]}
    config |= {
        "auto_map": {"AutoConfig": "configuration.C", **({"AutoModel": path} if path else {})}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    notes = minilm.inspect(tmp_path / "config.json").notes
    assert any("is code of its own repository" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("model_type", "class_name", "fields"),
    [
        ("bert", "JinaBertModel", {"position_embedding_type": "alibi"}),
        ("bert", "JinaBertModel", {"feed_forward_type": "geglu"}),
        ("bert", "BertForMaskedLM", {"alibi_starting_size": 512}),
        ("gpt2", "GPT2LMHeadCustomModel", {"attention_head_type": "multiquery"}),
        ("xlm-roberta", "XLMRobertaModel", {"lora_adaptations": ["retrieval.query"]}),
    ],
)
def test_fields_of_other_code_are_not_counted_without_it(
    model_type: str, class_name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": model_type, "architectures": [class_name], "hidden_size": 8}
    config |= {"auto_map": {"AutoModel": f"modeling.{class_name}"}, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=next(iter(fields))):
        minilm.inspect(tmp_path / "config.json")
    save_file({"any.weight": np.zeros((2, 8), np.float32)}, tmp_path / "model.safetensors")
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == 16
    assert report.witnesses.formula is None
    assert any(next(iter(fields)) in note for note in report.notes)


@pytest.mark.parametrize("ending", ["Model", "ForMaskedLM"])
def test_new_is_the_name_of_gte_in_its_own_code(ending: str) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 9}
    own, other = (
        layout_of({"model_type": kind, "architectures": [name + ending], **sizes})
        for kind, name in (("new", "New"), ("gte", "Gte"))
    )
    shapes = [
        {tensor.name.removeprefix(f"{layout.family}."): tensor.shape for tensor in named}
        for layout in (own, other)
        for named in [list(layout.named_tensors(layout.tensors))]
    ]
    assert shapes[0] == shapes[1]
    with pytest.raises(ConfigError, match="pack_qkv"):
        layout_of({"model_type": "new", "pack_qkv": False})


@pytest.mark.parametrize(
    ("model_type", "class_name", "prefix"),
    [
        ("bert", "BertModel", "bert."),
        ("roberta", "RobertaModel", "roberta."),
        ("deberta", "DebertaModel", "deberta."),
        ("deberta-v2", "DebertaV2Model", "deberta."),
        ("vit", "ViTModel", "vit."),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_body_may_be_stored_as_the_part_that_it_is_beside_a_head(
    model_type: str, class_name: str, prefix: str, named: bool, tmp_path: Path
) -> None:
    config = drawn_class(model_type, class_name)
    layout = layout_of_class(config)
    assert layout is not None
    every = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    tensors = {prefix + tensor.name: np.zeros(tensor.shape, np.float32) for tensor in every}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    if not named:
        del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert report.verified, report.mismatches
    assert report.witnesses.formula == report.parameters.total == layout.count()
    assert not any(f"config.json names {class_name}" in note for note in report.notes)


@pytest.mark.parametrize(
    ("fields", "what", "text_alone"),
    [
        ({"vision_config": {"model_type": "foo"}}, "vision_config 'foo'", True),
        ({"text_config": {"model_type": "foo"}}, "text_config 'foo'", False),
        ({"architectures": ["LlavaForFoo"]}, "LlavaForFoo", True),
    ],
)
def test_which_part_is_not_declared_is_said(
    fields: dict[str, Any], what: str, text_alone: bool, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    parts = {"text_config": {"model_type": "llama"}, "vision_config": {}}
    path.write_text(json.dumps({"model_type": "llava"} | parts | fields))
    with pytest.raises(FormatError) as caught:
        minilm.inspect(path)
    assert caught.value.got == f"{what} of model_type 'llava' without weights"
    remedy = "save its text_config as a config.json to count the text alone"
    assert (remedy in caught.value.remedy) == text_alone


@pytest.mark.parametrize(
    ("whole", "class_name", "part", "model_type"),
    [
        ("clip", "CLIPTextModelWithProjection", "text", "clip_text_model"),
        ("clip", "CLIPVisionModel", "vision", "clip_vision_model"),
        ("metaclip_2", "MetaClip2VisionModel", "vision", "metaclip_2_vision_model"),
        ("siglip", "SiglipTextModel", "text", "siglip_text_model"),
        ("siglip2", "Siglip2TextModel", "text", "siglip2_text_model"),
        ("siglip2", "Siglip2VisionModel", "vision", "siglip2_vision_model"),
        ("clap", "ClapAudioModel", "audio", "clap_audio_model"),
        ("aria", "AriaTextForCausalLM", "text", "aria_text"),
        ("gemma3", "Gemma3ForCausalLM", "text", "gemma3_text"),
        ("gemma3", "Gemma3TextForSequenceClassification", "text", "gemma3_text"),
        ("qwen3_5", "Qwen3_5TextForSequenceClassification", "text", "qwen3_5_text"),
        ("mllama", "MllamaTextModel", "text", "mllama_text_model"),
        ("qwen3_5", "Qwen3_5TextModel", "text", "qwen3_5_text"),
    ],
)
def test_a_part_under_the_type_of_the_whole_is_that_part(
    whole: str, class_name: str, part: str, model_type: str, tmp_path: Path
) -> None:
    fields = {} if part == "audio" else {"hidden_size": 64, "num_attention_heads": 8}
    named = {"architectures": [class_name]}
    alone = layout_of_class({"model_type": model_type, **named, **fields})
    config = {"model_type": whole, **named, f"{part}_config": fields}
    assert layout_of_class(config) == alone != layout_of_class(config | {"architectures": None})
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert alone is not None
    assert minilm.inspect(tmp_path / "config.json").parameters.total == alone.count()


@pytest.mark.parametrize(
    ("whole", "class_name"), [("llama4", "Llama4VisionModel"), ("glm4v", "Glm4vTextModel")]
)
def test_a_part_without_a_type_is_not_counted_as_the_whole(whole: str, class_name: str) -> None:
    assert layout_of_class({"model_type": whole, "architectures": [class_name]}) is None
