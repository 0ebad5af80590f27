"""Values of torchao 0.18: integers, FP8 and FP4 with scales, by the class that the metadata names.

`dequantize` of Int8Tensor, IntxUnpackedToInt8Tensor and Float8Tensor (`quantization/quantize_/workflows/`),
NVFP4Tensor and MXTensor (`prototype/mx_formats/`). The order of int4 is that of one GPU kernel or another.
"""

from __future__ import annotations

from typing import Any

from minilm.quantization.checkpoint import Checkpoint, UndecodableError
from minilm.quantization.dequantized import FLOATS, PackedByRows, optional_part
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.scaled_values import scaled_matrix
from minilm.quantization.small_float_values import small_floats
from minilm.quantization.torchao import description

_CLASSES = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor", "NVFP4Tensor", "MXTensor")


def packed_by_torchao(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    class_name, data, _ = description(tensor.name, checkpoint)
    if class_name not in _CLASSES:
        raise UndecodableError(f"{class_name or 'no class'} in the metadata")
    dtype = _dtype(data) or checkpoint.dtype
    if dtype not in FLOATS:
        raise UndecodableError("no dtype in the metadata")
    if not tensor.scales or not tensor.scales[0].name.endswith("_scale"):
        raise UndecodableError("no scale")
    if data.get("is_swizzled_scales") not in (None, False):
        raise UndecodableError("scales in the order of a GPU kernel")
    if tensor.dtype not in ("nvfp4", "mxfp4"):
        return scaled_matrix(tensor, dtype, checkpoint)
    return small_floats(tensor, dtype, factor=optional_part(tensor, "_per_tensor_scale"))


def _dtype(data: dict[str, Any]) -> str | None:
    """The dtype that a class says its tensor has."""
    stated = data.get("dtype", data.get("orig_dtype"))
    dtype = stated.get("_data") if isinstance(stated, dict) else None
    return dtype if isinstance(dtype, str) else None
