"""The matrices of a quantized checkpoint: those whose values are decoded, and what is not read of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from minilm.formats.header import Header, StoredTensor
from minilm.quantization import bitsandbytes, compressed, mlx, quark
from minilm.quantization.aqlm_values import AqlmMatrix
from minilm.quantization.awq_values import packed_by_awq
from minilm.quantization.bitsandbytes_values import packed_by_bitsandbytes
from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import DequantizedTensor, PackedByRows, PackedMatrix
from minilm.quantization.exl2_values import Exl2Matrix
from minilm.quantization.gptq_values import GptqMatrix
from minilm.quantization.hqq_values import HqqMatrix
from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors
from minilm.quantization.marlin_values import MarlinMatrix
from minilm.quantization.mlx_values import packed_by_mlx
from minilm.quantization.quanto_values import packed_by_quanto
from minilm.quantization.quark_values import QuarkMatrix
from minilm.quantization.scaled_values import packed_with_scales
from minilm.quantization.small_float_values import packed_by_gpt_oss
from minilm.quantization.sparse_values import packed_without_zeros
from minilm.quantization.torchao_values import packed_by_torchao
from minilm.values.statistics import Unread

# Method -> how a matrix of it is packed, or UndecodableError. GGUF's blocks are decoded by `read`.
METHODS: dict[str, Callable[[LogicalTensor, Checkpoint], PackedMatrix]] = {
    "aqlm": AqlmMatrix.of,
    "awq": packed_by_awq,
    bitsandbytes.METHOD: packed_by_bitsandbytes,
    compressed.METHOD: packed_with_scales,
    "exl2": Exl2Matrix.of,
    "fbgemm_fp8": packed_with_scales,
    "fp8": packed_with_scales,
    "gptq": GptqMatrix.of,
    "hqq": HqqMatrix.of,
    "int8": packed_with_scales,
    "marlin": MarlinMatrix.of,
    mlx.METHOD: packed_by_mlx,
    "modelopt": packed_with_scales,
    "mxfp4": packed_by_gpt_oss,
    "quanto": packed_by_quanto,
    quark.METHOD: QuarkMatrix.of,
    quark.IN_ORDER: QuarkMatrix.of,
    "sparse-24-bitmask": packed_without_zeros,
    "sparse-bitmask": packed_without_zeros,
    "torchao": packed_by_torchao,
}


def with_decoded(
    header: Header,
    logical: LogicalTensors | None,
    config: Mapping[str, Any] = MappingProxyType({}),
    dtype: str | None = None,
) -> tuple[Header, dict[str, Unread]]:
    """``header`` with the decoded matrices, each in place of all that is stored for it.

    And what is not read, by its stored name: packed tensors and scales. All values count for a tensor's
    first part. ``config`` is the quantization_config, ``dtype`` what config.json gives the weights.
    """
    packed: dict[str, PackedMatrix] = {}
    left_out: dict[str, Unread] = {}
    quantized = [tensor for tensor in logical.tensors if _is_packed(tensor)] if logical else []
    with Checkpoint(header, config, {}, dtype) as checkpoint:
        for tensor in quantized:
            try:
                assert logical is not None
                is_assumed = tensor.name in logical.assumed
                packed[tensor.name] = _packed(tensor, checkpoint, is_assumed=is_assumed)
            except UndecodableError as error:
                left_out |= _unread(tensor, str(error))
    for scale in logical.cache_scales if logical else ():
        left_out[scale.name] = Unread(scale.name, "a scale of the KV cache, no weight", 0)
    if packed:
        header = _replaced(header, [t for t in quantized if t.name in packed], _oriented(packed))
    return header, left_out


def _packed(tensor: LogicalTensor, checkpoint: Checkpoint, *, is_assumed: bool) -> PackedMatrix:
    """Raises UndecodableError, without a reason where even the shape is not the file's."""
    pack = METHODS.get(tensor.method)
    if pack is None or is_assumed:
        raise UndecodableError
    return pack(tensor, checkpoint)


def _unread(tensor: LogicalTensor, why: str) -> dict[str, Unread]:
    reason = f"not decoded: packed by {tensor.method}" + (f" ({why})" if why else "")
    return {
        part.name: Unread(part.name, reason, tensor.count if part is tensor.parts[0] else 0)
        for part in (*tensor.parts, *tensor.scales)
    }


def _oriented(packed: Mapping[str, PackedMatrix]) -> dict[str, PackedMatrix]:
    """Square matrices, of which shapes do not say whether they are transposed, as all others are."""
    by_rows = {
        name: matrix
        for name, matrix in packed.items()
        if isinstance(matrix, PackedByRows) and len(matrix.stored) == 2
    }
    others = [each.is_transposed for each in by_rows.values() if len(set(each.stored)) == 2]
    if not others or not all(others):
        return dict(packed)
    return {**packed, **{n: replace(each, is_transposed=True) for n, each in by_rows.items()}}


def _replaced(
    header: Header, tensors: Sequence[LogicalTensor], packed: Mapping[str, PackedMatrix]
) -> Header:
    replaced: dict[str, tuple[StoredTensor, ...]] = {}
    for tensor in tensors:
        first, *others = (*tensor.parts, *tensor.scales)
        replaced |= {part.name: () for part in others}
        replaced[first.name] = (
            DequantizedTensor(
                *(tensor.name, tensor.method, tensor.shape, 4 * tensor.count),
                packed=packed[tensor.name],
            ),
        )
    kept = [each for stored in header.tensors for each in replaced.get(stored.name, (stored,))]
    data_bytes = sum(tensor.nbytes for tensor in kept)
    return replace(header, tensors=tuple(kept), data_bytes=data_bytes)


def _is_packed(tensor: LogicalTensor) -> bool:
    """Whether its values are not stored directly; GGUF's blocks are, since `read` decodes them."""
    return bool(tensor.scales) or any(
        (part.dtype, part.shape) != (tensor.dtype, tensor.shape) for part in tensor.parts
    )
