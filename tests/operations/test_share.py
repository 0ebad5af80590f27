"""share(): from a run to a run, what it says, what it refuses, and that the result is used like any run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import minilm
from minilm.checkpoint import load
from minilm.cli.share import main
from minilm.errors import InputError
from minilm.interop.convert import convert
from minilm.operations.evaluate import evaluate
from minilm.operations.share import share
from minilm.runs import files as run_files
from minilm.training.train import train
from tests.conftest import ROOT, TINY_SETTINGS, train_tiny

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shared_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run of two layers with one block."""
    out = tmp_path_factory.mktemp("shared") / "run"
    share(tiny_run, layers=1, out=out, device="cpu", dtype="float32")
    return out


def test_the_folder_is_a_run_and_its_inspection_is_verified(
    tiny_run: Path, shared_run: Path
) -> None:
    record = run_files.read_record(shared_run / "config.json")
    before = run_files.read_record(tiny_run / "config.json")
    assert record.transforms == ({"tool": "share", "layers": 1, "sharing": "group"},)
    assert (record.train, record.began_with) == (before.train, before.began_with)
    report = minilm.inspect(shared_run)
    assert report.verified
    assert {*report.witnesses.available()} == {"formula", "file", "module"}
    assert report.sharing is not None
    assert report.sharing.blocks == {"blocks.0": (0, 1)}
    summary = json.loads((shared_run / "summary.json").read_text())
    source = json.loads((tiny_run / "summary.json").read_text())
    assert summary["data"] == source["data"]
    assert summary["before"]["parameters"] == source["parameters"]
    assert summary["after"]["parameters"] == summary["parameters"] == report.parameters.total
    assert summary["after"]["trainable"] == summary["after"]["parameters"]
    weights = shared_run / "model.safetensors"
    assert summary["after"]["bytes"] == weights.stat().st_size < summary["before"]["bytes"]
    assert summary["before"]["evaluation"]["loss"] == pytest.approx(
        source["best_val_loss"], abs=1e-5
    )
    result = evaluate(shared_run, device="cpu", dtype="float32")
    assert result.loss == summary["after"]["evaluation"]["loss"]


def test_a_fresh_process_generates_the_same(shared_run: Path) -> None:
    program = (
        "import sys, minilm\n"
        "model, tokenizer = minilm.load(sys.argv[1])\n"
        "print(len(model.blocks), minilm.generate(model, tokenizer, 'the', temperature=0, "
        "max_new_tokens=12))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(shared_run)],
        capture_output=True,
        text=True,
        check=True,
    )
    model, tokenizer = load(shared_run)
    text = minilm.generate(model, tokenizer, "the", temperature=0, max_new_tokens=12)
    assert done.stdout == f"1 {text}\n"


