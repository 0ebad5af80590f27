"""Matrices rounded to few bits, packed as other programs store them, and read back: each the inverse.

compressed-tensors 0.20 `compressors/` (naive_quantized, pack_quantized), symmetric, X a linear layer:

    int8   X.weight int8 (o, i)            X.weight_scale (o, 1)
    int4   X.weight_packed int32 (o, i/8)  X.weight_scale (o, i/group)  X.weight_shape int64 (2,)
           column 8n + k is in bits 4k to 4k + 3 of word n, with 8 added

bitsandbytes 0.50 `functional.py` (`QuantState.as_dict`), NF4 (Dettmers et al. 2023, arXiv:2305.14314):

    nf4    X.weight uint8 (o*i/2, 1)  .absmax float32 (o*i/64,)  .quant_map float32 (16,)
           .quant_state.bitsandbytes__nf4, JSON as uint8; of two values the first is in the upper bits
           with double quantization absmax is uint8, codes of 256 values in blocks of 256, less their mean:
           .nested_absmax float32, .nested_quant_map float32 (256,); the mean is in the JSON

Scales of integers are bfloat16: the codes are rounded by the scale as it is stored, so that it loses nothing.
Shapes: o outputs, i inputs, g groups of inputs that share a scale.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array, as_float32
from minilm.ledger.components import LM_HEAD
from minilm.ledger.layout import Layout, Role
from minilm.quantization.bitsandbytes import METHOD as BITSANDBYTES
from minilm.quantization.bitsandbytes import STATE_SUFFIX
from minilm.quantization.compressed import METHOD as COMPRESSED_TENSORS

Format = Literal["int8", "int4", "nf4"]
FORMATS: tuple[Format, ...] = get_args(Format)
GROUP_SIZES = (32, 64, 128)

# numpy's types of what a packed file holds; of bfloat16 the bits.
DTYPES = {"int8": "i1", "uint8": "u1", "int32": "<i4", "int64": "<i8"} | {
    "bfloat16": "<u2",
    "float16": "<f2",
    "float32": "<f4",
}

NF4_VALUES = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)

NESTED_BLOCK = 256


def _dynamic_values() -> Array:
    """The 256 values of bitsandbytes' 8-bit type (`create_dynamic_map`; Dettmers 2015, arXiv:1511.04561).

    Of seven powers of ten, from 1e-6 to 1, each has twice as many numbers as the one before, on both sides
    of 0; and 0 and 1. To the bit as torch.linspace has them: from both ends, each rounded once to float32.
    """
    first, positive = np.float32(0.1), []
    for i in range(7):
        number = np.arange(2**i + 1)
        step = np.float64((np.float32(1) - first) / np.float32(2**i))
        bounds = np.where(
            number < (2**i + 1) // 2,
            np.float64(first) + step * number,
            1 - step * (2**i - number),
        ).astype(np.float32)
        positive.append((bounds[:-1] + bounds[1:]) / 2 * np.float32(10.0 ** (i - 6)))
    numbers = np.concatenate(positive)
    return np.sort(np.concatenate((-numbers, numbers, [0, 1]))).astype(np.float32)


DYNAMIC_VALUES = _dynamic_values()

# Shares of the scale that reaches the largest weight: of these, the one with the least squared error.
_SCALE_SHARES = np.linspace(1.0, 0.7, 13, dtype=np.float32)


@dataclass(frozen=True)
class Rounded:
    """A matrix as a code for each weight, (o, i), and a float32 scale for each group, (o, g).

    ``of_scales``: where these are rounded too, as what.
    """

    codes: Array
    scales: Array
    of_scales: RoundedScales | None = None


@dataclass(frozen=True)
class RoundedScales:
    """Scales in double quantization: uint8 codes, a float32 scale for each block of them, and their mean."""

    codes: Array
    scales: Array
    mean: float

    @staticmethod
    def of(scales: Array) -> RoundedScales:
        """The nearest ones of float32 ``scales`` (n,)."""
        mean = float(scales.mean(dtype=np.float64).astype(np.float32))
        starts = np.arange(0, len(scales), NESTED_BLOCK)
        centred = scales - np.float32(mean)
        extents = np.maximum.reduceat(np.abs(centred), starts)
        shares = (
            centred / np.repeat(np.where(extents == 0, 1, extents), NESTED_BLOCK)[: len(scales)]
        )
        above = np.searchsorted(DYNAMIC_VALUES, shares).clip(1, 255)
        nearer = shares - DYNAMIC_VALUES[above - 1] <= DYNAMIC_VALUES[above] - shares
        return RoundedScales((above - nearer).astype(np.uint8), extents, mean)

    def values(self) -> Array:
        """What they stand for, (n,)."""
        of_code = np.repeat(self.scales, NESTED_BLOCK)[: len(self.codes)]
        values: Array = DYNAMIC_VALUES[self.codes] * of_code + np.float32(self.mean)
        return values


class Packing(ABC):
    """How linear layers are stored: ``format``, and how many inputs of a row share a scale (0: all)."""

    format: Format
    group_size: int
    zero: int  # the code of 0

    @abstractmethod
    def round(self, weight: Array) -> Rounded:
        """The nearest codes of a float32 matrix (o, i)."""

    @abstractmethod
    def values(self, rounded: Rounded) -> Array:
        """The float32 matrix (o, i) that codes and scales stand for, as the readers of the format have it."""

    @abstractmethod
    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        """What is stored for the matrix named ``weight``, the codes first."""

    @abstractmethod
    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        """The values of `tensors`, by name."""

    @abstractmethod
    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        """The inverse of `pack`. Raises FormatError for a description that is not of this packing."""

    @abstractmethod
    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        """The quantization_config of config.json; ``ignored`` linear layers are not quantized."""

    def metadata(
        self, matrices: Mapping[str, tuple[int, ...]], others: Iterable[str]
    ) -> dict[str, str]:
        """What the header of the file says besides of the quantized ``matrices`` and the ``others``."""
        return {}

    def check(self, weight: str, shape: tuple[int, ...]) -> None:
        """Raises InputError where the groups do not divide a row of the matrix named ``weight``."""
        inputs = shape[1]
        if self.group_size and inputs % self.group_size:
            fitting = [str(size) for size in GROUP_SIZES if inputs % size == 0]
            raise InputError(
                f"{self.format} in groups of {self.group_size}",
                f"{weight} with {inputs} inputs",
                "a width that they divide",
                f"--group-size {' or '.join(fitting)} fits it"
                if fitting and self.format == "int4"
                else "--format int8 fits every width",
            )

    def predicted(self, weight: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """Bytes of the codes of a matrix, and of everything else that is stored for it."""
        codes, *others = (tensor.nbytes for tensor in self.tensors(weight, shape))
        return codes, sum(others)


class IntegerPacking(Packing):
    """compressed-tensors: symmetric integers, a bfloat16 scale a group."""

    zero = 0

    def __init__(self, bits: Literal[4, 8], group_size: int = 0) -> None:
        self.bits, self.group_size = bits, group_size
        self.format: Format = "int8" if bits == 8 else "int4"
        self.largest = 2 ** (bits - 1) - 1

    def round(self, weight: Array) -> Rounded:
        groups = _grouped(weight, self.group_size)  # o g s
        scales = self.scales(groups)
        return Rounded(self.codes(groups, scales).reshape(weight.shape), scales)

    def scales(self, groups: Array, importance: Array | None = None) -> Array:
        """(..., s) -> (...,): the bfloat16 scale of each group with the least squared error.

        ``importance`` (s,) weighs the errors of the inputs.
        """
        extent = np.abs(groups).max(-1) / self.largest
        best, least = np.ones_like(extent), np.full_like(extent, np.inf)
        for share in _SCALE_SHARES:
            scales = to_bfloat16(extent * share)
            scales[scales == 0] = 1  # a group of zeros
            errors = np.square(self.codes(groups, scales) * scales[..., None] - groups)
            total = errors.sum(-1) if importance is None else errors @ importance
            better = total < least
            best[better], least[better] = scales[better], total[better]
        chosen: Array = best
        return chosen

    def codes(self, groups: Array, scales: Array) -> Array:
        """(..., s) weights by scales (...,) -> (..., s) int8."""
        codes = np.clip(np.rint(groups / scales[..., None]), -self.largest - 1, self.largest)
        integers: Array = codes.astype(np.int8)
        return integers

    def values(self, rounded: Rounded) -> Array:
        codes = _grouped(rounded.codes.astype(np.float32), self.group_size)
        values: Array = (codes * rounded.scales[..., None]).reshape(rounded.codes.shape)
        return values

    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        o, i = shape
        scales = stored_tensor(f"{weight}_scale", "bfloat16", (o, i // (self.group_size or i)))
        if self.bits == 8:
            return stored_tensor(weight, "int8", (o, i)), scales
        return (
            stored_tensor(f"{weight}_packed", "int32", (o, i // 8)),
            scales,
            stored_tensor(f"{weight}_shape", "int64", (2,)),
        )

    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        scales = bfloat16_bits(rounded.scales)
        if self.bits == 8:
            return {weight: rounded.codes, f"{weight}_scale": scales}
        return {
            f"{weight}_packed": pack_int4(rounded.codes),
            f"{weight}_scale": scales,
            f"{weight}_shape": np.array(rounded.codes.shape, np.int64),
        }

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        scales = as_float32(arrays[f"{weight}_scale"])
        if self.bits == 8:
            return Rounded(arrays[weight], scales)
        if tuple(arrays[f"{weight}_shape"].tolist()) != shape:
            raise FormatError(weight, "another weight_shape", str(list(shape)))
        return Rounded(unpack_int4(arrays[f"{weight}_packed"]), scales)

    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": True,
            "strategy": "group" if self.group_size else "channel",
            "group_size": self.group_size or None,
            "dynamic": False,
        }
        layout = "int-quantized" if self.bits == 8 else "pack-quantized"
        group = {"targets": ["Linear"], "weights": weights, "format": layout}
        return {
            "quant_method": COMPRESSED_TENSORS,
            "format": layout,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": list(ignored),
        }


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
        groups = _grouped(weight, self.group_size)
        scales = np.abs(groups).max(-1)
        shares = groups / np.where(scales == 0, 1, scales)[..., None]
        middles = (NF4_VALUES[1:] + NF4_VALUES[:-1]) / 2
        codes = np.searchsorted(middles, shares).astype(np.uint8).reshape(weight.shape)
        if not self.double:
            return Rounded(codes, scales)
        rounded = RoundedScales.of(scales.reshape(-1))
        return Rounded(codes, rounded.values().reshape(scales.shape), rounded)

    def values(self, rounded: Rounded) -> Array:
        groups = _grouped(NF4_VALUES[rounded.codes], self.group_size)
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
            "quant_method": BITSANDBYTES,
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


def make_packing(
    format: str, group_size: int | None = None, *, double_quantization: bool = False
) -> Packing:
    """The packing of a format; int4 in groups of 32 by default.

    Raises InputError for another size, and for double quantization of another format than nf4.
    """
    if format not in FORMATS:
        raise InputError("--format", repr(format), f"one of {', '.join(FORMATS)}")
    if double_quantization and format != "nf4":
        raise InputError(
            "--double-quantization", f"given for {format}", "nf4, whose scales it rounds"
        )
    if format == "int4":
        if group_size is not None and group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise InputError("--group-size", str(group_size), f"one of {sizes}")
        return IntegerPacking(4, group_size or GROUP_SIZES[0])
    packing = IntegerPacking(8) if format == "int8" else Nf4Packing(double=double_quantization)
    if group_size is not None and group_size != packing.group_size:
        fixed = "a scale for each row" if format == "int8" else "its blocks of 64"
        raise InputError("--group-size", str(group_size), f"none for {format}, which has {fixed}")
    return packing


def quantized_matrices(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what is quantized of a model: the matrices of its layers, the head left out."""
    return {
        tensor.name: tensor.shape
        for tensor in layout.named_tensors()
        if tensor.role is Role.MULTIPLIED and tensor.component != LM_HEAD
    }


