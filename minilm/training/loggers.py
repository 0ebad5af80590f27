"""Where a run writes down how it goes: metrics.jsonl, samples.jsonl, and TensorBoard if asked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from minilm.runs.logs import metrics_log, samples_log
from minilm.training.tensorboard import TensorBoard


class Logs:
    """The logs of a run folder, opened to go on from a step."""

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
