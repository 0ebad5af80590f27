"""compressed-tensors, ModelOpt, FP8 and alike: values beside `_scale` tensors of the same name.

Names and layouts: compressed-tensors 0.20 `compressors/` (pack-quantized, nvfp4, mxfp4, mxfp6,
float- and int-quantized), DeepSeek-V3 `inference/fp8_cast_bf16.py` (`weight_scale_inv`), transformers
`integrations/` (finegrained_fp8, fbgemm_fp8, eetq, bitnet).
"""

from __future__ import annotations

import math
from struct import unpack

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    bits_of,
    shape_in,
)

METHOD = "compressed-tensors"

# Scales of activations: they belong to the layer and are not needed to decode its weight.
ACTIVATIONS = (
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "output_scale",
    "output_zero_point",
    "activation_scale",
    "pre_quant_scale",
)

# How quant_method calls what stores 8-bit values beside their scales.
SCALED_METHODS = (METHOD, "fp8", "fbgemm_fp8", "modelopt", "eetq", "bitnet")


def packed(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight_packed` with `X.weight_scale`: int32 with `X.weight_shape`, or uint8 of FP4 or FP6."""
    name = values.name.removesuffix("_packed")
    if name == values.name or not name.endswith("weight"):
        return None
    scale = checkpoint.tensors.get(f"{name}_scale")
    if scale is None:
        raise UndecodableError("no weight_scale")
    if values.dtype == "uint8":
        shape, dtype = _small_floats(values, scale)
    else:
        shape = _integers(name, values, checkpoint)
        dtype = f"int{values.nbytes * 8 // math.prod(shape)}"
    if not 0 < scale.count <= math.prod(shape):
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    scales = (
        *checkpoint.companions(
            name, "_scale", "_shape", "_zero_point", "_g_idx", "_global_scale", "_scale_2"
        ),
        *_of_activations(name, checkpoint),
    )
    return Decoded(name, checkpoint.settled(name, shape), dtype, METHOD, scales)


def scaled(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X` of an 8-bit dtype with `X_scale` or `X_scale_inv`: FP8, INT8, and bytes of smaller values."""
    if not values.dtype.startswith(("float8", "int8", "uint8")):
        return None
    name = values.name
    own = checkpoint.companions(name, "_scale_inv", "_scale", "_scales")
    if not own:
        return None
    shape, dtype = values.shape, values.dtype
    if dtype == "uint8":
        shape, dtype = _bytes_of_smaller_values(values, own[0], checkpoint)
    elif not _fits(own[0].shape, shape):
        raise UndecodableError(f"a scale of shape {list(own[0].shape)} for {list(shape)}")
    scales = (
        *own,
        *checkpoint.companions(name, "_zero_point", "_global_scale", "_scale_2", "_g_idx"),
        *_of_activations(name, checkpoint),
    )
    said = checkpoint.config.get("quant_method")
    method = said if said in SCALED_METHODS else "fp8" if dtype.startswith("float8") else "int8"
    return Decoded(name, checkpoint.settled(name, shape), dtype, method, scales)


def _integers(name: str, values: StoredTensor, checkpoint: Checkpoint) -> Shape:
    """The shape of a matrix whose rows are packed in words: weight_shape, else the formula's."""
    stated = checkpoint.tensors.get(f"{name}_shape")
    shape = None
    if stated is not None and stated.dtype == "int64":
        raw = checkpoint.read(stated) or b""
        shape = shape_in(unpack(f"<{len(raw) // 8}q", raw[: len(raw) // 8 * 8]))
    for candidate in (shape, checkpoint.expected.get(name)):
        if (
            candidate is not None
            and candidate[:-1] == values.shape[:-1]
            and 1 <= values.nbytes * 8 // max(1, math.prod(candidate)) <= 8
        ):
            return candidate
    raise UndecodableError("no shape that its words can hold")


def _small_floats(values: StoredTensor, scale: StoredTensor) -> tuple[Shape, str]:
    """The shape of FP4 or FP6 values, a group of 16 (NVFP4) or 32 (MX) to a scale."""
    group = 16 if scale.dtype == "float8_e4m3fn" else 32
    if not scale.shape or scale.shape[:-1] != values.shape[:-1]:
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    shape = (*scale.shape[:-1], scale.shape[-1] * group)
    bits = bits_of(values.nbytes, math.prod(shape))
    if bits not in (4, 6):
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    return shape, "nvfp4" if group == 16 else f"mxfp{bits}"


def _bytes_of_smaller_values(
    values: StoredTensor, scale: StoredTensor, checkpoint: Checkpoint
) -> tuple[Shape, str]:
    """NVFP4 as ModelOpt names it, or whatever fills the expected tensor exactly (BitNet: 2 bits)."""
    try:
        return _small_floats(values, scale)
    except UndecodableError:
        bits = checkpoint.expected_bits(values.name, values)
        if bits is None or not _fits(scale.shape, values.shape):
            raise
        return checkpoint.expected[values.name], f"int{bits}"


def _fits(scale: Shape, shape: Shape) -> bool:
    """One scale for all, one a row or a column, or one a block in every dimension."""
    if math.prod(scale) == 1:
        return True
    if len(scale) == 1:
        return scale[0] in (*shape[:1], *shape[-1:])
    return len(scale) == len(shape) and all(
        0 < blocks <= size for blocks, size in zip(scale, shape, strict=True)
    )


def _of_activations(name: str, checkpoint: Checkpoint) -> tuple[StoredTensor, ...]:
    if name.rpartition(".")[2] == "weight":
        return checkpoint.companions(name.removesuffix("weight"), *ACTIVATIONS)
    return checkpoint.companions(f"{name}_", *ACTIVATIONS)
