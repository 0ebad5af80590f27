"""The one writer of safetensors files: fixed bytes, one tensor at a time, whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.safetensors import read_header
from minilm.parallel.tensor_parts import write_tensors

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
]


def test_the_bytes_of_a_small_file(tmp_path: Path) -> None:
    plan = {
        StoredTensor("b", "bfloat16", (3,)): lambda: np.array([1, 2, 3], "<u2"),
        StoredTensor("z", "float32", (2, 2)): lambda: np.arange(4, dtype="<f4").reshape(2, 2).T,
        StoredTensor("a", "uint8", ()): lambda: np.array(7, np.uint8),
    }
    tensor_io.write(tmp_path / "x", plan, {"n": "1"})
    text = (
        b'{"__metadata__":{"n":"1"},"z":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},'
        b'"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},'
        b'"a":{"dtype":"U8","shape":[],"data_offsets":[22,23]}}'
    )
    text += b" " * (-len(text) % 8)
    data = np.array([0, 2, 1, 3], "<f4").tobytes() + bytes([1, 0, 2, 0, 3, 0, 7])
    assert (tmp_path / "x").read_bytes() == len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_of_torch_is_written_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": (3 * torch.randn(5, 4, generator=random)).to(dtype),
        "transposed": (3 * torch.randn(5, 4, generator=random)).to(dtype).T,
        "scalar": torch.tensor(3).to(dtype),
        "empty": torch.zeros(0, 3, dtype=dtype),
        "no columns": torch.zeros(3, 0, dtype=dtype),
    }
    write_tensors(tmp_path / "x", tensors, {})
    stored = load_file(tmp_path / "x")
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert stored[name].dtype is dtype
        assert torch.equal(stored[name].to(torch.complex128), tensor.to(torch.complex128))
    assert all(
        tensor.offset % dtype.itemsize == 0 for tensor in read_header(tmp_path / "x").tensors
    )


def test_a_tensor_is_made_when_its_turn_comes_and_a_failure_leaves_the_older_file(
    tmp_path: Path,
) -> None:
    path, order = tmp_path / "x", []
    path.write_bytes(b"older")

    def make(name: str) -> np.ndarray:
        order.append(name)
        if name == "c":
            raise OSError(28, "No space left on device")
        return np.zeros((2, 3), np.float32)

    plan = {StoredTensor(name, "float32", (2, 3)): lambda name=name: make(name) for name in "dcba"}
    with pytest.raises(OSError, match="No space"):
        tensor_io.write(path, plan, {})
    assert order == ["a", "b", "c"]
    assert path.read_bytes() == b"older"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_large_tensors_are_written_in_chunks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_io, "CHUNK", 64)
    values = np.arange(50, dtype=np.float32).reshape(10, 5)
    chunks = list(tensor_io.chunks(values))
    assert [len(rows) for rows in chunks] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate(chunks), values)
