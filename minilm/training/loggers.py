"""Logs of a run: metrics.jsonl, samples.jsonl, parameters.jsonl, and the trackers of --log-to."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from minilm.errors import MissingExtraError
from minilm.runs import files as run_files
from minilm.runs.logs import metrics_log, parameters_log, samples_log

# Where TensorBoard shows each field of metrics.jsonl; the others stand on its axes.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_bits_per_byte": "bits_per_byte/validation",
    "lr": "schedule/learning_rate",
    "grad_norm": "gradient/norm",
    "tokens_per_second": "speed/tokens_per_second",
}
PROJECT = "minilm"  # where the other trackers show all runs

logger = logging.getLogger(__name__)


class Logs:
    """The logs of a run folder, opened to continue from a step; ``written`` by one of several processes.

    ``watched``: parameters.jsonl is among them.
    """

    def __init__(
        self,
        run_dir: Path,
        from_step: int,
        *,
        evaluated: bool,
        trackers: Trackers,
        written: bool = True,
        watched: bool = False,
    ) -> None:
        self._written = written
        with contextlib.ExitStack() as stack:
            if not written:
                self._stack = stack
                return
            metrics = metrics_log(run_dir, from_step, evaluated=evaluated)
            self._metrics = stack.enter_context(contextlib.closing(metrics))
            samples = samples_log(run_dir, from_step, evaluated=evaluated)
            self._samples = stack.enter_context(contextlib.closing(samples))
            parameters = parameters_log(run_dir, from_step, watched=watched)
            self._parameters = parameters and stack.enter_context(contextlib.closing(parameters))
            self._trackers = trackers
            self._stack = stack.pop_all()

    def metrics(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if self._written:
            self._metrics.write(line)
            self._trackers.write(line)

    def sample(self, line: dict[str, Any]) -> None:
        """One line of samples.jsonl."""
        if self._written:
            self._samples.write(line)

    def parameters(self, line: dict[str, Any]) -> None:
        """One line of parameters.jsonl."""
        if self._written and self._parameters is not None:
            self._parameters.write(line)

    def close(self) -> None:
        """Close them."""
        self._stack.close()


class Tracker(Protocol):
    """Another program's log of the metrics."""

    def write(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""

    def close(self) -> None:
        """Write what is left."""


class Trackers:
    """The trackers of one run. One that fails is left out from there on: it never ends a run."""

    def __init__(
        self,
        names: Sequence[str],
        run_dir: Path,
        from_step: int,
        hyperparameters: Mapping[str, Any],
    ) -> None:
        """Raises MissingExtraError, before any begins, for one that is not installed."""
        self._trackers: dict[str, Tracker] = {}
        check_installed(names)
        for name in names:
            self._attempt(name, partial(self._start, name, run_dir, from_step, hyperparameters))

    def write(self, line: Mapping[str, Any]) -> None:
        """Pass one line of metrics.jsonl to each."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, partial(tracker.write, line))

    def close(self) -> None:
        """Close each."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, tracker.close)

    def _start(self, name: str, *arguments: Any) -> None:
        self._trackers[name] = _TRACKERS[name](*arguments)

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # some print; results alone go to stdout
                action()
        except Exception as error:  # whatever another program may raise
            self._trackers.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            logger.warning(
                f"note: {name} failed and gets nothing more; {run_files.METRICS} has all: {reason}"
            )


def check_installed(names: Sequence[str]) -> None:
    """Raises MissingExtraError for the first tracker that is not installed."""
    for name in names:
        _check_installed(name)


def _check_installed(name: str) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import_module(_MODULES.get(name, name))
    except ImportError:
        raise MissingExtraError(name, name, f"--log-to {name}") from None
    except Exception:  # one that is broken: starting it fails, and is noted
        return


class TensorBoard:
    """Event files in the run's folder; those after ``from_step`` of an earlier process are hidden."""

    def __init__(self, run_dir: Path, from_step: int, hyperparameters: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(run_dir / run_files.TENSORBOARD)
        self._writer: Any = SummaryWriter(folder, purge_step=from_step + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        for name, tag in TAGS.items():
            if name in line:
                self._writer.add_scalar(tag, line[name], line["step"])

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run of wandb in the run's folder: offline, unless the environment says otherwise.

    A resumed run is a further run of the same group: offline, wandb cannot continue an earlier one.
    """

    def __init__(self, run_dir: Path, from_step: int, hyperparameters: Mapping[str, Any]) -> None:
        import wandb

        # Without a key it would ask for one, and wait for the answer.
        variables = {"WANDB_MODE", "WANDB_API_KEY"} & os.environ.keys()
        self._run: Any = wandb.init(
            project=PROJECT,
            name=run_dir.name,
            group=run_dir.name,
            dir=str(run_dir),
            mode=None if variables else "offline",
            config=dict(hyperparameters),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        self._run.log(_without_step(line), step=line["step"])

    def close(self) -> None:
        """Write what is left and end wandb's process."""
        self._run.finish()


class Trackio:
    """A run of trackio, in its own local database; a resumed run continues there."""

    def __init__(self, run_dir: Path, from_step: int, hyperparameters: Mapping[str, Any]) -> None:
        import trackio

        trackio.init(
            project=PROJECT,
            name=run_dir.name,
            config=dict(hyperparameters),
            resume="allow" if from_step else "never",
        )
        self._trackio: Any = trackio

    def write(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        self._trackio.log(_without_step(line), step=line["step"])

    def close(self) -> None:
        """Write what is left; the run's own finish would be called again at exit."""
        self._trackio.finish()


def _without_step(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "step"}


_MODULES = {"tensorboard": "torch.utils.tensorboard"}
_TRACKERS: dict[str, Callable[[Path, int, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
