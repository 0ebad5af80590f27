"""The Report: everything the inspector found, as plain values. Rendering is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minilm.costs.fits import Fit
    from minilm.inspection.reconciliation.explanation import Reconciliation
    from minilm.quantization.logical_tensors import Quantization
    from minilm.values.difference import Difference
    from minilm.values.statistics import Statistics

SCHEMA = "minilm.report/1"


@dataclass(frozen=True)
class Witnesses:
    """The total as each independent witness has it; None where it was not heard."""

    formula: int | None = None
    file: int | None = None
    module: int | None = None


@dataclass(frozen=True)
class Parameters:
    """Counts under named conventions; INTERFACE: a tied head counts once, buffers do not count."""

    total: int
    trainable: int
    weights: int
    biases: int
    embedding: int
    non_embedding: int
    active: int
    stored_elements: int
    buffers: int


@dataclass(frozen=True)
class Convention:
    """One way of counting the same model, by name, with what it includes."""

    name: str
    count: int
    meaning: str


@dataclass(frozen=True)
class Component:
    """One part of the model. ``share`` is of the total; the shares of a report sum to 1."""

    name: str
    count: int
    share: float
    formula: str
    pretty: str
    weights: int
    biases: int


@dataclass(frozen=True)
class TensorRow:
    """One tensor as it is stored, or as the formula names it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    component: str


@dataclass(frozen=True)
class FormulaReport:
    """The closed form, written for programs, for people and with numbers, and the rule of thumb."""

    symbolic: str
    pretty: str
    substituted: str
    symbols: Mapping[str, int]
    approximation: Mapping[str, Any] | None


@dataclass(frozen=True)
class Report:
    """One target, inspected. ``verified`` means that no witness disagrees with another."""

    target: str
    architecture: str
    witnesses: Witnesses
    mismatches: tuple[str, ...]
    parameters: Parameters
    components: tuple[Component, ...]
    tensors: tuple[TensorRow, ...]
    memory: Mapping[str, Any]
    formula: FormulaReport | None = None
    tied: tuple[tuple[str, str], ...] = ()
    flops: Mapping[str, int] | None = None
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conventions: tuple[Convention, ...] = ()
    quantization: Quantization | None = None
    # On request; None where it was not asked for.
    fits: tuple[Fit, ...] | None = None
    reconciliation: Reconciliation | None = None
    statistics: Statistics | None = None
    difference: Difference | None = None

    @property
    def verified(self) -> bool:
        """Whether every witness that was heard agrees, name by name."""
        return not self.mismatches

    def to_json(self, *, tensors: bool = False) -> dict[str, Any]:
        """The schema `minilm.report/1` as JSON values; the tensor list on request."""
        value = asdict(self)
        del value["tensors"]
        for component in value["components"]:
            del component["pretty"]
        if value["formula"] is not None:
            del value["formula"]["pretty"]
            if value["formula"]["approximation"] is not None:
                del value["formula"]["approximation"]["pretty"]
        if self.fits is not None:
            verdicts = [{"required": fit.required, "fits": fit.fits} for fit in self.fits]
            value["fits"] = [
                fit | verdict for fit, verdict in zip(value["fits"], verdicts, strict=True)
            ]
        value = {"schema": SCHEMA, **value, "verified": self.verified}
        if tensors:
            value["tensors"] = [asdict(row) for row in self.tensors]
        return value
