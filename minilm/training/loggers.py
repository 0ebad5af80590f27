"""Logs of a run: metrics.jsonl, samples.jsonl, and TensorBoard on request."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from minilm.errors import MissingExtraError
from minilm.runs import files as run_files
from minilm.runs.logs import metrics_log, samples_log

# Where TensorBoard shows each field of metrics.jsonl; the others stand on its axes.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_bits_per_byte": "bits_per_byte/validation",
    "lr": "schedule/learning_rate",
    "grad_norm": "gradient/norm",
    "tokens_per_second": "speed/tokens_per_second",
}


class Logs:
    """The logs of a run folder, opened to continue from a step."""

    def __init__(
        self, run_dir: Path, from_step: int, *, evaluated: bool, tensorboard: bool
    ) -> None:
        with contextlib.ExitStack() as stack:
            metrics = metrics_log(run_dir, from_step, evaluated=evaluated)
            self._metrics = stack.enter_context(contextlib.closing(metrics))
            samples = samples_log(run_dir, from_step, evaluated=evaluated)
            self._samples = stack.enter_context(contextlib.closing(samples))
            self._board = None
            if tensorboard:
                self._board = TensorBoard(run_dir, from_step)
                stack.callback(self._board.close)
            self._stack = stack.pop_all()

    def metrics(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        self._metrics.write(line)
        if self._board is not None:
            self._board.write(line)

    def sample(self, line: dict[str, Any]) -> None:
        """One line of samples.jsonl."""
        self._samples.write(line)

    def close(self) -> None:
        """Close all of them."""
        self._stack.close()


class TensorBoard:
    """Event files in the run's folder; those after ``from_step`` of an earlier process are hidden."""

    def __init__(self, run_dir: Path, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard", "--train.tensorboard") from None
        folder = str(run_dir / run_files.TENSORBOARD)
        self._writer: Any = SummaryWriter(folder, purge_step=from_step + 1)

    def write(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        for name, tag in TAGS.items():
            if name in line:
                self._writer.add_scalar(tag, line[name], line["step"])

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()
