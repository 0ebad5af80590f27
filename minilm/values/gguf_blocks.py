"""Dequantization of GGUF's block types.

Layouts and arithmetic as in ggml (https://github.com/ggml-org/ggml, src/ggml-common.h, the block
structs, and src/ggml-quants.c, dequantize_row_*). A byte holds codes of several elements that are not
adjacent; `_planes` separates them. The types with large tables are decoded by the gguf package, an extra.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm.dtypes import GGUF_BLOCKS

Array = npt.NDArray[Any]

_HALF = "<f2"

# The layout of a block in the file.
LAYOUTS: dict[str, np.dtype[Any]] = {
    "q1_0": np.dtype([("d", _HALF), ("codes", "u1", 16)]),
    "q2_0": np.dtype([("d", _HALF), ("codes", "u1", 16)]),
    "q2_0_g128": np.dtype([("d", _HALF), ("codes", "u1", 32)]),
    "q4_0": np.dtype([("d", _HALF), ("codes", "u1", 16)]),
    "q4_1": np.dtype([("d", _HALF), ("m", _HALF), ("codes", "u1", 16)]),
    "q5_0": np.dtype([("d", _HALF), ("high", "u1", 4), ("codes", "u1", 16)]),
    "q5_1": np.dtype([("d", _HALF), ("m", _HALF), ("high", "u1", 4), ("codes", "u1", 16)]),
    "q8_0": np.dtype([("d", _HALF), ("codes", "i1", 32)]),
    "q2_k": np.dtype([("scales", "u1", 16), ("codes", "u1", 64), ("d", _HALF), ("m", _HALF)]),
    "q3_k": np.dtype([("high", "u1", 32), ("codes", "u1", 64), ("scales", "u1", 12), ("d", _HALF)]),
    "q4_k": np.dtype([("d", _HALF), ("m", _HALF), ("scales", "u1", 12), ("codes", "u1", 128)]),
    "q5_k": np.dtype(
        [
            ("d", _HALF),
            ("m", _HALF),
            ("scales", "u1", 12),
            ("high", "u1", 32),
            ("codes", "u1", 128),
        ]
    ),
    "q6_k": np.dtype(
        [("codes", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("d", _HALF)]
    ),
}


# Blocks as bytes, of the types that the gguf package decodes.
PACKAGE_LAYOUTS: dict[str, np.dtype[Any]] = {
    dtype: np.dtype([("bytes", "u1", GGUF_BLOCKS[dtype][1])])
    for dtype in (
        *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs"),
        *("tq1_0", "tq2_0", "mxfp4", "nvfp4"),
    )
}


def block_values(blocks: Array, dtype: str) -> Array:
    """The elements of all blocks in order, in float32."""
    values: Array
    if dtype in PACKAGE_LAYOUTS:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        values = dequantize(blocks["bytes"], GGMLQuantizationType[dtype.upper()])
    else:
        values = _DECODERS[dtype](blocks)
    return values.reshape(-1)


def package_decodes(dtype: str) -> bool:
    """Whether the gguf package is installed and knows a type of `PACKAGE_LAYOUTS`."""
    try:
        from gguf import GGMLQuantizationType
    except ImportError:
        return False
    return dtype.upper() in GGMLQuantizationType.__members__


def _planes(codes: Array, bits: int) -> Array:
    """The fields of ``bits`` bits of every byte, lowest first: (..., n) -> (..., 8 / bits, n)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    planes: Array = codes[..., None, :] >> shifts & ((1 << bits) - 1)
    return planes


def _fifth_bits(blocks: Array) -> Array:
    """The fifth bits of 32 elements, in four bytes, lowest bit first."""
    bits: Array = np.unpackbits(blocks["high"], axis=1, bitorder="little")
    return bits


def _scale(blocks: Array, name: str = "d") -> Array:
    scale: Array = blocks[name].astype(np.float32)[:, None]
    return scale


def _q1_0(blocks: Array) -> Array:
    bits: Array = np.unpackbits(blocks["codes"], axis=1, bitorder="little")
    values: Array = _scale(blocks) * (2 * bits.astype(np.int8) - np.int8(1))
    return values


