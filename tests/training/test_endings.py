"""How a run ends: losses that are not finite, a goal over the whole split, signals, failures of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from minilm.checkpoint import load_model
from minilm.errors import FormatError
from minilm.formats.safetensors import read_header
from minilm.parallel.tensor_parts import write_tensors
from minilm.runs import files as run_files
from minilm.runs.logs import read_metrics
from minilm.training import finish, train_step, trainer
from minilm.training.evaluation import Validation
from minilm.training.resume_options import is_finished
from minilm.training.resume_state import read_state
from minilm.training.train import Outcome, resume, train
from minilm.training.train_step import TrainStep
from tests.conftest import TINY_MODEL, TINY_SETTINGS


@pytest.fixture
def go(text_file: Path, cache: Path, tmp_path: Path) -> Any:
    """Train a tiny model into tmp_path/NAME with some settings replaced."""

    def start(name: str = "run", **settings: Any) -> Outcome:
        return train(
            data=str(text_file),
            run_dir=tmp_path / name,
            tokenizer="byte",
            model=TINY_MODEL,
            settings=TINY_SETTINGS | settings,
            cache=cache,
        )

    return start


def weights(folder: Path) -> bytes:
    return (folder / run_files.WEIGHTS).read_bytes()


NEVER = {"log_every": 100, "eval_every": 100}
FINITE = Validation(1.0, 1.0, 100)


@pytest.mark.parametrize(
    ("settings", "validation", "saved_step", "steps"),
    [
        ({"log_every": 100}, Validation(float("nan"), float("nan"), 100), 0, 4),
        # float16's scaler leaves such an update out
        ({"log_every": 100, "dtype": "float16"}, FINITE, 4, 8),
        (NEVER | {"save_every_seconds": 1e-9}, FINITE, 6, 7),
        (NEVER | {"signum": signal.SIGTERM}, FINITE, 0, 7),
    ],
    ids=["in an evaluation", "after an evaluation", "when a save is due", "at a signal"],
)
def test_a_loss_that_is_not_finite_is_noticed_before_anything_is_saved(
    go: Any,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    validation: Validation,
    saved_step: int,
    steps: int,
) -> None:
    settings = dict(settings)
    signum = settings.pop("signum", None)
    true_loss, calls = train_step.next_token_loss, []

    def broken(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        loss = true_loss(*arguments)
        if len(calls) <= 6:
            return loss
        if signum is not None:
            os.kill(os.getpid(), signum)
        return loss * float("nan")

    monkeypatch.setattr(train_step, "next_token_loss", broken)
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: validation)
    outcome = go(**settings)
    assert outcome.stopped_because == "non_finite_loss"
    assert outcome.report is None
    assert outcome.summary["steps"] == steps
    state = read_state(outcome.run_dir)
    assert state.progress.step == saved_step
    assert all(torch.isfinite(tensor.float()).all() for tensor in state.tensors.values())


@pytest.mark.parametrize(("over_all", "reason"), [(1.5, "target_val_loss"), (2.5, "max_steps")])
def test_a_target_that_a_part_of_the_split_reaches_is_checked_over_all_of_it(
    go: Any, monkeypatch: pytest.MonkeyPatch, over_all: float, reason: str
) -> None:
    def evaluate(*_: Any, at_most: int, **__: Any) -> Validation:
        return Validation(1.0 if at_most else over_all, 1.0, at_most or 3000)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    outcome = go(eval_tokens=100, target_val_loss=2.0)
    assert outcome.stopped_because == reason
    assert outcome.summary["steps"] == (4 if reason == "target_val_loss" else 12)
    summary = outcome.summary
    assert (summary["best_val_loss"], summary["best_val_tokens"]) == (over_all, 3000)


def test_the_weights_of_an_evaluation_over_the_whole_split_are_those_that_it_was_of(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of the fourth step; training goes on, and no later one is better."""
    weights = {}

    def evaluate(model: torch.nn.Module, *_: Any, at_most: int, **__: Any) -> Validation:
        if not at_most:
            weights.update({n: p.detach().clone() for n, p in model.named_parameters()})
        return Validation(1.0 if at_most else 2.5, 1.0, at_most or 3000)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    outcome = go(eval_tokens=100, target_val_loss=2.0)
    assert outcome.summary["steps"] == 12
    path = outcome.run_dir / "model.safetensors"
    metadata = read_header(path).metadata
    assert (metadata["step"], metadata["val_tokens"]) == ("4", "3000")
    written = load_file(path)
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weights[name]) for name in weights)


