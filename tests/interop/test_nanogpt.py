"""nanoGPT's ckpt.pt: the same logits as its own formulas give, and nothing of it is executed."""

from __future__ import annotations

import math
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minilm.checkpoint import load
from minilm.cli.convert import main
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.shapes import TINY, make_run
from tests.interop.test_convert import error

Capture = pytest.CaptureFixture[str]
ARGUMENTS = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "block_size": 16,
    "bias": False,
    "vocab_size": 65,
    "dropout": 0.0,
}
CHARACTERS = [chr(number) for number in range(40, 105)]


def tensors_of(arguments: dict[str, Any]) -> dict[str, Tensor]:
    """A state dict with random values under nanoGPT's names."""
    width, generator = arguments["n_embd"], torch.Generator().manual_seed(0)
    shapes = {
        "wte.weight": (arguments["vocab_size"], width),
        "wpe.weight": (arguments["block_size"], width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for i in range(arguments["n_layer"]):
        for name, shape in {
            "ln_1": (width,),
            "attn.c_attn": (3 * width, width),
            "attn.c_proj": (width, width),
            "ln_2": (width,),
            "mlp.c_fc": (4 * width, width),
            "mlp.c_proj": (width, 4 * width),
        }.items():
            shapes[f"h.{i}.{name}.weight"] = shape
            shapes[f"h.{i}.{name}.bias"] = shape[:1]
    tensors = {
        f"transformer.{name}": torch.randn(shape, generator=generator) * 0.3
        for name, shape in shapes.items()
        if arguments["bias"] or not name.endswith("bias")
    }
    for i in range(arguments["n_layer"]):  # the mask, where torch has no fused attention
        size = arguments["block_size"]
        tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(size, size).tril()[None, None]
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}


def logits_of(tensors: dict[str, Tensor], arguments: dict[str, Any], tokens: Tensor) -> Tensor:
    """(b, t, V), by the formulas of nanoGPT's model."""

    def get(name: str) -> Tensor | None:
        return tensors.get(f"transformer.{name}")

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"))

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, tensors[f"transformer.{name}.weight"], get(f"{name}.bias"))

    length, heads = tokens.shape[1], arguments["n_head"]
    table = tensors["transformer.wte.weight"]
    x = table[tokens] + tensors["transformer.wpe.weight"][:length]
    for i in range(arguments["n_layer"]):
        parts = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        mask = torch.ones(length, length).tril() == 0
        mixed = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"h.{i}.attn.c_proj")
        hidden = functional.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ table.T


def save_checkpoint(folder: Path, arguments: dict[str, Any], prefix: str = "") -> Path:
    tensors = {prefix + name: tensor for name, tensor in tensors_of(arguments).items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    content = {"model": tensors, "optimizer": optimizer, "model_args": arguments, "iter_num": 5}
    torch.save(content | {"best_val_loss": torch.tensor(1.5), "config": {}}, folder / "ckpt.pt")
    table = dict(enumerate(CHARACTERS))
    meta = {"vocab_size": 65, "itos": table, "stoi": {c: i for i, c in table.items()}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder / "ckpt.pt"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_becomes_a_run(tmp_path: Path, bias: bool, prefix: str) -> None:
    arguments = ARGUMENTS | {"bias": bias}
    path = save_checkpoint(tmp_path, arguments, prefix)
    assert main([str(path), "--to", "minilm", "--out", str(tmp_path / "run")]) == 0
    loaded = load(tmp_path / "run")
    tokens = torch.randint(65, (2, 16), generator=torch.Generator().manual_seed(1))
    expected = logits_of(tensors_of(arguments), arguments, tokens)
    torch.testing.assert_close(loaded.model(tokens).detach(), expected, rtol=1e-4, atol=1e-4)
    assert loaded.tokenizer.decode([0, 1, 64]) == "()h"
    assert main([str(path), "--to", "huggingface", "--out", str(tmp_path / "hf")]) == 0


def test_the_card_counts_the_checkpoint_whatever_is_beside_it(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, ARGUMENTS)
    torch.save({"a": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "train.bin").write_bytes(bytes(100))
    make_run(tmp_path / "other", TINY)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path)
    assert main([str(path), "--to", "huggingface", "--out", str(tmp_path / "hf")]) == 0
    total = sum(
        tensor.numel()
        for name, tensor in tensors_of(ARGUMENTS).items()
        if name != "lm_head.weight" and not name.endswith("attn.bias")
    )
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"| total | {total:,} |" in card


def test_a_tokenizer_json_comes_first(tmp_path: Path) -> None:
    arguments = ARGUMENTS | {"vocab_size": 256}
    path = save_checkpoint(tmp_path, arguments)
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    assert main([str(path), "--to", "minilm", "--out", str(tmp_path / "run")]) == 0
    assert load(tmp_path / "run").tokenizer.kind == "byte"


class _Runs:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 3}, "num_heads: 3 heads do not divide d_model 32"),
        ({"n_layer": 3}, "transformer.h.2.attn.c_attn.weight absent"),
        ({"n_layer": "2"}, "num_layers: '2'"),
        ({"bias": None}, "qkv_bias: None"),
        ({"n_embd": None}, "d_model"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path, capsys: Capture, change: dict[str, Any], message: str
) -> None:
    path = save_checkpoint(tmp_path, ARGUMENTS)
    content = torch.load(path, weights_only=True)
    content["model_args"] |= change
    torch.save(content, path)
    assert message in error(capsys, path, "--to", "minilm", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_archive_that_was_packed_again_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, ARGUMENTS)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries, key=lambda name: name.endswith("data.pkl")):
            archive.writestr(name, entries[name])
    assert main([str(path), "--to", "minilm", "--out", str(tmp_path / "run")]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_program_is_no_checkpoint(tmp_path: Path, capsys: Capture) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "x.pt2")
    line = error(capsys, tmp_path / "x.pt2", "--to", "minilm", "--out", tmp_path / "run")
    assert "no model_args, expected a checkpoint of nanoGPT" in line


def test_an_argument_that_is_missing_is_named(tmp_path: Path, capsys: Capture) -> None:
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "block_size"}
    path = save_checkpoint(tmp_path, ARGUMENTS)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"model_args": arguments}, path)
    line = error(capsys, path, "--to", "minilm", "--out", tmp_path / "run")
    assert "model_args without block_size" in line


def test_what_is_missing_or_no_table_is_said(tmp_path: Path, capsys: Capture) -> None:
    path = save_checkpoint(tmp_path, ARGUMENTS)
    arguments = (path, "--to", "minilm", "--out", tmp_path / "run")
    for table in ({0: "ab"}, {0: "a", 1: "a"}, {1: "a"}, {}, [1], {0: "\ud800"}, _Runs()):
        (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": table}))
        assert "meta.pkl: " in error(capsys, *arguments)
    (tmp_path / "meta.pkl").unlink()
    assert "neither tokenizer.json nor meta.pkl" in error(capsys, *arguments)
    torch.save({"model": tensors_of(ARGUMENTS)}, path)
    assert "no model_args, expected a checkpoint of nanoGPT" in error(capsys, *arguments)
    path.write_text("no checkpoint")
    assert "ckpt.pt: " in error(capsys, *arguments)
