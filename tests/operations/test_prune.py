"""prune(): what is written loads, is verified, exports, and keeps its zeros when it recovers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

import minilm
from minilm.checkpoint import load
from minilm.cli.prune import main
from minilm.errors import ConfigError, FormatError, InputError
from minilm.formats.safetensors import read_header
from minilm.interop.convert import convert
from minilm.operations.evaluate import evaluate
from minilm.operations.prune import STRUCTURED, Method, prune
from minilm.runs import files as run_files
from minilm.training.train import train
from minilm.transforms.activations import linear_layers
from tests.conftest import ROOT
from tests.interop.shapes import SHAPES, make_run

Capture = pytest.CaptureFixture[str]

SPARSE = {"sparsegpt": "sparse-bitmask", "2:4": "sparse-24-bitmask"}


@pytest.mark.parametrize("method", get_args(Method))
def test_what_is_written_loads_and_is_verified(method: Any, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    result = prune(tiny_run, out, sparsity=0.5, method=method, device="cpu")
    report = minilm.inspect(out)
    assert report.verified
    before, after = result.comparison.before, result.comparison.after
    assert report.parameters.total == after.parameters
    if method in STRUCTURED:
        assert after.parameters < before.parameters
        assert after.bytes < before.bytes
    else:
        matrices = linear_layers(load(out).model)
        zeros = sum(int((m.weight == 0).sum()) for m in matrices.values())
        assert zeros == sum(m.weight.numel() for m in matrices.values()) // 2
        assert after.nonzero == before.nonzero - zeros
        assert after.parameters == before.parameters
        assert result.sparse_bytes is not None
        assert result.sparse_bytes < after.bytes
    record = run_files.read_record(out / "config.json")
    assert [each["method"] for each in record.transforms] == [method]
    assert after.evaluation is not None
    again = evaluate(out, device="cpu")
    assert (again.loss, again.tokens) == (after.evaluation.loss, after.evaluation.tokens)
    if method == "heads":  # GPT-NeoX has no head width of its own
        with pytest.raises(ConfigError, match="head_dim"):
            convert(out, "huggingface", tmp_path / "model")
        return
    for target in ("huggingface", "gguf"):
        if target == "gguf":
            pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
        convert(out, target, tmp_path / f"for.{target}")
        assert minilm.inspect(tmp_path / f"for.{target}").parameters.total == after.parameters


@pytest.mark.parametrize("method", SPARSE)
def test_zeros_are_left_out_of_a_folder(
    method: Any, tiny_run: Path, tmp_path: Path, text_file: Path
) -> None:
    """To the byte as the command says of a run; it comes back as that run."""
    dense = prune(tiny_run, tmp_path / "dense", sparsity=0.5, method=method, device="cpu")
    layout: Any = "compressed-tensors"
    sparse = prune(
        tiny_run, tmp_path / "sparse", sparsity=0.5, method=method, device="cpu", layout=layout
    )
    size = (sparse.out / "model.safetensors").stat().st_size
    assert size == dense.sparse_bytes == sparse.sparse_bytes == sparse.comparison.after.bytes
    assert "transformers 5 leaves such matrices at random values" in sparse.what
    report = minilm.inspect(sparse.out)
    assert report.verified
    assert report.parameters.total == dense.comparison.after.parameters
    assert report.quantization is not None
    assert report.quantization.method == SPARSE[method]
    convert(sparse.out, "minilm", tmp_path / "back")
    weights = [load(path).model.state_dict() for path in (dense.out, tmp_path / "back")]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    assert evaluate(sparse.out, str(text_file)) == evaluate(dense.out, str(text_file))
    card = (sparse.out / "README.md").read_text(encoding="utf-8")
    assert "minilm convert sparse --to minilm" in card
    assert "from_pretrained" not in card
    base = pytest.importorskip(
        "compressed_tensors.compressors.sparse_compressors",
        reason="without compressed-tensors of version 0.14 or older",
    )
    compressor = {"sparsegpt": "BitmaskCompressor", "2:4": "Sparse24BitMaskCompressor"}[method]
    convert(dense.out, "huggingface", tmp_path / "plain")
    expected = load_file(tmp_path / "plain" / "model.safetensors")
    theirs = dict(getattr(base, compressor)(config=None).decompress(str(sparse.out)))
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], value) for name, value in expected.items())


def test_a_damaged_sparse_folder_is_one_line(tiny_run: Path, tmp_path: Path) -> None:
    out, layout = tmp_path / "sparse", "compressed-tensors"
    prune(tiny_run, out, sparsity=0.5, method="magnitude", device="cpu", layout=layout)  # type: ignore[arg-type]
    header = read_header(out / "model.safetensors")
    bits = next(tensor for tensor in header.tensors if tensor.name.endswith(".bitmask"))
    with (out / "model.safetensors").open("r+b") as stream:
        stream.seek(bits.offset or 0)
        (byte,) = stream.read(1)
        stream.seek(bits.offset or 0)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(FormatError, match=r"values, expected \d+, one a bit"):
        convert(out, "minilm", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("method", ["heads", "units", "layers", "wanda"])
def test_a_llama_without_heads_opens_in_transformers(
    method: Any, tmp_path: Path, text_file: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="without transformers")
    fields = SHAPES["llama"][1] | {"num_heads": 8, "num_kv_heads": 2, "context_length": 64}
    run = make_run(tmp_path / "run", fields)
    prune(run, tmp_path / "out", sparsity=0.5, method=method, data=str(text_file))
    convert(tmp_path / "out", "huggingface", tmp_path / "model")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    pruned = load(tmp_path / "out").model
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(opened(tokens).logits, pruned(tokens), rtol=1e-4, atol=1e-4)


def test_a_fresh_process_computes_the_same(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    prune(tiny_run, out, sparsity=0.5, method="heads", device="cpu")
    done = subprocess.run(
        [sys.executable, "-m", "minilm", "generate", str(out), "--max-new-tokens", "8", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    model, tokenizer = load(out)
    text = minilm.generate(model, tokenizer, "", max_new_tokens=8, temperature=0.8, seed=0)
    assert json.loads(done.stdout)["text"] == text


def test_no_sparsity_is_the_model_itself(tiny_run: Path, tmp_path: Path) -> None:
    methods: list[Any] = [method for method in get_args(Method) if method != "2:4"]
    for method in methods:
        out = tmp_path / method
        prune(tiny_run, out, sparsity=0, method=method, device="cpu")
        whole, pruned = (load(path).model.state_dict() for path in (tiny_run, out))
        assert whole.keys() == pruned.keys()
        assert all(torch.equal(whole[name], pruned[name]) for name in whole)


def test_recovery_lowers_the_loss_and_holds_the_zeros(
    tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "minilm")
    pruned = prune(tiny_run, tmp_path / "pruned", sparsity=0.7, method="magnitude", device="cpu")
    recovered = prune(
        tiny_run, tmp_path / "recovered", sparsity=0.7, method="magnitude", recover=20, device="cpu"
    )
    assert "fine-tuning recovered, with" in caplog.text
    assert ".tmp" not in caplog.text
    before, after = pruned.comparison.after, recovered.comparison.after
    assert before.evaluation is not None
    assert after.evaluation is not None
    assert after.evaluation.loss < before.evaluation.loss
    weights = [linear_layers(load(p.out).model) for p in (pruned, recovered)]
    for name, matrix in weights[0].items():
        assert bool((weights[1][name].weight[matrix.weight == 0] == 0).all())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_zeros_are_held_at_each_step_and_after_resuming(
    optimizer: str, tiny_run: Path, tmp_path: Path, text_file: Path, cache: Path
) -> None:
    base = tmp_path / "base"
    prune(tiny_run, base, sparsity=0.5, method="magnitude", device="cpu")
    settings = {
        "hold_zeros": True,
        "optimizer": optimizer,
        "weight_decay": 0.1,
        "max_steps": 8,
        "dtype": "float32",
    }

    def run(name: str, **more: Any) -> Path:
        folder = tmp_path / name
        train(
            data=str(text_file),
            run_dir=folder,
            init_from=base,
            settings={**settings, **more},
            cache=cache,
        )
        return folder

    whole = run("whole")
    stopped = run("stopped", max_seconds=1e-6)
    minilm.resume(stopped, settings={"max_seconds": 1e9}, cache=cache)
    zeros = {name: m.weight == 0 for name, m in linear_layers(load(base).model).items()}
    for folder in (whole, stopped):
        changed = 0
        for name, matrix in linear_layers(load(folder).model).items():
            assert torch.equal(matrix.weight == 0, zeros[name])
            changed += int(
                (matrix.weight != load(base).model.get_parameter(f"{name}.weight")).sum()
            )
        assert changed
    assert (whole / "model.safetensors").read_bytes()[-4096:] == (
        stopped / "model.safetensors"
    ).read_bytes()[-4096:]


def test_a_text_of_ones_own_is_evaluated_at_its_end(
    tiny_run: Path, tmp_path: Path, text_file: Path
) -> None:
    convert(tiny_run, "huggingface", tmp_path / "model")
    with pytest.raises(InputError, match=r"no text of its own for --method sparsegpt.*give --data"):
        prune(tmp_path / "model", tmp_path / "out", sparsity=0.5)
    assert not (tmp_path / "out").exists()
    result = prune(tmp_path / "model", tmp_path / "out", sparsity=0.5, data=str(text_file))
    assert "the last 10% of" in result.comparison.note()
    without = prune(tmp_path / "model", tmp_path / "no", sparsity=0.5, method="magnitude")
    assert without.comparison.after.evaluation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity: 1.0, expected a number, 0 <= sparsity < 1"),
        ({"sparsity": float("nan")}, "sparsity: nan"),
        ({"sparsity": 0.4, "method": "2:4"}, "0.5, which the pattern is"),
        ({"sparsity": 0.5, "scope": "global"}, "scope: global with sparsegpt"),
        ({"sparsity": 0.5, "layout": "gguf"}, "layout: 'gguf', expected compressed-tensors"),
        (
            {"sparsity": 0.5, "method": "heads", "layout": "compressed-tensors"},
            "--layout compressed-tensors: given for heads, which leaves no zeros",
        ),
        ({"sparsity": 0.5, "recover": -1}, "recover: -1"),
        ({"sparsity": 0.01, "method": "layers"}, "none, expected at least 0.5"),
        ({"sparsity": 0.01, "method": "heads"}, "at least one, and not all"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    options: dict[str, Any], message: str, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, InputError)) as error:
        prune(tiny_run, tmp_path / "out", **options)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_the_table_and_says_what_a_mask_frees(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [str(tiny_run), "--sparsity", "0.5", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())  # lines break where the path lets them
    assert "perplexity" in out
    assert "a mask by itself frees neither memory nor" in out
    assert "With --layout compressed-tensors the weights" in out
    assert main(arguments) == 2
    assert "something that exists" in capsys.readouterr().err
    arguments[-1] = str(tmp_path / "heads")
    assert main([*arguments, "--method", "heads", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["method"] == "heads"
    assert value["after"]["parameters"] < value["before"]["parameters"]
