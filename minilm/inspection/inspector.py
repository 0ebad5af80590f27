"""inspect(target) -> Report: a target opened, its witnesses compared, its parameters counted."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import context_or_default
from minilm.errors import InputError
from minilm.formats.header import Header
from minilm.inspection.active_experts import ALL_ACTIVE, are_all_active
from minilm.inspection.counts import count_parameters
from minilm.inspection.declared_target import minilm_target
from minilm.inspection.memory import memory_costs
from minilm.inspection.open_target import open_target
from minilm.inspection.report import FormulaReport, Report
from minilm.inspection.sharing import sharing_note, sharing_of
from minilm.inspection.trained_part import trained_part
from minilm.inspection.witnesses import Evidence, gather_evidence
from minilm.ledger.approximation import textbook
from minilm.ledger.components import MIXER_DECAY, MIXER_GATES, POSITION_EMBEDDING
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import LogicalTensors, summary

if TYPE_CHECKING:
    from torch import nn

    from minilm.inspection.target import Target


@dataclass(frozen=True)
class Inspection:
    """A report with its sources, from which `extras` adds statistics, --fits, ..."""

    report: Report
    layout: Layout | None
    header: Header | None = None
    logical: LogicalTensors | None = None
    target: Target | None = None

    def with_report(self, report: Report) -> Inspection:
        """The same sources with a longer report."""
        return replace(self, report=report)


def inspect(
    target: str | os.PathLike[str] | nn.Module,
    *,
    live: bool | None = None,
    context: int | None = None,
    batch: int = 1,
    state_dict: str | None = None,
    model_type: str | None = None,
) -> Report:
    """Count and verify ``target``: a folder, a weights file, config.json, a preset, or any module.

    ``live`` adds the module built on the meta device as a witness, which imports torch (and
    transformers for an architecture that is not minilm's); by default that is done for run folders.
    ``context`` (tokens) and ``batch`` size the KV cache, the activations and the FLOPs. ``state_dict``
    is the key of the model in a torch.save checkpoint of several, ``model_type`` the declaration to
    take in place of the one that config.json names. Raises InputError for what cannot be read;
    mismatches are in the report.
    """
    return inspect_with_sources(
        target,
        live=live,
        context=context,
        batch=batch,
        state_dict=state_dict,
        model_type=model_type,
    ).report


def inspect_config(name: str, config: ModelConfig) -> Report:
    """Count what minilm's own configuration declares, without any file."""
    evidence = gather_evidence(minilm_target(name, config), live=False)
    return _report_evidence(evidence, context=None, batch=1, tensors=True).report


def inspect_with_sources(
    target: str | os.PathLike[str] | nn.Module,
    *,
    live: bool | None = None,
    context: int | None = None,
    batch: int = 1,
    state_dict: str | None = None,
    model_type: str | None = None,
    tensors: bool = True,
) -> Inspection:
    """As `inspect`, with the layout, the header and the logical tensors beside the report.

    Without ``tensors`` the report does not list those that the formula alone names: for models with
    many experts, that takes longer than everything else.
    """
    for option, value in (("context", context), ("batch", batch)):
        if value is not None and value < 1:
            raise InputError(option, str(value), "at least 1")
    evidence = gather_evidence(open_target(target, state_dict, model_type), live=live)
    return _report_evidence(evidence, context=context, batch=batch, tensors=tensors)


def _report_evidence(
    evidence: Evidence, *, context: int | None, batch: int, tensors: bool
) -> Inspection:
    target, layout = evidence.target, evidence.target.layout
    counts = count_parameters(evidence, list_declared=tensors)
    memory = memory_costs(
        counts.parameters,
        layout,
        target.config,
        stored_bytes=target.header.data_bytes if target.header else None,
        context=context,
        batch=batch,
        trained=trained_part(target),
        measure_activations=evidence.module is not None and target.module is None,
    )
    sharing = sharing_of(target.config, layout)
    report = Report(
        target=target.name,
        architecture=target.architecture,
        witnesses=evidence.witnesses,
        mismatches=evidence.mismatches,
        comparisons=evidence.comparisons,
        index_totals=evidence.index_totals,
        parameters=counts.parameters,
        components=counts.components,
        tensors=counts.tensors,
        memory=memory,
        formula=_formula(layout) if layout else None,
        tied=counts.tied,
        sharing=sharing,
        flops=_flops(layout, context) if layout else None,
        layout=_free_layout(target),
        hyperparameters=target.hyperparameters,
        notes=(
            *sharing_note(sharing),
            *evidence.notes,
            *counts.notes,
            *_experts_note(target),
            *context_notes(layout, context),
            *_recurrence_note(layout),
        ),
        conventions=counts.conventions,
        quantization=summary(evidence.logical) if evidence.logical else None,
    )
    return Inspection(report, layout, target.header, evidence.logical, target)


def _formula(layout: Layout) -> FormulaReport:
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
        symbolic=formula.symbolic,
        pretty=formula.pretty,
        substituted=formula.substituted,
        symbols=dict(layout.symbols),
        approximation=approximation,
    )


def _free_layout(target: Target) -> Layout | None:
    """The layout of the target, in as many letters as can vary; of a model with an adapter as it is."""
    if target.config is None or target.lora is not None or target.layout is None:
        return target.layout
    free = minilm_layout(target.config, free=True)
    return free if free.count() == target.layout.count() else target.layout


def _flops(layout: Layout, context: int | None) -> dict[str, int] | None:
    """None where nothing is a token's."""
    if not layout.has_tokens:
        return None
    return flops_per_token(layout, context=context_or_default(layout, context))


def _experts_note(target: Target) -> tuple[str, ...]:
    layout, config = target.layout, target.hugging_face
    return (ALL_ACTIVE,) if layout and config and are_all_active(layout, config) else ()


def _recurrence_note(layout: Layout | None) -> tuple[str, ...]:
    # A convolution keeps inputs too, and its products are counted.
    recurrent = {MIXER_DECAY, MIXER_GATES}
    if layout is None or recurrent.isdisjoint(tensor.component for tensor in layout.tensors):
        return ()
    return ("FLOPs are without the recurrence itself: what a scan takes depends on its kernel",)


def context_notes(layout: Layout | None, context: int | None) -> tuple[str, ...]:
    """What is to be said of a ``context`` of so many tokens: that learned positions end before."""
    if layout is None or context is None or context <= layout.context_length:
        return ()
    # Tables of distances, not of places, have no last place.
    if not layout.context_length or not layout.count(components=(POSITION_EMBEDDING,)):
        return ()
    return (f"the model has positions for {layout.context_length} tokens only",)
