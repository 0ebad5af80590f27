"""Bytes of a model in llama.cpp's usual file types, each a mixture of ggml's block types.

Which tensor gets which type: ggml-org/llama.cpp `src/llama-quant.cpp`, without an importance matrix. Its
exceptions for Falcon, 70B and eight experts are left out.
"""

from __future__ import annotations

from minilm.dtypes import GGUF_BLOCKS, storage_bytes
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

# File type -> the block type of most matrices, and that of the more sensitive ones in some layers.
FILE_TYPES = {
    "q8_0": ("q8_0", "q8_0"),
    "q6_k": ("q6_k", "q6_k"),
    "q5_k_m": ("q5_k", "q6_k"),
    "q4_k_m": ("q4_k", "q6_k"),
    "q4_0": ("q4_0", "q4_0"),
}
_SENSITIVE = (
    components.ATTENTION_VALUE,
    components.ATTENTION_QUERY_KEY_VALUE,
    components.ATTENTION_KEY_VALUE,
    components.FEED_FORWARD_DOWN,
    components.EXPERTS_DOWN,
)
_NOT_QUANTIZED = (components.ROUTER, components.POSITION_EMBEDDING)
# For rows that are no whole number of blocks of 256.
_FALLBACK = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}


def gguf_bytes(layout: Layout, file_type: str) -> int:
    """Bytes of the tensors' data, of shared layers as often as they run.

    The header of such a file is a few MB more, mostly its tokenizer.
    """
    layout = layout.unshared()
    return sum(_tensor_bytes(layout, tensor, *FILE_TYPES[file_type]) for tensor in layout.tensors)


def _tensor_bytes(layout: Layout, tensor: Tensor, usual: str, better: str) -> int:
    count = layout.value(tensor)
    shape = [dimension.value(layout.symbols) for dimension in tensor.shape]
    if tensor.role is Role.ONCE:  # in a file of its own (mmproj), which is not quantized
        return storage_bytes(count, "float16")
    is_matrix = len(shape) > 1 and tensor.role in (Role.MULTIPLIED, Role.LOOKED_UP)
    if not is_matrix or tensor.component in _NOT_QUANTIZED:
        return storage_bytes(count, "float32")
    row = shape[-2] if tensor.transposed else shape[-1]
    rows = count // row
    if _is_head(layout, tensor):
        return rows * _row_bytes(row, "q8_0" if usual == "q8_0" else "q6_k")
    if tensor.component not in _SENSITIVE or tensor.repeat == ONE:
        return rows * _row_bytes(row, usual)
    depth = tensor.repeat.value(layout.symbols)
    better_rows = rows // depth * sum(_has_better_type(i, depth) for i in range(depth))
    return better_rows * _row_bytes(row, better) + (rows - better_rows) * _row_bytes(row, usual)


def _is_head(layout: Layout, tensor: Tensor) -> bool:
    """A tied embedding is stored as the head that it is too."""
    return tensor.component == components.LM_HEAD or any(
        shared == tensor.name for _, shared in layout.ties
    )


def _has_better_type(layer: int, depth: int) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    first = depth // 8
    return layer < first or layer >= 7 * depth // 8 or (layer - first) % 3 == 2


def _row_bytes(row: int, block_type: str) -> int:
    if row % GGUF_BLOCKS[block_type][0]:
        block_type = _FALLBACK.get(block_type, block_type)
    if row % GGUF_BLOCKS[block_type][0]:
        return storage_bytes(row, "float16")
    return storage_bytes(row, block_type)
