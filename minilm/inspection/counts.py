"""The counts of a report: parameters under each convention, components, and the list of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minilm.costs.flops import tensor_flops
from minilm.formats.header import StoredTensor
from minilm.inspection.active_experts import ALL_ACTIVE, active_elements
from minilm.inspection.comparison import ClassifiedTensors, body_prefix
from minilm.inspection.conventions import conventions
from minilm.inspection.names import component_by_name, is_bias, is_embedding
from minilm.inspection.report import Component, Convention, Parameters, TensorRow
from minilm.inspection.target import Target
from minilm.inspection.vocabulary import vocabulary_size
from minilm.inspection.witnesses import Evidence
from minilm.ledger import components
from minilm.ledger.layout import Layout, NamedTensor, Role
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.safe_text import short_repr

if TYPE_CHECKING:
    from minilm.inspection.module_reader import ModuleContents

BUFFER = "buffer"
TIED_COPY = "tied copy"
HALF = "half of another tensor"
IGNORED = "not loaded"


@dataclass(frozen=True)
class Counts:
    """All that is counted of one target; ``tied`` are names, each with the tensor that it shares."""

    parameters: Parameters
    components: tuple[Component, ...]
    tensors: tuple[TensorRow, ...]
    tied: tuple[tuple[str, str], ...]
    conventions: tuple[Convention, ...]
    notes: tuple[str, ...] = ()


def count_parameters(evidence: Evidence, *, list_declared: bool = True) -> Counts:
    """Count by the formula; without one by the file's tensors, else by the module's.

    A target that is a module is counted as it is, which may differ from its formula. Without
    ``list_declared``, tensors that the formula alone names are not listed.
    """
    target = evidence.target
    if target.layout is not None and target.module is None:
        return _count_declared(target, target.layout, evidence.file, list_declared)
    if evidence.file is not None:
        return _count_file(target, evidence.file, evidence.module)
    assert evidence.module is not None
    layout = None if evidence.mismatches else target.layout
    return _count_module(target, evidence.module, layout)


def _count_declared(
    target: Target, layout: Layout, file: ClassifiedTensors | None, list_declared: bool
) -> Counts:
    """What the formula declares; the file's elements, where there is a file."""
    rows: tuple[TensorRow, ...]
    if file is None or target.header is None:
        buffers, mtp = (
            _elements(layout.named_tensors(layout.buffers)),
            _elements(layout.named_tensors(layout.mtp)),
        )
        stored = layout.count() + buffers
        rows = declared_rows(layout, target.weights_dtype) if list_declared else ()
    else:
        buffers, mtp = _elements(file.buffers.values()), _elements(file.mtp.values())
        stored = _elements(target.header.tensors)
        rows = stored_rows(file, layout)
    parameters = declared_parameters(layout, stored_elements=stored, buffers=buffers)
    sizes = {tensor.name: layout.value(tensor) for tensor in layout.tensors}
    return Counts(
        parameters=parameters,
        components=declared_components(layout),
        tensors=rows,
        tied=layout.ties,
        conventions=conventions(
            parameters,
            layout,
            tied_elements=sum(sizes.get(original, 0) for _, original in layout.ties),
            mtp_elements=mtp,
            vocabulary=vocabulary_size(target.folder, target.header),
        ),
        notes=(*_halves_notes(file), *_ignored_notes(file), *_mtp_notes(file)) if file else (),
    )


def _count_file(target: Target, file: ClassifiedTensors, module: ModuleContents | None) -> Counts:
    """A file's tensors by their names; its ties, or those of the module where it shows none."""
    assert target.header is not None
    rows = stored_rows(file, None, parts=target.parts)
    parameter_rows = rows[: len(file.parameters)]
    active = active_elements(parameter_rows, target.hugging_face, target.header.metadata)
    parameters = counted_parameters(
        parameter_rows,
        stored_elements=_elements(target.header.tensors),
        buffers=_elements(file.buffers.values()),
        active=active,
    )
    return Counts(
        parameters=parameters,
        components=grouped_components(parameter_rows),
        tensors=rows,
        tied=target.header.shared or (module.tied if module else ()),
        conventions=conventions(
            parameters,
            tied_elements=sum(
                file.parameters[table].count
                for _, table in target.header.shared
                if table in file.parameters
            ),
            mtp_elements=_elements(file.mtp.values()),
        ),
        notes=(*_halves_notes(file), *_mtp_notes(file), *_undeclared_notes(target, active)),
    )


def _count_module(target: Target, module: ModuleContents, layout: Layout | None) -> Counts:
    """A module's parameters; ``layout`` declares its components, where it agrees with the module."""
    rows = _named_rows(module.rows, layout)
    active = active_elements(rows, target.hugging_face, {})
    parameters = counted_parameters(
        rows,
        embedding=module.embedding,
        trainable=module.trainable,
        stored_elements=module.state_elements,
        buffers=module.buffers,
        active=active,
    )
    return Counts(
        parameters=parameters,
        components=declared_components(layout) if layout else grouped_components(rows),
        tensors=rows,
        tied=module.tied,
        conventions=conventions(parameters, target.layout, tied_elements=module.tied_elements),
        notes=_undeclared_notes(target, active),
    )


def _named_rows(rows: Sequence[TensorRow], layout: Layout | None) -> tuple[TensorRow, ...]:
    """A module's rows with the components of ``layout``, as its file's tensors have them."""
    if layout is None:
        return tuple(rows)
    declared = {tensor.name: tensor.component for tensor in layout.named_tensors()}
    prefix = body_prefix(layout)
    return tuple(
        replace(
            row,
            component=declared.get(row.name) or declared.get(prefix + row.name) or row.component,
        )
        for row in rows
    )


