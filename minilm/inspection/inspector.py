"""inspect(target or module) -> Report: the one way through this package.

target -> Source (sources) -> witnesses heard and compared (hearing) -> counts and costs -> Report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import architecture_of
from minilm.config import ModelConfig
from minilm.costs.flops import flops_per_token
from minilm.errors import FormatError, InputError
from minilm.formats.header import Header
from minilm.inspection.active_experts import active_elements
from minilm.inspection.comparison import Contents
from minilm.inspection.counts import (
    conventions,
    counted_parameters,
    declared_components,
    declared_parameters,
    declared_rows,
    grouped_components,
    stored_rows,
)
from minilm.inspection.memory import memory, priced_context
from minilm.inspection.report import (
    Component,
    FormulaReport,
    Parameters,
    Report,
    TensorRow,
    Witnesses,
)
from minilm.inspection.target import UNKNOWN, Source, resolve
from minilm.inspection.vocabulary import vocabulary_size
from minilm.inspection.witnesses import Hearing, hear_file, hear_module
from minilm.ledger.approximation import textbook
from minilm.ledger.components import POSITION_EMBEDDING
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import Storage, summary

if TYPE_CHECKING:
    from torch import nn

    from minilm.inspection.module_reader import ModuleContents


@dataclass(frozen=True)
class Inspection:
    """A report with what it was made from, for those who ask further: statistics, --fits, ..."""

    report: Report
    layout: Layout | None
    header: Header | None = None
    storage: Storage | None = None

    def having(self, report: Report) -> Inspection:
        """The same with a report that says more."""
        return replace(self, report=report)


def inspect(
    target: str | os.PathLike[str] | nn.Module,
    *,
    live: bool | None = None,
    context: int | None = None,
    batch: int = 1,
) -> Report:
    """Count and prove ``target``: a folder, a weights file, config.json, a preset, or any module.

    ``live`` adds the module built on the meta device as a witness, which imports torch (and
    transformers for an architecture that is not minilm's); by default that is done for run folders.
    ``context`` (tokens) and ``batch`` size the KV cache, the activations and the FLOPs. Raises
    InputError for what cannot be read; what disagrees is in the report.
    """
    return examine(target, live=live, context=context, batch=batch).report


def examine(
    target: str | os.PathLike[str] | nn.Module,
    *,
    live: bool | None = None,
    context: int | None = None,
    batch: int = 1,
    tensors: bool = True,
) -> Inspection:
    """As `inspect`, with the layout and the header beside the report.

    Without ``tensors`` the report does not list what the formula alone names: of models with many
    experts, that takes longer than everything else.
    """
    for name, number in (("context", context), ("batch", batch)):
        if number is not None and number < 1:
            raise InputError(name, str(number), "at least 1")
    if isinstance(target, (str, os.PathLike)):
        return _examine_source(resolve(os.fspath(target)), live, context, batch, tensors)
    return _examine_module(target, context, batch)


def _examine_source(
    source: Source, live: bool | None, context: int | None, batch: int, tensors: bool
) -> Inspection:
    heard, layout = Hearing(notes=list(source.notes)), source.layout
    if layout is not None:
        heard.totals["formula"] = layout.count()
    storage, contents = hear_file(source, heard)
    module = None
    if source.is_run if live is None else live:
        module = hear_module(source, heard)
    if layout is None and contents is None and module is None:
        raise _undeclared(source)

    if layout is not None:
        counts = _declared(source, layout, contents, tensors)
    else:
        counts = _undeclared_counts(source, contents, module, heard)
    parameters = counts.parameters
    if layout is not None and _learned_positions(layout) and (context or 0) > layout.context_length:
        heard.notes.append(f"the model has positions for {layout.context_length} tokens only")
    costs = memory(
        parameters,
        layout,
        source.config,
        stored=source.header.data_bytes if source.header else None,
        context=context,
        batch=batch,
    )
    if module is not None and source.config is not None:
        costs["activations"] |= _measured(source.config, costs["activations"])
    report = Report(
        source.target,
        source.architecture,
        Witnesses(**heard.totals),
        tuple(heard.mismatches),
        parameters,
        counts.components,
        counts.rows,
        costs,
        _formula(layout),
        layout.ties if layout else source.header.shared if source.header else (),
        _flops(layout, context),
        source.hyperparameters,
        tuple(heard.notes),
        conventions(
            parameters,
            layout,
            tied_elements=_tied_elements(layout, contents),
            mtp_elements=_mtp_elements(layout, contents),
            vocabulary=vocabulary_size(source.folder, source.header),
        ),
        summary(storage) if storage else None,
        comparisons=tuple(heard.comparisons),
    )
    return Inspection(report, layout, source.header, storage)


class _Counts(NamedTuple):
    parameters: Parameters
    components: tuple[Component, ...]
    rows: tuple[TensorRow, ...]


def _declared(source: Source, layout: Layout, contents: Contents | None, tensors: bool) -> _Counts:
    """What the formula says, with what the file holds beside it."""
    if contents is not None and source.header is not None:
        buffers = sum(tensor.count for tensor in contents.buffers.values())
        stored = sum(tensor.count for tensor in source.header.tensors)
        rows = stored_rows(contents, layout)
    else:
        buffers = sum(tensor.count for tensor in layout.named(layout.buffers))
        stored = layout.count() + buffers
        rows = declared_rows(layout, _dtype(source)) if tensors else ()
    parameters = declared_parameters(layout, stored_elements=stored, buffers=buffers)
    return _Counts(parameters, declared_components(layout), rows)


def _undeclared_counts(
    source: Source, contents: Contents | None, module: ModuleContents | None, heard: Hearing
) -> _Counts:
    """What the file's names say, or the module's where there is no file."""
    rows: tuple[TensorRow, ...] = ()
    stored = buffers = 0
    if contents is not None and source.header is not None:
        rows = stored_rows(contents, None)
        stored = sum(tensor.count for tensor in source.header.tensors)
        buffers = sum(tensor.count for tensor in contents.buffers.values())
    elif module is not None:
        rows, stored, buffers = module.rows, module.state_elements, module.buffers
    counted = rows[: len(contents.parameters)] if contents else rows
    active = active_elements(counted, source.hugging_face, source.header)
    heard.notes.append(_why_not_checked(source))
    if active is None:
        heard.notes.append("how many experts a token uses is not said: active is the total")
    parameters = counted_parameters(counted, stored_elements=stored, buffers=buffers, active=active)
    return _Counts(parameters, grouped_components(counted), rows)


def _measured(config: ModelConfig, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """What torch keeps of the activations that were predicted; empty where that is too much to try."""
    from minilm.inspection.activation_check import check_activations

    if predicted["context"] > config.context_length:
        return {}
    found = check_activations(config, batch=predicted["batch"], context=predicted["context"])
    if found is None:
        return {}
    return {"measured": {**asdict(found), "relative_error": found.relative_error}}


def _examine_module(module: nn.Module, context: int | None, batch: int) -> Inspection:
    from minilm.inspection.module_reader import read_module
    from minilm.model.transformer import Transformer

    contents, heard = read_module(module), Hearing()
    total = sum(row.count for row in contents.rows)
    # Our own model has a formula to be held against; any other module is counted.
    layout = minilm_layout(module.config) if isinstance(module, Transformer) else None
    if layout is not None:
        heard.totals["formula"] = layout.count()
    heard.shapes(layout, {row.name: row.shape for row in contents.rows}, total, "module")
    declared = layout is not None and not heard.mismatches
    parameters = counted_parameters(
        contents.rows,
        embedding=contents.embedding,
        trainable=contents.trainable,
        stored_elements=contents.state_elements,
        buffers=contents.buffers,
    )
    report = Report(
        type(module).__name__,
        layout.family if layout else type(module).__name__,
        Witnesses(**heard.totals),
        tuple(heard.mismatches),
        parameters,
        declared_components(layout) if declared and layout else grouped_components(contents.rows),
        contents.rows,
        memory(
            parameters,
            layout,
            module.config if isinstance(module, Transformer) else None,
            stored=None,
            context=context,
            batch=batch,
        ),
        _formula(layout),
        contents.tied,
        _flops(layout, context),
        conventions=conventions(
            parameters,
            layout,
            tied_elements=contents.tied_elements,
            mtp_elements=0,
            vocabulary=None,
        ),
        comparisons=tuple(heard.comparisons),
    )
    return Inspection(report, layout)


def _undeclared(source: Source) -> FormatError:
    remedy = (
        "name its weights, whose header is counted without a declaration, or add --live where "
        "transformers is installed"
    )
    if "text_config" in source.hugging_face:
        remedy = "its text_config is a config.json of its own; or " + remedy
    return FormatError(
        source.target,
        f"model_type {source.hugging_face.get('model_type')!r} without weights",
        f"a minilm run, or one of {', '.join(MODEL_TYPES)}",
        remedy,
    )


def _why_not_checked(source: Source) -> str:
    if source.notes:
        reason = "no configuration that can be used"
    elif source.header is not None and "general.architecture" in source.header.metadata:
        reason = f"no formula for GGUF files of {source.architecture!r}"
    elif source.architecture in MODEL_TYPES:
        reason = f"the head of {architecture_of(source.hugging_face)} is not declared"
    elif source.architecture != UNKNOWN:
        reason = f"no family declares model_type {source.architecture!r}"
    elif source.hugging_face:
        reason = "its config.json has no model_type"
    else:
        reason = "no config.json beside it"
    return f"{reason}: counted and grouped by name, not checked"


def _dtype(source: Source) -> str:
    """The dtype that a config.json says its weights have; float32 where it does not."""
    for key in ("dtype", "torch_dtype"):
        value = source.hugging_face.get(key)
        if isinstance(value, str):
            return value
    return "float32"


def _learned_positions(layout: Layout) -> int:
    return layout.count(components=(POSITION_EMBEDDING,))


def _tied_elements(layout: Layout | None, contents: Contents | None) -> int:
    if layout is None:
        return sum(tensor.count for tensor in contents.copies.values()) if contents else 0
    counts = {tensor.name: layout.value(tensor) for tensor in layout.tensors}
    return sum(counts.get(shared, 0) for _, shared in layout.ties)


def _mtp_elements(layout: Layout | None, contents: Contents | None) -> int:
    if contents is not None:
        return sum(tensor.count for tensor in contents.mtp.values())
    return sum(tensor.count for tensor in layout.named(layout.mtp)) if layout else 0


def _flops(layout: Layout | None, context: int | None) -> dict[str, int] | None:
    if layout is None:
        return None
    return flops_per_token(layout, context=priced_context(layout, context))


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
