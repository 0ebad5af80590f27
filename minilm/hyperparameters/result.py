"""What a search found: the best trial and its command, all trials, what mattered, loss against the budget."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm import files
from minilm.hyperparameters.budget import Price, format_cost
from minilm.hyperparameters.space import Candidate, Infeasible, Space
from minilm.hyperparameters.study import Study
from minilm.hyperparameters.trial import TextOptions
from minilm.render.chart_page import chart_page
from minilm.render.document import Block, Code, Column, Paragraph, Section, Table
from minilm.render.line_chart import line_chart
from minilm.units import counted, format_count, format_seconds

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

REPORT = "report.html"
BRIEF_TRIALS = 5
FEW_FOR_IMPORTANCE = (
    50  # trials that reached their end: the best tenth are then five, as Optuna advises
)
TRIALS, FRONT = "trials", "front"


@dataclass(frozen=True)
class TrialRow:
    """A trial that counts. ``loss`` is the best validation loss, nats a token, None where there is none."""

    number: int
    state: str
    candidate: Candidate | None
    loss: float | None
    bits_per_byte: float | None
    flops: float
    seconds: float
    joules_per_token: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: value for name, value in vars(self).items() if name != "candidate"}
        return values | {"candidate": None if self.candidate is None else self.candidate.to_dict()}


@dataclass(frozen=True)
class SearchResult:
    """A search: ``trials`` that count, in order, the ``best`` of them, the ``command`` that trains it again.

    ``run_dir`` is the best trial's run, ``importance`` the share of each parameter.
    """

    study: Path
    report: Path
    space: Space
    counts: dict[str, int]
    trials: tuple[TrialRow, ...]
    best: TrialRow | None
    run_dir: Path | None
    command: tuple[str, ...]
    importance: dict[str, float]

    def __repr__(self) -> str:
        loss = "" if self.best is None else f", best validation loss {self.best.loss:.4f}"
        return f"<{self.study}: {counted(len(self.trials), 'trial')}{loss}>"

    @property
    def axis(self) -> str:
        """The limit of the budget that losses are drawn against: the first."""
        return next(iter(self.space.budget.limits()))

    def front(self) -> list[TrialRow]:
        """The trials that no other beats in both cost and loss, the cheapest first."""
        front: list[TrialRow] = []
        for row in sorted(self._complete(), key=lambda row: (self._cost(row), row.loss)):
            if not front or _loss(row) < _loss(front[-1]):
                front.append(row)
        return front

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        energy = "measured" if self.space.energy_factor != 1.0 else "estimated"
        return {
            "schema": "minilm.search/1",
            "study": str(self.study),
            "report": str(self.report),
            "budget": self.space.budget.to_dict(),
            "energy": {"source": energy, "factor": self.space.energy_factor},
            "trial_flops": self.space.trial_flops,
            "counts": self.counts,
            "flops": sum(row.flops for row in self.trials),
            "seconds": sum(row.seconds for row in self.trials),
            "best": None if self.best is None else self.best.to_dict(),
            "run_dir": None if self.run_dir is None else str(self.run_dir),
            "command": list(self.command),
            "importance": self.importance,
            "front": [row.number for row in self.front()],
            "trials": [row.to_dict() for row in self.trials],
        }

    def sections(self) -> Iterator[Section]:
        """What terminal and page show."""
        yield Section("best", "The best", tuple(self._best_blocks()))
        if self.importance:
            yield Section("importance", "What mattered", tuple(self._importance_blocks()))
        yield Section("trials", "Trials", tuple(self._trial_blocks()))

    def page(self) -> str:
        """The page: the sections, and losses against cost."""
        charts = []
        if complete := self._complete():
            points = {TRIALS: complete, FRONT: self.front()}
            charts.append(
                line_chart(
                    "validation loss",
                    AXES[self.axis],
                    {
                        name: [(self._cost(row), _loss(row)) for row in rows]
                        for name, rows in points.items()
                    },
                )
            )
        note = "The line is the Pareto front: no trial has both a lower cost and a lower loss."
        title = f"{self.study.name}: a search with at most {self.space.budget}"
        return chart_page(title, list(self.sections()), charts, note=note, unconnected=(TRIALS,))

    def _complete(self) -> list[TrialRow]:
        return [row for row in self.trials if row.state == "complete"]

    def _cost(self, row: TrialRow) -> float:
        assert row.candidate is not None, "of a trial that was trained"
        return float(getattr(row.candidate.price, self.axis))

    def _best_blocks(self) -> Iterator[Block]:
        yield Paragraph(self._effort())
        if self.best is None or self.best.candidate is None:
            yield Paragraph("No trial reached its end.")
            return
        bits = self.best.bits_per_byte
        yield Paragraph(
            f"Trial {self.best.number}: validation loss {_loss(self.best):.4f}"
            + ("" if bits is None else f", {bits:.3f} bits a byte")
            + f"; {describe(self.best.candidate)}."
        )
        yield Paragraph(f"It costs {', '.join(_costs(self.best.candidate.price))}.")
        yield Paragraph(f"Its run is {self.run_dir}; this trains it again:")
        yield Code("command", shlex.join(self.command))

    def _effort(self) -> str:
        counts = self.counts
        flops, seconds = (
            sum(getattr(row, name) for row in self.trials) for name in ("flops", "seconds")
        )
        failed = f", {counts['fail']} made again or failed" if counts["fail"] else ""
        return (
            f"{counted(counts['finished'], 'trial')}, {counts['pruned']} of them ended early{failed}; "
            f"{format_count(flops)} FLOPs, {format_seconds(seconds)}."
        )

    def _importance_blocks(self) -> Iterator[Block]:
        rows = sorted(self.importance.items(), key=lambda item: -item[1])
        yield Table(
            (Column("parameter"), Column("importance", "number")),
            tuple((name, f"{share:.1%}") for name, share in rows),
            bars=tuple(share for _, share in rows),
        )
        if len(complete := self._complete()) < FEW_FOR_IMPORTANCE:
            yield Paragraph(
                f"Of {counted(len(complete), 'trial')} these shares of {len(rows)} parameters say little: "
                "another seed may give another order."
            )
        yield Paragraph(
            "Importance is by PED-ANOVA (arXiv:2304.10255): how much the values of the best tenth of the "
            "trials differ from those of all.",
            full_only=True,
        )

    def _trial_blocks(self) -> Iterator[Block]:
        infinite = math.inf
        rows = sorted(
            (row for row in self.trials if row.candidate is not None),
            key=lambda row: (row.state != "complete", infinite if row.loss is None else row.loss),
        )
        columns = (
            *(Column(name, "number") for name in ("trial", "loss", "parameters", "layers")),
            *(Column(name, "number") for name in ("width", "batch", "rate", "Muon's")),
            Column("end"),
        )
        yield Table(columns, tuple(_row(row) for row in rows))


AXES = {
    "params": "parameters",
    "bytes": "bytes",
    "flops": "FLOPs a token",
    "joules": "joules a token",
}


def result_of(study: Study, options: TextOptions, space: Space) -> SearchResult:
    """The result of a study whose trials are finished; its page is written beside it."""
    rows = tuple(
        _trial_row(trial, space)
        for trial in study.trials()
        if trial.state.name in ("COMPLETE", "PRUNED")
    )
    complete = [row for row in rows if row.state == "complete"]
    best = min(complete, key=lambda row: (_loss(row), row.number), default=None)
    command: list[str] = []
    if best is not None and best.candidate is not None:
        command = options.command(best.candidate)
    result = SearchResult(
        study=study.path,
        report=study.folder / REPORT,
        space=space,
        counts=study.counts(),
        trials=rows,
        best=best,
        run_dir=None if best is None else study.run_folder(best.number),
        command=tuple(command),
        importance=study.importance(),
    )
    files.write_bytes(result.report, result.page().encode())
    return result


def describe(candidate: Candidate) -> str:
    """A candidate in a few words."""
    model, settings = candidate.model, candidate.settings
    rates = [f"{settings[name]:g}" for name in RATES if name in settings]
    batch = f"batch {settings['batch_size']}, " if "batch_size" in settings else ""
    return (
        f"{counted(model['num_layers'], 'layer')} of width {model['d_model']}, "
        f"{candidate.price.params:,} parameters, {batch}"
        f"rates {' and '.join(rates) or 'as set'}, {counted(settings['max_steps'], 'step')}"
    )


RATES = ("learning_rate", "muon_learning_rate")


def _trial_row(trial: FrozenTrial, space: Space) -> TrialRow:
    """What is shown of a trial; what its attributes have is a number or is left out."""
    state = trial.state.name.lower()
    candidate = space.candidate(trial.params)
    facts = {name: _number(value) for name, value in trial.user_attrs.items()}
    return TrialRow(
        number=trial.number,
        state=state,
        candidate=None if isinstance(candidate, Infeasible) else candidate,
        loss=_number(trial.value) if state == "complete" else facts.get("loss"),
        bits_per_byte=facts.get("bits_per_byte"),
        flops=facts.get("flops") or 0.0,
        seconds=facts.get("seconds") or 0.0,
        joules_per_token=facts.get("joules_per_token"),
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _loss(row: TrialRow) -> float:
    return math.inf if row.loss is None else row.loss


def _costs(price: Price) -> Sequence[str]:
    names = ("params", "bytes", "flops", "joules")
    return [format_cost(name, getattr(price, name)) for name in names]


def _row(row: TrialRow) -> tuple[str, ...]:
    assert row.candidate is not None
    model, settings = row.candidate.model, row.candidate.settings
    return (
        f"{row.number}",
        "" if row.loss is None else f"{row.loss:.4f}",
        f"{row.candidate.price.params:,}",
        f"{model['num_layers']}",
        f"{model['d_model']}",
        f"{settings.get('batch_size', '')}",
        *(f"{settings[name]:g}" if name in settings else "" for name in RATES),
        "" if row.state == "complete" else "early",
    )
