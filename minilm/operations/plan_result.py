"""The result of `plan`: a job, and what it takes in each layout of the ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from minilm.config import ModelConfig
from minilm.costs.communication import StepTime, Transfer
from minilm.costs.mesh import Mesh
from minilm.costs.rank_memory import RankMemory
from minilm.costs.shapes import Shape
from minilm.ledger.layout import Layout
from minilm.operations.machines import Machines

SPEED = (
    "seconds_per_step",
    "tokens_per_second",
    "utilisation",
    "days",
    "gpu_hours",
    "kilowatt_hours",
    "cost",
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what, and how: everything that all layouts of the ranks have in common."""

    name: str
    layout: Layout
    config: ModelConfig | None
    machines: Machines
    tokens: int
    step_tokens: int
    context: int
    optimizer: str
    dtype: str
    mfu: float
    price: float | None


@dataclass(frozen=True, kw_only=True)
class LayoutPlan:
    """A run in one layout of the ranks; ``micro_batch`` is in sequences of one rank.

    ``is_cut``: a step is one micro-step of fewer tokens than wished, since whole gradients do not fit.
    ``largest_micro_batch`` is 0 where not even one sequence fits; memory and time are then those of one.
    """

    mesh: Mesh
    checkpointing: bool
    memory: RankMemory
    overhead: int
    largest_micro_batch: int
    micro_batch: int
    micro_steps: int
    step_tokens: int
    is_cut: bool
    transfers: tuple[Transfer, ...]
    time: StepTime
    seconds: float
    """Of the whole run."""

    @property
    def fits(self) -> bool:
        """Whether it can be run."""
        return self.largest_micro_batch > 0

    @property
    def required(self) -> int:
        """Bytes of each card."""
        return self.memory.total + self.overhead

    @property
    def tokens_per_second(self) -> float:
        """Of all cards together."""
        return self.step_tokens / self.time.seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job, its costs in each layout, and the ``shapes`` that were proposed for it, if any.

    ``notes``, a line each, say why a layout is missing, and what one of them asks for.
    """

    job: Job
    flops_per_token: int
    causal_flops_per_token: float
    layouts: tuple[LayoutPlan, ...]
    shapes: tuple[Shape, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> LayoutPlan | None:
        """What fits and has the tokens of a step, then the fastest; None where nothing fits."""
        candidates = [each for each in self.layouts if each.fits]
        return max(
            candidates, key=lambda each: (not each.is_cut, each.tokens_per_second), default=None
        )

    def gpu_hours(self, layout: LayoutPlan) -> float:
        """Hours of all cards together."""
        return layout.seconds / 3600 * self.job.machines.gpus

    def kilowatt_hours(self, layout: LayoutPlan) -> float | None:
        """Energy of the cards alone, at their rated power; None where that is not known."""
        watts = self.job.machines.watts
        return None if watts is None else self.gpu_hours(layout) * watts / 1000

    def cost(self, layout: LayoutPlan) -> float | None:
        """At the price of a card and hour; None where none was given."""
        return None if self.job.price is None else self.gpu_hours(layout) * self.job.price

    def utilisation(self, layout: LayoutPlan) -> float:
        """Model FLOPs as a share of the peak, waiting and recomputing included."""
        machines = self.job.machines
        rate = layout.tokens_per_second * self.flops_per_token
        return rate / (machines.gpus * machines.flops)

    def to_dict(self) -> dict[str, Any]:
        """As --json prints it."""
        job, best = self.job, self.best
        return {
            "schema": "minilm.plan/1",
            "target": job.name,
            "parameters": job.layout.count(),
            "activations": "exact" if job.config is not None else "estimate",
            "tokens": job.tokens,
            "context": job.context,
            "optimizer": job.optimizer,
            "dtype": job.dtype,
            "mfu": job.mfu,
            "price": job.price,
            "flops": {
                "training_per_token": self.flops_per_token,
                "attention": "full",
                "causal_training_per_token": round(self.causal_flops_per_token),
            },
            "machines": {**asdict(job.machines), "servers": job.machines.servers},
            "best": best.mesh.name if best is not None else None,
            "layouts": [self._layout_dict(each) for each in self.layouts],
            "notes": list(self.notes),
            "shapes": [
                {
                    "parameters": shape.parameters,
                    "error": shape.error,
                    "config": asdict(shape.config),
                }
                for shape in self.shapes
            ],
        }

    def _layout_dict(self, layout: LayoutPlan) -> dict[str, Any]:
        """Of one that does not fit, memory alone: it has no speed."""
        mesh = asdict(layout.mesh)
        memory = asdict(layout.memory)
        moment = memory.pop("moment")
        return {
            "name": mesh.pop("name"),
            "mesh": {key: mesh[key] for key in ("replicas", "shards", "tensor")},
            "fits": layout.fits,
            "checkpointing": layout.checkpointing,
            "memory": {**memory, "overhead": layout.overhead, "total": layout.required},
            "peak_moment": moment,
            "micro_batch": layout.micro_batch,
            "largest_micro_batch": layout.largest_micro_batch,
            "micro_steps": layout.micro_steps,
            "step_tokens": layout.step_tokens,
            "step_is_cut": layout.is_cut,
            "transfers": [asdict(each) for each in layout.transfers],
            "sent_per_step": layout.time.traffic,
            **(self._speed(layout) if layout.fits else dict.fromkeys(SPEED)),
        }

    def _speed(self, layout: LayoutPlan) -> dict[str, Any]:
        """The fields SPEED."""
        return {
            "seconds_per_step": {
                "computing": layout.time.computing,
                "sending": layout.time.sending,
                "exposed": layout.time.exposed,
                "total": layout.time.seconds,
            },
            "tokens_per_second": layout.tokens_per_second,
            "utilisation": self.utilisation(layout),
            "days": layout.seconds / 86400,
            "gpu_hours": self.gpu_hours(layout),
            "kilowatt_hours": self.kilowatt_hours(layout),
            "cost": self.cost(layout),
        }
