"""Formats that store blocks of values with their scales: GGUF's types, and MXFP4 as in gpt-oss.

Layouts: transformers `integrations/mxfp4.py`; llama.cpp `ggml/src/ggml-common.h` (the block structs).
"""

from __future__ import annotations

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import Checkpoint, Decoded, UndecodableError

# GGUF type -> bits of an element's own value; the rest of a block holds scales and minima. For the
# codebook types iq* these are the bits of indices and signs.
VALUE_BITS: dict[str, float] = {
    "q1_0": 1,
    "q2_0": 2,
    "q2_0_g128": 2,
    "q4_0": 4,
    "q4_1": 4,
    "q5_0": 5,
    "q5_1": 5,
    "q8_0": 8,
    "q8_1": 8,
    "q2_k": 2,
    "q3_k": 3,
    "q4_k": 4,
    "q5_k": 5,
    "q6_k": 6,
    "q8_k": 8,
    "iq1_s": 1.375,
    "iq1_m": 1.375,
    "iq2_xxs": 1.875,
    "iq2_xs": 2,
    "iq2_s": 2.25,
    "iq3_xxs": 2.875,
    "iq3_s": 3.25,
    "iq4_nl": 4,
    "iq4_xs": 4,
    "tq1_0": 1.625,
    "tq2_0": 2,
    "mxfp4": 4,
    "nvfp4": 4,
    "q4_0_4_4": 4,
    "q4_0_4_8": 4,
    "q4_0_8_8": 4,
    "iq4_nl_4_4": 4,
    "iq4_nl_4_8": 4,
    "iq4_nl_8_8": 4,
}


def decode_gguf(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """A tensor of a GGUF block type: the header has the logical shape, the blocks hold the scales."""
    if values.dtype not in VALUE_BITS:
        return None
    return Decoded(values.name, values.shape, values.dtype, "gguf")


def gguf_value_bytes(values: StoredTensor) -> int:
    """Bytes of a GGUF tensor that hold values and not scales; all of them for other dtypes."""
    bits = VALUE_BITS.get(values.dtype)
    return values.nbytes if bits is None else min(values.nbytes, int(values.count * bits / 8))


def decode_mxfp4(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X_blocks` (experts, rows, columns/32, 16), `X_scales` (experts, rows, columns/32).

    A byte of the blocks holds two values. The model's tensor is (experts, columns, rows).
    """
    name = values.name.removesuffix("_blocks")
    if name == values.name or values.dtype != "uint8" or len(values.shape) < 3:
        return None
    scales = checkpoint.tensors.get(f"{name}_scales")
    if scales is None:
        raise UndecodableError("no _scales")
    if values.shape != (*scales.shape, 16):
        raise UndecodableError(f"_scales of shape {list(scales.shape)}")
    *experts, rows, groups = scales.shape
    shape = checkpoint.oriented_shape(name, (*experts, groups * 32, rows))
    return Decoded(name, shape, "mxfp4", "mxfp4", (scales,))
