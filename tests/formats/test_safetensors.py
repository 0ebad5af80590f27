"""The header reader against the library's own writer, and one test for each way to be broken."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import load_file, save_file

from minilm.errors import FormatError
from minilm.formats.safetensors import MAX_HEADER_BYTES, read_header
from minilm.parallel.tensor_parts import write_tensors
from tests.formats.files import write_safetensors as write


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 2),
        "a": torch.ones(5, dtype=torch.uint8),
        "s": torch.tensor(2.5),
    }
    write_tensors(tmp_path / "x", tensors, {"step": "3", "format": "pt", "a": "é"})
    read = load_file(tmp_path / "x")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "x", "pt") as stream:
        assert stream.metadata() == {"step": "3", "format": "pt", "a": "é"}
    first = (tmp_path / "x").read_bytes()
    write_tensors(tmp_path / "x", tensors, {"a": "é", "format": "pt", "step": "3"})
    assert (tmp_path / "x").read_bytes() == first


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(3, 4),
        "b.half": torch.zeros(5, dtype=torch.bfloat16),
        "scalar": torch.zeros((), dtype=torch.int64),
        "empty": torch.zeros(0, 7),
        "flag": torch.zeros(2, dtype=torch.bool),
        "eight": torch.zeros(4, dtype=torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"step": "3"})
    header = read_header(tmp_path / "x.safetensors")
    read = {t.name: (t.dtype, t.shape, t.count) for t in header.tensors}
    assert read == {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), t.numel())
        for name, t in tensors.items()
    }
    assert header.metadata == {"step": "3"}
    assert header.data_bytes == sum(t.numel() * t.element_size() for t in tensors.values())


def test_an_unknown_dtype_is_reported_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": entry("Q7_X", (2, 3), (0, 5))}, b"12345")
    (tensor,) = read_header(path).tensors
    assert (tensor.dtype, tensor.count) == ("Q7_X", 6)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, b"123", "3 bytes of data, expected 4"),
        ({"a": entry()}, b"12345", "5 bytes of data, expected 4"),
        ({"a": entry(), "b": entry(offsets=(2, 6))}, b"123456", "'b' at byte 2, expected byte 4"),
        ({"a": entry(offsets=(1, 5))}, b"12345", "'a' at byte 1, expected byte 0"),
        ({"a": entry(shape=(2,))}, b"1234", "'a' of 4 bytes, expected 8 for F32"),
        ({"a": entry(offsets=(4, 0))}, b"1234", "'a' of -4 bytes, expected 4"),
        ({"a": entry(offsets=(-4, 0))}, b"1234", "offsets"),
        ({"a": entry(offsets=(0,))}, b"1234", "offsets"),
        ({"a": entry(shape=(-1,))}, b"1234", "shape"),
        ({"a": entry(shape=(2**70,))}, b"1234", "shape"),
        ({"a": entry(shape=(2**62, 2**62))}, b"1234", "product is below"),
        ({"a": entry(shape=(1,) * 65)}, b"1234", "65 dimensions"),
        ({"a" * 1025: entry()}, b"1234", "at most 1024 characters"),
        (b'{"\\ud800": 1}', b"", "not JSON"),
        ({"a": entry(dtype="F" * 65)}, b"1234", "without a dtype"),
        ({"a": {"shape": [1]}}, b"1234", "without a dtype"),
        ({"a": {"dtype": "F32", "shape": 3}}, b"1234", "with shape 3, expected a list"),
        ({"a": 3}, b"", "without a dtype"),
        ([1], b"", "a JSON list, expected a JSON object"),
        (b"{nonsense", b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b'{"a": 1, "a": 2}', b"", "a name that occurs twice"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    ],
)
def test_a_broken_header_is_one_clear_line(
    tmp_path: Path, header: object, data: bytes, message: str
) -> None:
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [10**6, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_header_length_is_not_trusted(tmp_path: Path, length: int) -> None:
    with pytest.raises(FormatError, match="header"):
        read_header(write(tmp_path / "x", {}, length=length))


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_file_without_a_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(b"\0" * size)
    with pytest.raises(FormatError, match="at least 8 bytes"):
        read_header(tmp_path / "x")


def test_a_name_cannot_break_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a\n\x1b[31m": entry(shape=(2,))}, b"1234")
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[" * 126 + "]" * 126),
        *('{"x":' * 126 + "0" + "}" * 126, "01", '"\\ud800"'),
    ],
    ids=lambda value: value[:12],
)
def test_a_field_that_the_library_refuses(tmp_path: Path, value: str) -> None:
    tensor = f'"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":{value}'
    path = write(tmp_path / "x.safetensors", f'{{"a":{{{tensor}}}}}'.encode(), bytes(4))
    with pytest.raises(SafetensorError):
        deserialize(path.read_bytes())
    with pytest.raises(FormatError, match="not JSON"):
        read_header(path)


@pytest.mark.parametrize(
    "fields",
    [
        '"shape":[0],"data_offsets":[-0,0]',
        '"shape":[-0],"data_offsets":[0,0]',
        f'"shape":[{2**62},8,0],"data_offsets":[0,0]',
    ],
)
def test_numbers_that_the_library_refuses(tmp_path: Path, fields: str) -> None:
    path = write(tmp_path / "x.safetensors", f'{{"a":{{"dtype":"F32",{fields}}}}}'.encode())
    with pytest.raises(SafetensorError):
        deserialize(path.read_bytes())
    with pytest.raises(FormatError, match=r"not JSON \(-0\)|product is below"):
        read_header(path)


def test_the_library_reads_every_extra_field_that_is_accepted(tmp_path: Path) -> None:
    values = ["1e308", "-1", "[" * 125 + "]" * 125, '"\\ud83d\\ude00"', "null", "9" * 60, "1e-999"]
    for value in values:
        tensor = f'"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":{value}'
        path = write(tmp_path / "x.safetensors", f'{{"a":{{{tensor}}}}}'.encode(), bytes(4))
        deserialize(path.read_bytes())
        assert read_header(path).tensors[0].count == 1
