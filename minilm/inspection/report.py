"""The Report: the result of an inspection as plain values, and its JSON.

How it looks is decided in `render`, a floor above: the package gives its drawings to `draw_with`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from minilm.errors import InputError

if TYPE_CHECKING:
    from minilm.costs.fits import Fit
    from minilm.inspection.reconciliation.explanation import Reconciliation
    from minilm.ledger.layout import Layout
    from minilm.quantization.logical_tensors import Quantization
    from minilm.values.difference import Difference
    from minilm.values.statistics import Statistics

SCHEMA = "minilm.report/1"

WitnessName = Literal["formula", "file", "module"]
TableName = Literal["components", "tensors", "conventions"]


@dataclass(frozen=True)
class Witnesses:
    """The total as each independent witness has it; None where it is not available."""

    formula: int | None = None
    file: int | None = None
    module: int | None = None

    def available(self) -> dict[WitnessName, int]:
        """The totals that there are, by witness."""
        totals: dict[WitnessName, int | None] = {
            "formula": self.formula,
            "file": self.file,
            "module": self.module,
        }
        return {name: total for name, total in totals.items() if total is not None}


@dataclass(frozen=True)
class Comparison:
    """One witness compared with another: tensor by tensor (names and shapes), or the totals alone.

    ``assumed`` tensors of the witness were not decoded, and have the shapes of the reference.
    """

    witness: WitnessName
    reference: WitnessName
    by: Literal["names", "totals"]
    assumed: int = 0


@dataclass(frozen=True)
class IndexTotal:
    """A total in the index of a sharded checkpoint: ``value``, None where it is no whole number.

    ``counted`` is the file's own; ``agrees_with`` names the way of counting that gives ``value``, None for
    none.
    """

    name: Literal["total_parameters", "total_size"]
    value: int | None
    counted: int
    agrees_with: str | None

    @property
    def disagrees(self) -> bool:
        """Whether no way of counting gives it."""
        return self.value is not None and self.agrees_with is None


@dataclass(frozen=True)
class Verdict:
    """What the comparisons come to, and the sentence that says it; ``brief`` has an equal total once."""

    status: Literal["verified", "mismatch", "not_cross_checked"]
    text: str
    brief: str


@dataclass(frozen=True)
class Parameters:
    """Counts under named conventions; Convention: a tied head counts once, buffers do not count."""

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
    """One tensor as it is stored, or as the formula names it.

    ``flops`` are those of one token forward; None where they are not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    component: str
    flops: float | None = None


@dataclass(frozen=True)
class FormulaReport:
    """The closed form, written for programs, for people and with numbers, and the rule of thumb."""

    symbolic: str
    pretty: str
    substituted: str
    symbols: Mapping[str, int]
    approximation: Mapping[str, Any] | None


@dataclass(frozen=True)
class Sharing:
    """Layers that share blocks: ``blocks`` has the numbers of the layers that each block runs as.

    ``rule``: group, neighbouring layers, or cycle, every block in turn. ``unshared``: parameters with a
    block of its own in each layer.
    """

    layers: int
    distinct_layers: int
    rule: str
    unshared: int
    blocks: Mapping[str, tuple[int, ...]]


class Drawings(Protocol):
    """What a report looks like: as text of a terminal, in a notebook, as a page, as Markdown."""

    def text(self, report: Report) -> str: ...

    def notebook(self, report: Report) -> str: ...

    def page(self, report: Report) -> str: ...

    def markdown(self, report: Report, *, tensors: bool = False) -> str: ...


_load_drawings: Callable[[], Drawings]


def draw_with(load: Callable[[], Drawings]) -> None:
    """Let reports be drawn by what ``load`` returns, which is called when one is first drawn."""
    global _load_drawings
    _load_drawings = load


