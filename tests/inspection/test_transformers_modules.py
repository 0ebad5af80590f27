"""A model of transformers, passed as it is: its config and formula, and its file's components."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import minilm

transformers: Any = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


def model(config_class: str, **fields: Any) -> Any:
    config = getattr(transformers, config_class)(**(SIZES | fields), bos_token_id=1, eos_token_id=2)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("config_class", "fields", "family"),
    [
        ("LlamaConfig", {}, "llama"),
        ("GPT2Config", {"n_positions": 64}, "gpt2"),
        ("MixtralConfig", {"num_local_experts": 4}, "mixtral"),
    ],
)
def test_a_module_finds_its_formula(
    config_class: str, fields: dict[str, Any], family: str, tmp_path: Path
) -> None:
    module = model(config_class, **fields)
    module.save_pretrained(tmp_path)
    file = minilm.inspect(tmp_path)
    report = minilm.inspect(module)
    assert report.architecture == family
    assert report.verdict.status == "verified"
    assert report.witnesses.formula == report.witnesses.module == file.parameters.total
    assert report.formula == file.formula
    assert report.components == file.components
    assert report.parameters.active == file.parameters.active
    assert report.hyperparameters["model"]["vocab_size"] == 100
    body = minilm.inspect(module.base_model)
    assert body.verdict.status == "verified"
    assert body.architecture == family


@pytest.mark.parametrize("tied", [None, False, True])
@pytest.mark.parametrize("model_type", ["longt5", "mt5", "t5", "umt5"])
def test_a_head_that_is_not_tied_is_not_tied_live(
    model_type: str, tied: bool | None, tmp_path: Path
) -> None:
    """As Flan-T5 has it: transformers' configuration ties it all the same."""
    parsed = transformers.AutoConfig.for_model(model_type)
    class_name = transformers.AutoModelForSeq2SeqLM._model_mapping[type(parsed)].__name__
    sizes = {"d_ff": 16, "d_kv": 4, "d_model": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 40}
    fields = {"model_type": model_type, "architectures": [class_name], **sizes}
    if tied is not None:
        fields["tie_word_embeddings"] = tied
    (tmp_path / "config.json").write_text(json.dumps(fields))
    report = minilm.inspect(tmp_path, live=True)
    assert report.witnesses.formula == report.witnesses.module
    with_a_tie = minilm.inspect(tmp_path).parameters.total - (40 * 8 if tied is False else 0)
    (tmp_path / "config.json").write_text(json.dumps(fields | {"tie_word_embeddings": True}))
    assert minilm.inspect(tmp_path).parameters.total == with_a_tie


def test_the_tensors_of_module_and_file_have_one_naming(tmp_path: Path) -> None:
    module = model("LlamaConfig")
    module.save_pretrained(tmp_path)
    components = {row.name: row.component for row in minilm.inspect(tmp_path).tensors}
    assert {row.name: row.component for row in minilm.inspect(module).tensors} == components
    body = {"model." + row.name: row.component for row in minilm.inspect(module.model).tensors}
    assert body.items() <= components.items()


def test_a_module_that_its_config_does_not_describe_is_a_mismatch() -> None:
    module = model("LlamaConfig")
    module.model.layers.append(copy.deepcopy(module.model.layers[0]))
    assert minilm.inspect(module).mismatches != ()


def test_an_undeclared_model_type_keeps_its_config() -> None:
    config = transformers.SplinterConfig(**SIZES, max_position_embeddings=16)
    report = minilm.inspect(transformers.SplinterModel(config))
    assert report.architecture == "splinter"
    assert report.formula is None
    assert report.verdict.status == "not_cross_checked"
    assert report.hyperparameters["model"]["max_position_embeddings"] == 16


def test_a_module_with_a_config_that_contradicts_itself_is_counted() -> None:
    """Layers are cut off, and config.layer_types is left as it was."""
    module = model("Gemma2Config", num_hidden_layers=4, head_dim=8)
    module.model.layers = module.model.layers[:2]
    module.config.num_hidden_layers = 2
    report = minilm.inspect(module)
    assert report.parameters.total == sum(tensor.numel() for tensor in module.parameters())
    assert report.formula is None
    assert report.notes[0].startswith("not used: ")
    assert "layer_types" in report.notes[0]