def _halves_notes(file: ClassifiedTensors) -> tuple[str, ...]:
    if not file.halves:
        return ()
    return (
        f"{len(file.halves)} tensors are halves of others that are stored whole "
        f"({next(iter(file.halves))}, ...): not counted again",
    )


def _mtp_notes(file: ClassifiedTensors) -> tuple[str, ...]:
    if not file.mtp:
        return ()
    elements = _elements(file.mtp.values())
    return (f"next-token (MTP) modules of {elements:,} parameters are not counted",)


def _ignored_notes(file: ClassifiedTensors) -> tuple[str, ...]:
    if not file.ignored:
        return ()
    number, elements = len(file.ignored), _elements(file.ignored.values())
    tensors = (
        f"a tensor of {elements:,} elements"
        if number == 1
        else f"{number} tensors of {elements:,} elements"
    )
    name = short_repr(next(iter(file.ignored.values())).name)
    more = "" if number == 1 else ", ..."
    return (f"{tensors} that transformers does not load ({name}{more}): not counted",)


def _undeclared_notes(target: Target, active: int | None) -> tuple[str, ...]:
    notes = []
    if target.module is None:
        notes.append(f"{target.reason_undeclared}: counted and grouped by name, not checked")
    if active is None:
        notes.append(ALL_ACTIVE)
    return tuple(notes)


def _elements(tensors: Iterable[StoredTensor | LogicalTensor | NamedTensor]) -> int:
    return sum(tensor.count for tensor in tensors)


def declared_parameters(layout: Layout, *, stored_elements: int, buffers: int) -> Parameters:
    """A model by its formula; ``stored_elements`` and ``buffers`` are the file's."""
    total = layout.count()
    biases = layout.count(role=Role.ADDED)
    embedding = layout.count(components=components.EMBEDDINGS)
    return Parameters(
        total=total,
        trainable=layout.trainable(),
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=layout.count(active=True),
        stored_elements=stored_elements,
        buffers=buffers,
    )


def counted_parameters(
    rows: Sequence[TensorRow],
    *,
    stored_elements: int,
    buffers: int,
    embedding: int | None = None,
    trainable: int | None = None,
    active: int | None = None,
) -> Parameters:
    """Tensors that no formula declares; what is not given follows from their names."""
    total = sum(row.count for row in rows)
    biases = sum(row.count for row in rows if is_bias(row.name))
    if embedding is None:
        embedding = sum(row.count for row in rows if is_embedding(row.name, row.shape))
    return Parameters(
        total=total,
        trainable=total if trainable is None else trainable,
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=total if active is None else active,
        stored_elements=stored_elements,
        buffers=buffers,
    )


def declared_components(layout: Layout) -> tuple[Component, ...]:
    """Each component with its share and its formula, in the order in which a token meets them."""
    total = layout.count()
    rows = []
    for name in layout.components():
        count = layout.count(components=(name,))
        biases = layout.count(components=(name,), role=Role.ADDED)
        formula = layout.component_formula(name)
        rows.append(
            Component(
                name=name,
                count=count,
                share=count / total,
                formula=formula.symbolic,
                pretty=formula.pretty,
                weights=count - biases,
                biases=biases,
            )
        )
    return tuple(rows)


def grouped_components(rows: Iterable[TensorRow]) -> tuple[Component, ...]:
    """Tensors that no formula declares, grouped by the components that their names give."""
    groups: dict[str, list[TensorRow]] = {}
    for row in rows:
        groups.setdefault(row.component, []).append(row)
    total = sum(row.count for group in groups.values() for row in group)
    rows_of_components = []
    for name, group in groups.items():
        count = sum(row.count for row in group)
        biases = sum(row.count for row in group if is_bias(row.name))
        rows_of_components.append(
            Component(
                name=name,
                count=count,
                share=count / total if total else 0.0,
                formula="",
                pretty="",
                weights=count - biases,
                biases=biases,
            )
        )
    return tuple(rows_of_components)


def declared_rows(layout: Layout, dtype: str) -> tuple[TensorRow, ...]:
    """Every parameter that the formula names, as if it were stored in ``dtype``."""
    return tuple(
        TensorRow(t.name, t.shape, dtype, t.count, t.component, flops)
        for t, flops in tensor_flops(layout)
    )


def stored_rows(
    file: ClassifiedTensors, layout: Layout | None, *, parts: Sequence[str] = ()
) -> tuple[TensorRow, ...]:
    """Everything that a file holds, by its own names: parameters first, then the other kinds.

    A tensor whose name begins with one of ``parts`` belongs to that component.
    """
    components_by_name, flops_by_name = {}, {}
    for tensor, flops in tensor_flops(layout) if layout else ():
        components_by_name[tensor.name] = tensor.component
        flops_by_name[tensor.name] = flops

    def part_of(name: str) -> str | None:
        first = name.partition(".")[0]
        return first if first in parts else None

    def rows(tensors: Mapping[str, LogicalTensor], component: str | None = None) -> list[TensorRow]:
        return [
            TensorRow(
                tensor.name,
                tensor.shape,
                tensor.dtype,
                tensor.count,
                component
                or components_by_name.get(name)
                or part_of(name)
                or component_by_name(tensor.name),
                flops_by_name.get(name),
            )
            for name, tensor in tensors.items()
        ]

    return (
        *rows(file.parameters),
        *rows(file.mtp, components.MTP),
        *rows(file.tied_copies, TIED_COPY),
        *rows(file.halves, HALF),
        *rows(file.ignored, IGNORED),
        *rows(file.buffers, BUFFER),
    )
