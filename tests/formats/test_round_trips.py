"""Random files: what the real writers write is read as it is; a changed byte is a clear line at worst."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from minilm.dtypes import storage_bytes
from minilm.errors import FormatError
from minilm.formats import gguf, huggingface, json_file, safetensors, torch_file
from minilm.formats.header import Header
from tests.formats import files

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PATH = Path("x")
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
tensors = st.builds(lambda shape, dtype: torch.zeros(shape, dtype=dtype), shapes, dtypes)
state_dicts = st.dictionaries(names, tensors, max_size=6)

Parse = Callable[[io.BytesIO, int, Path], Header]


def read(parse: Parse, raw: bytes) -> Header:
    return parse(io.BytesIO(raw), len(raw), PATH)


def content(header: Header) -> dict[str, tuple[str, tuple[int, ...], int]]:
    return {t.name: (t.dtype, t.shape, t.nbytes) for t in header.tensors}


def expected(state: dict[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    return {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), t.nbytes)
        for name, t in state.items()
    }


@QUICK
@given(state_dicts)
def test_safetensors(state: dict[str, torch.Tensor]) -> None:
    state.pop("__metadata__", None)
    assert content(read(safetensors.parse, save_safetensors(state))) == expected(state)


@QUICK
@given(state_dicts, st.booleans())
def test_torch_save(state: dict[str, torch.Tensor], nested: bool) -> None:
    raw = io.BytesIO()
    torch.save({"model": state, "step": torch.zeros(1)} if nested else state, raw)
    if nested and not state:
        state = {"step": torch.zeros(1)}  # nothing tells the model: every tensor counts
    assert content(read(torch_file.parse, raw.getvalue())) == expected(state)


@QUICK
@given(
    st.lists(st.tuples(shapes, st.sampled_from([0, 1, 8, 12, 24, 30])), max_size=6),
    st.sampled_from([8, 32, 64]),
    st.lists(names, max_size=5),
)
def test_gguf(
    drawn: list[tuple[tuple[int, ...], int]], alignment: int, vocabulary: list[str]
) -> None:
    entries: list[files.Entry] = []
    data, sizes = b"", {}
    for number, (shape, kind) in enumerate(drawn):
        dtype = gguf.TYPES[kind]
        block = {8: 32, 12: 256}.get(kind, 1)
        dimensions = [shape[0] * block, *shape[1:]] if shape else [block]
        entries.append((f"t{number}", dimensions, kind, len(data)))
        size = storage_bytes(math.prod(dimensions), dtype)
        sizes[f"t{number}"] = (dtype, tuple(dimensions[::-1]), size)
        data += bytes(size + -size % alignment)
    keys = [
        files.strings("tokens", vocabulary),
        files.scalar("general.alignment", files.UINT32, struct.pack("<I", alignment)),
    ]
    header = read(gguf.parse, files.gguf(entries, keys, data, alignment=alignment))
    assert content(header) == sizes
    assert header.metadata["tokens.length"] == str(len(vocabulary))
    assert header.data_bytes == sum(size for _, _, size in sizes.values())


def valid_files() -> dict[str, tuple[Parse, bytes]]:
    state = {"a": torch.zeros(2, 3), "b": torch.zeros(3, dtype=torch.bfloat16)}
    zipped = io.BytesIO()
    torch.save(state, zipped)
    keys = [files.strings("tokens", ["a", "b"]), files.scalar("n", files.UINT32, bytes(4))]
    entries: list[files.Entry] = [("a", (2, 3), 0, 0), ("b", (32,), 8, 32)]
    return {
        "safetensors": (safetensors.parse, save_safetensors(state)),
        "torch_zip": (torch_file.parse, zipped.getvalue()),
        "gguf": (gguf.parse, files.gguf(entries, keys, bytes(66))),
    }


VALID = valid_files()


@pytest.mark.parametrize("kind", VALID)
def test_changed_bytes(kind: str) -> None:
    parse, whole = VALID[kind]
    assert read(parse, whole).tensors

    @MANY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            position = data.draw(st.integers(0, len(changed) - 1))
            changed[position] = data.draw(
                st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
            )
        cut = data.draw(st.none() | st.integers(0, len(changed)))
        with contextlib.suppress(FormatError):
            read(parse, bytes(changed[:cut]))

    check()


@pytest.mark.parametrize("kind", VALID)
def test_every_truncation_is_refused(kind: str) -> None:
    """A download that stopped is never taken for a whole file."""
    parse, whole = VALID[kind]
    for cut in {*range(0, len(whole), 7), len(whole) - 1}:
        with pytest.raises(FormatError):
            read(parse, whole[:cut])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@MANY
@given(json_values | st.fixed_dictionaries({"weight_map": json_values, "metadata": json_values}))
def test_any_json_as_an_index(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors.index.json"
        raw = json.dumps(value).encode()
        with pytest.raises(FormatError):
            huggingface.parse(raw, path)


@MANY
@given(st.binary(max_size=60))
def test_any_bytes_as_json(raw: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(json_file.parse_object(PATH, raw, strict=True), dict)


@MANY
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_json_is_read_as_it_is(value: dict[str, object]) -> None:
    raw = json.dumps(value).encode()
    try:
        raw.decode("unicode_escape").encode()
    except UnicodeEncodeError:
        return
    assert repr(json_file.parse_object(PATH, raw, strict=True)) == repr(value)
