"""A head that is stored although it has the values of the token table: found by comparing their bytes."""

from __future__ import annotations

import re

from minilm.formats.header import Header, StoredTensor
from minilm.inspection.names import is_embedding

# What transformers, llama.cpp and GPT-NeoX call the head.
_HEAD = re.compile(r"(^|\.)(lm_head|output|embed_out|output_layer)\.weight")
_CHUNK_BYTES = 2**20


def copied_heads(header: Header | None) -> tuple[tuple[StoredTensor, StoredTensor], ...]:
    """Pairs (head, token table) of the same bytes, not all zero. The first chunk tells most others apart."""
    tensors = header.tensors if header else ()
    tables = [tensor for tensor in tensors if is_embedding(tensor.name, tensor.shape)]
    return tuple(
        (head, table)
        for head in tensors
        if _HEAD.search(head.name)
        for table in tables
        if _same_values(head, table)
    )


def _same_values(a: StoredTensor, b: StoredTensor) -> bool:
    if (a.dtype, a.shape, a.nbytes) != (b.dtype, b.shape, b.nbytes) or not a.nbytes:
        return False
    if a.file is None or b.file is None or a.offset is None or b.offset is None:
        return False
    try:
        with a.file.open("rb") as first, b.file.open("rb") as second:
            first.seek(a.offset)
            second.seek(b.offset)
            is_zero = True
            for begin in range(0, a.nbytes, _CHUNK_BYTES):
                size = min(_CHUNK_BYTES, a.nbytes - begin)
                chunk = first.read(size)
                if len(chunk) < size or chunk != second.read(size):
                    return False
                is_zero = is_zero and not any(chunk)
            return not is_zero
    except OSError:
        return False
