"""Values of bitsandbytes 0.50: NF4, FP4 and LLM.int8(); see `bitsandbytes.py` for what is stored.

4 bits   a value of quant_map, times the absmax of its block (`functional.py`, `dequantize_4bit`)
8 bits   an integer times SCB / 127 of its row (`functional.py`, `int8_vectorwise_dequant`)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.bitsandbytes import STATE_SUFFIX, read_state
from minilm.quantization.checkpoint import (
    Checkpoint,
    UndecodableError,
    parse_shape,
)
from minilm.quantization.dequantized import (
    FLOATS,
    DecodeRows,
    PackedByRows,
    check_shape,
    check_stored,
    is_transposed,
    part,
    read_array,
    read_floats,
    read_rows,
    rounding_to,
)
from minilm.quantization.double_quantization import scale_values
from minilm.quantization.logical_tensors import LogicalTensor
from minilm.quantization.nf4_packing import unpack_nf4

_IN_ROWS = b"\0"  # weight_format: other layouts are those of one kind of GPU
_PER_SCALE = np.float32(7.874015718698502e-3)  # 1/127 as bitsandbytes has it


@dataclass(frozen=True)
class NestedScales:
    """The absmax of a matrix: float32, or ``codes`` of a ``values`` table where they are quantized."""

    codes: StoredTensor
    values: StoredTensor | None = None
    scales: StoredTensor | None = None
    mean: float = 0.0
    block: int = 0

    def read(self) -> Array:
        if self.values is None or self.scales is None:
            return read_floats(self.codes)
        values, scales = read_floats(self.values), read_floats(self.scales)
        return scale_values(read_array(self.codes), values, scales, self.mean, self.block)


@dataclass(frozen=True)
class FourBitMatrix(PackedByRows):
    """A matrix in NF4 or FP4; ``pairs`` is its bytes, whatever dtype the file gives them."""

    pairs: StoredTensor
    values: StoredTensor
    absmax: NestedScales
    block: int
    dtype: str

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> FourBitMatrix:
        """Raises UndecodableError."""
        packed, values = tensor.parts[0], part(tensor, ".quant_map")
        states = [each for each in tensor.scales if STATE_SUFFIX in each.name]
        state = read_state(states, checkpoint)
        shape, block, dtype = (state.get(key) for key in ("shape", "blocksize", "dtype"))
        stored = parse_shape(shape)
        if stored is None or len(stored) != 2 or type(block) is not int or block < 1:
            raise UndecodableError("no quant_state")
        if dtype not in FLOATS:
            raise UndecodableError(f"quant_state with dtype {dtype!r:.40}")
        pairs = replace(packed, dtype="uint8", shape=(packed.nbytes, 1))
        check_stored(pairs, dtypes=("uint8",))
        check_stored(values)
        check_shape(values, (16,))
        transposed, absmax = is_transposed(tensor, stored), _scales(tensor, state)
        check_shape(absmax.codes, (-(-tensor.count // block),))
        if 2 * packed.nbytes < tensor.count:
            raise UndecodableError(f"{packed.nbytes} bytes for {list(stored)}")
        return FourBitMatrix(stored, transposed, pairs, values, absmax, block=block, dtype=dtype)

    def open_rows(self) -> DecodeRows:
        values, absmax, rounded = (
            read_floats(self.values),
            self.absmax.read(),
            rounding_to(self.dtype),
        )
        width = self.stored[1]

        def decode(first: int, count: int) -> Array:
            start, end = first * width, (first + count) * width
            pairs = read_rows(self.pairs, start // 2, -(-end // 2) - start // 2)
            codes = unpack_nf4(pairs)[start % 2 :][: end - start]
            of_block = absmax[np.arange(start, end) // self.block]
            return rounded(values[codes] * of_block).reshape(count, width)

        return decode


@dataclass(frozen=True)
class Int8Matrix(PackedByRows):
    """A matrix of LLM.int8()."""

    integers: StoredTensor
    extents: StoredTensor
    dtype: str

    @staticmethod
    def of(tensor: LogicalTensor, checkpoint: Checkpoint) -> Int8Matrix:
        """Raises UndecodableError."""
        integers, extents = tensor.parts[0], part(tensor, "SCB")
        check_stored(integers, dtypes=("int8",))
        check_stored(extents)
        stored = integers.shape
        if len(stored) != 2:
            raise UndecodableError(f"weight of shape {list(stored)}")
        check_shape(extents, stored[:1])
        for each in tensor.scales:
            if each.name.endswith("weight_format") and checkpoint.read(each) != _IN_ROWS:
                raise UndecodableError("a weight_format that is not by rows")
        dtype = checkpoint.dtype if checkpoint.dtype in FLOATS else "float32"
        return Int8Matrix(stored, is_transposed(tensor, stored), integers, extents, dtype)

    def open_rows(self) -> DecodeRows:
        extents, rounded = read_floats(self.extents), rounding_to(self.dtype)

        def decode(first: int, count: int) -> Array:
            values = read_rows(self.integers, first, count).astype(np.float32)
            return rounded(values * extents[first : first + count, None] * _PER_SCALE)

        return decode


def packed_by_bitsandbytes(tensor: LogicalTensor, checkpoint: Checkpoint) -> PackedByRows:
    """Raises UndecodableError."""
    of = Int8Matrix.of if tensor.dtype == "int8" else FourBitMatrix.of
    return of(tensor, checkpoint)


def _scales(tensor: LogicalTensor, state: dict[str, object]) -> NestedScales:
    absmax = part(tensor, ".absmax")
    if absmax.dtype != "uint8":
        check_stored(absmax)
        return NestedScales(absmax)
    values, scales = part(tensor, ".nested_quant_map"), part(tensor, ".nested_absmax")
    check_stored(absmax, dtypes=("uint8",))
    check_stored(values, scales)
    check_shape(values, (256,))
    mean, block = state.get("nested_offset"), state.get("nested_blocksize")
    if not isinstance(mean, (int, float)) or type(block) is not int or block < 1:
        raise UndecodableError("no nested_offset or nested_blocksize")
    check_shape(scales, (-(-absmax.count // block),))
    return NestedScales(absmax, values, scales, float(mean), block)
