"""A tied head that is stored twice: the copy is found by its values, since nothing in the file says it.

Some exporters write the head again, llama.cpp's converter for GPT-2 for instance. Large tables are
compared at evenly spaced places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from minilm.formats.header import Header, StoredTensor
from minilm.inspection.names import is_embedding

# Bytes of one piece, and how many are compared of a tensor.
PIECE, MAX_PIECES = 2**17, 64

_HEAD = re.compile(r"(.*\.)?(lm_head|output|embed_out|output_layer|output_projection|head)\.weight")


def with_copied_head(header: Header, config: Mapping[str, Any]) -> Header:
    """The header with a head whose values are those of the token table among the tensors that it shares.

    A ``config`` that says that they are not tied decides.
    """
    text_config = config.get("text_config")
    for fields in (config, text_config if isinstance(text_config, Mapping) else {}):
        if fields.get("tie_word_embeddings") is False:
            return header
    copies = copied_heads(header)[:1]
    return replace(header, shared=(*header.shared, *copies)) if copies else header


def copied_heads(header: Header) -> tuple[tuple[str, str], ...]:
    """Pairs (head, token table) of the same values that are stored twice, not shared."""
    known = {name for name, _ in header.shared}
    heads = [t for t in header.tensors if _HEAD.fullmatch(t.name) and t.name not in known]
    tables = [t for t in header.tensors if is_embedding(t.name, t.shape)]
    return tuple(
        (head.name, table.name)
        for head in heads
        for table in tables
        if head.name != table.name and _are_equal(head, table)
    )


def _are_equal(head: StoredTensor, table: StoredTensor) -> bool:
    """Whether both hold the same values, which are not one value everywhere (zeros that stand for none)."""
    if (head.shape, head.dtype, head.nbytes) != (table.shape, table.dtype, table.nbytes):
        return False
    if head.offset is None or table.offset is None or head.file is None or table.file is None:
        return False
    has_values = False
    with head.file.open("rb", buffering=0) as first, table.file.open("rb", buffering=0) as second:
        for start, count in _pieces(head.nbytes):
            first.seek(head.offset + start)
            second.seek(table.offset + start)
            piece = first.read(count)
            if piece != second.read(count):
                return False
            has_values = has_values or piece.count(piece[:1]) < len(piece)
    return has_values


def _pieces(nbytes: int) -> Iterator[tuple[int, int]]:
    """(start, bytes) of what is compared: everything, or as many pieces as there may be."""
    number = min(-(-nbytes // PIECE), MAX_PIECES)
    for index in range(number):
        start = index * (nbytes - PIECE) // max(number - 1, 1) if nbytes > PIECE else 0
        yield start, min(PIECE, nbytes)
