"""Indexes of several files: what they lead to, and what they must not lead to."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minilm.errors import FormatError, InputError
from minilm.formats import read
from minilm.formats.huggingface import MAX_SHARDS, find_weights, read_index, read_shards
from tests.formats.files import gguf, write_safetensors

INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder: Path, weight_map: object, name: str = INDEX, **metadata: object) -> Path:
    path = folder / name
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return path


def two_shards(folder: Path) -> Path:
    save_file({"a": torch.zeros(2, 3), "c": torch.zeros(4)}, folder / A)
    save_file({"b": torch.zeros(5, dtype=torch.bfloat16)}, folder / B)
    return write_index(folder, {"a": A, "b": B, "c": A}, total_size=50)


def test_every_shard_is_read(tmp_path: Path) -> None:
    header = read_index(two_shards(tmp_path))
    assert {(t.name, t.dtype, t.shape, t.file) for t in header.tensors} == {
        ("a", "float32", (2, 3), tmp_path / A),
        ("b", "bfloat16", (5,), tmp_path / B),
        ("c", "float32", (4,), tmp_path / A),
    }
    assert header.data_bytes == 24 + 10 + 16
    assert header.metadata == {"total_size": "50"}


def test_shards_of_torch_keep_their_ties(tmp_path: Path) -> None:
    tied = torch.zeros(3)
    torch.save({"a": tied, "b": tied}, tmp_path / "x-1.bin")
    torch.save({"c": torch.zeros(2)}, tmp_path / "x-2.bin")
    weight_map = {"a": "x-1.bin", "b": "x-1.bin", "c": "x-2.bin"}
    header = read(write_index(tmp_path, weight_map, "pytorch_model.bin.index.json"))
    assert [t.name for t in header.tensors] == ["a", "b", "c"]
    assert header.shared == (("b", "a"),)


def test_every_shard_says_what_it_leaves_out(tmp_path: Path) -> None:
    for name, other in (("a", "optimizer"), ("b", "optimizer"), ("c", "ema")):
        checkpoint = {"model": {name: torch.zeros(2)}, other: [torch.zeros(3)]}
        torch.save(checkpoint, tmp_path / f"{name}.bin")
    header = read_shards([tmp_path / f"{name}.bin" for name in "abc"])
    assert header.omissions == (
        "read 'model'; left out 'optimizer' (1 tensor)",
        "read 'model'; left out 'ema' (1 tensor)",
    )


def test_a_cache_of_links_is_read(tmp_path: Path) -> None:
    """The Hub's cache keeps links to ../../blobs in a snapshot's folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    two_shards(blobs)
    for name in (A, B, INDEX):
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert len(read_index(snapshot / INDEX).tensors) == 3


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "no weight_map"),
        ({}, "no weight_map"),
        ([1], "no weight_map"),
        ({"a": 3}, "the shard '<int>'"),
        ({"a": None, "b": A}, "the shard"),
        ({"a": ["x"]}, "the shard '<list>'"),
        ({"a": ""}, "the shard ''"),
        ({"a": "."}, "the shard '.'"),
        ({"a": ".."}, "the shard '..'"),
        ({"a": "../x.safetensors"}, "the shard '../x.safetensors'"),
        ({"a": "/etc/passwd"}, "the shard '/etc/passwd'"),
        ({"a": "/dev/zero.bin"}, "the shard '/dev/zero.bin'"),
        ({"a": "sub/x.safetensors"}, "the shard"),
        ({"a": "sub\\x.safetensors"}, "the shard"),
        ({"a": "C:x.safetensors"}, "the shard"),
        ({"a": "x\0.safetensors"}, "the shard"),
        ({"a": "x" * 300 + ".safetensors"}, "the shard"),
        ({"a": INDEX}, "the shard"),
        ({"a": "other.index.json"}, "the shard"),
        ({"a": "config.json"}, "the shard"),
        ({"a": "missing\x1b[31m.safetensors"}, "no 'missing"),
        ({"a": A, "b": B}, "only tensors that are in the index"),
        ({"a": A, "b": B, "c": B}, f"tensor 'c' in '{A}', expected it in '{B}'"),
        ({"a": A, "b": B, "c": A, "d": B}, f"no tensor 'd' in '{B}'"),
        ({"a": A, "b": B, "c": A, "\x1b\n": B}, "no tensor '\\x1b\\n'"),
        ({"a": A, "b": B, "c": A, "d" * 2000: B}, "at most 1024 characters"),
        ({f"t{n}": f"{n}.bin" for n in range(MAX_SHARDS + 1)}, f"at most {MAX_SHARDS}"),
    ],
)
def test_a_broken_index_is_one_clear_line(tmp_path: Path, weight_map: object, message: str) -> None:
    two_shards(tmp_path)
    with pytest.raises(FormatError) as caught:
        read_index(write_index(tmp_path, weight_map))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_metadata_that_is_no_object_is_ignored(tmp_path: Path) -> None:
    path = two_shards(tmp_path)
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "metadata": [1]}))
    assert read_index(path).metadata == {}


