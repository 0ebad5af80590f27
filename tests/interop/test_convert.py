"""The convert command: what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import models

import minilm
from minilm import formats
from minilm.architectures.conversion import exportable
from minilm.architectures.tensor_map import TensorMapping
from minilm.checkpoint import load
from minilm.cli.convert import main
from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError
from minilm.interop.model_card import Provenance
from minilm.interop.model_source import open_source
from minilm.training.base_model import companions
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run

Capture = pytest.CaptureFixture[str]


def error(capsys: Capture, *arguments: object) -> str:
    """The one line of a conversion that is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text.removeprefix("error: ").rstrip()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ngram": 3}, "model.ngram: 3, which no stock architecture has"),
        ({"convolution": 2}, "model.convolution: 2"),
        ({"qk_norm": True}, "model.qk_norm: True"),
        (GATED | NO_BIASES | {"rotary_dim": 4}, "model.rotary_dim: 4"),
        (GATED | NO_BIASES | {"parallel_residual": True}, "model.parallel_residual: True"),
        ({"norm_bias": False}, "model.norm_bias: False"),
        ({"position": "learned", "sliding_window": 4}, "model.sliding_window: 4"),
        ({"position": "learned", "num_kv_heads": 2}, "expected num_heads, 4, for GPT2LMHeadModel"),
        ({"head_dim": 16}, "model.head_dim: 16"),
        ({"feed_forward": "swiglu"}, "model."),
        ({"norm": "rmsnorm"}, "model.feed_forward: gelu"),
        ({"qkv_bias": False}, "model.attention_output_bias: True"),
        (
            GATED | {"sliding_window": 3, "feed_forward_bias": False, "qkv_bias": False},
            "model.attention_output_bias: True",
        ),
    ],
)
def test_what_no_stock_architecture_has_is_refused_by_its_field(
    tmp_path: Path, capsys: Capture, fields: dict[str, Any], message: str
) -> None:
    source = make_run(tmp_path / "run", TINY | fields)
    line = error(capsys, source, "--to", "huggingface", "--out", tmp_path / "out")
    assert message in line
    assert line.endswith(tuple(class_name for class_name, _ in SHAPES.values()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_presets_that_promise_it_have_an_architecture() -> None:
    from minilm.config.presets import PRESETS

    class_names = {
        name: exportable(preset.model_config())[0].class_name
        for name, preset in PRESETS.items()
        if name != "nano-fast"
    }
    assert class_names == {
        "nano": "GPTNeoXForCausalLM",
        "small": "GPTNeoXForCausalLM",
        "gpt2": "GPT2LMHeadModel",
        "gpt2-medium": "GPT2LMHeadModel",
        "gpt2-large": "GPT2LMHeadModel",
        "gpt2-xl": "GPT2LMHeadModel",
        "llama-3-8b": "LlamaForCausalLM",
        "llama-3-70b": "LlamaForCausalLM",
    }


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    source, there = make_run(tmp_path / "run", TINY), tmp_path / "there"
    there.mkdir()
    for to in ("huggingface", "gguf", "minilm"):
        line = error(capsys, source, "--to", to, "--out", there)
        assert line.startswith(f"{there}: something that exists")
    assert not list(there.iterdir())


@pytest.mark.parametrize("to", ["huggingface", "minilm"])
def test_a_folder_cannot_go_into_a_pipe(tmp_path: Path, capsys: Capture, to: str) -> None:
    source, pipe = make_run(tmp_path / "run", TINY), tmp_path / "pipe"
    os.mkfifo(pipe)
    line = error(capsys, source, "--to", to, "--out", pipe)
    assert line == f"{pipe}: a pipe or device, expected a path for the new folder of --to {to}"
    assert pipe.is_fifo()


@pytest.mark.parametrize("is_link", [False, True])
def test_a_gguf_file_goes_into_a_pipe(tmp_path: Path, capsys: Capture, is_link: bool) -> None:
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source, pipe, out = make_run(tmp_path / "run", TINY), tmp_path / "pipe", tmp_path / "pipe"
    os.mkfifo(pipe)
    if is_link:
        out = tmp_path / "link"
        out.symlink_to("pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert main([str(source), "--to", "gguf", "--out", str(out)]) == 0
    reader.join(timeout=10)
    assert pipe.is_fifo()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{out}: gptneox\n")
    file = tmp_path / f"{out.name}.gguf"  # the name is in the file too
    assert main([str(source), "--to", "gguf", "--out", str(file)]) == 0
    assert received == [file.read_bytes()]


@pytest.mark.parametrize("to", ["huggingface", "minilm", "gguf"])
def test_a_link_is_followed(tmp_path: Path, capsys: Capture, to: str) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source, link, folder = make_run(tmp_path / "run", TINY), tmp_path / "link", tmp_path / "there"
    link.symlink_to(Path("there") / "new")
    line = error(capsys, source, "--to", to, "--out", link)
    assert line.startswith(f"{folder.resolve()}: no such folder")
    folder.mkdir()
    assert main([str(source), "--to", to, "--out", str(link)]) == 0
    assert link.is_symlink()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert (folder / "new").is_file() == (to == "gguf")
    capsys.readouterr()
    assert "something that exists" in error(capsys, source, "--to", to, "--out", link)


def exported(tmp_path: Path, name: str = "llama") -> Path:
    make_run(tmp_path / "run", SHAPES[name][1])
    arguments = [str(tmp_path / "run"), "--to", "huggingface", "--out", str(tmp_path / "hf")]
    assert main(arguments) == 0
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"model_type": "bert"}, "model_type: 'bert', expected one of gpt2"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_parameters: rope_type 'yarn', expected default, linear or llama3",
        ),
        ("llama", {"hidden_act": "relu"}, "hidden_act: 'relu', expected one of silu"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000"),
        ("llama", {"hidden_size": "32"}, "hidden_size: '32'"),
        ("llama", {"intermediate_size": 49}, "model.layers.0.mlp.down_proj.weight [32, 48]"),
        ("llama", {"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight absent"),
        ("neox", {"rotary_pct": 1.5}, "rotary_dim: 12, expected an even number up to head_dim 8"),
        ("neox", {"rotary_pct": "all"}, "rotary_pct: 'all', expected a number"),
        ("qwen2-window", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("qwen2-window", {"layer_types": [{}]}, "layer_types"),
        (
            "qwen2-window",
            {"layer_types": None, "max_window_layers": "abc"},
            "max_window_layers: 'abc', expected a whole number",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_what_minilm_cannot_follow_is_refused_by_its_field(
    tmp_path: Path, capsys: Capture, name: str, change: dict[str, Any], message: str
) -> None:
    folder = exported(tmp_path, name)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | change))
    capsys.readouterr()
    assert message in error(capsys, folder, "--to", "minilm", "--out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_tied_head_that_is_stored_must_be_the_table(tmp_path: Path, capsys: Capture) -> None:
    folder = exported(tmp_path, "gpt2-tied")
    weights = load_file(folder / "model.safetensors")
    table = weights["transformer.wte.weight"]
    save_file(weights | {"lm_head.weight": table.clone()}, folder / "model.safetensors")
    assert main([str(folder), "--to", "minilm", "--out", str(tmp_path / "same")]) == 0
    save_file(weights | {"lm_head.weight": table + 1}, folder / "model.safetensors")
    capsys.readouterr()
    line = error(capsys, folder, "--to", "minilm", "--out", tmp_path / "other")
    assert "lm_head.weight that is not transformer.wte.weight" in line


def with_begin(folder: Path, ends: Any) -> None:
    """A tokenizer of GPT-2's kind that puts a token first, and ends of other names."""
    from tokenizers import processors

    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(["<start>", "<begin>", "<end>", "<turn>"])
    first = backend.token_to_id("<begin>")
    backend.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", first)]
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token_id": first, "eos_token_id": ends}
    (folder / "generation_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("ends", [258, [258, 259]])
def test_what_begins_and_ends_a_text_is_kept(tmp_path: Path, capsys: Capture, ends: Any) -> None:
    make_run(tmp_path / "run", GATED | NO_BIASES | {"vocab_size": 260})
    hf_folder = tmp_path / "hf"
    assert main([str(tmp_path / "run"), "--to", "huggingface", "--out", str(hf_folder)]) == 0
    with_begin(hf_folder, ends)
    capsys.readouterr()
    assert main([str(hf_folder), "--to", "minilm", "--out", str(tmp_path / "back")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'back'}: minilm run\n"
    tokenizer = load(tmp_path / "back").tokenizer
    assert tokenizer.encode_prompt("ab") == [257, 97, 98]
    assert tokenizer.end_of_text == 258
    assert tokenizer.other_ends == ({259} if ends != 258 else set())
    assert main([str(tmp_path / "back"), "--to", "huggingface", "--out", str(tmp_path / "2")]) == 0
    for name in ("generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        first, last = (json.loads((tmp_path / n / name).read_text()) for n in ("hf", "2"))
        assert first == last, name
    fields = json.loads((tmp_path / "2" / "config.json").read_text())
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (257, ends)
    if not importlib.util.find_spec("gguf"):
        return
    assert main([str(tmp_path / "back"), "--to", "gguf", "--out", str(tmp_path / "x.gguf")]) == 0
    metadata = formats.read(tmp_path / "x.gguf").metadata
    prefix = "tokenizer.ggml."
    others = {"eot_token_id": "259"} if ends != 258 else {}
    expected = {"bos_token_id": "257", "eos_token_id": "258", "add_bos_token": "true"} | others
    assert {
        name.removeprefix(prefix): metadata[name].lower()
        for name in metadata
        if name.removeprefix(prefix) in ("eot_token_id", *expected)
    } == expected


@pytest.mark.parametrize("to", ["huggingface", "minilm", "gguf"])
def test_a_tokenizer_larger_than_the_model_is_refused(
    tmp_path: Path, capsys: Capture, to: str
) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source = make_run(tmp_path / "run", TINY | {"vocab_size": 200})
    line = error(capsys, source, "--to", to, "--out", tmp_path / "out")
    assert "256 tokens, expected at most the model's vocab_size 200" in line


def test_the_folder_of_the_new_path_must_be_there(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", TINY)
    line = error(capsys, source, "--to", "huggingface", "--out", tmp_path / "none" / "out")
    assert line.startswith(f"{tmp_path / 'none'}: no such folder")


@pytest.mark.parametrize(
    "summary", [{"data": {}}, {"best_val_loss": "x"}, {"data": {"bytes": "x"}}]
)
def test_a_summary_of_another_form_is_left_out(tmp_path: Path, summary: dict[str, Any]) -> None:
    source = make_run(tmp_path / "run", TINY)
    (source / "summary.json").write_text(json.dumps(summary))
    assert main([str(source), "--to", "huggingface", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "## Parameters" in text
    assert "## Data" not in text


def test_the_card_of_a_run_without_an_evaluation_has_its_data(
    tmp_path: Path, tiny_run: Path
) -> None:
    source = tmp_path / "run"
    shutil.copytree(tiny_run, source)
    summary = json.loads((source / "summary.json").read_text())
    unknown = {"best_val_loss": None, "best_val_bits_per_byte": None, "best_val_tokens": None}
    (source / "summary.json").write_text(json.dumps(summary | unknown))
    assert main([str(source), "--to", "huggingface", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert summary["data"]["sha256"] in text
    assert "## Training" not in text


def test_published_gpt2_names_have_no_prefix_and_its_masks_are_no_weights(tmp_path: Path) -> None:
    folder = exported(tmp_path, "gpt2-tied")
    weights = load_file(folder / "model.safetensors")
    mask = torch.ones(1, 1, 32, 32).tril()
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    masks = {f"h.{i}.attn.bias": mask.clone() for i in range(2)}
    save_file(bare | masks, folder / "model.safetensors")
    assert main([str(folder), "--to", "minilm", "--out", str(tmp_path / "back")]) == 0
    back = load_file(tmp_path / "back" / "model.safetensors")
    expected = load_file(tmp_path / "run" / "model.safetensors")
    assert back.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(back[name], tensor), name


def test_what_is_not_there_is_said(tmp_path: Path, capsys: Capture) -> None:
    line = error(capsys, tmp_path / "none", "--to", "minilm", "--out", tmp_path / "out")
    assert line.startswith(f"{tmp_path / 'none'}: no such file or folder, expected the folder of a")
    folder = exported(tmp_path)
    (folder / "model.safetensors").unlink()
    capsys.readouterr()
    line = error(capsys, folder, "--to", "minilm", "--out", tmp_path / "out")
    assert line == f"{folder}: no weights, expected model.safetensors or its shards"


def test_a_config_names_the_dtype_that_all_weights_have(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", SHAPES["gpt2"][1])
    weights = load_file(source / "model.safetensors")
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        changed = {"final_norm.weight": weights["final_norm.weight"].to(dtype)}
        save_file(weights | changed, source / "model.safetensors")
        out = tmp_path / str(number)
        assert main([str(source), "--to", "huggingface", "--out", str(out)]) == 0
        config = json.loads((out / "config.json").read_text())
        assert config.get("dtype") == (None if number else "float32")
        assert load_file(out / "model.safetensors")["transformer.ln_f.weight"].dtype == dtype


def test_an_end_that_is_the_number_of_no_token_has_no_text(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 2}, merges=[]))
    source = make_run(tmp_path / "run", TINY)
    backend.save(str(source / "tokenizer.json"))
    (source / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert main([str(source), "--to", "huggingface", "--out", str(tmp_path / "out")]) == 0
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert "eos_token" not in settings
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 1


def test_what_is_joined_must_be_of_one_dtype(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", SHAPES["gpt2"][1])
    weights = load_file(source / "model.safetensors")
    name = "blocks.0.attention.key.weight"
    save_file(weights | {name: weights[name].half()}, source / "model.safetensors")
    line = error(capsys, source, "--to", "huggingface", "--out", tmp_path / "out")
    assert "in float16 and float32" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gpt2-tied", "pythia", "qwen3"])
@pytest.mark.parametrize("form", ["shards", "shards without an index", "bin"])
def test_shards_and_torch_files_are_read_too(tmp_path: Path, name: str, form: str) -> None:
    folder = exported(tmp_path, name)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if form == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        names = sorted(weights)
        files = {n: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, n in enumerate(names)}
        for file in set(files.values()):
            save_file({n: weights[n] for n in names if files[n] == file}, folder / file)
        index = {"metadata": {}, "weight_map": files}
        if form == "shards":
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert main([str(folder), "--to", "minilm", "--out", str(tmp_path / "back")]) == 0
    first, last = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "back"))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_a_loop_of_links_is_refused_and_stays(
    tiny_run: Path, tmp_path: Path, capsys: Capture, to: str
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    line = error(capsys, tiny_run, "--to", to, "--out", loop)
    assert line.startswith(f"{loop}: Too many levels of symbolic links")
    assert os.listdir(tmp_path) == ["loop"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make_run(tmp_path / "run", SHAPES["gpt2"][1], dtype)
    for number, to in enumerate(("huggingface", "minilm")):
        out = tmp_path / f"out-{number}"
        assert main([str(source), "--to", to, "--out", str(out)]) == 0
        stored = load_file(out / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}
        source = out
    first, last = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "out-1"))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("a",), {}),
        (("a",), {"transposed": True}),
        (("a", "b", "c"), {}),
        (("a", "b", "c"), {"transposed": True}),
        (("a", "b", "c"), {"by_head": True}),
    ],
)
def test_splitting_undoes_joining(names: tuple[str, ...], form: dict[str, bool]) -> None:
    config = ModelConfig(**TINY)
    random = np.random.default_rng(0)
    tensors = [random.standard_normal((32, 32)).astype(np.float32) for _ in names]
    mapping = TensorMapping("hf", names, **form)
    joined = mapping.join(tensors, config)
    assert joined.shape == mapping.shape([tensor.shape for tensor in tensors])
    again = mapping.split(joined, [32] * len(names), config)
    assert all(np.array_equal(a, b) for a, b in zip(tensors, again, strict=True))


LIMIT = """
import resource, sys
from minilm.cli.convert import main
status = main(sys.argv[1:])
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
raise SystemExit(status)
"""


@pytest.fixture
def peak() -> Callable[..., int]:
    def measure(*arguments: object) -> int:
        command = [sys.executable, "-c", LIMIT, *map(str, arguments)]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, env=os.environ)
        return int(done.stdout.splitlines()[-1])

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_two_gigabytes_are_streamed(tmp_path: Path, peak: Callable[..., int], to: str) -> None:
    fields = {
        "vocab_size": 16384,
        "context_length": 64,
        "num_layers": 24,
        "d_model": 1536,
        "num_heads": 12,
        "d_feed_forward": 3584,
    }
    config = ModelConfig(**GATED | NO_BIASES | fields)
    source = sparse_run(tmp_path / "run", config)
    stored = open_source(source).stored
    assert sum(tensor.nbytes for tensor in stored.values()) > 2e9
    largest = max(tensor.nbytes for tensor in stored.values())
    out = tmp_path / ("out.gguf" if to == "gguf" else "out")
    assert peak(source, "--to", to, "--out", out) < largest + 300e6
    if to == "huggingface":
        assert peak(out, "--to", "minilm", "--out", tmp_path / "back") < largest + 300e6


def sparse_run(folder: Path, config: ModelConfig) -> Path:
    """A run whose weights are zeros that take no room on disk."""
    from minilm.config import TrainConfig
    from minilm.formats.header import StoredTensor
    from minilm.formats.safetensors import make_header
    from minilm.interop.model_source import declared_shapes
    from minilm.runs import files as run_files
    from minilm.text.tokenizers import ByteTokenizer

    folder.mkdir()
    tensors = [StoredTensor(n, "float32", s) for n, s in sorted(declared_shapes(config).items())]
    with (folder / run_files.WEIGHTS).open("wb") as stream:
        stream.write(make_header(tensors, {}))
        stream.truncate(stream.tell() + 4 * sum(tensor.count for tensor in tensors))
    run_files.write_record(folder, run_files.RunRecord(config, TrainConfig()))
    ByteTokenizer().save(folder / run_files.TOKENIZER)
    return folder


def test_the_card_has_the_figures_of_the_run(tmp_path: Path, tiny_run: Path) -> None:
    out = tmp_path / "model"
    assert main([str(tiny_run), "--to", "huggingface", "--out", str(out)]) == 0
    text = (out / "README.md").read_text()
    summary = json.loads((tiny_run / "summary.json").read_text())
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "library_name: transformers" in head
    assert summary["data"]["sha256"] in body
    assert f"{summary['best_val_loss']:.4f}" in body
    assert f"| {summary['parameters']:,} |" in body
    assert load(tiny_run).model.config.num_layers == 2


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/ada lovelace/secret/text.txt", "text.txt: "),
        ("../other/text.txt", "text.txt: "),
        ("hf:org/name", "hf:org/name: "),
        ("hf:/home/ada lovelace/secret/ds,split=train", "ds,split=train: "),
        ("hf:../other/ds", "ds: "),
        ("hf:/home/lovelace/ds=0.5 hf:org/name=0.5", "name=0.5: "),
        ("a.txt=0.5 hf:/home/lovelace/ds=0.5", "a.txt=0.5 ds=0.5: "),
        ("stdlib", "stdlib: "),
        ("a/one.txt=0.7 /b/two.txt=0.3", "one.txt=0.7 two.txt=0.3: "),
    ],
)
def test_the_card_says_no_folder_of_the_machine(
    tmp_path: Path, tiny_run: Path, source: str, shown: str
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["data"]["source"] = source
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", "huggingface", "--out", str(out)]) == 0
    text = (out / "README.md").read_text()
    assert f"\n{shown}" in text
    for secret in ("lovelace", "secret", "other/", str(tmp_path)):
        assert secret not in text


def test_the_card_has_license_and_base_model(tmp_path: Path, capsys: Capture) -> None:
    source = make_run(tmp_path / "run", TINY)
    first, last = tmp_path / "first", tmp_path / "last"
    arguments = [str(source), "--to", "huggingface", "--out"]
    assert main([*arguments, str(first)]) == 0
    assert (first / "README.md").read_text().startswith("---\nlicense: unknown\nlibrary_name: ")
    stated = ["--license", "apache-2.0", "--base-model", "org/base"]
    assert main([*arguments, str(last), *stated]) == 0
    lines = "---\nlicense: apache-2.0\nbase_model: org/base\nlibrary_name: "
    assert (last / "README.md").read_text().startswith(lines)
    # The card of a folder that is converted goes on.
    assert main([str(last), *arguments[1:], str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "README.md").read_text().startswith(lines)
    capsys.readouterr()
    line = error(capsys, *arguments, tmp_path / "bad", "--license", "mit\ntags: [x]")
    assert line.startswith("--license: ")


@pytest.mark.parametrize("name", ["model.gguf", "sub/../model.gguf"])
def test_a_modelfile_does_not_replace_the_gguf_file(
    tmp_path: Path, capsys: Capture, name: str
) -> None:
    source, out = make_run(tmp_path / "run", TINY), tmp_path / "model.gguf"
    (tmp_path / "sub").mkdir()
    line = error(
        capsys, source, "--to", "gguf", "--out", out, "--modelfile", os.path.join(tmp_path, name)
    )
    assert line == f"--modelfile: {tmp_path / name}, which is --out, expected a file of its own"
    assert not out.exists()


def test_convert_from_python(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", SHAPES["llama"][1])
    assert minilm.convert(source, "huggingface", tmp_path / "hf") == "LlamaForCausalLM"
    assert minilm.convert(str(tmp_path / "hf"), to="minilm", out=str(tmp_path / "back"))
    assert load_file(tmp_path / "back/model.safetensors").keys() == (
        load_file(source / "model.safetensors").keys()
    )


@pytest.mark.parametrize("to", ["huggingface", "minilm", "gguf"])
def test_what_was_written_survives_a_power_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any
) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source = make_run(tmp_path / "run", SHAPES["llama"][1])
    fsync, synced = os.fsync, []

    def record(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    (tmp_path / "new").mkdir()
    minilm.convert(source, to, tmp_path / "new" / "out")
    paths = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert [path for path in paths if path.stat().st_ino not in synced] == []
    assert synced[-1] == (tmp_path / "new").stat().st_ino


@pytest.mark.parametrize(
    ("to", "gguf_format", "message"),
    [
        ("onnx", "f16", "to: 'onnx', expected one of minilm, huggingface, gguf"),
        ("gguf", "q4_k_m", "gguf_format: 'q4_k_m', expected one of f32, f16, bf16, q8_0, q4_0"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, to: Any, gguf_format: Any, message: str) -> None:
    source = make_run(tmp_path / "run", SHAPES["llama"][1])
    with pytest.raises(InputError, match=message):
        minilm.convert(source, to, tmp_path / "out", gguf_format=gguf_format)
    assert not (tmp_path / "out").exists()


def test_the_head_of_a_model_in_shards_without_an_index_is_read(tmp_path: Path) -> None:
    folder = exported(tmp_path, "gpt2-tied")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    head = weights["transformer.wte.weight"] + 1
    save_file(weights, folder / "model-00001-of-00002.safetensors")
    save_file({"lm_head.weight": head}, folder / "model-00002-of-00002.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    del fields["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(fields))
    assert main([str(folder), "--to", "minilm", "--out", str(tmp_path / "back")]) == 0
    assert torch.equal(load_file(tmp_path / "back/model.safetensors")["lm_head.weight"], head)


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_what_no_json_file_can_hold_is_refused(tmp_path: Path, capsys: Capture, value: str) -> None:
    folder = exported(tmp_path)
    (folder / "generation_config.json").write_text(f'{{"temperature": {value}}}')
    capsys.readouterr()
    line = error(capsys, folder, "--to", "minilm", "--out", tmp_path / "back")
    assert "generation_config.json: NaN or an infinity, expected finite numbers" in line


def test_files_beside_a_tokenizer_are_read_within_limits(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    folder = exported(tmp_path)
    settings = folder / "tokenizer_config.json"
    settings.write_text('{"chat_template": "x", "a": ' + "[" * 900 + "]" * 900 + "}")
    (folder / "chat_template.jinja").write_text("x")
    capsys.readouterr()
    line = error(capsys, folder, "--to", "gguf", "--out", tmp_path / "model.gguf")
    assert "tokenizer_config.json: not JSON (objects and lists nested over 127 deep)" in line
    settings.unlink()
    with (folder / "chat_template.jinja").open("wb") as stream:
        stream.truncate(32_000_001)
    with pytest.raises(FormatError, match=r"chat_template.jinja: no UTF-8, or too much of it"):
        companions(folder)


def test_a_card_is_read_as_far_as_its_metadata(tmp_path: Path) -> None:
    with (tmp_path / "README.md").open("wb") as stream:
        stream.write(b"---\nlicense: mit\n---\n")
        stream.truncate(2**30)
    tracemalloc.start()
    assert Provenance().or_that_of(tmp_path).license == "mit"
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def make_source_file(folder: Path, form: str) -> Path:
    """One file that is no source of a conversion."""
    source = exported(folder)
    if form in ("model.safetensors", "config.json"):
        return source / form
    if form == "of another name":
        return (source / "model.safetensors").rename(folder / "weights")
    path, zipped = folder / form, form == "new.pt"
    torch.save({"a.weight": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize(
    ("form", "got"),
    [
        ("model.safetensors", "one file of a model"),
        ("config.json", "one file of a model"),
        ("of another name", "one file of a model"),
        ("old.pt", "no model_args"),
        ("new.pt", "no model_args"),
    ],
)
def test_another_file_is_refused_by_what_it_is(
    tmp_path: Path, capsys: Capture, form: str, got: str
) -> None:
    source = make_source_file(tmp_path, form)
    capsys.readouterr()
    line = error(capsys, source, "--to", "minilm", "--out", tmp_path / "out")
    assert line.startswith(f"{source}: {got}")
    assert "nanoGPT" in line
    if not form.endswith(".pt"):
        assert "expected the folder of a run or of a Hugging Face model" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_an_end_that_is_no_token_is_left_out(tmp_path: Path, to: str) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source = exported(tmp_path, "gpt2")
    fields = json.loads((source / "config.json").read_text()) | {"eos_token_id": 50256}
    (source / "config.json").write_text(json.dumps(fields))
    for name in ("generation_config.json", "tokenizer_config.json"):
        (source / name).unlink()
    run, out = tmp_path / "imported", tmp_path / "out.gguf"
    minilm.convert(source, "minilm", run)
    model, tokenizer = load(run)
    assert tokenizer.end_of_text == 0  # that of bytes
    assert len(minilm.generate(model, tokenizer, "", max_new_tokens=1)) <= 1
    minilm.convert(run, "huggingface" if to == "huggingface" else "gguf", out)
    if to == "huggingface":
        settings = json.loads((out / "tokenizer_config.json").read_text())
        vocabulary = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
        assert vocabulary[settings["eos_token"]] == 0
    else:
        assert formats.read(out).metadata["tokenizer.ggml.eos_token_id"] == "0"


def test_a_tokenizer_gives_what_a_decoder_takes(tmp_path: Path) -> None:
    """Padding before a prompt, and no token types, which transformers 4 adds unless told otherwise."""
    settings = json.loads((exported(tmp_path) / "tokenizer_config.json").read_text())
    assert settings["padding_side"] == "left"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


def test_errors_name_the_file(tmp_path: Path, capsys: Capture) -> None:
    source = exported(tmp_path)
    fields = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(fields | {"hidden_act": "relu"}))
    capsys.readouterr()
    line = error(capsys, source, "--to", "minilm", "--out", tmp_path / "out")
    assert line.startswith(f"{source / 'config.json'}: hidden_act: 'relu', ")
    run = make_run(tmp_path / "another", TINY | {"ngram": 3})
    line = error(capsys, run, "--to", "huggingface", "--out", tmp_path / "out")
    assert line.startswith(f"{run / 'config.json'}: model.ngram: 3, ")


def test_a_cache_of_the_hub_is_followed_to_its_snapshot(tmp_path: Path) -> None:
    source = exported(tmp_path)
    snapshots = tmp_path / "models--a--b" / "snapshots"
    snapshots.mkdir(parents=True)
    source.rename(snapshots / "abc1")
    assert minilm.convert(snapshots.parent, "minilm", tmp_path / "out") == "minilm run"
    assert load(tmp_path / "out").model.config.num_layers == 2


def test_another_programs_model_is_no_run_and_can_become_one(tmp_path: Path) -> None:
    source = exported(tmp_path)
    with pytest.raises(InputError, match="`minilm convert FOLDER --to minilm --out RUN` makes"):
        load(source)


@pytest.mark.parametrize("to", ["huggingface", "gguf", "minilm"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_tokenizer_that_is_no_file_is_not_read(
    tmp_path: Path, capsys: Capture, kind: str, to: str
) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    run = make_run(tmp_path / "run", TINY)
    (run / "tokenizer.json").unlink()
    if kind == "pipe":
        os.mkfifo(run / "tokenizer.json")
    else:
        (run / "tokenizer.json").symlink_to("/dev/zero")
    line = error(capsys, run, "--to", to, "--out", tmp_path / "out")
    assert f"tokenizer.json: a {'named pipe' if kind == 'pipe' else 'device'}, expected" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("eos", [5, 255])
def test_an_ordinary_token_may_end_a_text(tmp_path: Path, capsys: Capture, eos: int) -> None:
    run = make_run(tmp_path / "run", TINY)
    (run / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    assert main([str(run), "--to", "huggingface", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == eos


def test_an_end_of_text_outside_the_vocabulary_is_refused(tmp_path: Path, capsys: Capture) -> None:
    run = make_run(tmp_path / "run", TINY)
    (run / "generation_config.json").write_text('{"eos_token_id": 256}')
    line = error(capsys, run, "--to", "huggingface", "--out", tmp_path / "out")
    assert "generation_config.json: eos_token_id 256, expected ids of the 256 tokens" in line


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("huggingface", ["--gguf-format", "q8_0"]),
        ("minilm", ["--license", "mit"]),
        ("gguf", ["--base-model", "org/name"]),
    ],
)
def test_an_option_of_another_format_is_refused(
    to: str, options: list[str], tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main([str(tiny_run), "--to", to, "--out", str(tmp_path / "out"), *options]) == 2
    name, value = options
    assert capsys.readouterr().err.startswith(
        f"error: {name}: {value} with --to {to}, expected --to"
    )
    assert not (tmp_path / "out").exists()