def _q2_0(blocks: Array) -> Array:
    """Four neighbouring elements a byte, lowest bits first."""
    codes = _planes(blocks["codes"], 2).swapaxes(1, 2).reshape(len(blocks), -1)
    values: Array = _scale(blocks) * (codes.astype(np.int8) - np.int8(1))
    return values


def _codes_4bit(blocks: Array) -> Array:
    """4-bit codes of a block of 32: the low halves of the bytes are the first 16 elements."""
    return _planes(blocks["codes"], 4).reshape(-1, 32)


def _q4_0(blocks: Array) -> Array:
    values: Array = _scale(blocks) * (_codes_4bit(blocks).astype(np.int8) - np.int8(8))
    return values


def _q4_1(blocks: Array) -> Array:
    values: Array = _scale(blocks) * _codes_4bit(blocks) + _scale(blocks, "m")
    return values


def _q5_0(blocks: Array) -> Array:
    codes = _codes_4bit(blocks) | _fifth_bits(blocks) << 4
    values: Array = _scale(blocks) * (codes.astype(np.int8) - np.int8(16))
    return values


def _q5_1(blocks: Array) -> Array:
    codes = _codes_4bit(blocks) | _fifth_bits(blocks) << 4
    values: Array = _scale(blocks) * codes + _scale(blocks, "m")
    return values


def _q8_0(blocks: Array) -> Array:
    codes: Array = blocks["codes"]
    values: Array = _scale(blocks) * codes
    return values


def _codes_2bit(blocks: Array) -> Array:
    """2-bit codes of a block of 256: four planes of 32 bytes, twice."""
    return _planes(blocks["codes"].reshape(-1, 2, 32), 2)


def _q2_k(blocks: Array) -> Array:
    scales: Array = blocks["scales"]  # a byte for 16 elements: low half scale, high half minimum
    step, minimum = _scale(blocks) * (scales & 15), _scale(blocks, "m") * (scales >> 4)
    values: Array = step[..., None] * _codes_2bit(blocks).reshape(-1, 16, 16) - minimum[..., None]
    return values


def _q3_k(blocks: Array) -> Array:
    low = _planes(blocks["scales"][:, :8], 4).reshape(-1, 16)
    high = _planes(blocks["scales"][:, 8:], 2).reshape(-1, 16)
    step = _scale(blocks) * ((low | high << 4).astype(np.int8) - np.int8(32))
    codes = _codes_2bit(blocks).reshape(-1, 8, 32) | _planes(blocks["high"], 1) << 2
    values: Array = step[..., None] * (codes.astype(np.int8) - np.int8(4)).reshape(-1, 16, 16)
    return values


def _steps_and_minima(blocks: Array) -> tuple[Array, Array]:
    """Scale and minimum of each 32 elements, of 6 bits each, packed in 12 bytes."""
    scales: Array = blocks["scales"]
    first, second, third = scales[:, :4], scales[:, 4:8], scales[:, 8:]
    steps = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return (_scale(blocks) * steps)[..., None], (_scale(blocks, "m") * minima)[..., None]


def _q4_k(blocks: Array) -> Array:
    step, minimum = _steps_and_minima(blocks)
    codes = _planes(blocks["codes"].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    values: Array = step * codes - minimum
    return values


def _q5_k(blocks: Array) -> Array:
    step, minimum = _steps_and_minima(blocks)
    low = _planes(blocks["codes"].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    values: Array = step * (low | _planes(blocks["high"], 1) << 4) - minimum
    return values


def _q6_k(blocks: Array) -> Array:
    low = _planes(blocks["codes"].reshape(-1, 2, 64), 4).reshape(-1, 256)
    high = _planes(blocks["high"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    codes = (low | high << 4).astype(np.int8) - np.int8(32)
    step = _scale(blocks) * blocks["scales"]
    values: Array = step[..., None] * codes.reshape(-1, 16, 16)
    return values


_DECODERS: dict[str, Callable[[Array], Array]] = {
    "q1_0": _q1_0,
    "q2_0": _q2_0,
    "q2_0_g128": _q2_0,
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
}
