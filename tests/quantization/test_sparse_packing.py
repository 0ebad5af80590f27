"""Zeros left out: exactly the tensors that compressed-tensors writes, and back again."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import formats
from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.tensor_io import Array
from minilm.quantization.logical_tensors import LogicalTensors, decode
from minilm.quantization.packing import DTYPES, bfloat16_bits, stored_tensor
from minilm.quantization.sparse_packing import SparsePacking, count_nonzero, sparse_packing_of

UNSTRUCTURED, TWO_OF_FOUR = SparsePacking("sparse-bitmask"), SparsePacking("sparse-24-bitmask")
NAME = "x.weight"
DTYPE = st.sampled_from(["float32", "float16", "bfloat16"])


def matrix(o: int, i: int, seed: int, dtype: str, *, groups: bool = False) -> Array:
    """Half of it zeros, some with a sign; with ``groups``, at least two of every four."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(o, i)).astype(np.float32)
    values[random.random((o, i)) < 0.5] = 0
    if groups:
        values.reshape(-1, 4)[:, 1:3] = -0.0
    return bfloat16_bits(values) if dtype == "bfloat16" else values.astype(DTYPES[dtype])


def floats(bits: Array) -> Array:
    """Without the sign of zeros, which a bit for each weight does not keep."""
    if bits.dtype == np.uint16:
        bits = (bits.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(bits + np.float32(0))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99), DTYPE)
def test_what_is_packed_comes_back(o: int, i: int, seed: int, dtype: str) -> None:
    for packing, width in ((UNSTRUCTURED, i), (TWO_OF_FOUR, 4 * i)):
        values = matrix(o, width, seed, dtype, groups=packing is TWO_OF_FOUR)
        tensors = packing.tensors(NAME, values.shape, dtype, count_nonzero(values))
        arrays = packing.pack(NAME, values)
        assert [tensor.name for tensor in tensors] == list(packing.names(NAME)) == list(arrays)
        for tensor in tensors:
            assert arrays[tensor.name].shape == tensor.shape
            assert arrays[tensor.name].nbytes == tensor.nbytes
            assert arrays[tensor.name].dtype == np.dtype(DTYPES[tensor.dtype])
        assert np.array_equal(floats(packing.unpack(NAME, values.shape, arrays)), floats(values))


def test_the_tensors_are_those_of_the_format() -> None:
    """By hand: values row by row, the first column in the lowest bit, where each row begins."""
    values = np.array([[0, 5, 0, 0, 6, 0, 0, 0, 7], [0] * 9], np.float32)
    arrays = UNSTRUCTURED.pack(NAME, values)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "x.compressed": [5, 6, 7],
        "x.bitmask": [[0b10010, 1], [0, 0]],
        "x.shape": [2, 9],
        "x.row_offsets": [0, 3],
    }
    sizes = sum(t.nbytes for t in UNSTRUCTURED.tensors(NAME, (2, 9), "float32", 3))
    # Values; two bytes of bits and an offset a row; the shape.
    assert sizes == 3 * 4 + 2 * (2 + 8) + 16
    arrays = TWO_OF_FOUR.pack(NAME, np.array([[0, 5, 0, -6], [1, 0, 0, 0]], np.float32))
    assert arrays["x.compressed"][0].tolist() == [5, -6]
    assert arrays["x.compressed"][1, 0] == 1  # with one of its zeros
    assert arrays["x.bitmask"][0].tolist() == [0b1010]
    assert arrays["x.shape"].tolist() == [[2], [4]]


def test_the_bits_are_those_of_the_library() -> None:
    compressed_tensors = pytest.importorskip(
        "compressed_tensors", reason="the extra 'compressed-tensors' is not installed"
    )
    import torch

    values = matrix(5, 21, 0, "float32")
    bits = compressed_tensors.utils.pack_bitmasks(torch.from_numpy(values != 0))
    assert np.array_equal(UNSTRUCTURED.pack(NAME, values)["x.bitmask"], bits.numpy())


