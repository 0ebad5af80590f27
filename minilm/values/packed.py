"""The matrices of a quantized checkpoint: those whose values are decoded, and what is not read of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minilm.formats.header import Header, StoredTensor
from minilm.quantization.aqlm_values import AqlmMatrix
from minilm.quantization.checkpoint import UndecodableError
from minilm.quantization.dequantized import DequantizedTensor, PackedMatrix
from minilm.quantization.hqq_values import HqqMatrix
from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors
from minilm.quantization.quanto_values import packed_by_quanto
from minilm.quantization.quark import IN_ORDER, METHOD
from minilm.quantization.quark_values import QuarkMatrix
from minilm.values.statistics import Unread

# Method -> how a matrix of it is packed, or UndecodableError. GGUF's blocks are decoded by `read`.
METHODS: dict[str, Callable[[LogicalTensor], PackedMatrix]] = {
    "aqlm": AqlmMatrix.of,
    "hqq": HqqMatrix.of,
    "quanto": packed_by_quanto,
    METHOD: QuarkMatrix.of,
    IN_ORDER: QuarkMatrix.of,
}


def with_decoded(
    header: Header, logical: LogicalTensors | None
) -> tuple[Header, dict[str, Unread]]:
    """``header`` with the decoded matrices, each in place of all that is stored for it.

    And what is not read, by its stored name: packed tensors and scales. All values count for a tensor's
    first part.
    """
    replaced: dict[str, tuple[StoredTensor, ...]] = {}
    left_out: dict[str, Unread] = {}
    for tensor in logical.tensors if logical else ():
        if not _is_packed(tensor):
            continue
        stored = (*tensor.parts, *tensor.scales)
        try:
            assert logical is not None
            decoded = _decoded(tensor, is_assumed=tensor.name in logical.assumed)
        except UndecodableError as error:
            reason = f"not decoded: packed by {tensor.method}"
            reason += f" ({error})" if str(error) else ""
            for part in stored:
                count = tensor.count if part is tensor.parts[0] else 0
                left_out[part.name] = Unread(part.name, reason, count)
        else:
            replaced |= {part.name: () for part in stored}
            replaced[stored[0].name] = (decoded,)
    for scale in logical.cache_scales if logical else ():
        left_out[scale.name] = Unread(scale.name, "a scale of the KV cache, no weight", 0)
    if replaced:
        tensors = [t for each in header.tensors for t in replaced.get(each.name, (each,))]
        data_bytes = sum(tensor.nbytes for tensor in tensors)
        header = replace(header, tensors=tuple(tensors), data_bytes=data_bytes)
    return header, left_out


def _decoded(tensor: LogicalTensor, *, is_assumed: bool) -> DequantizedTensor:
    """Raises UndecodableError, without a reason where even the shape is not the file's."""
    pack = METHODS.get(tensor.method)
    if pack is None or is_assumed:
        raise UndecodableError
    packed, nbytes = pack(tensor), 4 * tensor.count
    return DequantizedTensor(tensor.name, tensor.method, tensor.shape, nbytes, packed=packed)


def _is_packed(tensor: LogicalTensor) -> bool:
    """Whether its values are not stored directly; GGUF's blocks are, since `read` decodes them."""
    return bool(tensor.scales) or any(
        (part.dtype, part.shape) != (tensor.dtype, tensor.shape) for part in tensor.parts
    )
