"""Tensors in parts: put together exactly, one at a time, and refused where they are not all of it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minilm.errors import FormatError
from minilm.parallel.tensor_parts import OFFSETS, read_parts, tensor_kinds, under, write_tensors
from tests.parallel.part_files import write_in_rows, write_part_file


def test_every_dtype_is_put_together_exactly(tmp_path: Path) -> None:
    tensors = {
        "float32": torch.randn(5, 3),
        "bfloat16": torch.randn(4).bfloat16(),
        "float64": torch.randn(3, 2, 2).double(),
        "int64": torch.tensor([2**62, -1, 7]),
        "bool": torch.tensor([True, False, True]),
        "rng.cpu": torch.get_rng_state(),
        "scalar": torch.tensor(3.0),
        "one row": torch.randn(1, 4),
    }
    write_in_rows(tmp_path, tensors, processes=3)
    parts = read_parts(tmp_path)
    assert tensor_kinds(parts) == tensor_kinds(tensors)
    for name, tensor in tensors.items():
        assert parts[name].dtype == tensor.dtype
        assert torch.equal(parts[name], tensor), name
    (half,) = under("float3", {"float32": tensors["float32"]}, torch.bfloat16).values()
    assert torch.equal(under("float3", parts, torch.bfloat16)["2"], half)


def test_a_tensor_may_be_cut_in_every_dimension(tmp_path: Path) -> None:
    whole = torch.arange(20.0).reshape(4, 5)
    corners = [([i, j], whole[i : i + 2, j : j + 3]) for i in (0, 2) for j in (0, 3)]
    for process, corner in enumerate(corners):
        write_part_file(tmp_path, process, {"a": corner})
    assert torch.equal(read_parts(tmp_path)["a"], whole)


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """Of 32 tensors of a megabyte, in two parts each, never more than a few are."""
    write_in_rows(tmp_path, {f"model.{n}": torch.full((512, 512), float(n)) for n in range(32)})
    parts = read_parts(tmp_path)
    tracemalloc.start()
    write_tensors(tmp_path / "whole", under("model.", parts, torch.float32), {}, hashed=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20
    whole = load_file(tmp_path / "whole")
    assert len(whole) == 32
    assert all((whole[str(n)] == n).all() for n in range(32))


ROWS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([([0, 0], ROWS), ([1, 0], ROWS)], "overlap or leave gaps"),
        ([([0, 0], ROWS), ([3, 0], ROWS)], "overlap or leave gaps"),
        ([([1, 0], ROWS)], "overlap or leave gaps"),
        ([([2**62, 0], ROWS)], "overlap or leave gaps"),
        ([([0, 0], ROWS), ([0, 0], ROWS)], "2 parts of a, expected 1"),
        ([([0, 0], ROWS), ([2, 3], ROWS)], "2 parts of a, expected 4"),
        ([([0, 0], ROWS), ([2, 0], ROWS.double())], "differ in kind"),
        ([([0, 0], ROWS), ([0], torch.zeros(3))], "differ in kind"),
        ([([0, -2], ROWS)], "a whole number for each dimension"),
        ([([0, 2**70], ROWS)], "a whole number for each dimension"),
        ([([0.0, 0], ROWS)], "a whole number for each dimension"),
        ([([0], ROWS)], "a whole number for each dimension"),
        ([(None, ROWS)], "a whole number for each dimension"),
    ],
)
def test_what_is_not_all_of_a_tensor_is_refused_in_one_line(
    tmp_path: Path, parts: list, message: str
) -> None:
    for process, part in enumerate(parts):
        write_part_file(tmp_path, process, {"a": part})
    with pytest.raises(FormatError, match=message) as raised:
        read_parts(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_file_without_offsets_and_one_of_hostile_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    write_tensors(path, {"a": ROWS}, {})
    with pytest.raises(FormatError, match="not JSON"):
        read_parts(tmp_path)
    write_tensors(path, {"a": ROWS}, {OFFSETS: "[" * 10**6})
    with pytest.raises(FormatError, match=r"JSON"):
        read_parts(tmp_path)
    write_part_file(tmp_path, 1, {"a": ([0, 0], ROWS)})
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"shape":[2,3]', b'"shape":[2,9]'))
    with pytest.raises(FormatError, match=r"tensor 'a' of 24 bytes, expected 72"):
        read_parts(tmp_path)
    path.write_bytes(content.replace(b'"F32"', b'"Z32"'))
    with pytest.raises(FormatError, match=r"a in Z32, expected whole bytes"):
        read_parts(tmp_path)
    path.write_bytes(content[:-1])
    with pytest.raises(FormatError, match="of data"):
        read_parts(tmp_path)
