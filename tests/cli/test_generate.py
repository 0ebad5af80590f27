"""Sampling, and the generate command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilm.checkpoint import load
from minilm.cli.generate import main
from minilm.errors import ConfigError
from minilm.generate import choose, generate, generate_tokens
from minilm.render.terminal import plain_text

Capture = pytest.CaptureFixture[str]
LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0], dtype=torch.float64)


def draws(count: int = 4000, **options: float) -> torch.Tensor:
    """Shares of the tokens over many draws."""
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
    generator = torch.Generator().manual_seed(0)
    picked = [choose(LOGITS.clone(), generator=generator, **settings) for _ in range(count)]
    return torch.bincount(torch.tensor(picked), minlength=4) / count


def test_temperature_zero_is_greedy() -> None:
    assert draws(20, temperature=0.0).tolist() == [0, 1, 0, 0]


def test_temperature_divides_the_logits() -> None:
    for temperature in (0.5, 1.0, 2.0):
        expected = (LOGITS / temperature).softmax(-1)
        assert (draws(temperature=temperature) - expected).abs().max() < 0.03


def test_top_k_keeps_the_likeliest() -> None:
    shares = draws(top_k=2)
    expected = LOGITS[[1, 2]].softmax(-1)
    assert shares[[0, 3]].tolist() == [0, 0]
    assert (shares[[1, 2]] - expected).abs().max() < 0.03


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    probabilities = LOGITS.softmax(-1)  # 0.09 0.66 0.24 0.01
    assert draws(200, top_p=0.6).tolist() == [0, 1, 0, 0]
    assert draws(top_p=0.7)[[0, 3]].tolist() == [0, 0]
    assert (draws(top_p=0.7)[1] - probabilities[1] / probabilities[[1, 2]].sum()).abs() < 0.03
    assert draws(top_p=0.95)[0] > 0


def test_top_k_keeps_no_more_than_k_of_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.zeros(5)
    picked = {choose(flat.clone(), 1.0, 2, 1.0, generator) for _ in range(200)}
    assert len(picked) == 2


def test_the_smallest_temperature_is_greedy() -> None:
    assert draws(20, temperature=1e-300).tolist() == [0, 1, 0, 0]


def test_same_seed_same_text(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    first, second, other = (generate(loaded, "the", max_new_tokens=40, seed=s) for s in (1, 1, 2))
    assert first == second != other


def test_more_tokens_than_the_context(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    made = list(
        generate_tokens(loaded, [ord(c) for c in "the cat sees the old house."], max_new_tokens=50)
    )
    assert len(made) <= 50
    assert all(0 <= token < 256 for token in made)


def test_greedy_is_the_argmax_of_the_whole_text(tiny_run: Path) -> None:
    loaded = load(tiny_run)
    prompt = list(b"the cat")
    made = list(generate_tokens(loaded, prompt, max_new_tokens=5, temperature=0))
    for position, token in enumerate(made):
        logits = loaded.model(torch.tensor([prompt + made[:position]]))
        assert token == int(logits[0, -1].argmax())


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"seed": 2**64},
    ],
)
def test_out_of_range_is_an_error(tiny_run: Path, options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        generate(load(tiny_run), "a", max_new_tokens=3, **options)


def test_the_command_prints_prompt_and_text(tiny_run: Path, capsys: Capture) -> None:
    arguments = [str(tiny_run), "--prompt", "the ", "--max-new-tokens", "30", "--seed", "3"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("the ")
    assert main([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert plain_text(value["prompt"] + value["text"]) + "\n" == text
    assert len(value["tokens"]) <= 30


def test_not_a_run(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no config.json, expected the folder of a run; see checkpoints/\n"
    )


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert plain_text("a\tb\nc\x1b[31m\x07\x7f\x9bé🙂") == "a\tb\nc\ufffd[31m\ufffd\ufffd\ufffdé🙂"


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


def test_a_configuration_with_an_endless_number(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace("10000.0", "1" + "0" * 400))
    assert main([str(run)]) == 2
    assert "config.json: not JSON (a number of over 100 digits)" in capsys.readouterr().err
