"""The totals that a sharded checkpoint's index gives, compared with what its shards hold.

The writers (transformers, huggingface_hub, mlx-lm) do not count alike: some add buffers or a tied head once
more, some count packed integers. Any count that the checkpoint has is accepted, and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Literal, NamedTuple

from minilm.formats.header import Header
from minilm.inspection.comparison import ClassifiedTensors
from minilm.inspection.report import IndexTotal
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.safe_text import short_repr

# One way of counting: what it is called, and its result.
_Count = tuple[str, int]
# Each term is taken or not: its name, and what it adds.
_Terms = Iterable[_Count]


def compare_index(
    header: Header, file: ClassifiedTensors, layout: Layout | None
) -> tuple[tuple[IndexTotal, ...], tuple[str, ...]]:
    """Each total of the index with the file's, and a note of each that does not agree.

    A wrong total is no mismatch: the index is a by-product of writing, and the tensors count.
    """
    totals, notes = [], []
    sizes = _Sizes.of(header, file, layout)
    counts: tuple[tuple[Literal["total_parameters", "total_size"], str, Iterator[_Count]], ...] = (
        ("total_parameters", "parameters", _parameter_counts(header, file, sizes)),
        ("total_size", "bytes", _byte_counts(header, sizes)),
    )
    for name, unit, ways in counts:
        raw = header.index_totals.get(name)
        if raw is None:
            continue
        value = _whole(raw)
        by_count: dict[int, str] = {}
        for way, count in ways:
            by_count.setdefault(count, way)
        counted = next(iter(by_count))
        total = IndexTotal(name, value, counted, None if value is None else by_count.get(value))
        totals.append(total)
        if value is None:
            notes.append(f"{name} of the index is no whole number: {short_repr(raw)}")
        elif total.agrees_with is None:
            note = f"{name} of the index is {value:,}, and the shards hold {counted:,} {unit}"
            if name == "total_parameters" and layout is not None and value == layout.count():
                note += ": it is the count of the formula"
            else:
                note += f" ({value - counted:+,}): no way of counting them gives it"
            notes.append(note)
    return tuple(totals), tuple(notes)


class _Sizes(NamedTuple):
    """(elements, bytes) of the heads that are tied: all, those stored once more, and those not stored."""

    tied: tuple[int, int]
    copies: tuple[int, int]
    unstored: tuple[int, int]

    @classmethod
    def of(cls, header: Header, file: ClassifiedTensors, layout: Layout | None) -> _Sizes:
        ties = header.shared if layout is None else layout.ties
        tied = {head: file.parameters[table] for head, table in ties if table in file.parameters}
        return cls(
            _size(tied.values()),
            _size(file.tied_copies.values()),
            _size(table for head, table in tied.items() if head not in file.tied_copies),
        )


def _size(tensors: Iterable[LogicalTensor]) -> tuple[int, int]:
    tensors = tuple(tensors)
    nbytes = sum(part.nbytes for t in tensors for part in (*t.parts, *t.scales))
    return sum(t.count for t in tensors), nbytes


def _parameter_counts(header: Header, file: ClassifiedTensors, sizes: _Sizes) -> Iterator[_Count]:
    """Every count of elements that the checkpoint has; that of the report first."""
    (parameters, _), (buffers, _), (mtp, _) = (
        _size(kind.values()) for kind in (file.parameters, file.buffers, file.mtp)
    )
    added = (("buffers", buffers), ("MTP modules", mtp), ("the tied head again", sizes.tied[0]))
    yield from _with_terms("parameters", parameters, [(f"with {n}", c) for n, c in added])
    stored = sum(tensor.count for tensor in header.tensors)
    terms = (
        ("with the tied head, which is not stored", sizes.unstored[0]),
        ("without the copy of the tied head", -sizes.copies[0]),
        ("without buffers", -buffers),
        ("without MTP modules", -mtp),
    )
    yield from _with_terms("stored elements", stored, terms)
    # GPTQ's and AWQ's packed integers are buffers of their modules, which transformers does not count.
    plain, _ = _size(tensor for tensor in file.parameters.values() if not tensor.scales)
    yield "parameters that are not quantized", plain


def _byte_counts(header: Header, sizes: _Sizes) -> Iterator[_Count]:
    """Every size in bytes that the checkpoint has."""
    terms = (
        ("with the tied head, which is not stored", sizes.unstored[1]),
        ("without the copy of the tied head", -sizes.copies[1]),
    )
    yield from _with_terms("stored bytes", header.data_bytes, terms)
    # In torch's files two names may have one storage.
    names = sum(tensor.nbytes for tensor in header.tensors)
    yield from _with_terms("bytes of each name", names, terms)


def _with_terms(name: str, start: int, terms: _Terms) -> Iterator[_Count]:
    """``start`` with each choice of the terms that are not zero, the plainest first."""
    terms = [(text, count) for text, count in terms if count]
    for chosen in sorted(product((False, True), repeat=len(terms)), key=sum):
        parts = [term for term, is_chosen in zip(terms, chosen, strict=True) if is_chosen]
        yield ", ".join((name, *(text for text, _ in parts))), start + sum(c for _, c in parts)


def _whole(value: object) -> int | None:
    """``value``, which is any JSON, as a whole number of at most 63 bits; None where it is none.

    Some writers give a float, or text.
    """
    if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return None
    return value
