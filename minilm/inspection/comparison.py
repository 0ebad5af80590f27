"""Compare the formula's tensors with a witness's, name by name and shape by shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from minilm.inspection.names import is_buffer
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import LogicalTensor

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"\.\d+\.")
# A file that shares nothing with the formula would list every tensor; this many names say it.
LONGEST_LIST = 20


def expected_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that the formula declares."""
    return {tensor.name: tensor.shape for tensor in layout.named_tensors()}


def compare(expected: Shapes, actual: Shapes, witness: str) -> list[str]:
    """One line for each tensor that is missing, unexpected, or of another shape."""
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


@dataclass(frozen=True)
class Contents:
    """A file's tensors sorted out; parameters and MTP modules by their full name."""

    parameters: dict[str, LogicalTensor]
    buffers: dict[str, LogicalTensor]
    copies: dict[str, LogicalTensor]
    mtp: dict[str, LogicalTensor]


def sort_out(
    layout: Layout | None,
    tensors: Iterable[LogicalTensor],
    *,
    copies_allowed: bool,
    shared: Sequence[tuple[str, str]] = (),
) -> Contents:
    """Tell parameters from buffers, from second copies of tied tensors and from MTP modules.

    Without a layout every tensor is a parameter, but for what is a buffer by its name and for names
    that are ``shared``: views of a storage that an earlier name has. Copies are allowed in
    Hugging Face files; a minilm run stores each parameter once, so there one is one too many.
    """
    listed = list(tensors)
    if layout is None:
        buffers = {t.name: t for t in listed if is_buffer(t.name, t.shape)}
        views = {name for name, _ in shared}
        copies = {t.name: t for t in listed if t.name in views - buffers.keys()}
        rest = buffers.keys() | copies.keys()
        return Contents({t.name: t for t in listed if t.name not in rest}, buffers, copies, {})
    declared = {tensor.name for tensor in layout.named_tensors()}
    prefix = _body_prefix(layout) if copies_allowed else ""
    if any(tensor.name.startswith(prefix) for tensor in listed):
        prefix = ""
    # The head stands outside the body whose prefix is left out.
    heads = ("lm_head.", *(name for name, _ in layout.ties))
    named = {("" if t.name.startswith(heads) else prefix) + t.name: t for t in listed}
    declared_buffers = {tensor.name for tensor in layout.named_tensors(layout.buffers)}
    buffers = {
        name: tensor
        for name, tensor in named.items()
        if name in declared_buffers
        or _LAYER.sub(".{i}.", name) in layout.ignored
        or (name not in declared and is_buffer(name, tensor.shape))
    }
    copies = {
        head: named[head]
        for head, shared in layout.ties
        if copies_allowed
        and {head, shared} <= named.keys()
        and named[head].shape == named[shared].shape
    }
    declared_mtp = {tensor.name for tensor in layout.named_tensors(layout.mtp)}
    mtp = {name: tensor for name, tensor in named.items() if name in declared_mtp}
    rest = buffers.keys() | copies.keys() | mtp.keys()
    parameters = {name: tensor for name, tensor in named.items() if name not in rest}
    return Contents(parameters, buffers, copies, mtp)


def _body_prefix(layout: Layout) -> str:
    """What a body alone leaves out of its names when it is saved without its head: model., ..."""
    return layout.optional_prefix or layout.tensors[0].name.partition(".")[0] + "."


def compare_totals(expected: int, total: int, witness: str, other: str = "formula") -> list[str]:
    """One line when the totals of two witnesses differ."""
    if expected == total:
        return []
    return [
        f"{witness}: {total:,} parameters, the {other} says {expected:,} ({total - expected:+,})"
    ]


def _shortened(lines: Iterable[str], witness: str) -> list[str]:
    listed = list(lines)
    rest = len(listed) - LONGEST_LIST
    if rest > 0:
        return [*listed[:LONGEST_LIST], f"{witness}: and {rest} more differences"]
    return listed
