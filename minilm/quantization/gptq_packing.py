"""The integers of `packing` as GPTQ's programs store them: AutoGPTQ and GPTQModel, `QuantLinear`, version 1.

    X.qweight int32 (i*bits/32, o)  X.qzeros int32 (g, o*bits/32)  X.scales float16 (g, o)  X.g_idx int32 (i,)
    row n of a word's column holds the inputs from n*32/bits on, the first in the lowest bits

Codes are unsigned, with the zero point of the middle, which version 1 stores less one (7 of 4 bits) and
version 2 as it is. Groups are in the order of the inputs: no activation order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minilm.errors import ConfigError, FormatError
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.packing import Rounded, stored_tensor


class GptqPacking(IntegerPacking):
    """int4 or int8 as `quant_method` gptq."""

    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        module, (o, i) = weight.removesuffix("weight"), shape
        groups = i // (self.group_size or i)
        return (
            stored_tensor(f"{module}qweight", "int32", (i * self.bits // 32, o)),
            stored_tensor(f"{module}qzeros", "int32", (groups, o * self.bits // 32)),
            stored_tensor(f"{module}scales", "float16", (groups, o)),
            stored_tensor(f"{module}g_idx", "int32", (i,)),
        )

    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        module, (o, i) = weight.removesuffix("weight"), rounded.codes.shape
        scales = rounded.scales.astype(np.float16)
        if not np.array_equal(scales.astype(np.float32), rounded.scales):
            raise ConfigError(
                "layout",
                f"gptq, with {weight} with a scale outside of float16",
                "scales that float16 has",
                "--layout compressed-tensors stores bfloat16",
            )
        middle = self.largest + 1
        groups = rounded.scales.shape[1]
        zeros = np.full((o, groups), middle - 1, np.uint8)
        return {
            f"{module}qweight": self._words((rounded.codes.astype(np.int16) + middle).T),
            f"{module}qzeros": np.ascontiguousarray(self._words(zeros).T),
            f"{module}scales": np.ascontiguousarray(scales.T),
            f"{module}g_idx": np.arange(i, dtype=np.int32) // (self.group_size or i),
        }

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        module, middle = weight.removesuffix("weight"), self.largest + 1
        index = np.arange(shape[1]) // (self.group_size or shape[1])
        zeros = self._codes(np.ascontiguousarray(arrays[f"{module}qzeros"].T))
        if not np.array_equal(arrays[f"{module}g_idx"], index) or (zeros != middle - 1).any():
            raise FormatError(weight, "other zero points or groups", "symmetric ones in order")
        codes = self._codes(arrays[f"{module}qweight"]).T.astype(np.int16) - middle
        return Rounded(codes.astype(np.int8), arrays[f"{module}scales"].T.astype(np.float32))

    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "bits": self.bits,
            "group_size": self.group_size or -1,
            "sym": True,
            "desc_act": False,
            "lm_head": False,
        }

    def check(self, matrices: Mapping[str, tuple[int, ...]]) -> None:
        """As `Packing.check`; words hold whole outputs and inputs."""
        super().check(matrices)
        count = 32 // self.bits
        for weight, shape in matrices.items():
            if shape[0] % count or shape[1] % count:
                got = f"gptq, with {weight} {list(shape)}"
                raise ConfigError("layout", got, f"widths that {count} divides")

    def _words(self, codes: Array) -> Array:
        """(n, m) codes from 0 on -> int32 (n*bits/32, m), the first of a word in its lowest bits."""
        count = 32 // self.bits
        rows = codes.astype(np.uint32).reshape(-1, count, codes.shape[1])
        shifts = (np.arange(count, dtype=np.uint32) * self.bits)[:, None]
        words: Array = np.bitwise_or.reduce(rows << shifts, axis=1).view(np.int32)
        return words

    def _codes(self, words: Array) -> Array:
        """The inverse of `_words`, uint8."""
        codes: Array = unpack(words.T, self.bits).T
        return codes
