"""A file's tensors by kind, and a witness's tensors compared with the formula's: names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from minilm.architectures.ignored_weights import IgnoredWeights, ignored_weights
from minilm.inspection.names import (
    declared_name,
    is_buffer,
    is_half,
    is_next_token,
)
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import LogicalTensor

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"\.\d+\.")
_NOTHING = ignored_weights({})
# A file that shares no name with the formula would otherwise list every tensor.
LONGEST_LIST = 20


def expected_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that the formula declares."""
    return {tensor.name: tensor.shape for tensor in layout.named_tensors()}


def compare_shapes(expected: Shapes, actual: Shapes, witness: str) -> list[str]:
    """One line for each tensor of ``witness`` that is missing, unexpected, or of another shape."""
    lines = []
    for name in expected.keys() - actual.keys():
        lines.append(f"{witness}: {name} {list(expected[name])} is missing")
    for name in actual.keys() - expected.keys():
        lines.append(f"{witness}: {name} {list(actual[name])} is not in the formula")
    for name in expected.keys() & actual.keys():
        if expected[name] != actual[name]:
            lines.append(
                f"{witness}: {name} has shape {list(actual[name])}, "
                f"the formula says {list(expected[name])}"
            )
    return _shortened(sorted(lines), witness)


def compare_totals(expected: int, actual: int, witness: str, reference: str) -> list[str]:
    """One line where the totals of ``witness`` and of its ``reference`` differ."""
    if expected == actual:
        return []
    difference = f"the {reference} says {expected:,} ({actual - expected:+,})"
    return [f"{witness}: {actual:,} parameters, {difference}"]


@dataclass(frozen=True)
class ClassifiedTensors:
    """A file's tensors by what they are; parameters and MTP modules by the names of the formula.

    ``halves`` are parts of tensors that the file also holds whole, ``ignored`` what transformers leaves
    unread.
    """

    parameters: dict[str, LogicalTensor]
    buffers: dict[str, LogicalTensor]
    tied_copies: dict[str, LogicalTensor]
    mtp: dict[str, LogicalTensor]
    halves: dict[str, LogicalTensor]
    ignored: dict[str, LogicalTensor]


def classify_tensors(
    layout: Layout | None,
    declared: Set[str],
    tensors: Sequence[LogicalTensor],
    *,
    tied_copies_allowed: bool,
    shared: Sequence[tuple[str, str]] = (),
    marked_buffers: Set[str] = frozenset(),
    mtp_layers: range = range(0),
    unread: IgnoredWeights = _NOTHING,
) -> ClassifiedTensors:
    """Separate parameters from buffers, from second copies of tied tensors and from MTP modules.

    ``declared`` are the names of the parameters of ``layout``. Without a layout every tensor is a
    parameter, but for what is a buffer by its name or by ``marked_buffers``, and for the first names
    of ``shared``: views of the storage of their second. Copies of tied tensors are allowed in
    Hugging Face files; a minilm run stores each parameter once, so there a copy is unexpected. ``unread``
    is what transformers ignores of such files.
    """
    if layout is None:
        return _classify_by_name(tensors, {name for name, _ in shared}, marked_buffers, mtp_layers)
    by_name = {tensor.name: tensor for tensor in tensors}
    if tied_copies_allowed:
        prefixed = _with_prefix(layout, tensors, declared)
        by_name = {declared_name(name, declared): t for name, t in prefixed.items()}
    registered_buffers = {tensor.name for tensor in layout.named_tensors(layout.buffers)}
    buffers = {
        name: tensor
        for name, tensor in by_name.items()
        if name in registered_buffers
        or _LAYER.sub(".{i}.", name) in layout.ignored
        or (name not in declared and (name in marked_buffers or is_buffer(name, tensor.shape)))
    }
    tied_copies = {
        head: by_name[head]
        for head, original in layout.ties
        if tied_copies_allowed
        and {head, original} <= by_name.keys()
        and by_name[head].shape == by_name[original].shape
    }
    mtp_names = {tensor.name for tensor in layout.named_tensors(layout.mtp)}
    mtp = {
        name: tensor
        for name, tensor in by_name.items()
        if name in mtp_names
        or (
            name not in declared and (is_next_token(name, mtp_layers) or unread.is_next_token(name))
        )
    }
    halves = {
        name: tensor
        for name, tensor in by_name.items()
        if name not in declared and is_half(name, by_name)
    }
    others = buffers.keys() | tied_copies.keys() | mtp.keys() | halves.keys()
    ignored = {
        name: tensor
        for name, tensor in by_name.items()
        if name not in declared and name not in others and unread.is_other(name, declared)
    }
    others |= ignored.keys()
    return ClassifiedTensors(
        {name: tensor for name, tensor in by_name.items() if name not in others},
        buffers,
        tied_copies,
        mtp,
        halves,
        ignored,
    )


def _classify_by_name(
    tensors: Sequence[LogicalTensor],
    views: Set[str],
    marked_buffers: Set[str],
    mtp_layers: range,
) -> ClassifiedTensors:
    names = {tensor.name for tensor in tensors}
    classified = ClassifiedTensors({}, {}, {}, {}, {}, {})
    for tensor in tensors:
        name = tensor.name
        if name in marked_buffers or is_buffer(name, tensor.shape):
            kind = classified.buffers
        elif name in views:
            kind = classified.tied_copies
        elif is_next_token(name, mtp_layers):
            kind = classified.mtp
        elif is_half(name, names):
            kind = classified.halves
        else:
            kind = classified.parameters
        kind[name] = tensor
    return classified


def body_prefix(layout: Layout) -> str:
    """What a body saved, or built, without its head leaves out of its names: model., transformer., ..."""
    return layout.optional_prefix or layout.tensors[0].name.partition(".")[0] + "."


def outer_prefix(declared: Set[str], names: Set[str]) -> str:
    """What stands before all ``names`` of a body that is stored as a part: bert., deberta.; else empty."""
    parts = {name.partition(".")[0] + "." for name in names}
    if len(parts) != 1 or declared & names:
        return ""
    (part,) = parts
    return part if declared & {name.removeprefix(part) for name in names} else ""


def _with_prefix(
    layout: Layout, tensors: Sequence[LogicalTensor], declared: Set[str]
) -> dict[str, LogicalTensor]:
    """Tensors by full name."""
    outer = outer_prefix(declared, {tensor.name for tensor in tensors})
    if outer:
        return {tensor.name.removeprefix(outer): tensor for tensor in tensors}
    prefix = body_prefix(layout)
    # A class without a head has no prefix, and its first tensor may stand alone.
    whole, without = (
        sum(part + tensor.name in declared for tensor in tensors) for part in ("", prefix)
    )
    if whole >= without or any(tensor.name.startswith(prefix) for tensor in tensors):
        prefix = ""
    # What is outside the body, as the head is, has no prefix to leave out.
    outside = (
        "lm_head.",
        *(name for name, _ in layout.ties),
        *(t.name for t in layout.tensors if not t.name.startswith(prefix)),
    )
    return {("" if t.name.startswith(outside) else prefix) + t.name: t for t in tensors}


def _shortened(lines: Sequence[str], witness: str) -> list[str]:
    remaining = len(lines) - LONGEST_LIST
    if remaining > 0:
        return [*lines[:LONGEST_LIST], f"{witness}: and {remaining} more differences"]
    return list(lines)
