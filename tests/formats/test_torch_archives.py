"""What else torch writes: the format before 1.6, TorchScript, torch.export; held against torch."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import minilm
from minilm import formats
from minilm.errors import FormatError
from minilm.formats import torch_script
from minilm.formats.header import Header
from minilm.formats.torch_file import read_header

# torch warns that TorchScript is deprecated; its files stay.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


class Model(torch.nn.Module):
    """A linear map, a normalization with buffers, and a tied pair."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.b = torch.nn.Linear(3, 2, bias=False)
        self.c = self.b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.c(self.norm(self.a(x)))
        return result


def check(header: Header, path: Path, state: dict[str, torch.Tensor]) -> None:
    """Names, dtypes, shapes, and the very bytes where the header says that they are."""
    raw = path.read_bytes()
    assert {tensor.name for tensor in header.tensors} == state.keys()
    for tensor in header.tensors:
        expected = state[tensor.name]
        assert (f"torch.{tensor.dtype}", tensor.shape) == (str(expected.dtype), expected.shape)
        assert tensor.offset is not None
        stored = bytearray(raw[tensor.offset : tensor.offset + tensor.nbytes])
        assert torch.equal(torch.frombuffer(stored, dtype=expected.dtype), expected.flatten())


def saved_before_1_6(folder: Path, value: Any) -> Path:
    path = folder / "x.pth"
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def test_the_format_before_1_6(tmp_path: Path) -> None:
    model = Model()
    path = saved_before_1_6(tmp_path, model.state_dict())
    header = read_header(path)
    check(header, path, model.state_dict())
    assert header.shared == (("c.weight", "b.weight"),)
    kinds = "float64 float32 float16 bfloat16 int64 int16 uint8 bool complex64 float8_e5m2 uint16"
    tensors = {k: torch.arange(6).to(getattr(torch, k)).reshape(2, 3) for k in kinds.split()}
    check(read_header(saved_before_1_6(tmp_path, tensors)), path, tensors)
    unnamed = path.rename(tmp_path / "weights")
    assert len(formats.read(unnamed).tensors) == len(tensors)


def test_a_checkpoint_before_1_6_has_its_model_chosen(tmp_path: Path) -> None:
    """The storages of the others must be passed over, whatever their order."""
    model = Model()
    optimizer = {"state": {0: {"step": torch.ones(1, dtype=torch.float64)}}, "param_groups": []}
    value = {"optimizer": optimizer, "net": model.state_dict(), "epoch": 1}
    path = saved_before_1_6(tmp_path, value)
    header = read_header(path)
    check(header, path, model.state_dict())
    assert header.omissions == ("read 'net'; left out 'optimizer' (1 tensor)",)


def test_damage_to_a_file_before_1_6_is_one_line(tmp_path: Path) -> None:
    path = saved_before_1_6(tmp_path, {"a": torch.ones(2, 3)})
    whole = path.read_bytes()

    def refused(raw: bytes, message: str) -> None:
        path.write_bytes(raw)
        with pytest.raises(FormatError, match=message) as caught:
            read_header(path)
        assert str(caught.value).isprintable()

    for length in range(17, len(whole)):
        refused(whole[:length], "x.pth")
    refused(whole.replace(b"\x88X", b"\x89X", 1), "big-endian")
    refused(whole.replace(b"M\xe9\x03", b"M\xe8\x03"), "version 1000, expected 1001")
    size = struct.pack("<q", 6)
    refused(whole.replace(size, struct.pack("<q", 7)), "up to byte")
    refused(whole.replace(size, b"\xff" * 8), "up to byte")
    position = whole.rindex(b"]")
    refused(whole[:position] + b"]." + whole[position:], "a list of storages")
    refused(whole[:position] + b"N." + whole[position:], "a list of storages")
    whole = saved_before_1_6(tmp_path, {"a": torch.ones(2), "b": torch.ones(2)}).read_bytes()
    first, second = pickle.loads(whole[whole.rindex(b"\x80\x02]") :])
    position = whole.rindex(second.encode())
    refused(whole[:position] + first.encode() + whole[position + len(second) :], "a list of stor")
    saved_before_1_6(tmp_path, torch.nn.Linear(2, 2))
    refused(path.read_bytes(), "a whole module|the object")


def test_a_script_has_the_tensors_of_its_modules(tmp_path: Path) -> None:
    model, path = Model().eval(), tmp_path / "x.pt"
    for program in (torch.jit.script(model), torch.jit.trace(model, torch.zeros(2, 4))):
        torch.jit.save(program, path)
        header = read_header(path)
        check(header, path, model.state_dict())
        assert header.shared == (("c.weight", "b.weight"),)
        assert header.buffers == {name for name, _ in model.named_buffers()}


