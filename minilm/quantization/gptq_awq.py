"""GPTQ and AWQ: integers of 2 to 8 bits packed in int32, with a scale and a zero point a group.

Layouts: AutoGPTQ and GPTQModel `QuantLinear`, AutoAWQ `WQLinear_GEMM`, `WQLinear_GEMV` and
`WQLinear_GEMVFast`; the last two have 4 bits only and pad the groups (`calculate_zeros_width`).

    GPTQ  qweight (in*bits/32, out)  qzeros (groups, out*bits/32)  scales (groups, out)  g_idx (in,)
    AWQ   qweight (in, out*bits/32)  qzeros (groups, out*bits/32)  scales (groups, out)
    GEMV  qweight (out, in/8)        qzeros (out, padded/8)        scales (out, padded)
    fast  qweight (out/4, in) int16  qzeros (padded, out)          scales (padded, out)
"""

from __future__ import annotations

import math

from minilm.dtypes import BITS
from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    UndecodableError,
)


def decode_gptq_or_awq(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.qweight` with `X.scales`: GPTQ if both have one column for each output, else AWQ."""
    if values.name.rpartition(".")[2] != "qweight":
        return None
    module = values.name.removesuffix("qweight")
    scales = checkpoint.tensors.get(f"{module}scales")
    if scales is None:
        raise UndecodableError("no scales")
    word_bits = BITS.get(values.dtype, 0)
    if not word_bits or "int" not in values.dtype:
        raise UndecodableError(f"integers packed in {values.dtype}")
    if len(values.shape) != 2 or len(scales.shape) != 2 or 0 in scales.shape:
        raise UndecodableError(f"scales of shape {list(scales.shape)}")
    rows, columns = values.shape
    groups, outputs = scales.shape
    name = f"{module}weight"
    gemv_shape = _gemv_shape(values, scales, checkpoint.tensors.get(f"{module}qzeros"))
    if gemv_shape is not None:
        method, bits = "awq", 4
        outputs, inputs = gemv_shape
        groups = 1
    elif columns == outputs:
        method, bits = "gptq", _gptq_bits(values, module, word_bits, checkpoint)
        inputs = rows * word_bits // bits
    else:
        method, inputs = "awq", rows
        bits, remainder = divmod(columns * word_bits, outputs)
        if remainder or not 1 <= bits <= 8:
            raise UndecodableError(f"scales of shape {list(scales.shape)}")
    if not 0 < groups <= inputs:
        raise UndecodableError(f"{groups} groups of scales for {inputs} inputs")
    return Decoded(
        name,
        checkpoint.oriented_shape(name, (outputs, inputs)),
        f"int{bits}",
        method,
        checkpoint.companions(module, "qzeros", "scales", "g_idx"),
    )


def _gemv_shape(
    values: StoredTensor, scales: StoredTensor, zeros: StoredTensor | None
) -> tuple[int, int] | None:
    """(outputs, inputs) of a matrix in either GEMV layout; None where the shapes are of neither."""
    if zeros is None or len(zeros.shape) != 2:
        return None
    rows, columns = values.shape
    if values.dtype == "int32" and scales.shape == (rows, 8 * zeros.shape[1]):
        outputs, inputs, padded = rows, columns * 8, scales.shape[1]
    elif values.dtype == "int16" and scales.shape == zeros.shape and scales.shape[1] == rows * 4:
        outputs, inputs, padded = rows * 4, columns, scales.shape[0]
    else:
        return None
    if zeros.shape[0] != scales.shape[0] or not inputs:
        return None
    sizes = (128, 64, 32, inputs)
    return (outputs, inputs) if padded in [padded_groups(inputs, size) for size in sizes] else None


def padded_groups(inputs: int, group_size: int) -> int:
    """Groups a row, padded to whole words of 8 zero points; small groups to 2 or 4 such words."""
    multiple = 8 * {64: 2, 32: 4}.get(group_size, 1)
    return -(-(inputs // group_size) // multiple) * multiple


def _gptq_bits(values: StoredTensor, module: str, word_bits: int, checkpoint: Checkpoint) -> int:
    """Bits a weight: from g_idx, else qzeros, else the configuration, else the formula's shape."""
    rows, outputs = values.shape
    group_indices = checkpoint.tensors.get(f"{module}g_idx")
    zeros = checkpoint.tensors.get(f"{module}qzeros")
    expected_count = math.prod(checkpoint.expected.get(f"{module}weight", ()))
    candidates = (
        (rows * word_bits, group_indices.count) if group_indices else None,
        (zeros.shape[-1] * word_bits, outputs) if zeros and zeros.shape else None,
        (checkpoint.config.get("bits"), 1),
        (values.count * word_bits, expected_count),
    )
    for candidate in candidates:
        if candidate is None:
            continue
        total_bits, count = candidate
        if type(total_bits) is not int or count <= 0 or total_bits % count:
            continue
        bits = total_bits // count
        if 1 <= bits <= 8 and rows * word_bits % bits == 0:
            return bits
    raise UndecodableError("no number of bits that fits g_idx, qzeros or bits")
