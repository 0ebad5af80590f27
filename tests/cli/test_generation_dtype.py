"""`generate --dtype auto`: what is said of the dtype, and texts that go on in float32 where it overflows."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilm.cli.generate import main
from minilm.generation import measured_dtype
from minilm.runs import files as run_files
from tests.interop.shapes import TINY, make_run

Capture = pytest.CaptureFixture[str]
GREEDY = ("--temperature", "0", "--max-new-tokens", "12")
NOTE = "note: an output in float16 was not finite: from there on in float32"


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this dtype be measured as the fastest."""
    monkeypatch.setattr(measured_dtype, "FEWEST_BFLOAT16_PARAMETERS", 1)

    def choose(name: str) -> None:
        monkeypatch.setattr(measured_dtype, "choose", lambda question, alternatives: name)

    return choose


@pytest.fixture
def overflowing(tmp_path: Path, capsys: Capture) -> Path:
    """A run whose text of "the " has a token in it, not the first, that float16 cannot read."""
    run = make_run(tmp_path / "run", TINY | {"context_length": 64})
    tokens = generated(capsys, run, "--prompt", "the ", "--dtype", "float32")[0]["tokens"]
    late = next(token for token in tokens[3:] if token not in (0, *b"the ", *tokens[:3]))
    weights = load_file(run / run_files.WEIGHTS)
    weights["embedding.token.weight"][late] *= 1e6
    save_file(weights, run / run_files.WEIGHTS)
    return run


def generated(capsys: Capture, run: Path, *options: str) -> list[dict[str, Any]]:
    assert main([str(run), *GREEDY, *options, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_text_goes_on_in_float32(overflowing: Path, capsys: Capture, chosen: Any) -> None:
    chosen("float16")
    two = ("--prompt", "the ", "--prompt", "the")
    for options in (two[:2], two, (*two[:2], "--no-cache"), (*two[:2], "--speculate", "3")):
        expected = generated(capsys, overflowing, *options, "--dtype", "float32")
        assert generated(capsys, overflowing, *options) == expected
        assert main([str(overflowing), *GREEDY, *options]) == 0
        notes, rate = capsys.readouterr().err.splitlines()
        assert (notes, "float" in rate) == (NOTE, False)


def test_a_dtype_that_is_named_stays(overflowing: Path, capsys: Capture) -> None:
    options = ("--prompt", "the ", "--dtype", "float16")
    assert main([str(overflowing), *GREEDY, *options]) == 2
    assert "error: weights: an output that is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--interactive",), ("--chat", "--chat-template", "plain")])
def test_a_dialogue_stays_in_float32(
    overflowing: Path,
    capsys: Capture,
    chosen: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    chosen("float16")
    weights = load_file(overflowing / run_files.WEIGHTS)
    weights["embedding.token.weight"][ord("x")] *= 1e6
    save_file(weights, overflowing / run_files.WEIGHTS)
    texts = []
    for dtype in ("auto", "float32"):
        monkeypatch.setattr("sys.stdin", io.StringIO("x\nax\n"))
        assert main([str(overflowing), *GREEDY, *options, "--dtype", dtype]) == 0
        printed = capsys.readouterr()
        texts.append(printed.out)
        assert printed.err.count("note: an output in float16") == (dtype == "auto")
    assert texts[0] == texts[1]


def test_the_dtype_is_said_where_it_was_chosen(
    tmp_path: Path, capsys: Capture, chosen: Any
) -> None:
    run = make_run(tmp_path / "run", TINY)
    for name, dtype, is_said in (
        ("bfloat16", "auto", True),
        ("float32", "auto", False),
        ("float32", "bfloat16", False),
    ):
        chosen(name)
        computed = name if dtype == "auto" else dtype
        options = ("--prompt", "the ", "--dtype", dtype)
        assert generated(capsys, run, *options)[0]["dtype"] == computed
        for chat in ((), ("--chat", "--chat-template", "plain")):
            assert main([str(run), *GREEDY, *options, *chat]) == 0
            *_, rate = capsys.readouterr().err.splitlines()
            end = f", in {computed}" if is_said else ""
            assert re.fullmatch(rf"\d+ tokens?, [\d.]+ tokens/s{end}", rate)


def test_the_ways_of_products_are_in_the_json(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", TINY)
    monkeypatch.setattr(
        "minilm.generation.tuned_linear.choose", lambda question, ways, before: ways[1][0]
    )
    parts = 2 * max(2, torch.get_num_threads())
    options = ("--prompt", "a", "--prompt", "b", "--dtype", "float32")
    for line in generated(capsys, run, *options):
        assert line["products"][f"256 x {TINY['d_model']}"] == {"2": f"{parts} parts"}
    assert generated(capsys, run, *options, "--tune", "off")[0]["products"] == {}


@pytest.mark.parametrize("option", ["--no-cache", "--speculate INT"])
def test_the_same_text_is_promised_in_float32_alone(option: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = " ".join(re.sub("[│|]", "", capsys.readouterr().out).split())
    assert re.search(rf"{option} [^:]*: the same \w+ in float32,", help_text)
