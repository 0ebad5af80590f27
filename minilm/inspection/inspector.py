"""inspect(target or module) -> Report: the one way through this package.

target -> Source (sources) -> witnesses compared (ledger_check, live) -> counts and costs -> Report.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minilm.errors import InputError
from minilm.inspection.ledger_check import (
    compare,
    compare_totals,
    expected_shapes,
    sort_out,
)
from minilm.inspection.names import component_by_name, is_bias, is_embedding
from minilm.inspection.report import (
    Component,
    FormulaReport,
    Parameters,
    Report,
    TensorRow,
    Witnesses,
)
from minilm.inspection.sources import Source, resolve
from minilm.inspection.storage import decode
from minilm.ledger.approximation import textbook
from minilm.ledger.components import EMBEDDINGS
from minilm.ledger.families.minilm import layout as minilm_layout
from minilm.ledger.flops import flops_per_token
from minilm.ledger.layout import Layout, Role
from minilm.ledger.memory import kv_cache_bytes, training_bytes, weight_bytes

if TYPE_CHECKING:
    from torch import nn


def inspect(
    target: str | os.PathLike[str] | nn.Module,
    *,
    live: bool | None = None,
    context: int | None = None,
    batch: int = 1,
) -> Report:
    """Count and prove ``target``: a run folder, *.safetensors, config.json, a preset, or any module.

    ``live`` adds the module built on the meta device as a witness, which imports torch; by default
    that is done for run folders. ``context`` (tokens) and ``batch`` size the KV cache and the FLOPs.
    Raises InputError for what cannot be read; what disagrees is in the report.
    """
    for name, number in (("context", context), ("batch", batch)):
        if number is not None and number < 1:
            raise InputError(name, str(number), "at least 1")
    if isinstance(target, (str, os.PathLike)):
        return _inspect_source(resolve(os.fspath(target)), live, context, batch)
    return _inspect_module(target, context, batch)


def _inspect_source(source: Source, live: bool | None, context: int | None, batch: int) -> Report:
    is_run = source.is_folder and source.config is not None
    live = is_run if live is None else live
    mismatches: list[str] = []
    notes: list[str] = []
    witnesses: dict[str, int] = {}
    layout, buffers = source.layout, 0

    if layout is not None:
        witnesses["formula"] = layout.count()
    if source.header is not None:
        storage = decode(source.header, {}, expected_shapes(layout) if layout else {})
        contents = sort_out(layout, storage.tensors, copies_allowed=source.config is None)
        buffers = sum(tensor.count for tensor in contents.buffers.values())
        witnesses["file"] = sum(tensor.count for tensor in contents.parameters.values())
        if layout is not None:
            shapes = {name: tensor.shape for name, tensor in contents.parameters.items()}
            mismatches += compare(expected_shapes(layout), shapes, "file")
            mismatches += compare_totals(layout.count(), witnesses["file"], "file")
    elif is_run:
        mismatches.append("file: model.safetensors is missing")
    if live and layout is not None and source.config is not None:
        from minilm.inspection.live import meta_model, read_module

        rows = read_module(meta_model(source.config)).rows
        witnesses["module"] = sum(row.count for row in rows)
        mismatches += compare(expected_shapes(layout), {r.name: r.shape for r in rows}, "module")
        mismatches += compare_totals(layout.count(), witnesses["module"], "module")
    elif live:
        notes.append("no module is built for this architecture")

    rows = _rows(source)
    stored_elements = sum(t.count for t in source.header.tensors) if source.header else 0
    if layout is not None:
        parameters = _declared_parameters(layout, stored_elements or layout.count(), buffers)
        components = _declared_components(layout)
    else:
        notes.append("no config.json beside it: counted and grouped by name, not checked")
        embedding = sum(row.count for row in rows if is_embedding(row.name, row.shape))
        parameters = _counted_parameters(rows, embedding=embedding)
        components = _grouped_components(rows)
    return Report(
        source.target,
        source.architecture,
        Witnesses(**witnesses),
        tuple(mismatches),
        parameters,
        components,
        rows,
        _memory(parameters, layout, source, context, batch),
        _formula(layout),
        layout.ties if layout else (),
        flops_per_token(layout, context=_context(layout, context)) if layout else None,
        source.hyperparameters,
        tuple(notes),
    )


def _inspect_module(module: nn.Module, context: int | None, batch: int) -> Report:
    from minilm.inspection.live import read_module
    from minilm.model.transformer import Transformer

    contents = read_module(module)
    total = sum(row.count for row in contents.rows)
    # Our own model has a formula to be held against; any other module is counted.
    layout = minilm_layout(module.config) if isinstance(module, Transformer) else None
    mismatches: list[str] = []
    components = _grouped_components(contents.rows)
    if layout is not None:
        shapes = {row.name: row.shape for row in contents.rows}
        mismatches = compare(expected_shapes(layout), shapes, "module")
        mismatches += compare_totals(layout.count(), total, "module")
        if not mismatches:
            components = _declared_components(layout)
    parameters = _counted_parameters(
        contents.rows,
        embedding=contents.embedding,
        trainable=contents.trainable,
        stored_elements=contents.state_elements,
        buffers=contents.buffers,
    )
    return Report(
        type(module).__name__,
        layout.family if layout else type(module).__name__,
        Witnesses(formula=layout.count() if layout else None, module=total),
        tuple(mismatches),
        parameters,
        components,
        contents.rows,
        _memory(parameters, layout, None, context, batch),
        _formula(layout),
        contents.tied,
        flops_per_token(layout, context=_context(layout, context)) if layout else None,
    )


def _rows(source: Source) -> tuple[TensorRow, ...]:
    """The file's tensors where there is a file, else the formula's, each with its component."""
    declared = {t.name: t for t in source.layout.named_tensors()} if source.layout else {}
    if source.header is None:
        return tuple(
            TensorRow(t.name, t.shape, "float32", t.count, t.component) for t in declared.values()
        )
    prefix = source.layout.optional_prefix if source.layout else ""
    rows = []
    for tensor in source.header.tensors:
        known = declared.get(tensor.name) or declared.get(prefix + tensor.name)
        component = known.component if known else component_by_name(tensor.name)
        rows.append(TensorRow(tensor.name, tensor.shape, tensor.dtype, tensor.count, component))
    return tuple(rows)


def _declared_parameters(layout: Layout, stored_elements: int, buffers: int) -> Parameters:
    total = layout.count()
    biases = layout.count(role=Role.ADDED)
    embedding = layout.count(components=EMBEDDINGS)
    return Parameters(
        total=total,
        trainable=total,
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=layout.count(active=True),
        stored_elements=stored_elements,
        buffers=buffers,
    )


def _counted_parameters(
    rows: Iterable[TensorRow],
    *,
    embedding: int,
    trainable: int | None = None,
    stored_elements: int | None = None,
    buffers: int = 0,
) -> Parameters:
    rows = tuple(rows)
    total = sum(row.count for row in rows)
    biases = sum(row.count for row in rows if is_bias(row.name))
    return Parameters(
        total=total,
        trainable=total if trainable is None else trainable,
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=total,
        stored_elements=total if stored_elements is None else stored_elements,
        buffers=buffers,
    )


def _declared_components(layout: Layout) -> tuple[Component, ...]:
    total = layout.count()
    components = []
    for name in layout.components():
        count = layout.count(components=(name,))
        biases = layout.count(components=(name,), role=Role.ADDED)
        formula = layout.component_formula(name)
        components.append(
            Component(
                name,
                count,
                count / total,
                formula.symbolic,
                formula.pretty,
                count - biases,
                biases,
            )
        )
    return tuple(components)


def _grouped_components(rows: Iterable[TensorRow]) -> tuple[Component, ...]:
    groups: dict[str, list[TensorRow]] = {}
    for row in rows:
        groups.setdefault(row.component, []).append(row)
    total = sum(row.count for group in groups.values() for row in group)
    components = []
    for name, group in groups.items():
        count = sum(row.count for row in group)
        biases = sum(row.count for row in group if is_bias(row.name))
        share = count / total if total else 0.0
        components.append(Component(name, count, share, "", "", count - biases, biases))
    return tuple(components)


def _formula(layout: Layout | None) -> FormulaReport | None:
    if layout is None:
        return None
    formula, rule = layout.formula(), textbook(layout)
    approximation = None
    if rule is not None:
        approximation = {
            "text": rule.text,
            "pretty": rule.pretty,
            "value": rule.value,
            "relative_error": rule.relative_error,
        }
    return FormulaReport(
        formula.symbolic,
        formula.pretty,
        formula.substituted,
        dict(layout.symbols),
        approximation,
    )


def _context(layout: Layout, context: int | None) -> int:
    """The context asked for, else the model's own, else 2048 tokens where it has none."""
    return context or layout.context_length or 2048


def _memory(
    parameters: Parameters,
    layout: Layout | None,
    source: Source | None,
    context: int | None,
    batch: int,
) -> dict[str, Any]:
    weights: dict[str, int | None] = {**weight_bytes(parameters.total), "stored": None}
    if source is not None and source.header is not None:
        weights["stored"] = source.header.data_bytes
    cache = None
    if layout is not None:
        length = _context(layout, context)
        cache = {
            "context": length,
            "batch": batch,
            **kv_cache_bytes(layout, context=length, batch=batch),
        }
    return {
        "weights": weights,
        "training": training_bytes(parameters.trainable),
        "kv_cache": cache,
        "activations": None,
    }