def test_an_evaluation_over_the_whole_split_is_in_no_rate(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, clock = [0.0], time.perf_counter

    def evaluate(*_: Any, at_most: int, **__: Any) -> Validation:
        late[0] += 1000
        return Validation(1.0 if at_most else 2.5, 1.0, at_most or 3000)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    outcome = go(eval_tokens=100, target_val_loss=2.0)
    assert outcome.summary["tokens_per_second"] > 12 * 64 / 1000
    rates = [
        line.get("tokens_per_second") for line in read_metrics(outcome.run_dir / "metrics.jsonl")
    ]
    assert min(rate for rate in rates if rate is not None) > 2 * 64 / 1000


@pytest.mark.parametrize("eval_tokens", [0, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_validation_loss_is_that_of_the_stored_weights(
    go: Any,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    eval_tokens: int,
) -> None:
    path = go("base").run_dir / run_files.WEIGHTS
    write_tensors(path, {name: t.to(dtype) for name, t in load_file(path).items()}, {})
    evaluate, calls = trainer.evaluate, []

    def noted(*arguments: Any, **options: Any) -> Validation | None:
        calls.append(arguments)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(trainer, "evaluate", noted)
    settings = TINY_SETTINGS | {"max_steps": 6, "eval_every": 3, "eval_tokens": eval_tokens}
    tuned = train(
        data=str(text_file),
        run_dir=tmp_path / "tuned",
        init_from=tmp_path / "base",
        settings=settings,
        cache=cache,
    )
    assert tuned.summary["best_step"] > 0
    stored = load_model(tuned.run_dir / run_files.WEIGHTS, calls[0][0].config)
    loss = evaluate(stored, *calls[0][1:]).loss
    assert tuned.summary["best_val_loss"] == pytest.approx(loss, rel=1e-6)
    with safe_open(tuned.run_dir / run_files.WEIGHTS, "pt") as stream:
        assert float(stream.metadata()["val_loss"]) == pytest.approx(loss, abs=1e-6)
    state = read_state(tuned.run_dir).tensors  # training goes on with all digits
    assert not all(t.equal(t.to(dtype).float()) for n, t in state.items() if n.startswith("model."))


@pytest.mark.parametrize("goal", [{}, {"target_val_loss": 100.0}])
def test_a_signal_in_the_evaluation_over_the_whole_split_leaves_it_to_the_resumed_run(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, goal: dict[str, Any]
) -> None:
    whole = go("whole", eval_tokens=100, **goal)
    evaluate = trainer.evaluate

    def interrupted(*arguments: Any, at_most: int, **options: Any) -> Validation | None:
        if not at_most:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, at_most=at_most, **options)

    monkeypatch.setattr(trainer, "evaluate", interrupted)
    outcome = go(eval_tokens=100, **goal)
    assert outcome.stopped_because == "SIGTERM"
    assert outcome.summary["best_val_tokens"] == 6 * 16 < whole.summary["best_val_tokens"]
    monkeypatch.undo()
    resumed = resume(outcome.run_dir, cache=cache)
    assert resumed.stopped_because == whole.stopped_because
    assert weights(resumed.run_dir) == weights(whole.run_dir)
    for name in ("steps", "best_val_loss", "best_val_tokens"):
        assert resumed.summary[name] == whole.summary[name]


def test_a_step_that_fails_leaves_no_run_where_it_is_the_first(
    go: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    step = TrainStep.run

    def fails_from(first: int) -> Any:
        def failing(self: TrainStep) -> None:
            if self.progress.step == first:
                raise RuntimeError("not enough memory: you tried to allocate 1 bytes")
            step(self)

        return failing

    monkeypatch.setattr(TrainStep, "run", fails_from(0))
    with pytest.raises(RuntimeError, match="not enough memory"):
        go("first")
    assert not (tmp_path / "first").exists()
    monkeypatch.setattr(TrainStep, "run", fails_from(6))
    with pytest.raises(RuntimeError, match="not enough memory"):
        go("later")
    monkeypatch.undo()
    assert resume(tmp_path / "later", cache=cache).summary["steps"] == 12


def test_a_run_trains_in_another_thread_where_no_signal_can_be_heard(go: Any) -> None:
    """As from a notebook's or a window's own thread."""
    outcomes: list[Outcome] = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: outcomes.append(go()))
    thread.start()
    thread.join()
    assert outcomes[0].stopped_because == "max_steps"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_float16_run_resumes_bit_for_bit_with_the_scale_of_its_loss(go: Any, cache: Path) -> None:
    whole = go("whole", dtype="float16").run_dir
    folder = go(dtype="float16", max_steps=4).run_dir
    assert resume(folder, settings={"max_steps": 12}, cache=cache).summary["steps"] == 12
    scales = [read_state(each).progress.scaler for each in (folder, whole)]
    assert scales[0] == scales[1]
    assert scales[0]["_growth_tracker"] == 12


def test_a_large_models_page_has_no_statistics(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[Any] = []
    maps: list[Any] = []

    def page(report: Any, *, history: Any, weights: Any) -> str:
        pages.append(report)
        maps.append((history.attention is not None, len(weights) > 0))
        return ""

    monkeypatch.setattr(finish, "page", page)
    go("small")
    monkeypatch.setattr(finish, "MOST_PARAMETERS_READ", 1000)
    go("large")
    assert [report.statistics is None for report in pages] == [False, True]
    assert maps == [(True, True), (False, False)]


class Killed(BaseException):
    """Ends a call where SIGKILL would end the process: what follows is not done."""


def killing(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.mark.parametrize("where", ["step", "write_record", "save"])
def test_an_extended_run_that_was_killed_is_resumed_by_the_same_command(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = go("whole", schedule="constant")
    folder = go(max_steps=4, schedule="constant").run_dir
    steps: list[int] = []
    true_step = TrainStep.run

    def step(self: TrainStep) -> None:
        # Another process asks whether the run is finished while this one trains.
        assert not is_finished(folder, None, {})
        steps.append(self.progress.step)
        if len(steps) == 3:
            raise Killed
        true_step(self)

    if where == "step":
        monkeypatch.setattr(TrainStep, "run", step)
    elif where == "write_record":
        monkeypatch.setattr(run_files, "write_record", killing)
    else:
        monkeypatch.setattr(trainer.Trainer, "save", killing)
    command = {"settings": {"max_steps": 12}, "cache": cache}
    with pytest.raises(Killed):
        resume(folder, **command)
    monkeypatch.undo()
    outcome = resume(folder, **command)
    assert (outcome.stopped_because, outcome.summary["steps"]) == ("max_steps", 12)
    assert weights(folder) == weights(whole.run_dir)
    rate = outcome.summary["tokens_per_second"]
    assert rate > 0
    again = resume(folder, settings={"keep_states": 1}, cache=cache)  # nothing is left to train
    assert again.summary["tokens_per_second"] == rate


def test_weights_made_anew_are_evaluated_though_the_process_was_killed(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = go().run_dir
    (folder / run_files.WEIGHTS).unlink()

    def run(self: trainer.Trainer) -> None:
        self.checkpoints.wait()
        raise Killed

    monkeypatch.setattr(trainer.Trainer, "run", run)
    with pytest.raises(Killed):
        resume(folder, cache=cache)
    monkeypatch.undo()
    assert run_files.has_weights(folder)
    resume(folder, cache=cache)
    with safe_open(folder / run_files.WEIGHTS, "pt") as stream:
        assert stream.metadata()["val_loss"] != "not evaluated"


def test_an_extended_run_goes_on_to_its_new_end_from_an_older_state(go: Any, cache: Path) -> None:
    folder = go(max_steps=8, schedule="constant").run_dir
    (older,) = (path for path in (folder / "resume").iterdir() if "000004" in path.name)
    state = older.read_bytes()
    more = {"max_steps": 12, "keep_states": 5, "early_stopping": 7, "dtype": "bfloat16"}
    resume(folder, settings=more, cache=cache)
    for path in (folder / "resume").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    older.write_bytes(state)
    (folder / run_files.SUMMARY).unlink()
    outcome = resume(folder, cache=cache)
    assert (outcome.summary["steps"], outcome.summary["dtype"]) == (12, "bfloat16")
    train = read_state(folder).settings["train"]
    assert {name: train[name] for name in more} == more


def test_without_a_state_there_is_nothing_to_resume(go: Any, cache: Path) -> None:
    folder = go().run_dir
    (folder / run_files.SUMMARY).unlink()
    for state in (folder / run_files.RESUME).iterdir():
        state.unlink()
    with pytest.raises(FormatError, match=r"resume: no training state, .* start the run anew"):
        resume(folder, cache=cache)
