"""Compare the formula's tensors with a witness's, name by name and shape by shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minilm.formats.safetensors import Header, StoredTensor
from minilm.ledger.layout import Layout

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
    """A file's tensors sorted out: parameters by their full name, and the elements of its buffers."""

    parameters: dict[str, StoredTensor]
    buffer_elements: int


def sort_out(layout: Layout | None, header: Header, *, copies_allowed: bool) -> Contents:
    """Tell parameters from buffers and from second copies of tied tensors.

    Without a layout every tensor is a parameter. Copies are allowed in Hugging Face files; a minilm
    run stores each parameter once, so there one is one too many.
    """
    if layout is None:
        return Contents({tensor.name: tensor for tensor in header.tensors}, 0)
    prefix = layout.optional_prefix
    heads = {name for name, _ in layout.ties}
    if any(tensor.name.startswith(prefix) for tensor in header.tensors):
        prefix = ""
    named = {
        tensor.name if tensor.name in heads else prefix + tensor.name: tensor
        for tensor in header.tensors
    }
    buffers = {name for name in named if _LAYER.sub(".{i}.", name) in layout.buffers}
    copies = {
        head
        for head, shared in layout.ties
        if copies_allowed
        and {head, shared} <= named.keys()
        and named[head].shape == named[shared].shape
    }
    return Contents(
        {name: tensor for name, tensor in named.items() if name not in buffers | copies},
        sum(named[name].count for name in buffers),
    )


def compare_totals(formula: int, total: int, witness: str) -> list[str]:
    """One line when the totals differ."""
    if formula == total:
        return []
    return [f"{witness}: {total:,} parameters, the formula says {formula:,} ({total - formula:+,})"]


def _shortened(lines: Iterable[str], witness: str) -> list[str]:
    listed = list(lines)
    rest = len(listed) - LONGEST_LIST
    if rest > 0:
        return [*listed[:LONGEST_LIST], f"{witness}: and {rest} more differences"]
    return listed
