"""Decoding stored values, against torch for every code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.values.read import ITEM_DTYPES, Reader, chunks, decode, why_unread


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("bfloat16", 16),
        ("float16", 16),
        ("float8_e4m3fn", 8),
        ("float8_e5m2", 8),
        ("float8_e4m3fnuz", 8),
        ("float8_e5m2fnuz", 8),
        ("float8_e8m0fnu", 8),
        ("uint16", 16),
        ("int16", 16),
        ("int8", 8),
        ("uint8", 8),
    ],
)
def test_every_code_decodes_as_in_torch(dtype: str, bits: int) -> None:
    codes = np.arange(1 << bits, dtype=f"u{bits // 8}")
    signed = torch.from_numpy(codes.view(f"i{bits // 8}").copy())
    expected = signed.view(getattr(torch, dtype)).to(torch.float32).numpy()
    np.testing.assert_array_equal(decode(codes.view(ITEM_DTYPES[dtype]), dtype), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint32", "uint64"])
def test_wide_numbers_are_read_as_they_are(dtype: str) -> None:
    numbers = np.array([0, 1, 2, 77, 2**31 - 1], dtype)
    assert decode(numbers, dtype).tolist() == numbers.tolist()


def test_any_byte_but_zero_is_true() -> None:
    assert decode(np.array([0, 1, 255], np.uint8), "bool").tolist() == [0, 1, 1]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (2, 3, 5), (1, 40), (40, 1), (0, 3)])
@pytest.mark.parametrize("size", [1, 4, 16, 1000])
def test_chunks_cover_a_tensor_once_and_in_order(shape: tuple[int, ...], size: int) -> None:
    tensor = StoredTensor("x", "float32", shape)
    covered = [n for start, count in chunks(tensor, size) for n in range(start, start + count)]
    assert covered == list(range(tensor.count))
    columns = shape[-1] if shape else 1
    for start, count in chunks(tensor, size):
        assert count <= size
        whole_rows = start % columns == 0 and count % columns == 0
        assert whole_rows or start // columns == (start + count - 1) // columns


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (StoredTensor("x", "q8_k", (256,), 50, 0, Path("x")), "q8_k is not decoded"),
        (StoredTensor("x", "float32", (2,), 8, None, Path("x")), "not contiguous in the file"),
        (StoredTensor("x", "float32", (2,), 9, 0, Path("x")), "9 bytes do not fit its shape"),
        (StoredTensor("x", "q8_0", (31, 2), 68, 0, Path("x")), "68 bytes do not fit its shape"),
        (StoredTensor("x", "q8_0", (2, 32), 68, 0, Path("x")), None),
        (StoredTensor("x", "q4_k", (8, 32), 144, 0, Path("x")), "144 bytes do not fit its shape"),
        (StoredTensor("x", "q4_k", (2, 256), 288, 0, Path("x")), None),
    ],
)
def test_the_reason_for_an_unreadable_tensor(tensor: StoredTensor, reason: str | None) -> None:
    assert why_unread(tensor) == reason


def test_a_file_that_ends_early_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(10))
    tensor = StoredTensor("x", "float32", (4,), 16, 0, tmp_path / "x")
    with Reader(tensor) as reader, pytest.raises(FormatError, match="within tensor 'x'"):
        reader.codes(0, 4)


def test_blocks_are_read_from_their_offset(tmp_path: Path) -> None:
    blocks = np.zeros(5, ITEM_DTYPES["q8_0"])
    blocks["d"], blocks["codes"] = 1, np.arange(5)[:, None]
    (tmp_path / "x").write_bytes(b"..." + blocks.tobytes())
    tensor = StoredTensor("x", "q8_0", (5, 32), blocks.nbytes, 3, tmp_path / "x")
    with Reader(tensor, 64) as reader:
        assert reader.values(64, 64).tolist() == [2.0] * 32 + [3.0] * 32