class Listed(torch.nn.Module):
    """Parameters and other tensors, whose names do not say which they are."""

    tensors: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 2)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("offset", torch.zeros(2))
        self.tensors = [torch.ones(2), torch.ones(3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(x)
        result: torch.Tensor = output * self.scale + self.offset + self.tensors[0]
        return result


def test_a_script_says_which_tensors_are_parameters(tmp_path: Path) -> None:
    model, path = Listed(), tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(model), path)
    header = read_header(path)
    assert header.buffers == {"offset", "tensors.0", "tensors.1"}
    total = sum(parameter.numel() for parameter in model.parameters())
    parameters = minilm.inspect(path).parameters
    assert (parameters.total, parameters.buffers) == (total, 7)


def test_tensors_are_within_the_paths_of_attributes() -> None:
    paths = {"a.b", "a.b.c", "a-b", "d"}
    names = ["a.b", "a.b.x", "a.b.c.x", "a.bb", "a", "a-b.x", "a-c", "c.d", "d.e", "", "z"]
    assert list(torch_script._within(names, paths)) == [
        *("a.b", "a.b.x", "a.b.c.x", "a-b.x", "d.e")
    ]
    long = ".".join("a" * 500)
    names = [f"{long}.{n}.x" for n in range(20_000)]
    assert list(torch_script._within(names, {f"{long}.{n}" for n in range(1_000)})) == names[:1_000]


class Wrapper(torch.nn.Module):
    """As DistributedDataParallel holds a model."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Listed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.module(x)
        return result


def test_a_script_of_a_wrapper_loses_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(Wrapper()), path)
    header = read_header(path)
    assert (header.prefix, header.buffers) == ("module.", {"offset", "tensors.0", "tensors.1"})


def test_a_quantized_script_has_its_weights_in_objects_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    module = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Linear(32, 4))
    quantized = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear})
    torch.jit.save(torch.jit.script(quantized), path)
    assert minilm.inspect(path).parameters.total == 676


def test_a_frozen_script_has_its_weights_as_constants(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.freeze(torch.jit.script(Model().eval())), path)
    counts = [tensor.count for tensor in read_header(path).tensors]
    assert sorted(counts) == [3, 6, 12]  # the normalization is folded into the map before it


def test_an_exported_program_says_what_its_parameters_are(tmp_path: Path) -> None:
    model, path = Model().eval(), tmp_path / "x.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(2, 4),)), path)
    header = read_header(path)
    check(header, path, model.state_dict())
    assert header.buffers == {name for name, _ in model.named_buffers()}
    assert header.shared == (("c.weight", "b.weight"),)


def exported(entry: Any) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        config = json.dumps({"config": entry} if entry is not None else {})
        archive.writestr("x/data/weights/m_weights_config.json", config)
        archive.writestr("x/data/weights/weight_0", bytes(24))
    return whole.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"path_name": "weight_1"}, "no 'x/data/weights/weight_1' in it"),
        ({"path_name": 3}, "without a description"),
        ({"tensor_meta": None}, "without a description"),
        ({"use_pickle": True}, "as a pickle"),
        ({"dtype": 8}, "up to byte 48 of 24"),
        ({"dtype": 999}, ""),
        ({"sizes": [{"as_expr": "s0"}, {"as_int": 3}]}, "with shape"),
        ({"sizes": [{"as_int": -2}, {"as_int": 3}]}, "with shape"),
        ({"sizes": 7}, "with strides"),
        ({"strides": [3, 1]}, "with strides"),
        ({"storage_offset": {}}, "with strides"),
        ({"storage_offset": {"as_int": 1}}, "up to byte 28"),
    ],
)
def test_a_description_that_lies(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    meta: dict[str, Any] = {
        "dtype": 7,
        "sizes": [{"as_int": 2}, {"as_int": 3}],
        "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0},
    }
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
    for field, value in changes.items():
        (meta if field in meta else entry)[field] = value
    path = tmp_path / "x.pt2"
    path.write_bytes(exported({"w": entry}))
    if not message:
        assert [tensor.shape for tensor in read_header(path).tensors] == [(2, 3)]
        return
    with pytest.raises(FormatError, match=message):
        read_header(path)


def test_other_zips(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(exported(None))
    with pytest.raises(FormatError, match="without a description"):
        read_header(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", b"")
    with pytest.raises(FormatError, match=r"of torch 2\.8 and later"):
        read_header(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="bare pickle"):
        formats.read(path)