@torch.no_grad()
def test_unsharing_gives_the_same_logits_and_a_model_for_others(
    shared_run: Path, tmp_path: Path
) -> None:
    share(shared_run, layers=2, out=tmp_path / "own", device="cpu")
    transforms = run_files.read_record(tmp_path / "own" / "config.json").transforms
    assert transforms[1:] == ({"tool": "share", "layers": 2},)
    tokens = torch.arange(16)[None]
    own, shared = load(tmp_path / "own").model, load(shared_run).model
    assert len(own.blocks) == 2
    assert torch.equal(own(tokens), shared(tokens))
    convert(shared_run, "huggingface", tmp_path / "exported")
    assert minilm.inspect(tmp_path / "exported").verified
    # An exported model is a model that can be shared too.
    share(tmp_path / "exported", layers=1, out=tmp_path / "again", device="cpu")
    assert torch.equal(load(tmp_path / "again").model(tokens), shared(tokens))
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert summary["after"]["evaluation"] is None
    assert "data" not in summary


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_head_is_untied_and_tied_again(
    tiny_run: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    from safetensors.torch import load_file, save_file

    source = tmp_path / "source"
    shutil.copytree(tiny_run, source)
    weights = load_file(source / "model.safetensors")
    save_file(
        {name: tensor.to(dtype) for name, tensor in weights.items()}, source / "model.safetensors"
    )
    share(source, tie_head=True, out=tmp_path / "tied", device="cpu")
    share(tmp_path / "tied", untie_head=True, out=tmp_path / "untied", device="cpu")
    share(tmp_path / "untied", tie_head=True, out=tmp_path / "again", device="cpu")
    tied, untied, again = (load(tmp_path / name).model for name in ("tied", "untied", "again"))
    assert tied.lm_head.weight is tied.embedding.token.weight
    assert untied.lm_head.weight is not untied.embedding.token.weight
    tokens = torch.arange(16)[None]
    assert torch.equal(untied(tokens), tied(tokens))
    assert torch.equal(again(tokens), tied(tokens))
    names = [f"{name}/model.safetensors" for name in ("tied", "again")]
    first, second = (load_file(tmp_path / name) for name in names)
    assert first.keys() == second.keys() == weights.keys() - {"lm_head.weight"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {tensor.dtype for tensor in first.values()} == {dtype}
    for name in ("tied", "untied", "again"):
        assert minilm.inspect(tmp_path / name).verified


def test_training_goes_on_from_it(
    shared_run: Path, text_file: Path, tmp_path: Path, cache: Path
) -> None:
    outcome = train(
        data=str(text_file),
        init_from=shared_run,
        run_dir=tmp_path / "run",
        settings=TINY_SETTINGS | {"device": "cpu"},
        cache=cache,
    )
    shared = json.loads((shared_run / "summary.json").read_text())
    assert outcome.summary["best_val_loss"] < shared["after"]["evaluation"]["loss"]
    assert outcome.summary["parameters"] == shared["parameters"]
    assert len(load(tmp_path / "run").model.blocks) == 1


def test_the_command_prints_the_table(tiny_run: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main([str(tiny_run), "--tie-head", "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    rows = {line[:20].strip(): line[20:].split() for line in printed.splitlines()}
    total = minilm.inspect(tiny_run).parameters.total
    assert rows["parameters"][:2] == [f"{total:,}", f"{total - 256 * 16:,}"]
    assert rows["perplexity"][2].startswith("+")
    assert "the validation split of" in printed
    assert printed.split()[-3:] == [f"{out}:", "tied_embeddings", "True"]
    arguments = [str(out), "--layers", "1", "--sharing", "cycle", "--device", "cpu", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "next")]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["tool"], value["layers"], value["sharing"]) == ("share", 1, "cycle")
    assert value["after"]["parameters"] == minilm.inspect(tmp_path / "next").parameters.total
    record = run_files.read_record(tmp_path / "next" / "config.json")
    assert [dict(each) for each in record.transforms] == [
        {"tool": "share", "tied_embeddings": True},
        {"tool": "share", "layers": 1, "sharing": "cycle"},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--layers, --tie-head, --untie-head: none, expected one of them"),
        (["--layers", "1", "--tie-head"], "--untie-head: 2 of them, expected one of them"),
        (["--layers", "3"], "--layers: 3, expected from 1 to 2, the number of layers"),
        (["--layers", "2"], "--layers: 2, which the model has, expected another number"),
        (["--layers", "x"], "--layers: x, expected a whole number"),
        (["--untie-head"], "--untie-head: a head with its own weights, expected one tied"),
        (["--layers", "1", "--data", "missing.txt"], "missing.txt: "),
        (["--layers", "1", "--sharing", "albert"], "--sharing: albert, expected one of cycle"),
        (["--tie-head", "--sharing", "cycle"], "--sharing: cycle without layers to share"),
    ],
)
def test_what_it_refuses(
    tiny_run: Path, tmp_path: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    assert main([str(tiny_run), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_it_overwrites_nothing_and_needs_weights_of_its_own(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "there").mkdir()
    arguments = [str(tiny_run), "--layers", "1", "--out"]
    assert main([*arguments, str(tmp_path / "there")]) == 2
    assert "something that exists, expected a new path" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "missing" / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main([*arguments, ""]) == 2
    assert "--out: an empty name" in capsys.readouterr().err
    copy = tmp_path / "copy"
    for fields, message in (
        ({"quantization_config": {"quant_method": "gptq"}}, "share first, then quantize"),
        ({"base": {"path": "x", "sha256": "y"}}, "finetune RUN --merge"),
    ):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tiny_run, copy)
        config = json.loads((copy / "config.json").read_text()) | fields
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=message):
            share(copy, layers=1, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_shared_model_is_trained_resumed_and_sampled(
    tmp_path: Path, text_file: Path, cache: Path
) -> None:
    def trained(name: str, **settings: object) -> Path:
        model = {"num_layers": 3, "shared_layers": 2}
        return train_tiny(tmp_path / name, text_file, cache, model, device="cpu", **settings)

    whole, part = trained("whole"), trained("part", max_seconds=0.001)
    assert len(load(whole).model.blocks) == 2
    assert minilm.inspect(whole).verified
    summary = json.loads((whole / "summary.json").read_text())
    assert (
        summary["best_val_loss"] < json.loads((part / "summary.json").read_text())["best_val_loss"]
    )
    minilm.resume(part, settings={"max_seconds": None}, cache=cache)
    first, second = ((run / "model.safetensors").read_bytes() for run in (whole, part))
    assert first == second
    model, tokenizer = load(whole)
    texts = [
        minilm.generate(
            model, tokenizer, "the cat", temperature=0, max_new_tokens=30, cached=cached
        )
        for cached in (True, False)
    ]
    assert texts[0] == texts[1]


def test_a_head_in_the_file_of_a_tied_model_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((tiny_run / "config.json").read_text())
    config["model"]["tied_embeddings"] = True
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="lm_head"):
        load(tmp_path / "run")
    with pytest.raises(InputError, match="lm_head"):
        share(tmp_path / "run", untie_head=True, out=tmp_path / "out")
    assert not minilm.inspect(tmp_path / "run").verified


def test_the_commands_of_the_page(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    python scripts/share\.py (.*)$", page, re.M)
    assert len(commands) == 4
    shutil.copytree(tiny_run, tmp_path / "checkpoints" / "nano-stdlib")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        # The tiny model has half of nano's layers.
        line = command.replace("--layers 2", "--layers 1").replace("--layers 4", "--layers 2")
        assert main([*line.split(), "--device", "cpu"]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert printed.out.splitlines()[0].split() == ["before", "after", "change"]


def test_a_layout_of_a_shared_model_says_that_it_is_expanded(
    shared_run: Path, tmp_path: Path, cache: Path
) -> None:
    result = minilm.quantize(
        *(shared_run, tmp_path / "hf"),
        format="int8",
        layout="compressed-tensors",
        device="cpu",
        cache=cache,
    )
    assert re.fullmatch(
        r"GPTNeoXForCausalLM of transformers; 1 shared blocks as 2 layers, [\d,]+ parameters for [\d,]+",
        result.what,
    )