def test_one_name_in_two_shards(tmp_path: Path) -> None:
    path = two_shards(tmp_path)
    save_file({"a": torch.zeros(1), "b": torch.zeros(5)}, tmp_path / B)
    with pytest.raises(FormatError, match=f"tensor 'a' in '{B}'"):
        read_index(path)
    path.write_text(f'{{"weight_map": {{"a": "{A}", "a": "{B}"}}}}')
    with pytest.raises(FormatError, match="a name that occurs twice: 'a'"):
        read_index(path)


def test_nothing_outside_the_folder_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "out.safetensors")
    path = write_index(folder, {"a": "../out.safetensors"})
    opened: list[str] = []
    real = os.open

    def spy(name: str | Path, *rest: int) -> int:
        opened.append(str(name))
        return real(name, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", spy)
        with pytest.raises(FormatError):
            read_index(path)
    assert opened == [str(path)]


def test_191_shards_are_quick(tmp_path: Path) -> None:
    """Sparse files with the shapes of a 405B model's, 1,138 tensors in all."""
    weight_map: dict[str, str] = {}
    size = 16384 * 16384 * 2
    for shard in range(191):
        name = f"model-{shard + 1:05}-of-00191.safetensors"
        entries = {
            f"model.layers.{shard}.a.long.name.{i}.weight": {
                "dtype": "BF16",
                "shape": [16384, 16384],
                "data_offsets": [i * size, (i + 1) * size],
            }
            for i in range(6 if shard < 183 else 5)
        }
        weight_map |= dict.fromkeys(entries, name)
        path = write_safetensors(tmp_path / name, entries)
        os.truncate(path, path.stat().st_size + len(entries) * size)
    index = write_index(tmp_path, weight_map)
    before = time.process_time()
    header = read_index(index)
    assert time.process_time() - before < 0.35
    assert len(header.tensors) == 1138
    assert header.data_bytes == 1138 * 16384 * 16384 * 2


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], None),
        (["config.json", "tokenizer.json", "optimizer.bin", "training_args.bin"], None),
        (["model.safetensors", INDEX, "pytorch_model.bin"], "model.safetensors"),
        ([INDEX, A, B, "pytorch_model.bin", "consolidated.safetensors"], INDEX),
        (["pytorch_model.bin", "x.safetensors"], "pytorch_model.bin"),
        (["pytorch_model.bin.index.json", "p-1.bin", "p-2.bin"], "pytorch_model.bin.index.json"),
        (["x.safetensors", "x.gguf", "adapter_model.safetensors"], "x.safetensors"),
        (["x.bin", "adapter_model.safetensors"], "x.bin"),
        (["adapter_config.json", "adapter_model.safetensors"], "adapter_model.safetensors"),
        (["model.fp16.safetensors.index.json", A, B], "model.fp16.safetensors.index.json"),
        (["x.gguf", "x.pt"], "x.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "m-00001-of-00002.gguf"),
        (["consolidated.00.pth", "params.json"], "consolidated.00.pth"),
    ],
)
def test_which_weights_a_folder_holds(tmp_path: Path, names: list[str], chosen: str | None) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_weights(tmp_path) == (tmp_path / chosen if chosen else None)


def test_several_candidates_are_named(tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"\(q4.gguf, q8.gguf\), expected one; name the file"):
        find_weights(tmp_path)


def test_the_format_is_known_by_name_or_first_bytes(tmp_path: Path) -> None:
    two_shards(tmp_path)
    torch.save({"t": torch.zeros(1)}, tmp_path / "x.bin")
    (tmp_path / "x.gguf").write_bytes(gguf([("g", (1,), 0, 0)], data=bytes(4)))
    for name, inside in [(INDEX, "a"), (A, "c"), ("x.bin", "t"), ("x.gguf", "g")]:
        assert inside in {t.name for t in read(tmp_path / name).tensors}
    for name in (A, "x.bin", "x.gguf"):
        (tmp_path / "blob").unlink(missing_ok=True)
        (tmp_path / "blob").symlink_to(name)
        assert read(tmp_path / "blob").tensors
    (tmp_path / "x.bin").write_bytes(gguf([("g", (1,), 0, 0)], data=bytes(4)))
    assert read(tmp_path / "x.bin").tensors[0].name == "g"
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(FormatError, match="an unknown file format"):
        read(tmp_path / "text")


def test_metadata_of_shards_is_merged(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors", {"a": "described", "format": "pt"})
    save_file({"b": torch.zeros(3)}, tmp_path / "2.safetensors", {"b": "described too"})
    path = write_index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, format="index")
    metadata = read_index(path).metadata
    assert metadata == {"a": "described", "b": "described too", "format": "index"}