@dataclass(frozen=True, repr=False)
class Report:
    """One target, inspected. ``verified`` means that no witness disagrees with another.

    ``print(report)`` is what `minilm inspect` prints; a notebook shows it as tables.
    """

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
    sharing: Sharing | None = None
    flops: Mapping[str, int] | None = None
    # The declared tensors in letters that a reader may change; no part of the JSON.
    layout: Layout | None = None
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conventions: tuple[Convention, ...] = ()
    quantization: Quantization | None = None
    comparisons: tuple[Comparison, ...] = ()
    index_totals: tuple[IndexTotal, ...] = ()
    # On request; None where it was not asked for.
    fits: tuple[Fit, ...] | None = None
    reconciliation: Reconciliation | None = None
    statistics: Statistics | None = None
    difference: Difference | None = None

    @property
    def verified(self) -> bool:
        """Whether no witness disagrees with another; true of a single witness too."""
        return not self.mismatches

    @property
    def verdict(self) -> Verdict:
        """How far the count is verified: by names, by totals, or not cross-checked at all."""
        available = self.witnesses.available()
        if self.mismatches:
            number = len(self.mismatches)
            text = f"NOT VERIFIED: {number:,} mismatch{'es' if number > 1 else ''}"
            return Verdict("mismatch", text, text)
        if not self.comparisons:
            witness = " and ".join(
                f"the {name} is available ({available[name]:,})" for name in available
            )
            text = f"not cross-checked: only {witness}{self._index_disagreement}"
            return Verdict("not_cross_checked", text, text)
        by_names, by_totals = (
            [c.witness for c in self.comparisons if c.by == by] for by in ("names", "totals")
        )
        how = "verified, name by name" if by_names else "verified by totals"
        compared = [self.comparisons[0].reference, *(by_names or by_totals)]
        text = f"{how}: {' = '.join(f'{name} {available[name]:,}' for name in compared)}"
        brief = f"{how}: {' = '.join(compared)} = {available[compared[0]]:,}"
        if by_names and by_totals:
            text += f"; by totals: {' = '.join(f'{n} {available[n]:,}' for n in by_totals)}"
            brief += f"; by totals: {' = '.join(by_totals)}"
        assumed = sum(comparison.assumed for comparison in self.comparisons)
        if assumed:
            text += f"; {assumed:,} tensor{'s' if assumed > 1 else ''} not decoded"
            brief += f"; {assumed:,} not decoded"
        text += self._index_disagreement
        brief += self._index_disagreement
        return Verdict("verified", text, brief)

    @property
    def _index_disagreement(self) -> str:
        names = " and ".join(total.name for total in self.index_totals if total.disagrees)
        return f"; but not {names} of the index" if names else ""

    def __repr__(self) -> str:
        count = f"{self.parameters.total:,} parameters"
        return f"<Report of {self.target}: {count}, {self.verdict.text}>"

    def __str__(self) -> str:
        return _load_drawings().text(self)

    def _repr_html_(self) -> str:
        return _load_drawings().notebook(self)

    def to_html(self) -> str:
        """One page that needs no network, as `minilm inspect --html` writes it."""
        return _load_drawings().page(self)

    def to_markdown(self, *, tensors: bool = False) -> str:
        """The whole report as Markdown; ``tensors`` adds the list of every tensor."""
        return _load_drawings().markdown(self, tensors=tensors)

    def rows(self, table: TableName = "components") -> list[dict[str, Any]]:
        """A table as a list of records, which pandas.DataFrame and polars.DataFrame take."""
        tables: dict[str, tuple[Any, ...]] = {
            "components": self.components,
            "tensors": self.tensors,
            "conventions": self.conventions,
        }
        if table not in tables:
            raise InputError("table", repr(table), f"one of {', '.join(get_args(TableName))}")
        records = [asdict(row) for row in tables[table]]
        for record in records:
            record.pop("pretty", None)  # the formula for people: a program has `formula`
            if "shape" in record:
                record["shape"] = list(record["shape"])
        return records

    def to_json(self, *, tensors: bool = False) -> dict[str, Any]:
        """The name that `to_dict` had in version 0.1."""
        return self.to_dict(tensors=tensors)

    def to_dict(self, *, tensors: bool = False) -> dict[str, Any]:
        """The schema `minilm.report/1` as JSON values; the tensor list on request."""
        value = asdict(replace(self, tensors=(), layout=None))
        del value["tensors"], value["layout"]
        for component in value["components"]:
            del component["pretty"]
        if value["formula"] is not None:
            del value["formula"]["pretty"]
            if value["formula"]["approximation"] is not None:
                del value["formula"]["approximation"]["pretty"]
        if self.fits is not None:
            value["fits"] = [
                asdict(fit) | {"required": fit.required, "fits": fit.fits} for fit in self.fits
            ]
        value["hyperparameters"] = _json_numbers(value["hyperparameters"])
        value = {"schema": SCHEMA, **value, "verified": self.verified}
        if tensors:
            value["tensors"] = [asdict(row) for row in self.tensors]
            for tensor in value["tensors"]:
                del tensor["flops"]
        return value


def _json_numbers(value: Any) -> Any:
    """``value`` with infinities and NaN, which a config.json may have, as text: JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: _json_numbers(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_numbers(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value
