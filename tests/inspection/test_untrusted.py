"""Files whose sizes and values no model has: a report or one line, within a second."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.cli.inspect import main
from minilm.errors import ConfigError
from minilm.inspection.witnesses import MOST_LAYERS
from minilm.ledger.layout import Layout, NamedTensor, Tensor
from minilm.ledger.symbols import Polynomial
from minilm.render.sections import MOST_ROWS
from minilm.runs.files import read_config
from tests.conftest import TINY_MODEL
from tests.formats.files import STRING, UINT32, Entry, gguf, scalar, text, write_safetensors

Capture = pytest.CaptureFixture[str]
SIZES = {
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 128,
    "attention.head_count": 4,
}


def string(key: str, value: str) -> bytes:
    return scalar(key, STRING, text(value))


def llama(tensors: list[Entry], **others: bytes) -> bytes:
    """A GGUF file of this architecture; ``others`` replace or follow its sizes, as they are stored."""
    keys = {
        name: scalar(f"llama.{name}", UINT32, struct.pack("<I", n)) for name, n in SIZES.items()
    }
    keys = {"architecture": string("general.architecture", "llama"), **keys, **others}
    return gguf(tensors, list(keys.values()), bytes(256 * len(tensors)))


@pytest.mark.parametrize(
    "name",
    ["token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"],
)
def test_a_gguf_tensor_without_dimensions_is_a_mismatch(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.gguf").write_bytes(llama([(name, (), 0, 0)]))
    report = minilm.inspect(tmp_path / "x.gguf")
    assert report.witnesses.file == 1
    assert not report.verified or report.formula is None


@pytest.mark.parametrize("value", ["abc", "9" * 4000, "-3", "2.5", "\u0663", "True"])
@pytest.mark.parametrize(
    "key",
    [
        *(
            f"llama.{name}"
            for name in (*SIZES, "expert_count", "nextn_predict_layers", "vocab_size")
        ),
        "tokenizer.ggml.tokens.length",
    ],
)
def test_a_gguf_number_of_a_wrong_type_is_no_number(tmp_path: Path, key: str, value: str) -> None:
    """A text where a number is usual, even one of digits that no 64 bits hold."""
    changed = {key.removeprefix("llama."): string(key, value)}
    (tmp_path / "x.gguf").write_bytes(llama([("token_embd.weight", (64, 1), 0, 0)], **changed))
    report = minilm.inspect(tmp_path / "x.gguf")
    assert report.witnesses.file == 64
    is_needed = key.removeprefix("llama.") in SIZES
    note = f"no formula without a whole number as {key}: counted and grouped by name, not checked"
    assert (report.formula is None) == is_needed == (note in report.notes)


def write_run(folder: Path, train: Any = None, **model: Any) -> Path:
    value = {
        "family": "minilm",
        "model": TINY_MODEL | {"vocab_size": 256, "d_feed_forward": 64} | model,
        "train": train,
    }
    (folder / "config.json").write_text(json.dumps(value))
    return folder


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that layouts were expanded to."""
    names: list[str] = []
    named_tensors = Layout.named_tensors

    def recorded(layout: Layout, tensors: Sequence[Tensor] | None = None) -> Iterator[NamedTensor]:
        for tensor in named_tensors(layout, tensors):
            names.append(tensor.name)
            yield tensor

    monkeypatch.setattr(Layout, "named_tensors", recorded)
    return names


def test_every_name_is_expanded_once_for_a_list(
    tmp_path: Path, capsys: Capture, named: list[str]
) -> None:
    main([str(write_run(tmp_path, num_layers=3)), "--full", "--no-live"])
    assert len(named) == len(set(named)) > 3


def test_a_run_of_ten_thousand_layers_is_counted_without_its_module(
    tmp_path: Path, capsys: Capture, named: list[str]
) -> None:
    run = write_run(tmp_path, num_layers=10_000)
    assert main([str(run), "--json", "-"]) == 1  # there are no weights
    assert not named  # nothing is done once a layer
    report = json.loads(capsys.readouterr().out)
    assert report["witnesses"]["module"] is None
    assert report["witnesses"]["formula"] == report["parameters"]["total"] > 10_000
    assert f"a module of over {MOST_LAYERS} layers is built with --live only" in report["notes"]


