"""Trackers: what each is given, one line where its package is absent, and a run that outlives them all."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minilm.cli.train import main
from minilm.config import TrainConfig, from_dict
from minilm.errors import ConfigError, MissingExtraError
from minilm.runs.logs import read_metrics
from minilm.training.loggers import TAGS
from minilm.training.train import resume, train
from minilm.training.train_step import TrainStep
from tests.conftest import ROOT, TINY_MODEL, TINY_SETTINGS, make_text


class Writer:
    instances: list["Writer"]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.instances.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def start(text_file: Any, cache: Any, tmp_path: Any) -> Any:
    def go(**settings: Any) -> Any:
        return train(
            data=str(text_file),
            run_dir=tmp_path / "run",
            tokenizer="byte",
            model=TINY_MODEL,
            settings=TINY_SETTINGS | {"log_to": "tensorboard"} | settings,
            cache=cache,
        )

    return go


def test_every_line_of_metrics_goes_to_the_board(
    start: Any, cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    Writer.instances = []
    run_dir = start().run_dir
    resume(run_dir, settings={"max_steps": 16}, cache=cache)
    first, second = Writer.instances
    assert first.folder == second.folder == str(run_dir / "tensorboard")
    assert (first.purge_step, second.purge_step) == (1, 13)
    assert first.closed
    assert second.closed
    expected = [
        (tag, line[name], line["step"])
        for line in read_metrics(run_dir / "metrics.jsonl")
        for name, tag in TAGS.items()
        if name in line
    ]
    assert first.scalars + second.scalars == expected
    assert {tag for tag, _, _ in expected} == set(TAGS.values())


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_without_the_package_it_is_one_line_before_anything_is_written(
    start: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf"--log-to {name}: .*pip install 'minilm\[{name}\]'"
    ):
        start(log_to=name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("is_fine_tuning", [False, True])
def test_without_the_package_no_text_is_read(
    text_file: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_fine_tuning: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError):
        train(
            data=str(text_file),
            run_dir=tmp_path / "run",
            settings={"log_to": "wandb"},
            cache=tmp_path / "cache",
            init_from=tiny_run if is_fine_tuning else None,
        )
    assert not (tmp_path / "cache").exists()


def test_a_missing_one_is_met_before_another_begins(
    start: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    runs = stand_in(monkeypatch, "wandb")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError, match="--log-to trackio"):
        start(log_to="wandb,trackio")
    assert runs == []


class Run:
    """A stand-in for a run of wandb and of trackio, which fails when it is told to."""

    def __init__(self, failing: str = "") -> None:
        self.lines: list[tuple[dict[str, Any], int]] = []
        self.failing, self.finished, self.calls = failing, False, 0

    def log(self, line: dict[str, Any], step: int) -> None:
        self.calls += 1
        print("printed by the tracker")
        if self.failing == "log" and self.calls == 2:
            raise ConnectionError("no network\nand more")
        self.lines.append((line, step))

    def finish(self) -> None:
        self.finished = True
        if self.failing == "finish":
            raise RuntimeError


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, failing: str = "") -> list[Any]:
    """Put a module of that name in place; the list of its runs, with what they were started with."""
    runs: list[Any] = []

    def init(**options: Any) -> Run:
        if failing == "init":
            raise OSError("the database is locked")
        runs.append((Run(failing), options))
        return runs[-1][0]

    module: Any = ModuleType(name)
    module.init, module.Settings = init, dict
    module.log = lambda line, step: runs[-1][0].log(line, step)  # of the last run, as trackio's
    module.finish = lambda: runs[-1][0].finish()
    monkeypatch.setitem(sys.modules, name, module)
    return runs


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_line_of_metrics_goes_to_the_tracker(
    start: Any, cache: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    runs = stand_in(monkeypatch, name)
    run_dir = start(log_to=name).run_dir
    resume(run_dir, settings={"max_steps": 16}, cache=cache)
    lines = read_metrics(run_dir / "metrics.jsonl")
    steps = [line.pop("step") for line in lines]
    logged = [line for run, _ in runs for line in run.lines]
    assert logged == list(zip(lines, steps, strict=True))
    assert all(run.finished for run, _ in runs)
    assert capsys.readouterr().out == ""
    (_, first), (_, second) = runs
    assert (first["project"], first["name"]) == ("minilm", "run")
    assert first["config"]["train"]["max_steps"] == 12
    assert first["config"]["model"]["num_layers"] == 2
    if name == "wandb":
        assert (first["mode"], first["dir"]) == ("offline", str(run_dir))
    else:
        assert (first["resume"], second["resume"]) == ("never", "allow")


def test_a_failed_first_step_leaves_nothing_of_wandb(
    start: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "wandb")
    module = sys.modules["wandb"]
    init = module.init

    def with_files(**options: Any) -> Run:
        folder = Path(options["dir"]) / "wandb" / "offline-run-1"
        folder.mkdir(parents=True)
        (folder / "run.wandb").write_text("x")
        (folder.parent / "latest-run").symlink_to(folder.name)
        return init(**options)

    def fail(self: TrainStep) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(module, "init", with_files)
    monkeypatch.setattr(TrainStep, "run", fail)
    with pytest.raises(RuntimeError, match="not enough memory"):
        start(log_to="wandb")
    assert not (tmp_path / "run").exists()


def test_the_environment_may_let_wandb_send(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    runs = stand_in(monkeypatch, "wandb")
    start(log_to="wandb")
    assert runs[0][1]["mode"] is None  # wandb reads the variable


@pytest.mark.parametrize(
    ("failing", "lines", "reason"),
    [
        ("init", 0, "the database is locked"),
        ("log", 1, "no network"),
        ("finish", None, "RuntimeError"),
    ],
)
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    start: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    lines: int | None,
    reason: str,
) -> None:
    failing_runs = stand_in(monkeypatch, "trackio", failing)
    healthy_runs = stand_in(monkeypatch, "wandb")
    outcome = start(log_to="trackio,wandb")
    assert (outcome.stopped_because, outcome.report.verified) == ("max_steps", True)
    metrics = read_metrics(outcome.run_dir / "metrics.jsonl")
    assert len(healthy_runs[0][0].lines) == len(metrics) > 2
    if failing_runs:
        assert len(failing_runs[0][0].lines) == (len(metrics) if lines is None else lines)
    notes = [message for message in caplog.messages if "failed" in message]
    assert notes == [f"note: trackio failed and gets nothing more; metrics.jsonl has all: {reason}"]


def test_a_tracker_whose_package_is_broken_is_left_out_too(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one compiled for another NumPy."""
    (tmp_path / "packages").mkdir()
    package = tmp_path / "packages" / "trackio.py"
    package.write_text("raise ValueError('numpy.dtype size changed\\nand more')")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    assert start(log_to="trackio").stopped_because == "max_steps"
    assert [message for message in caplog.messages if "failed" in message] == [
        "note: trackio failed and gets nothing more; metrics.jsonl has all: numpy.dtype size changed"
    ]