def test_the_tensors_are_those_of_the_library() -> None:
    """Its versions up to 0.14 have the formats."""
    sparse_bitmask, sparse_24 = (
        pytest.importorskip(
            f"compressed_tensors.compressors.sparse_compressors.{name}",
            reason="without compressed-tensors of version 0.14 or older",
        )
        for name in ("sparse_bitmask", "sparse_24_bitmask")
    )
    import torch

    for packing, theirs in (
        (UNSTRUCTURED, sparse_bitmask.BitmaskTensor),
        (TWO_OF_FOUR, sparse_24.Sparse24BitMaskTensor),
    ):
        values = matrix(6, 24, 0, "float32")
        if packing is TWO_OF_FOUR:
            values.reshape(-1, 4)[:, 1:3], values.reshape(-1, 4)[:, ::3] = 0, 1.5
        expected = theirs.from_dense(torch.from_numpy(values)).dict(name_prefix="x", device="cpu")
        arrays = packing.pack(NAME, values)
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert np.array_equal(array, expected[name].numpy()), name


def test_a_matrix_of_another_pattern_is_refused() -> None:
    with pytest.raises(InputError, match="more than two of four"):
        TWO_OF_FOUR.pack(NAME, np.array([[1, 2, 3, 0]], np.float32))
    with pytest.raises(InputError, match="6 inputs, expected a multiple of 4"):
        TWO_OF_FOUR.pack(NAME, np.zeros((4, 6), np.float32))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("shape", np.array([3, 9]), "another shape, expected [2, 9]"),
        ("bitmask", np.zeros((2, 1), np.uint8), "another shape"),
        ("compressed", np.ones(4, np.float32), "4 values, expected 3"),
        ("row_offsets", np.array([0, 1]), "row_offsets of other rows"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    part: str, value: Array, message: str
) -> None:
    values = np.array([[0, 5, 0, 0, 6, 0, 0, 0, 7], [0] * 9], np.float32)
    arrays = UNSTRUCTURED.pack(NAME, values) | {f"x.{part}": value}
    with pytest.raises(FormatError, match=re.escape(message)):
        UNSTRUCTURED.unpack(NAME, (2, 9), arrays)


def test_the_configuration_says_which_format_it_is() -> None:
    for packing in (UNSTRUCTURED, TWO_OF_FOUR):
        assert sparse_packing_of(packing.config(["lm_head"], 0.5)) == packing
    config = UNSTRUCTURED.config([], 0.5)
    assert sparse_packing_of(config | {"config_groups": {}}) is None  # quantized besides
    assert sparse_packing_of({"quant_method": "compressed-tensors"}) is None
    assert sparse_packing_of(config | {"sparsity_config": {"format": "dense"}}) is None
    assert sparse_packing_of(config | {"sparsity_config": {"format": ["a"]}}) is None


@pytest.mark.parametrize("packing", [UNSTRUCTURED, TWO_OF_FOUR])
def test_a_file_is_decoded_by_its_header(packing: SparsePacking, tmp_path: Path) -> None:
    """And what cannot be such a matrix is noted, and counted as stored."""
    values = matrix(4, 16, 0, "float32", groups=packing is TWO_OF_FOUR)
    tensors = packing.tensors(NAME, values.shape, "float32", count_nonzero(values))
    arrays = packing.pack(NAME, values)

    def decoded(**changed: tuple[int, ...]) -> LogicalTensors:
        plan = {}
        for tensor in tensors:
            shape = changed.get(tensor.name.removeprefix("x."), tensor.shape)
            array = np.resize(arrays[tensor.name], shape)
            plan[stored_tensor(tensor.name, tensor.dtype, shape)] = partial(np.copy, array)
        tensor_io.write(tmp_path / "model.safetensors", plan, {})
        header = formats.read(tmp_path / "model.safetensors")
        return decode(header, packing.config([], 0.5), {NAME: (4, 16)})

    (tensor,) = decoded().tensors
    assert (tensor.name, tensor.shape, tensor.dtype) == (NAME, (4, 16), "float32")
    assert decoded().method == packing.format
    assert {part.name for part in (*tensor.parts, *tensor.scales)} == arrays.keys()
    wrong = {"compressed": (65,), "bitmask": (4, 3), "shape": (3,)}
    wrong |= {"row_offsets": (3,)} if packing is UNSTRUCTURED else {}
    for part, shape in wrong.items():
        broken = decoded(**{part: shape})
        assert "x.compressed" in broken.notes[0]
        assert "cannot be decoded" in broken.notes[0]
        assert len(broken.tensors) == len(tensors)
