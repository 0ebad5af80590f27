"""A config.json whose model_type is not declared: which one is offered, and reading it as another."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.overview import overviews
from minilm.cli.architectures import main as list_architectures
from minilm.cli.inspect import main
from minilm.errors import InputError
from minilm.inspection.similar_types import similar_types
from tests.inspection.test_inspector import write_llama

LLAMA = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 11,
    "attention_bias": False,
    "mlp_bias": False,
}
DEEPSEEK = LLAMA | {
    "num_nextn_predict_layers": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "q_lora_rank": 6,
    "kv_lora_rank": 8,
    "first_k_dense_replace": 1,
    "topk_group": 1,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
    "moe_intermediate_size": 4,
}
GPT2 = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 11}


def novel(folder: Path, fields: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "novel", **fields}))
    return path


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        (LLAMA, "llama"),
        (DEEPSEEK, "deepseek_v3"),
        (GPT2, "gpt2"),
        ({"text_config": {"model_type": "gemma4_text"}}, "gemma4"),
        ({"vocab_size": 11, "colour": 3}, None),
    ],
)
def test_the_type_with_its_fields_is_offered(
    tmp_path: Path,
    fields: dict[str, Any],
    offered: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(novel(tmp_path, fields))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(
        f"error: {tmp_path / 'config.json'}: model_type 'novel' without weights"
    )
    if offered is None:
        assert "--as" not in error
    else:
        others = r"(, and of \d+ other types?)?"
        expected = f"its fields are those of {offered}{others}; inspect with --as {offered}"
        assert re.search(expected, error)


@pytest.mark.parametrize(
    ("name", "field"), [("img_processor", {"image_dim_out": 8}), ("mm_vision_tower", "a/clip")]
)
def test_a_tower_that_is_not_counted_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, field: Any
) -> None:
    fields = LLAMA | {"architectures": ["NovelForCausalLM"], name: field, "image_token": "<>"}
    path = novel(tmp_path, fields)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    offered = re.search(rf"inspect with --as (\w+), which does not count {name}; or", error)
    assert offered
    for told, report in (
        (
            f"config.json says novel; {name}: not counted",
            minilm.inspect(path, model_type="llama"),
        ),
        ("", minilm.inspect(novel(tmp_path, LLAMA), model_type="llama")),
    ):
        assert any(note.endswith(told or "config.json says novel") for note in report.notes)
    assert main([str(path), "--as", offered[1]]) == 0


def test_sizes_that_the_offered_type_has_not_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Phi-4-mini-flash has state-space layers between those of Llama's fields."""
    told = {"mb_per_layer": 2, "mamba_d_state": 16}
    path = novel(tmp_path, LLAMA | told | {"eos_token_id": 5, "use_cache": True})
    assert main([str(path)]) == 2
    said = "inspect with --as llama; mb_per_layer and mamba_d_state would mean nothing there; or"
    assert said in capsys.readouterr().err


def test_no_type_is_offered_of_which_the_class_is_not_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = novel(tmp_path, LLAMA | {"architectures": ["NovelV"]})
    assert main([str(path), "--as", "llama"]) == 2
    assert main([str(path)]) == 2
    assert "--as" not in capsys.readouterr().err.splitlines()[-1]


PUBLISHED = {
    "gpt2-xl": (
        "gpt2",
        {"n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024, "vocab_size": 50257},
    ),
    "llama-7b": (
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "tie_word_embeddings": False,
            "vocab_size": 32000,
        },
    ),
    "mixtral-8x7b": (
        "mixtral",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "tie_word_embeddings": False,
            "vocab_size": 32000,
        },
    ),
    "qwen3-8b": (
        "qwen3",
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "head_dim": 128,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "sliding_window": None,
            "max_window_layers": 36,
            "use_sliding_window": False,
            "tie_word_embeddings": False,
            "vocab_size": 151936,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_among_those_with_the_same_fields(name: str) -> None:
    """The first is nearly that, and no larger family with sizes of its own that no field gives."""
    model_type, fields = PUBLISHED[name]
    config = fields | {"model_type": "novel", "architectures": ["NovelForCausalLM"]}
    similar = similar_types(config)
    assert model_type in similar
    first, own = (
        layout_of(config | {"model_type": each}).count() for each in (similar[0], model_type)
    )
    assert abs(first - own) < 0.001 * own


def test_it_is_read_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = novel(tmp_path, LLAMA)
    assert main([str(path), "--as", "llama", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    matrices = 4 * 8 * 8 + 3 * 8 * 12
    assert report["parameters"]["total"] == 2 * 11 * 8 + 2 * (matrices + 2 * 8) + 8
    assert report["architecture"] == "llama"
    assert "read as llama: config.json says novel" in report["notes"]


def test_weights_are_held_against_it(tmp_path: Path) -> None:
    write_llama(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(
        path.read_text().replace('"llama"', '"novel", "architectures": ["NovelForCausalLM"]')
    )
    assert minilm.inspect(tmp_path).witnesses.formula is None
    report = minilm.inspect(tmp_path, model_type="llama")
    assert report.verified
    assert report.witnesses.formula == report.witnesses.file
    assert not minilm.inspect(tmp_path, model_type="qwen2").verified, "it has three biases more"


def test_what_cannot_be_read_so_is_one_line(tmp_path: Path) -> None:
    path = novel(tmp_path, LLAMA)
    with pytest.raises(InputError, match=r"^--as: 'lama', .*; perhaps llama"):
        minilm.inspect(path, model_type="lama")
    with pytest.raises(InputError, match=r"--as: 'zzzz', .*`minilm architectures`"):
        minilm.inspect(path, model_type="zzzz")
    with pytest.raises(InputError, match=r"--as: nano, expected a target with a config.json"):
        minilm.inspect("nano", model_type="llama")


def test_every_type_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_architectures([]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == [
        "model_type",
        "counted",
        "KV",
        "cache",
        "GGUF",
        "runs",
        "the",
        "same",
        "as",
    ]
    assert [line.split()[0] for line in lines] == [each.model_type for each in overviews()]
    assert list_architectures(["Qwen2", "falcon-h1"]) == 0
    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert {"qwen2", "qwen2_moe", "falcon_h1"} <= {*named} < {*MODEL_TYPES}
    assert "llama" not in named
    assert list_architectures(["lama-9"]) == 2
    assert "which no declared type has in it" in capsys.readouterr().err
    assert list_architectures(["--json"]) == 0
    (llama,) = [
        each for each in json.loads(capsys.readouterr().out) if each["model_type"] == "llama"
    ]
    assert llama == {
        "model_type": "llama",
        "counted": "yes",
        "cache": "yes",
        "gguf": "llama",
        "runs": "yes",
        "same_as": "",
    }