def test_the_sizes_of_a_layer_are_not_computed_in_every_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations = []
    value = Polynomial.value

    def recorded(polynomial: Polynomial, symbols: Mapping[str, int]) -> int:
        evaluations.append(polynomial)
        return value(polynomial, symbols)

    monkeypatch.setattr(Polynomial, "value", recorded)
    counts = []
    for num_layers in (2, MOST_LAYERS + 1):
        main([str(write_run(tmp_path, num_layers=num_layers)), "--full", "--no-live"])
        counts.append(len(evaluations))
        evaluations.clear()
    assert counts[0] == counts[1] > 0


def test_a_run_of_usual_depth_is_counted_with_its_module(tmp_path: Path) -> None:
    report = minilm.inspect(write_run(tmp_path, num_layers=MOST_LAYERS))
    assert report.witnesses.module == report.witnesses.formula
    assert not any("--live" in note for note in report.notes)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_heads": 2**31, "num_kv_heads": 2**31, "d_model": 2**31, "head_dim": 2},
        {"num_heads": 2**31, "num_kv_heads": 1, "d_model": 2**31, "head_dim": 2**31},
        {"vocab_size": 2**31, "d_model": 2**31},
        {"d_feed_forward": 2**31, "d_model": 2**30},
        {"ngram": 16, "ngram_rows": 2**31, "d_model": 2**30},
    ],
)
def test_a_matrix_that_no_tensor_can_be_is_refused(
    tmp_path: Path, capsys: Capture, sizes: dict[str, int]
) -> None:
    run = write_run(tmp_path, **sizes)
    with pytest.raises(ConfigError, match=r"config\.json: d_model: \d+, for a matrix of"):
        read_config(run / "config.json")
    assert main([str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_numbers_that_json_does_not_have_are_text(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path, {"lr": float("inf"), "betas": [float("-inf"), {"x": float("nan")}]})
    assert main([str(run), "--json", "-"]) == 1  # there are no weights
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["hyperparameters"]["training"] == {
        "lr": "Infinity",
        "betas": ["-Infinity", {"x": "NaN"}],
    }


def test_a_config_of_transformers_may_have_infinities(tmp_path: Path, capsys: Capture) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    write_safetensors(tmp_path / "model.safetensors", {"a": entry}, bytes(8))
    (tmp_path / "config.json").write_text('{"model_type": "mamba9", "time_step_max": Infinity}')
    assert main([str(tmp_path), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["hyperparameters"]["model"]["time_step_max"] == "Infinity"


def test_a_vocabulary_with_a_lone_surrogate_costs_nothing_but_its_size(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "tokenizer.json").write_text('{"model": {"vocab": {"\\ud800": 7}}}')
    assert minilm.inspect(run).witnesses.formula


def undeclared(folder: Path, count: int) -> Path:
    """A tensor of two numbers for each of as many modules."""
    kinds = ("norm", "attn", "mlp", "embed", "expert", "head", "other")
    header = {
        f"{kinds[n % len(kinds)]}{n}.weight": {
            "dtype": "F32",
            "shape": [2],
            "data_offsets": [8 * n, 8 * n + 8],
        }
        for n in range(count)
    }
    return write_safetensors(folder / "x.safetensors", header, bytes(8 * count))


@pytest.mark.parametrize("option", [[], ["--full"], ["--markdown", "-"]])
def test_the_components_of_many_names_are_folded(
    tmp_path: Path, capsys: Capture, option: list[str]
) -> None:
    target = undeclared(tmp_path, 27_000)
    started = time.process_time()
    assert main([str(target), *option]) == 0
    # No measure of speed, but a bound of the work in any part: it takes 0.8 seconds, and where one of
    # them is quadratic, minutes. What is counted (calls, tensors) would be of known parts alone.
    assert time.process_time() - started < 10
    out = capsys.readouterr().out
    assert out.count("\n") < 2.2 * MOST_ROWS + 60
    assert "components)" in out
    assert "54,000" in out


def test_long_tables_of_settings_end_with_their_number(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path, {f"field{n}": n for n in range(5000)})
    assert main([str(run), "--full"]) == 1
    assert f"and {5000 - MOST_ROWS:,} more" in capsys.readouterr().out


def test_everything_of_many_names_is_in_json(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(undeclared(tmp_path, 1000)), "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)["components"]) == 1000
