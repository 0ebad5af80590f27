"""NF4 as bitsandbytes 0.50 `functional.py` (`QuantState.as_dict`) stores it.

Dettmers et al. 2023 (arXiv:2305.14314); X a linear layer of o outputs and i inputs:

    nf4    X.weight uint8 (o*i/2, 1)  .absmax float32 (o*i/64,)  .quant_map float32 (16,)
           .quant_state.bitsandbytes__nf4, JSON as uint8; of two values the first is in the upper bits
           with double quantization absmax is uint8, codes of 256 values in blocks of 256, less their mean:
           .nested_absmax float32, .nested_quant_map float32 (256,); the mean is in the JSON
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bitsandbytes import METHOD, STATE_SUFFIX
from minilm.quantization.double_quantization import DYNAMIC_VALUES, NESTED_BLOCK, RoundedScales
from minilm.quantization.packing import Format, Packing, Rounded, grouped, stored_tensor

NF4_VALUES = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


class Nf4Packing(Packing):
    """bitsandbytes: the nearest of 16 values, times the largest magnitude of 64 weights.

    With ``double`` quantization these magnitudes are rounded to 8 bits.
    """

    format: Format = "nf4"
    group_size = 64
    zero = 7

    def __init__(self, *, double: bool = False) -> None:
        self.double = double

    def round(self, weight: Array) -> Rounded:
        groups = grouped(weight, self.group_size)
        scales = np.abs(groups).max(-1)
        shares = groups / np.where(scales == 0, 1, scales)[..., None]
        middles = (NF4_VALUES[1:] + NF4_VALUES[:-1]) / 2
        codes = np.searchsorted(middles, shares).astype(np.uint8).reshape(weight.shape)
        if not self.double:
            return Rounded(codes, scales)
        rounded = RoundedScales.of(scales.reshape(-1))
        return Rounded(codes, rounded.values().reshape(scales.shape), rounded)

    def values(self, rounded: Rounded) -> Array:
        groups = grouped(NF4_VALUES[rounded.codes], self.group_size)
        values: Array = (groups * rounded.scales[..., None]).reshape(rounded.codes.shape)
        return values

    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        count = shape[0] * shape[1]
        groups = count // self.group_size
        nested = (
            stored_tensor(f"{weight}.nested_absmax", "float32", (-(-groups // NESTED_BLOCK),)),
            stored_tensor(f"{weight}.nested_quant_map", "float32", (256,)),
        )
        return (
            stored_tensor(weight, "uint8", (count // 2, 1)),
            stored_tensor(f"{weight}.absmax", "uint8" if self.double else "float32", (groups,)),
            stored_tensor(f"{weight}.quant_map", "float32", (16,)),
            *(nested if self.double else ()),
            stored_tensor(f"{weight}{STATE_SUFFIX}nf4", "uint8", self._state(shape).shape),
        )

    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        arrays = {
            weight: pack_nf4(rounded.codes),
            f"{weight}.absmax": rounded.scales.reshape(-1),
            f"{weight}.quant_map": NF4_VALUES,
        }
        mean = 0.0
        if self.double:
            assert rounded.of_scales is not None
            mean = rounded.of_scales.mean
            arrays[f"{weight}.absmax"] = rounded.of_scales.codes
            arrays[f"{weight}.nested_absmax"] = rounded.of_scales.scales
            arrays[f"{weight}.nested_quant_map"] = DYNAMIC_VALUES
        return arrays | {f"{weight}{STATE_SUFFIX}nf4": self._state(rounded.codes.shape, mean)}

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        codes = unpack_nf4(arrays[weight]).reshape(shape)
        absmax, mean = arrays[f"{weight}.absmax"], 0.0
        own = {".quant_map": NF4_VALUES}
        if self.double:
            mean = self._mean(arrays[f"{weight}{STATE_SUFFIX}nf4"])
            own[".nested_quant_map"] = DYNAMIC_VALUES
        for ending, array in (own | {f"{STATE_SUFFIX}nf4": self._state(shape, mean)}).items():
            if not np.array_equal(arrays[weight + ending], array):
                raise FormatError(f"{weight}{ending}", "another one", "that of NF4 in blocks of 64")
        if not self.double:
            return Rounded(codes, absmax.reshape(shape[0], -1))
        rounded = RoundedScales(absmax, arrays[f"{weight}.nested_absmax"], mean)
        return Rounded(codes, rounded.values().reshape(shape[0], -1), rounded)

    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        return {
            "quant_method": METHOD,
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double,
            "bnb_4bit_compute_dtype": "float32",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": list(ignored),
        }

    def _state(self, shape: tuple[int, ...], mean: float = 0.0) -> Array:
        """The JSON; with a mean, whose digits vary, filled with spaces to one length."""
        state = {"quant_type": "nf4", "blocksize": self.group_size}
        state |= {"dtype": "float32", "shape": list(shape)}
        if not self.double:
            return _bytes(json.dumps(state))
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32"}
        state["nested_offset"] = mean
        return _bytes(json.dumps(state).ljust(len(json.dumps(state | {"nested_offset": 0})) + 24))

    def _mean(self, state: Array) -> float:
        """The inverse of `_state`; 0 for what is none, which then is not the same."""
        try:
            return float(json.loads(state.tobytes())["nested_offset"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return 0.0


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def pack_nf4(codes: Array) -> Array:
    """Codes of 0 to 15, an even number of them -> uint8 (n/2, 1)."""
    flat = codes.reshape(-1)
    return (flat[::2] << 4 | flat[1::2]).reshape(-1, 1)


def unpack_nf4(pairs: Array) -> Array:
    """uint8 (n/2, 1) -> codes of 0 to 15, (n,)."""
    flat = pairs.reshape(-1)
    return np.stack((flat >> 4, flat & 15), axis=-1).reshape(-1)
