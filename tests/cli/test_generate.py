"""Sampling, and the generate command."""

import io
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilm.checkpoint import load
from minilm.cli import generate as command
from minilm.cli.generate import main
from minilm.errors import ConfigError, InputError
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation, generate
from minilm.generation.sampling import Sampling
from minilm.safe_text import running_text

Capture = pytest.CaptureFixture[str]


def test_same_seed_same_text(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    first, second, other = (
        generate(*loaded, "the", max_new_tokens=40, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_the_cache_changes_nothing(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    samplings: list[dict[str, Any]] = [{"temperature": 0}, {"seed": 3}, {"top_k": 5, "min_p": 0.02}]
    for sampling in samplings:
        cached, anew = (
            generate(*loaded, "the cat", max_new_tokens=60, cached=cached, **sampling)
            for cached in (True, False)
        )
        assert cached == anew
        assert len(cached) > 16  # the context


def test_greedy_is_the_argmax_of_the_whole_text(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    generation = Generation(
        FastDecoder(loaded.model), loaded.tokenizer, [list(b"the cat")], Sampling(temperature=0)
    )
    for _ in range(5):
        text = list(generation.sequences[0])
        logits = loaded.model(torch.tensor([text]))
        assert generation.step() == {0: int(logits[0, -1].argmax())}


def test_a_negative_number_of_tokens_is_an_error(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens"):
        generate(*load(tiny_run), "a", max_new_tokens=-1)


def test_the_command_prints_prompt_and_text(tiny_run: Path, capsys: Capture) -> None:
    arguments = [str(tiny_run), "--prompt", "the ", "--max-new-tokens", "30", "--seed", "3"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("the ")
    assert main([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert running_text(value["prompt"] + value["text"]) + "\n" == text
    assert len(value["tokens"]) <= 30


def answered(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    """The objects that --json prints."""
    assert main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_several_prompts_at_once(tiny_run: Path, capsys: Capture) -> None:
    options = (str(tiny_run), "--temperature", "0", "--max-new-tokens", "25")
    prompts = ["the cat", "a", "the old house sees the cat and the dog"]
    prompt_options = [part for prompt in prompts for part in ("--prompt", prompt)]
    together = answered(capsys, *options, *prompt_options)
    assert [line["prompt"] for line in together] == prompts
    for line in together:
        assert list(line.pop("products").values()) == [{"3": ANY}] * 5
        alone = answered(capsys, *options, "--prompt", line["prompt"])[0]
        assert list(alone.pop("products").values()) == [{"1": ANY}] * 5
        assert line == alone
    assert main([*options, *prompt_options]) == 0
    printed = capsys.readouterr().out
    assert all(running_text(line["prompt"] + line["text"]) in printed for line in together)


def test_a_stop_string_ends_the_text(tiny_run: Path, capsys: Capture) -> None:
    options = (str(tiny_run), "--prompt", "the ", "--temperature", "0", "--max-new-tokens", "40")
    whole = answered(capsys, *options)[0]["text"]
    stop = whole[10:13]
    stopped = answered(capsys, *options, "--stop", stop, "--stop", "never")[0]
    assert stopped["text"] == whole[: whole.index(stop)]
    assert len(stopped["tokens"]) < 40


def test_a_prompt_from_standard_input(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (str(tiny_run), "--temperature", "0", "--max-new-tokens", "9", "--prompt")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
    assert answered(capsys, *options, "-") == answered(capsys, *options, "the cat\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    assert main([*options, "-"]) == 2
    assert capsys.readouterr().err == (
        "error: standard input: byte 1 is not UTF-8, expected UTF-8\n"
    )


def test_interactive_answers_line_by_line(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (str(tiny_run), "--temperature", "0", "--max-new-tokens", "12")
    expected = [answered(capsys, *options, "--prompt", p)[0] for p in ("the cat", "a dog")]
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\na dog\n\nnot read\n"))
    assert main([*options, "--interactive"]) == 0
    printed = capsys.readouterr().out
    assert printed == "".join(running_text(e["prompt"] + e["text"]) + "\n" for e in expected)


def test_a_line_of_a_conversation_that_has_no_tokens_spoils_no_other(
    tiny_run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = io.TextIOWrapper(io.BytesIO(b"the cat\na \xff\na dog"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", lines)
    assert main([str(tiny_run), "--interactive", "--max-new-tokens", "2"]) == 0
    captured = capsys.readouterr()
    assert re.findall("the cat|a dog", captured.out) == ["the cat", "a dog"]
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: character 2: the surrogate U+DCFF, expected text that UTF-8 can hold"]


@pytest.mark.parametrize(("signum", "status"), [(None, 0), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_answer_and_a_signal_the_conversation(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, signum: int | None, status: int
) -> None:
    asked: list[str] = []

    def step(self: Generation) -> dict[int, int]:
        asked.append("")
        interrupt = KeyboardInterrupt()
        if signum is not None:
            interrupt.signum = signum  # type: ignore[attr-defined]
        raise interrupt

    monkeypatch.setattr(Generation, "step", step)
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\na dog\n\n"))
    assert main([str(tiny_run), "--interactive"]) == status
    assert len(asked) == (2 if status == 0 else 1)


def test_a_terminal_is_asked_with_a_sign(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    signs, lines = [], iter(["the cat", ""])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda sign: signs.append(sign) or next(lines))
    assert main([str(tiny_run), "--interactive", "--max-new-tokens", "2"]) == 0
    assert signs == ["> ", "> "]


def test_a_conversation_has_no_prompt_beside_it(tiny_run: Path, capsys: Capture) -> None:
    assert main([str(tiny_run), "--interactive", "--prompt", "a"]) == 2
    assert capsys.readouterr().err.startswith("error: --interactive: a --prompt with it, expected")


def test_no_new_tokens_have_no_rate(tiny_run: Path, capsys: Capture) -> None:
    assert main([str(tiny_run), "--prompt", "the cat", "--max-new-tokens", "0"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("the cat\n", "")


def test_more_of_standard_input_than_a_prompt_has_is_refused(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MAX_PROMPT", 5)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"123456")))
    assert main([str(tiny_run), "--prompt", "-"]) == 2
    assert capsys.readouterr().err.startswith("error: standard input: too much of it, expected")


def test_the_end_says_how_fast_and_that_the_context_overflowed(
    tiny_run: Path, capsys: Capture
) -> None:
    options = [str(tiny_run), "--prompt", "the ", "--temperature", "0", "--max-new-tokens"]
    assert main([*options, "5"]) == 0
    assert re.fullmatch(r"5 tokens, [\d.]+ tokens/s\n", capsys.readouterr().err)
    assert main([*options, "20"]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("note: longer than the context of 16 tokens, the older half")
    assert errors[1].startswith("20 tokens, ")


def one_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """stdout and stderr on one screen."""
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    return screen


def test_notes_stand_below_the_streamed_text(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = one_terminal(monkeypatch)
    text = generate(*load(tiny_run), "the ", max_new_tokens=20, temperature=0)
    arguments = ["--prompt", "the ", "--temperature", "0", "--max-new-tokens", "20"]
    assert main([str(tiny_run), *arguments]) == 0
    printed = screen.getvalue()
    assert printed.startswith(running_text(f"the {text}") + "\nnote: longer than the context of 16")
    assert re.search(r"\n20 tokens, [\d.]+ tokens/s\n$", printed)


@pytest.mark.parametrize(
    ("error", "end", "status"),
    [
        (InputError("weights", "a number", "another"), "error: weights: a number,", 2),
        (KeyboardInterrupt(), "", 130),
    ],
)
def test_what_ends_a_text_early_begins_a_line(
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    end: str,
    status: int,
) -> None:
    new_tokens, screen = iter(b"ab"), one_terminal(monkeypatch)

    def step(self: Generation) -> dict[int, int]:
        for token in new_tokens:
            return {0: token}
        raise error

    monkeypatch.setattr(Generation, "step", step)
    assert main([str(tiny_run), "--prompt", "the "]) == status
    assert screen.getvalue().startswith(f"the ab\n{end}")
    screen.truncate(screen.seek(0))
    assert main([str(tiny_run), "--prompt", "the ", "--json"]) == status
    assert screen.getvalue().startswith(end)
    assert "\n\n" not in screen.getvalue()


def test_a_character_is_printed_when_its_last_byte_is_there(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_tokens = iter("é🙂".encode())

    def step(self: Generation) -> dict[int, int]:
        return {0: next(new_tokens)}

    monkeypatch.setattr(Generation, "step", step)
    written: list[str] = []
    monkeypatch.setattr("sys.stdout.write", written.append)
    assert main([str(tiny_run), "--max-new-tokens", "6"]) == 0
    assert [part for part in written if part.strip()] == ["é", "🙂"]


def test_not_a_run(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no config.json, expected the folder of a run or of a Hugging Face model\n"
    )


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert (
        running_text("a\tb\nc\x1b[31m\x07\x7f\x9bé🙂") == "a\tb\nc\ufffd[31m\ufffd\ufffd\ufffdé🙂"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight * float("nan"), "an output that is not finite"),
        (lambda weight: weight.to(torch.int64), "final_norm.weight in int64, expected weights in"),
    ],
)
def test_weights_that_cannot_be_used(
    tiny_run: Path, tmp_path: Path, capsys: Capture, change: Any, message: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    tensors = load_file(run / "model.safetensors")
    save_file(
        tensors | {"final_norm.weight": change(tensors["final_norm.weight"])},
        run / "model.safetensors",
    )
    assert main([str(run)]) == 2
    assert message in capsys.readouterr().err


def test_a_tokenizer_file_with_an_endless_integer(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "tokenizer.json").write_text('{"version": ' + "9" * 5000 + "}")
    assert main([str(run)]) == 2
    errors = capsys.readouterr().err
    assert "tokenizer.json: not JSON" in errors
    assert errors.count("\n") == 1


def test_a_configuration_of_more_layers_than_tensors_is_refused_at_once(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    content = json.loads((run / "config.json").read_text())
    content["model"]["num_layers"] = 10_000
    (run / "config.json").write_text(json.dumps(content))
    started = time.process_time()
    assert main([str(run)]) == 2
    assert time.process_time() - started < 1
    assert "tensors, expected those of 10000 layers" in capsys.readouterr().err


def test_a_configuration_with_an_endless_number(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace("10000.0", "1" + "0" * 400))
    assert main([str(run)]) == 2
    assert "config.json: not JSON (a number of over 100 digits)" in capsys.readouterr().err


def test_standard_input_may_be_closed(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main([str(tiny_run), "--prompt", "-"]) == 2
    assert capsys.readouterr().err == "error: standard input: closed, expected a prompt\n"
    assert main([str(tiny_run), "--interactive"]) == 0
