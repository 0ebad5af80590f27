"""One trial: an ordinary run, which ends early where the median of the others is better."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.architectures.minilm import layout
from minilm.costs.flops import flops_per_token
from minilm.data.dataset import Dataset
from minilm.hyperparameters.space import EVALUATIONS, Candidate, Space
from minilm.runs.stop_reason import StopReason
from minilm.training.data_source import DataSource
from minilm.training.run_spec import RunSpec
from minilm.training.setup import new_run
from minilm.training.signals import StopRequest
from minilm.training.train import start
from minilm.training.trainer import Trainer

LOGGER = logging.getLogger("minilm")


@dataclass(frozen=True)
class TextOptions:
    """The options of every run of a search: its preset, and how its text is read."""

    preset: str
    source: DataSource
    tokenizer: str | None
    vocab_size: int | None

    def run(self, model: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> RunSpec:
        """A run with such fields of its configurations; what there is to note of its text is noted once."""
        with messages_from(logging.ERROR):
            return new_run(
                self.preset,
                source=self.source,
                run_dir=folder,
                tokenizer=self.tokenizer,
                vocab_size=self.vocab_size,
                model=model,
                settings=settings,
                announced=False,
            )

    def check(self, space: Space) -> None:
        """Raises InputError, before there is a study, for what would end its first trial."""
        candidate = space.candidate(space.preset_parameters())
        if isinstance(candidate, Candidate):
            with tempfile.TemporaryDirectory() as folder:
                self.run(candidate.model, candidate.settings, Path(folder) / "first")

    def command(self, candidate: Candidate) -> list[str]:
        """`minilm train` with all that makes the run of a candidate, to the bit.

        Fields that are as in the preset are there too: `train` derives some of those that are not given.
        """
        arguments = ["minilm", "train", "--preset", self.preset, "--data", self.source.name]
        for option, value in (
            ("--tokenizer", self.tokenizer),
            ("--vocab-size", self.vocab_size),
            ("--text-field", self.source.text_field),
        ):
            arguments += [] if value is None else [option, str(value)]
        for prefix, fields in (("model", candidate.model), ("train", candidate.settings)):
            for name, value in fields.items():
                text = str(value).lower() if isinstance(value, bool) else str(value)
                arguments += [f"--{prefix}.{name.replace('_', '-')}", text]
        return arguments


@dataclass(frozen=True)
class Result:
    """What a trial ended with. ``flops`` are those it computed, evaluations included.

    ``loss`` is None where it was not finite, or a signal ended the run: then ``signum`` is set.
    """

    loss: float | None
    bits_per_byte: float | None
    is_pruned: bool
    signum: int | None
    tokens: int
    flops: int
    seconds: float
    joules_per_token: float | None

    def facts(self) -> dict[str, Any]:
        """What the study keeps of it, beside the loss."""
        names = ("loss", "bits_per_byte", "tokens", "flops", "seconds", "joules_per_token")
        return {name: getattr(self, name) for name in names}


def train_trial(spec: RunSpec, stop: StopRequest, report: Callable[[int, float], bool]) -> Result:
    """Train ``spec``. ``report`` gets a part of `EVALUATIONS` and the best loss, and says whether to stop."""
    steps, began = spec.config.max_steps, time.monotonic()

    def prune(step: int, loss: float) -> bool:
        part = round(EVALUATIONS * step / steps)
        return report(part, loss) and step < steps

    trainer = Trainer(spec, stop, began, prune=prune)
    with messages_from(logging.WARNING):  # the search prints one line a trial
        outcome = start(trainer)
    reason, summary = outcome.stopped_because, outcome.summary
    finite = reason.signum is None and reason is not StopReason.NON_FINITE_LOSS
    joules = summary["energy_joules"]
    return Result(
        loss=summary["best_val_loss"] if finite else None,
        bits_per_byte=summary["best_val_bits_per_byte"] if finite else None,
        is_pruned=reason is StopReason.PRUNED,
        signum=reason.signum,
        tokens=summary["tokens"],
        flops=computed_flops(spec, spec.dataset, summary["steps"], summary["tokens"]),
        seconds=round(time.monotonic() - began, 3),
        joules_per_token=None if joules is None else joules / max(1, summary["tokens"]),
    )


def computed_flops(spec: RunSpec, dataset: Dataset, steps: int, tokens: int) -> int:
    """Of a run's training, and of its evaluations, which only go forward."""
    config, model = spec.config, spec.model.config
    flops = flops_per_token(layout(model), context=model.context_length)
    rows = dataset.num_validation_rows(model.context_length, config.eval_tokens)
    evaluations = -(-steps // config.eval_every)
    evaluated = evaluations * rows * model.context_length
    return tokens * flops["training_per_token"] + evaluated * flops["forward_per_token"]


@contextlib.contextmanager
def messages_from(least: int) -> Iterator[None]:
    """Messages of that level and above alone within the block."""
    level = LOGGER.level
    LOGGER.setLevel(least)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
