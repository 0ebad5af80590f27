"""compressed-tensors, ModelOpt, FP8 and similar: values with `_scale` tensors named after them.

Names and layouts: compressed-tensors 0.20 `compressors/` (pack-quantized, nvfp4, mxfp4, mxfp6,
float- and int-quantized) and 0.14 `compressors/sparse_compressors/` (the bitmasks), DeepSeek-V3
`inference/fp8_cast_bf16.py` (`weight_scale_inv`), transformers `integrations/` (finegrained_fp8,
fbgemm_fp8, eetq, bitnet).
"""

from __future__ import annotations

import math

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    bits_per_value,
)

METHOD = "compressed-tensors"

# What a matrix with zeros is stored as, the values first: see `sparse_packing.py`.
SPARSE_PARTS = ("compressed", "bitmask", "shape", "row_offsets")

# They belong to the layer; its weight is decoded without them.
ACTIVATION_SCALES = (
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "output_scale",
    "output_zero_point",
    "activation_scale",
    "pre_quant_scale",
)

# What DeepSeek-V4's FP4, two values in an int8, has for 32 of them.
_EXPONENTS = "float8_e8m0fnu"

# The quant_method values of methods that store 8-bit values with scales.
SCALED_METHODS = (METHOD, "fp8", "fbgemm_fp8", "modelopt", "eetq", "bitnet")


def decode_packed(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight_packed` with `X.weight_scale`: int32 with `X.weight_shape`, or FP4 or FP6 in uint8."""
    name = values.name.removesuffix("_packed")
    if name == values.name or not name.endswith("weight"):
        return None
    scale = checkpoint.tensors.get(f"{name}_scale")
    if scale is None:
        raise UndecodableError("no weight_scale")
    if values.dtype == "uint8":
        shape, dtype = _small_float_shape(values, scale)
    else:
        shape = _packed_integer_shape(name, values, checkpoint)
        dtype = f"int{values.nbytes * 8 // math.prod(shape)}"
    if not 0 < scale.count <= math.prod(shape):
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    scales = (
        *checkpoint.companions(
            name, "_scale", "_shape", "_zero_point", "_g_idx", "_global_scale", "_scale_2"
        ),
        *_activation_scales(name, checkpoint),
    )
    return Decoded(name, checkpoint.oriented_shape(name, shape), dtype, METHOD, scales)


def decode_scaled(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X` of an 8-bit dtype with `X_scale` or `X_scale_inv`: FP8, INT8, or smaller values in bytes."""
    if not values.dtype.startswith(("float8", "int8", "uint8")):
        return None
    name = values.name
    weight_scales = checkpoint.companions(name, "_scale_inv", "_scale", "_scales")
    if not weight_scales and name.endswith(".weight"):  # DeepSeek-V4's
        others = checkpoint.companions(name.removesuffix("weight"), "scale")
        weight_scales = tuple(scale for scale in others if scale.dtype == _EXPONENTS)
    if not weight_scales:
        return None
    scale, shape, dtype = weight_scales[0], values.shape, values.dtype
    if dtype == "uint8":
        shape, dtype = _sub_byte_shape(values, scale, checkpoint)
    elif dtype == "int8" and scale.dtype == _EXPONENTS:
        shape, dtype = _small_float_shape(values, scale)
    elif not _scales_fit(scale.shape, shape):
        raise UndecodableError(f"a scale of shape {list(scale.shape)} for {list(shape)}")
    scales = (
        *weight_scales,
        *checkpoint.companions(name, "_zero_point", "_global_scale", "_scale_2", "_g_idx"),
        *_activation_scales(name, checkpoint),
    )
    method = checkpoint.config.get("quant_method")
    if method not in SCALED_METHODS:
        method = "fp8" if dtype.startswith("float8") else "int8"
    return Decoded(name, checkpoint.oriented_shape(name, shape), dtype, method, scales)


def decode_sparse(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.compressed`, the values that are not zero, with `X.bitmask`, `X.shape`; not 2:4, `X.row_offsets`."""
    module = values.name.removesuffix(SPARSE_PARTS[0])
    if module == values.name or f"{module}bitmask" not in checkpoint.tensors:
        return None
    shape = checkpoint.read_shape(checkpoint.tensors.get(f"{module}shape"))
    if shape is None or len(shape) != 2:
        raise UndecodableError("no shape")
    o, i = shape
    bits, offsets = (checkpoint.tensors.get(module + part) for part in ("bitmask", "row_offsets"))
    if bits is None or bits.shape != (o, -(-i // 8)):
        raise UndecodableError("a bitmask of another shape")
    if offsets is None:
        fits = values.shape == (o, i // 2)
    else:
        fits = offsets.shape == (o,) and len(values.shape) == 1 and values.count <= o * i
    if not fits:
        raise UndecodableError(f"values of shape {list(values.shape)} for {list(shape)}")
    name, scales = f"{module}weight", checkpoint.companions(module, *SPARSE_PARTS[1:])
    format = "sparse-24-bitmask" if offsets is None else "sparse-bitmask"
    return Decoded(name, checkpoint.oriented_shape(name, shape), values.dtype, format, scales)


def _packed_integer_shape(name: str, values: StoredTensor, checkpoint: Checkpoint) -> Shape:
    """The shape of a matrix whose rows are packed in words: weight_shape, else the formula's."""
    shape = checkpoint.read_shape(checkpoint.tensors.get(f"{name}_shape"))
    for candidate in (shape, checkpoint.expected.get(name)):
        if (
            candidate is not None
            and candidate[:-1] == values.shape[:-1]
            and 1 <= values.nbytes * 8 // max(1, math.prod(candidate)) <= 8
        ):
            return candidate
    raise UndecodableError("no shape that its words can hold")


def _small_float_shape(values: StoredTensor, scale: StoredTensor) -> tuple[Shape, str]:
    """Shape and dtype of FP4 or FP6 values; a scale is for a group of 16 (NVFP4) or 32 (MX)."""
    group = 16 if scale.dtype == "float8_e4m3fn" else 32
    if not scale.shape or scale.shape[:-1] != values.shape[:-1]:
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    shape = (*scale.shape[:-1], scale.shape[-1] * group)
    bits = bits_per_value(values.nbytes, math.prod(shape))
    if bits not in (4, 6):
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    return shape, "nvfp4" if group == 16 else f"mxfp{bits}"


def _sub_byte_shape(
    values: StoredTensor, scale: StoredTensor, checkpoint: Checkpoint
) -> tuple[Shape, str]:
    """NVFP4 with ModelOpt's names, else the width that fills the formula's tensor (BitNet: 2 bits)."""
    try:
        return _small_float_shape(values, scale)
    except UndecodableError:
        bits = checkpoint.expected_bits(values.name, values)
        if bits is None or not _scales_fit(scale.shape, values.shape):
            raise
        return checkpoint.expected[values.name], f"int{bits}"


def _scales_fit(scale: Shape, shape: Shape) -> bool:
    """Whether scales are one for all, one a row or column, or one a block in every dimension."""
    if math.prod(scale) == 1:
        return True
    if len(scale) == 1:
        return scale[0] in (*shape[:1], *shape[-1:])
    return len(scale) == len(shape) and all(
        0 < num_blocks <= size for num_blocks, size in zip(scale, shape, strict=True)
    )


def _activation_scales(name: str, checkpoint: Checkpoint) -> tuple[StoredTensor, ...]:
    if name.rpartition(".")[2] == "weight":
        return checkpoint.companions(name.removesuffix("weight"), *ACTIVATION_SCALES)
    return checkpoint.companions(f"{name}_", *ACTIVATION_SCALES)
