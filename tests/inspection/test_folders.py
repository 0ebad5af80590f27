"""Folders that are more, or less, than one model: shards, a cache, modules in folders, an adapter."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import minilm
from minilm.architectures import layout_of
from minilm.errors import FormatError, InputError
from minilm.formats.header import WEIGHTS_ENDINGS
from minilm.inspection.folders import cached_model
from minilm.inspection.inspector import inspect_with_sources
from minilm.runs.files import is_model_file

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 11,
    "tie_word_embeddings": False,
}
LAYOUT = layout_of(LLAMA)
TOTAL = LAYOUT.count()


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))


def test_a_user_without_a_home_directory_has_no_cached_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_such_user(uid: int) -> None:
        raise KeyError(uid)

    for variable in ("HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    assert cached_model("someone/something") is None


def tensors_of(config: dict[str, Any] = LLAMA) -> dict[str, torch.Tensor]:
    return {t.name: torch.zeros(t.shape) for t in layout_of(config).named_tensors()}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_model(folder: Path, config: dict[str, Any] = LLAMA) -> None:
    write_json(folder / "config.json", config)
    save_file(tensors_of(config), folder / "model.safetensors")


def write_shards(folder: Path, *, config: bool, kept: tuple[int, ...] = (1, 2, 3)) -> list[Path]:
    if config:
        write_json(folder / "config.json", LLAMA)
    tensors = list(tensors_of().items())
    paths = [folder / f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    for i, path in enumerate(paths):
        if i + 1 in kept:
            save_file(dict(tensors[i::3]), path)
    return paths


def test_shards_without_an_index_are_taken_together(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, config=True)
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.witnesses.file == report.witnesses.formula == TOTAL
    # A tensor that two of them have is not one model.
    save_file(tensors_of(), paths[2])
    with pytest.raises(FormatError, match="too, expected each tensor in one shard"):
        minilm.inspect(tmp_path)


def test_a_shard_by_its_name_is_a_part(tmp_path: Path) -> None:
    path = write_shards(tmp_path, config=True)[1]
    report = minilm.inspect(path)
    assert report.verified
    assert report.verdict.status == "not_cross_checked"
    assert report.parameters.total == sum(t.numel() for _, t in list(tensors_of().items())[1::3])
    assert report.notes[0] == (
        f"shard 2 of 3 of a model, which is not the whole: that has {TOTAL:,} parameters by the "
        "formula, and the tensors here are as it says"
    )
    save_file({"model.norm.weight": torch.zeros(9), "novel": torch.zeros(1)}, path)
    assert [line.partition(" [")[0] for line in minilm.inspect(path).mismatches] == [
        "file: model.norm.weight has shape",
        "file: novel",
    ]


@pytest.mark.parametrize("config", [False, True])
def test_missing_shards_are_said(tmp_path: Path, config: bool) -> None:
    write_shards(tmp_path, config=config, kept=(1, 3))
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.notes[0].startswith("shards 1, 3 of 3 of a model, which is not the whole")
    assert report.parameters.total < TOTAL


def write_cache(folder: Path, *revisions: str, main: str | None) -> Path:
    for revision in revisions:
        write_model(folder / "snapshots" / revision)
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


@pytest.mark.parametrize("ending", WEIGHTS_ENDINGS[2:])
def test_the_only_weights_of_a_folder_may_have_any_ending(tmp_path: Path, ending: str) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / f"last{ending}")
    assert minilm.inspect(tmp_path).parameters.total == 3
    assert is_model_file(tmp_path / f"last{ending}")


def test_a_cache_folder_is_followed_to_its_snapshot(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "models--org--name", "abc1", "abc2", main="abc2\n")
    report = minilm.inspect(cache)
    assert report.witnesses.file == TOTAL
    assert report.notes[0].endswith("its snapshot abc2")
    with pytest.raises(InputError, match="name one of the models in it: models--org--name"):
        minilm.inspect(tmp_path)
    for text in ("../../abc1", "abc3", "", "\xff"):
        (cache / "refs" / "main").write_text(text)
        with pytest.raises(InputError, match="2 snapshots and no refs/main that names one"):
            minilm.inspect(cache)
    only = write_cache(tmp_path / "only", "abc1", main=None)
    assert minilm.inspect(only).witnesses.file == TOTAL


BODY = LLAMA | {"architectures": ["LlamaModel"]}
BODY_TOTAL = TOTAL - 11 * 8


def write_sentence_transformer(folder: Path, **dense: object) -> None:
    write_json(folder / "config.json", BODY)
    body = {k.removeprefix("model."): v for k, v in tensors_of().items() if "lm_head" not in k}
    save_file(body, folder / "model.safetensors")
    entries = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in entries
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 8})
    (folder / "2_Dense").mkdir()
    if dense:
        write_json(folder / "2_Dense" / "config.json", dense)
    linear = torch.nn.Linear(8, 5).state_dict()
    save_file(
        {f"linear.{k}": v for k, v in linear.items()}, folder / "2_Dense" / "model.safetensors"
    )


def test_sentence_transformers_are_counted_over_their_modules(tmp_path: Path) -> None:
    write_sentence_transformer(tmp_path, in_features=8, out_features=5, bias=True)
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.witnesses.formula == report.witnesses.file == BODY_TOTAL + 8 * 5 + 5
    assert report.components[-1].name == "sentence projection"
    assert report.notes == (
        "sentence-transformers: Transformer, Pooling, Dense",
        "2_Dense (Dense): 45 elements",
    )


def test_a_module_that_is_not_as_its_config_says_is_a_mismatch(tmp_path: Path) -> None:
    write_sentence_transformer(tmp_path, in_features=8, out_features=6, bias=True)
    assert any(
        "2_Dense.linear.weight has shape [5, 8]" in m for m in minilm.inspect(tmp_path).mismatches
    )


def test_a_module_without_a_config_is_said_to_be_unchecked(tmp_path: Path) -> None:
    write_sentence_transformer(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == BODY_TOTAL + 45
    assert report.notes[-1] == "2_Dense (Dense): its sizes are its file's, not checked"


@pytest.mark.parametrize("path", ["../outside", "a/b", "..", 3])
def test_modules_outside_the_folder_are_refused(tmp_path: Path, path: object) -> None:
    write_json(tmp_path / "modules.json", [{"path": path, "type": "x.Dense"}])
    with pytest.raises(FormatError, match="a module without path and type"):
        minilm.inspect(tmp_path)


def test_a_pipeline_has_a_row_for_each_component(tmp_path: Path) -> None:
    index = {
        "_class_name": "FluxPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "text_encoder": ["transformers", "LlamaModel"],
        "scheduler": ["diffusers", "EulerScheduler"],
        "safety_checker": [None, None],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(tmp_path / "model_index.json", index)
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {})
    write_json(tmp_path / "vae" / "config.json", {})
    write_model(tmp_path / "text_encoder")
    write_json(tmp_path / "transformer" / "config.json", {"_class_name": "FluxTransformer2DModel"})
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(4)}, weights)
    save_file({}, weights.with_suffix(".fp16.safetensors"))
    report = minilm.inspect(tmp_path)
    assert (report.architecture, report.parameters.total) == ("FluxPipeline", 10 + TOTAL)
    assert {c.name: c.count for c in report.components} == {
        "transformer": 10,
        "text_encoder": TOTAL,
    }
    assert report.notes[1:4] == (
        "transformer (FluxTransformer2DModel): 10 elements",
        f"text_encoder (LlamaModel): {TOTAL:,} elements",
        "vae (AutoencoderKL): no weights here",
    )
    assert minilm.inspect(weights.parent).architecture == "FluxTransformer2DModel"
    write_json(tmp_path / "model_index.json", index | {"x" * 300: ["library", "Class"]})
    assert minilm.inspect(tmp_path).parameters == report.parameters
    # The values are read from their files under the same names.
    assert inspect_with_sources(tmp_path).header is not None


def test_a_pipeline_says_what_is_left_out_of_its_components(tmp_path: Path) -> None:
    write_json(tmp_path / "model_index.json", {name: ["library", "Class"] for name in ("a", "b")})
    state = {"module.w": torch.zeros(3), "module.n": torch.zeros(2)}
    for name, other in (("a", "optimizer"), ("b", "ema")):
        write_json(tmp_path / name / "config.json", {})
        checkpoint = {"state_dict": state, other: [torch.zeros(3)]}
        torch.save(checkpoint, tmp_path / name / "pytorch_model.bin")
    prefix = "the prefix 'module.' of every name is left out"
    assert minilm.inspect(tmp_path).notes[3:-1] == (
        "a: read 'state_dict'; left out 'optimizer' (1 tensor)",
        f"a: {prefix}",
        "b: read 'state_dict'; left out 'ema' (1 tensor)",
        f"b: {prefix}",
    )


def test_the_buffers_of_a_component_are_no_parameters(tmp_path: Path) -> None:
    write_json(tmp_path / "model_index.json", {"a": ["library", "Class"]})
    (tmp_path / "a").mkdir()
    module = torch.nn.Linear(3, 2)
    module.register_buffer("offset", torch.zeros(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that TorchScript is deprecated
        torch.jit.save(torch.jit.script(module), tmp_path / "a" / "model.pt")
    parameters = minilm.inspect(tmp_path).parameters
    assert (parameters.total, parameters.buffers) == (8, 5)


def write_adapter(folder: Path, base: str) -> int:
    fields = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": base,
        "target_modules": ["q_proj", "k_proj"],
    }
    write_json(folder / "adapter_config.json", fields)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": torch.zeros(2, 8),
        f"{layer}.lora_B.weight": torch.zeros(8, 2),
        "base_model.model.lm_head.weight": torch.zeros(11, 8),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return 2 * 16 + 88


@pytest.mark.parametrize("by", ["folder", "path", "file"])
def test_an_adapter_says_what_it_is(tmp_path: Path, by: str) -> None:
    count = write_adapter(tmp_path / "adapter", "org/name")
    target: str | Path = tmp_path / "adapter"
    if by != "folder":
        target = tmp_path / "adapter" / "adapter_model.safetensors"
    report = minilm.inspect(str(target) if by == "path" else target)
    assert (report.architecture, report.parameters.total) == ("LoRA adapter", count)
    assert report.notes == (
        "LoRA adapter (PEFT) of org/name: rank 2, alpha 4, on 1 module (q_proj), lm_head trained whole",
        "target_modules names k_proj: the file has nothing for it",
        "the base is not at hand: the trainable share is not known",
        "an adapter has no formula of its own: counted and grouped by name, not checked",
    )


@pytest.mark.parametrize("base", ["folder", "beside", "cache"])
def test_the_trainable_share_with_the_base_at_hand(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"folder": str(tmp_path / "base"), "beside": "../base", "cache": "org/name"}[base]
    if base == "cache":
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        write_cache(tmp_path / "hub" / "models--org--name", "abc1", main="abc1")
    else:
        write_model(tmp_path / "base")
    count = write_adapter(tmp_path / "adapter", name)
    share = minilm.inspect(tmp_path / "adapter").notes[2]
    total = TOTAL + count
    assert share.startswith(f"trainable: {count:,} of {total:,} parameters ({count / total:.3%})")


def test_an_adapter_that_names_itself_as_its_base(tmp_path: Path) -> None:
    write_adapter(tmp_path, ".")
    assert "the base is not at hand" in minilm.inspect(tmp_path).notes[2]


@pytest.mark.parametrize("base", ["b" * 300, f"{'b' * 200}/{'b' * 200}"])
def test_an_adapter_of_a_base_whose_name_is_too_long_for_a_file(tmp_path: Path, base: str) -> None:
    (tmp_path / "no-cache").mkdir()
    count = write_adapter(tmp_path, base)
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == count
    assert "the base is not at hand" in report.notes[2]


def test_a_sparse_cache_of_links(tmp_path: Path) -> None:
    """As huggingface_hub writes it: the snapshot's files are links into blobs/."""
    write_model(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "abc1"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        os.symlink(tmp_path / "blobs" / name, snapshot / name)
    assert minilm.inspect(tmp_path).witnesses.file == TOTAL


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"peft_type": 3, "r": "x", "lora_alpha": None, "target_modules": 7},
        {"peft_type": "\x1b" * 1000, "base_model_name_or_path": "\0"},
        {"base_model_name_or_path": "a" * 5000, "target_modules": [None, ["x"], "y" * 5000] * 50},
        {"base_model_name_or_path": "../" * 300, "target_modules": "all-linear"},
    ],
)
def test_an_adapter_with_other_fields(tmp_path: Path, fields: dict[str, object]) -> None:
    count = write_adapter(tmp_path, "")
    write_json(tmp_path / "adapter_config.json", fields)
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == count
    assert "rank 2" in report.notes[0]
    assert all(len(note) < 1000 for note in report.notes)


def test_more_modules_than_any_folder_has(tmp_path: Path) -> None:
    write_json(tmp_path / "modules.json", [{"path": f"{i}", "type": "x.Dense"} for i in range(65)])
    with pytest.raises(FormatError, match="65 modules, expected at most 64"):
        minilm.inspect(tmp_path)
    (tmp_path / "modules.json").unlink()
    write_json(tmp_path / "model_index.json", {f"{i}": ["diffusers", "X"] for i in range(65)})
    with pytest.raises(FormatError, match="65 modules, expected at most 64"):
        minilm.inspect(tmp_path)


@pytest.mark.parametrize("text", ["", "[", "{}", "3", "[1]", "[null]", '[]} {"x": 1'])
def test_modules_that_are_no_list_of_modules(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(InputError):
        minilm.inspect(tmp_path)


def test_a_model_folder_may_have_snapshots_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_cache(tmp_path, "step1", "step2", main=None)
    assert minilm.inspect(tmp_path).witnesses.file == TOTAL


def test_a_cache_that_links_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    os.symlink(tmp_path, tmp_path / "snapshots" / "abc1")
    with pytest.raises(InputError, match="a folder without config"):
        minilm.inspect(tmp_path)
