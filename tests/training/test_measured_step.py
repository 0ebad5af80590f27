"""How a step computes on a CPU: measured where it pays, recorded, the same again in a resumed run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.config import ModelConfig, TrainConfig
from minilm.generation import tuning
from minilm.model.attention import explicit_is_faster, longest_explicit
from minilm.runs import files as run_files
from minilm.training import measured_step, runtime
from minilm.training.measured_step import longest_explicit_length, measured, measuring_pays
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

MODEL = ModelConfig(vocab_size=65, context_length=32, num_layers=2, d_model=16, num_heads=2)
AUTO = {name: TINY_SETTINGS[name] for name in TINY_SETTINGS if name != "dtype"}


class Choices:
    """Stands for the clock: the way of that name is the fastest."""

    def __init__(self, name: str) -> None:
        self.name, self.questions = name, []  # type: ignore[var-annotated]

    def __call__(self, question: str, alternatives: Any) -> str:
        for _, run in alternatives:
            run()
        self.questions.append([name for name, _ in alternatives])
        return self.name


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Choices:
    """bfloat16 with fused attention, against both rules of a plain CPU, is measured as fastest, always."""
    chosen = Choices("bfloat16, fused")
    monkeypatch.setattr(measured_step, "choose", chosen)
    monkeypatch.setattr(runtime, "measuring_pays", lambda *_: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    return chosen


def test_each_dtype_and_attention_is_timed_the_rule_first(choices: Choices) -> None:
    config = TrainConfig(batch_size=2)
    tuned = measured(config, MODEL, 32, torch.float32)
    assert tuned == {"dtype": "bfloat16", "attention": "fused"}
    names = ["float32, explicit", "float32, fused", "bfloat16, explicit", "bfloat16, fused"]
    assert choices.questions == [names]
    measured(TrainConfig(batch_size=2, dtype="bfloat16"), MODEL, 32, torch.bfloat16)
    assert choices.questions[1] == ["bfloat16, explicit", "bfloat16, fused"]
    long = ModelConfig(vocab_size=65, context_length=256, num_layers=1, d_model=16, num_heads=2)
    measured(TrainConfig(batch_size=2), long, 256, torch.float32)
    assert choices.questions[2][:2] == ["float32, fused", "float32, explicit"]
    choices.name = "bfloat16, explicit"
    measured(TrainConfig(batch_size=2), replace(long, dropout=0.1), 256, torch.float32)
    assert choices.questions[3] == ["float32, explicit", "bfloat16, explicit"], "dropout"


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_what_is_timed_is_what_its_name_says(
    monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    """By the number of scaled products: one forward, two back; the fused kernel has none of its own."""
    counts: dict[str, int] = {}

    def choose(question: str, alternatives: Any) -> str:
        for name, run in alternatives:
            with torch.profiler.profile() as profile:
                run()
            calls = {each.key: each.count for each in profile.key_averages()}
            counts[name] = calls.get("aten::baddbmm", 0)
        return str(alternatives[0][0])

    monkeypatch.setattr(measured_step, "choose", choose)
    measured(TrainConfig(batch_size=2, dtype="float32"), MODEL, 32, torch.float32)
    assert counts == {"float32, explicit": 3, "float32, fused": 0}


def test_measuring_draws_no_random_number_of_the_run() -> None:
    state = torch.get_rng_state()
    measured(TrainConfig(batch_size=2, dtype="float32"), MODEL, 32, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("attention", "length", "expected"),
    [("explicit", 256, 256), ("explicit", 64, 128), ("fused", 64, 63), ("fused", 512, 128)],
)
def test_a_choice_holds_for_its_length(attention: str, length: int, expected: int) -> None:
    """Longer rows than those by which explicit attention lost go through the kernel, shorter ones by rule."""
    tuned = {"attention": attention}
    assert longest_explicit(torch.float32) == 128
    assert longest_explicit_length(tuned, length, torch.float32) == expected
    cpu = torch.device("cpu")
    assert explicit_is_faster(cpu, expected, torch.float32, expected)
    assert not explicit_is_faster(cpu, expected + 1, torch.float32, expected)


def test_only_a_long_run_is_measured() -> None:
    assert measuring_pays(1e13, 1.2e6, 4)  # nano
    assert not measuring_pays(1e11, 1e5, 2)
    assert not measuring_pays(1e13, 1e5, 4), "wide, and of few tokens"
    assert not measuring_pays(6 * 1e8 * 1e9, 1e9, 12), "a block of 8M, timed for too long"


def test_a_run_is_as_measured_and_says_so(
    choices: Choices,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options: dict[str, Any] = {"data": str(text_file), "tokenizer": "byte", "cache": cache}
    train(run_dir=tmp_path / "run", model=TINY_MODEL, settings=AUTO, **options)
    assert "slower" not in caplog.text, "its samples are by the fast decoder"
    tuned = {"dtype": "bfloat16", "attention": "fused"}
    summary = run_files.read_summary(tmp_path / "run")
    assert (summary["dtype"], summary["tuned"]) == ("bfloat16", tuned)
    assert json.loads((tmp_path / "run" / run_files.CONFIG).read_text())["tuned"] == tuned
    same = {"run_dir": tmp_path / "same", "model": TINY_MODEL, "settings": AUTO}
    train(**same, **options)
    by_rule = {"run_dir": tmp_path / "off", "model": TINY_MODEL, "settings": AUTO | {"tune": "off"}}
    train(**by_rule, **options)
    weights = [
        (tmp_path / name / run_files.WEIGHTS).read_bytes() for name in ("run", "same", "off")
    ]
    assert weights[0] == weights[1] != weights[2]
    summary = run_files.read_summary(tmp_path / "off")
    assert (summary["dtype"], summary["tuned"]) == ("float32", {})


def test_a_resumed_run_goes_on_as_it_was_measured(
    choices: Choices,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {
        "data": str(text_file),
        "tokenizer": "byte",
        "cache": cache,
        "model": TINY_MODEL,
    }
    schedule = AUTO | {"schedule": "constant"}
    train(run_dir=tmp_path / "whole", settings=schedule, **options)
    train(run_dir=tmp_path / "part", settings=schedule | {"max_steps": 4}, **options)
    choices.name = "float32, explicit"
    measured_before = len(choices.questions)
    resume(tmp_path / "part", settings={"max_steps": AUTO["max_steps"]}, cache=cache)
    assert len(choices.questions) == measured_before
    weights = [(tmp_path / name / run_files.WEIGHTS).read_bytes() for name in ("whole", "part")]
    assert weights[0] == weights[1]
    assert run_files.read_summary(tmp_path / "part")["tuned"]["attention"] == "fused"


def test_the_first_way_is_taken_where_another_is_hardly_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Through the real clock's rule: a step is by rule unless something is clearly faster."""
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: 0.0)
    tuned = measured(TrainConfig(batch_size=2), MODEL, 32, torch.float32)
    assert tuned == {"dtype": "float32", "attention": "explicit"}
    (answers,) = json.loads((tmp_path / tuning.TUNING).read_text()).values()
    assert [*answers.values()] == ["float32, explicit"]
