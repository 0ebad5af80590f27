"""Steps, evaluations and dropout that follow from the size of the text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from minilm.config import ModelConfig, TrainConfig
from minilm.config.presets import find_preset
from minilm.data.dataset import Dataset
from minilm.text.tokenizers import ByteTokenizer
from minilm.training.text_size import (
    final_eval_tokens,
    fit_to_text,
    longest_context,
    step_tokens,
)
from minilm.training.train import train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

NANO = find_preset("nano")


def text_of(train_tokens: int, bytes_per_token: float = 2.5) -> Dataset:
    """Only its sizes count."""
    train, val = (np.zeros(count, np.uint16) for count in (train_tokens, train_tokens // 9))
    size = int(train_tokens * bytes_per_token)
    sizes = {"bytes": size, "train_bytes": size, "val_bytes": size // 9, "documents": 1}
    return Dataset(train, val, ByteTokenizer(), "test", sha256="", **sizes)


def fitted(
    train_tokens: int, bytes_per_token: float = 2.5, **settings: int
) -> tuple[TrainConfig, float]:
    """Of the preset `nano`."""
    return fit_to_text(
        NANO.train_config(**settings),
        NANO.model_config(),
        overrides=settings,
        dataset=text_of(train_tokens, bytes_per_token),
    )


def test_a_small_text_is_not_seen_hundreds_of_times() -> None:
    config, dropout = fitted(41_000)
    assert config.max_steps * step_tokens(config, NANO.model_config()) <= 4 * 41_000
    assert dropout > 0
    assert config.early_stopping > 0


def test_tokens_of_one_byte_are_seen_more_often() -> None:
    of_words, of_bytes = (fitted(41_000, size)[0].max_steps for size in (2.5, 1.0))
    assert of_bytes == pytest.approx(2 * of_words, rel=0.01)


@pytest.mark.parametrize(("train_tokens", "length"), [(2, 1), (3, 2), (4, 2), (5, 4), (128, 64)])
def test_a_text_shorter_than_a_window_has_one_of_a_shorter_length(
    train_tokens: int, length: int
) -> None:
    assert longest_context(128, train_tokens) == length
    assert longest_context(128, 129) == 128


def test_the_evaluation_at_the_end_is_over_no_more_tokens_than_the_run_was_trained_on() -> None:
    text = text_of(9_000_000)
    assert text.val_places == 999_999
    assert final_eval_tokens(500_000, text) == 500_000
    assert final_eval_tokens(100, text) == 16_384, "enough for a loss that is worth reading"
    assert final_eval_tokens(10**6, text) == 0, "all"
    assert final_eval_tokens(100, text_of(90_000)) == 0


def test_a_short_run_on_a_large_text_ends_soon_after_its_last_step(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "minilm")
    path = tmp_path / "text.txt"
    path.write_text("abcd " * 10_000)
    settings = TINY_SETTINGS | {"val_fraction": 0.8, "eval_tokens": 100}
    outcome = train(
        data=path,
        run_dir=tmp_path / "run",
        tokenizer="byte",
        model=TINY_MODEL,
        settings=settings,
        cache=cache,
    )
    assert 16_384 <= outcome.summary["best_val_tokens"] < 17_000
    val_tokens = outcome.summary["data"]["val_tokens"]
    assert f"over 100 of {val_tokens:,} validation tokens, over 16,384 at the end" in caplog.text
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        assert file.metadata()["val_tokens"] == str(outcome.summary["best_val_tokens"])


def test_weights_that_a_target_was_checked_with_say_the_loss_of_that_check(
    tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abcd " * 10_000)
    settings = TINY_SETTINGS | {"val_fraction": 0.8, "eval_tokens": 20_000}
    outcome = train(
        data=path,
        run_dir=tmp_path / "run",
        tokenizer="byte",
        model=TINY_MODEL,
        settings=settings | {"target_val_loss": 100.0},
        cache=cache,
    )
    assert outcome.summary["best_val_tokens"] > 30_000
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        assert file.metadata()["val_tokens"] == str(outcome.summary["best_val_tokens"])


def test_the_shortest_text_of_all_is_trained_on(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "abcd.txt"
    path.write_text("abcd")
    settings = TINY_SETTINGS | {"val_fraction": 0.5, "max_steps": 2}
    outcome = train(
        data=path, run_dir=tmp_path / "run", tokenizer="byte", settings=settings, cache=cache
    )
    assert outcome.summary["data"]["train_tokens"] == 2
    assert outcome.report is not None
    assert outcome.report.verified


def test_a_large_text_keeps_the_length_of_the_preset() -> None:
    config, dropout = fitted(3_000_000)
    assert (config.max_steps, dropout) == (NANO.train["max_steps"], 0.0)
    assert config.early_stopping == 0


@pytest.mark.parametrize("train_tokens", [41_000, 400_000, 3_000_000, 10**9])
def test_a_run_of_the_usual_length_has_a_dozen_evaluations_at_a_tenth_of_the_cost(
    train_tokens: int,
) -> None:
    config, _ = fitted(train_tokens)
    evaluations = config.max_steps // config.eval_every
    assert evaluations >= 9
    size = config.eval_tokens or train_tokens // 9
    trained = config.max_steps * step_tokens(config, NANO.model_config())
    assert evaluations * size / 3 <= 0.11 * trained


def test_few_steps_on_a_large_text_are_evaluated_once() -> None:
    config, _ = fitted(10**9, max_steps=20)
    assert config.eval_every == 20
    assert config.eval_tokens < 20_000


def test_a_text_that_is_seen_often_is_evaluated_twice_an_epoch() -> None:
    config, _ = fitted(41_000, max_steps=600)
    steps_an_epoch = 41_000 / step_tokens(config, NANO.model_config())
    assert config.eval_every <= steps_an_epoch / 2 + 1
    assert config.max_steps == 600


def test_what_is_set_stays() -> None:
    settings = {"max_steps": 700, "eval_every": 90, "eval_tokens": 0, "early_stopping": 0}
    config, _ = fitted(41_000, **settings)
    assert {name: getattr(config, name) for name in settings} == settings
    model = ModelConfig(**TINY_MODEL, vocab_size=256)  # dropout 0, and set
    _, dropout = fit_to_text(TrainConfig(), model, overrides={"dropout"}, dataset=text_of(1000))
    assert dropout == 0.0


def test_the_best_weights_are_evaluated_over_the_whole_split(
    text_file: Path, cache: Path, tmp_path: Path
) -> None:
    common = {"max_steps": 6, "eval_every": 2, "dtype": "float32", "sample_tokens": 0}
    text = tmp_path / "text.txt"
    text.write_text(text_file.read_text() * 5)

    def run(name: str, eval_tokens: int) -> dict:
        outcome = train(
            data=str(text),
            run_dir=tmp_path / name,
            tokenizer="byte",
            model=TINY_MODEL,
            settings=common | {"eval_tokens": eval_tokens},
            cache=cache,
        )
        return outcome.summary

    part, whole = run("part", 64), run("whole", 0)
    lines = [
        json.loads(line)
        for line in (tmp_path / "part" / "metrics.jsonl").read_text().splitlines()
        if "val_loss" in line
    ]
    assert [line["val_tokens"] for line in lines] == [64, 64, 64]
    assert part["best_val_tokens"] == whole["data"]["val_tokens"] - 1
    assert part["best_step"] == whole["best_step"] == 6
    assert part["best_val_loss"] == pytest.approx(whole["best_val_loss"], rel=1e-6)
    assert lines[-1]["val_loss"] != pytest.approx(part["best_val_loss"], rel=1e-6)


def test_a_text_of_a_few_lines_has_a_shorter_context(cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "tiny.txt"
    text.write_text("It was a bright cold day, and the clocks were striking.\n" * 4)
    outcome = train(
        data=str(text),
        run_dir=tmp_path / "run",
        settings={"max_steps": 2, "sample_tokens": 0},
        cache=cache,
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert 2 <= config["context_length"] < outcome.summary["data"]["train_tokens"]
    assert config["context_length"] < NANO.model["context_length"]