def test_a_wrong_tracker_is_named(start: Any) -> None:
    with pytest.raises(ConfigError, match="log_to: 'mlflow', expected any of tensorboard, wandb"):
        start(log_to="wandb, mlflow")
    assert TrainConfig(log_to="").trackers == ()
    assert TrainConfig(log_to=" wandb,tensorboard,wandb, ").trackers == ("wandb", "tensorboard")


def test_the_old_switch_is_read() -> None:
    for old, new in ((True, "tensorboard"), (False, "")):
        assert from_dict(TrainConfig, {"tensorboard": old}, "x").log_to == new
    with pytest.raises(ConfigError, match="x: log_to: 3, expected a value of type str"):
        from_dict(TrainConfig, {"tensorboard": 3}, "x")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--log-to", "wandb,trackio"], "wandb,trackio"),
        (["--train.tensorboard", "true"], "tensorboard"),
        (["--train.tensorboard=True"], "tensorboard"),
        (["--train.tensorboard", "false"], ""),
    ],
)
def test_the_option(monkeypatch: pytest.MonkeyPatch, arguments: list[str], value: str) -> None:
    class ReachedError(Exception):
        pass

    def stop(*_: Any, settings: dict[str, Any], **__: Any) -> None:
        assert settings["log_to"] == value
        raise ReachedError

    monkeypatch.setattr("minilm.training.train.train", stop)
    with pytest.raises(ReachedError):
        main(arguments)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_the_real_one(
    start: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    # In a process of its own: these programs leave threads and change the process.
    program = (
        "import sys, minilm\n"
        "from tests.conftest import TINY_MODEL, TINY_SETTINGS\n"
        "minilm.train(data=sys.argv[1], run_dir=sys.argv[2], tokenizer='byte', model=TINY_MODEL,\n"
        "             settings=TINY_SETTINGS | {'log_to': sys.argv[3]})\n"
    )
    text = tmp_path / "story.txt"
    text.write_text(make_text(3000), encoding="utf-8")
    environment = os.environ | {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MINILM_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(text), str(tmp_path / "run"), name],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "failed" not in done.stderr
    pattern = {
        "tensorboard": "run/tensorboard/events.out.tfevents.*",
        "wandb": "run/wandb/offline-run-*/run-*.wandb",
        "trackio": "trackio/minilm.db",
    }[name]
    (file,) = tmp_path.glob(pattern)
    assert file.stat().st_size > 500