def read_rounded(
    packing: Packing, weight: str, shape: tuple[int, ...], stored: Mapping[str, StoredTensor]
) -> Rounded:
    """Codes and scales of one matrix, from the file whose tensors are ``stored``. Raises FormatError."""
    tensors = packing.tensors(weight, shape)
    for tensor in tensors:
        actual = stored[tensor.name]
        if (actual.dtype, actual.shape) != (tensor.dtype, tensor.shape):
            raise FormatError(
                actual.file or actual.name,
                f"{actual.name} {actual.dtype} {list(actual.shape)}",
                f"{tensor.dtype} {list(tensor.shape)}",
            )
    arrays = {tensor.name: tensor_io.read(stored[tensor.name], DTYPES) for tensor in tensors}
    try:
        return packing.unpack(weight, shape, arrays)
    except FormatError as error:
        file = stored[tensors[0].name].file
        raise FormatError(f"{file}: {error.where}", error.got, error.expected) from None


def pack_int4(codes: Array) -> Array:
    """Codes of -8 to 7, (o, i) with i a multiple of 8 -> int32 (o, i/8)."""
    nibbles = (codes + 8).astype(np.uint8)
    pairs = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return np.ascontiguousarray(pairs).view("<i4")


def unpack_int4(words: Array) -> Array:
    """int32 (o, i/8) -> codes of -8 to 7, int8 (o, i)."""
    pairs = np.ascontiguousarray(words, "<i4").view(np.uint8)
    codes = np.stack((pairs & 15, pairs >> 4), axis=-1).astype(np.int8) - 8
    return codes.reshape(words.shape[0], -1)


def pack_nf4(codes: Array) -> Array:
    """Codes of 0 to 15, an even number of them -> uint8 (n/2, 1)."""
    flat = codes.reshape(-1)
    return (flat[::2] << 4 | flat[1::2]).reshape(-1, 1)


def unpack_nf4(pairs: Array) -> Array:
    """uint8 (n/2, 1) -> codes of 0 to 15, (n,)."""
    flat = pairs.reshape(-1)
    return np.stack((flat >> 4, flat & 15), axis=-1).reshape(-1)


def to_bfloat16(values: Array) -> Array:
    """float32 values rounded to those that bfloat16 has, to nearest and ties to even."""
    return (bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: Array) -> Array:
    """float32 values as the bits of bfloat16, uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + 0x7FFF + (bits >> 16 & 1)
    return (bits >> 16).astype(np.uint16)


def _grouped(matrix: Array, group_size: int) -> Array:
    """(o, i) -> (o, g, s), one group a row where the size is 0."""
    o, i = matrix.shape
    return matrix.reshape(o, -1, group_size or i)


def stored_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
    """One that is to be written, with its bytes."""
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    return StoredTensor(name, dtype, shape, nbytes=int(np.prod(shape)) * itemsize)
