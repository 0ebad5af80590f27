"""The torch.save reader against torch itself; pickles that would run code; zips that lie."""

import argparse
import collections
import enum
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm.errors import FormatError
from minilm.formats.header import Header
from minilm.formats.torch_file import read_header
from minilm.formats.torch_zip import MAX_DIRECTORY_BYTES
from tests.formats.files import torch_zip


def saved(folder: Path, value: Any, **options: Any) -> Path:
    path = folder / "x.pt"
    torch.save(value, path, **options)
    return path


def names(header: Header) -> list[str]:
    return [tensor.name for tensor in header.tensors]


def test_every_dtype_where_torch_put_it(tmp_path: Path) -> None:
    kinds = (
        "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool"
    )
    kinds += " complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
    tensors = {k: torch.arange(6).reshape(2, 3).to(getattr(torch, k)) for k in kinds.split()}
    path = saved(tmp_path, tensors)
    header = read_header(path)
    assert names(header) == list(tensors)
    raw = path.read_bytes()
    for tensor in header.tensors:
        expected = tensors[tensor.name]
        assert (tensor.dtype, tensor.shape, tensor.nbytes, tensor.file) == (
            tensor.name,
            tuple(expected.shape),
            expected.nbytes,
            path,
        )
        assert tensor.offset is not None
        bytes_there = bytearray(raw[tensor.offset : tensor.offset + tensor.nbytes])
        assert torch.equal(torch.frombuffer(bytes_there, dtype=expected.dtype), expected.flatten())
    assert header.data_bytes == sum(t.nbytes for t in tensors.values())


def test_a_state_dict_with_buffers_and_ties(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    module.tied = module[0]
    header = read_header(saved(tmp_path, module.state_dict()))
    assert {t.name: t.shape for t in header.tensors} == {
        name: tuple(t.shape) for name, t in module.state_dict().items()
    }
    assert header.shared == (("tied.weight", "0.weight"), ("tied.bias", "0.bias"))


def test_views_of_one_storage(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(4, 3)
    views = {
        "whole": whole,
        "row": whole[1:2],
        "column": whole[:, 1],
        "one": whole[:, 1][:1],
        "turned": whole.T,
        "spread": whole[0].expand(5, 3),
        "none": whole[:0],
        "same": whole.view(4, 3),
        "parameter": torch.nn.Parameter(whole),
        "scalar": whole[3, 2],
    }
    header = read_header(saved(tmp_path, views))
    offsets = {t.name: t.offset for t in header.tensors}
    start = offsets["whole"]
    assert start is not None
    assert offsets == {
        "whole": start,
        "row": start + 12,
        "column": None,
        "one": start + 4,
        "turned": None,
        "spread": None,
        "none": start,
        "same": start,
        "parameter": start,
        "scalar": start + 44,
    }
    assert header.shared == (("same", "whole"), ("parameter", "whole"))
    assert header.data_bytes == whole.nbytes


def test_the_model_is_found_among_other_contents(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 3)}
    optimizer = {"state": {0: moments, 1: moments}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    for key in ("model", "state_dict", "model_state_dict", "module"):
        checkpoint = {
            "optimizer": optimizer,
            key: {f"_orig_mod.module.{n}": t for n, t in module.state_dict().items()},
            "rng": torch.get_rng_state(),
            "args": argparse.Namespace(path=Path("x"), rate=0.1),
            "best": np.float64(2.5),
            "generator": np.random.RandomState(0).get_state(),
            "counts": collections.Counter("abc"),
            "sizes": module.weight.shape,
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "raw": b"bytes",
            "set": {1, 2},
            "large": 2**4000,
            "iteration": 7,
        }
        header = read_header(saved(tmp_path, checkpoint))
        assert names(header) == ["weight", "bias"]
        assert header.omissions == (
            f"read '{key}'; left out 'optimizer' (2 tensors), 'rng' (1 tensor)",
        )


def test_skipped_tensors_are_reported_in_one_line(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    model = {"a": tensor}

    def omissions(**beside: Any) -> tuple[str, ...]:
        return read_header(saved(tmp_path, {"model": model, **beside})).omissions

    assert omissions(model_args={"n": 1}, same=model, again=[model]) == ()
    assert omissions(ema=[[tensor, tensor]]) == ("read 'model'; left out 'ema' (2 tensors)",)
    deep: Any = tensor
    for _ in range(100):
        deep = [deep]
    (line,) = omissions(**{f"\n{n}" * 500: deep if n == 0 else tensor for n in range(40)})
    assert line.endswith(" and 32 more")
    assert line.isprintable()
    assert len(line) < 1000


def test_without_one_model_every_tensor_counts(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    value = {
        "first": {"a": tensor},
        "second": {"a": tensor},
        "list": [tensor, {"b": tensor}],
        5: tensor,
    }
    assert names(read_header(saved(tmp_path, value))) == [
        "first.a",
        "second.a",
        "list.0",
        "list.1.b",
        "5",
    ]
    assert names(read_header(saved(tmp_path, tensor))) == ["tensor"]
    assert names(read_header(saved(tmp_path, {"module.a": tensor, "b": tensor}))) == [
        "module.a",
        "b",
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {"a": torch.ones(2, 3), "n": {"b": torch.ones(1)}, "é": torch.ones(1)}
    path = saved(tmp_path, value, pickle_protocol=protocol)
    assert names(read_header(path)) == ["a", "n.b", "é"]


def test_an_unknown_dtype_is_reported(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(3, dtype=torch.uint16)})
    raw = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        pickled = archive.read("x/data.pkl").replace(b"uint16", b"uint99")
    path.write_bytes(torch_zip(pickled, {"0": bytes(6)}))
    (tensor,) = read_header(path).tensors
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == ("uint99", (3,), 6)


class Int8Tensor(torch.Tensor):
    """Stands in for a class of torchao: a tensor with inner tensors."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...], **attributes: Any) -> "Int8Tensor":
        whole = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bfloat16)
        assert isinstance(whole, Int8Tensor)
        return whole

    def __init__(self, shape: tuple[int, ...], **attributes: Any) -> None:
        self.__dict__.update(attributes)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(func)


class ZeroPointDomain(enum.Enum):
    """Stands in for an enum among a tensor's attributes."""

    INT = "int"


class Layout:
    """Stands in for an object among a tensor's attributes; making it leaves a trace."""

    marker = ""

    def __setstate__(self, state: Any) -> None:
        Path(state["marker"]).touch()


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes above under torchao's names, so that torch.save writes those."""
    module = types.ModuleType("torchao.quantization")
    for cls in (Int8Tensor, ZeroPointDomain, Layout):
        monkeypatch.setattr(cls, "__module__", "torchao.quantization")
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", module)


@pytest.mark.usefixtures("torchao")
@pytest.mark.parametrize("protocol", [2, 4])
def test_torchao_tensors_are_flattened(tmp_path: Path, protocol: int) -> None:
    layout = Layout()
    layout.marker = str(tmp_path / "executed")
    weight = Int8Tensor(
        (4, 6),
        qdata=torch.zeros(4, 6, dtype=torch.int8),
        scale=torch.zeros(4, 1),
        block_size=[1, 6],
        target_dtype=torch.uint8,
        domain=ZeroPointDomain.INT,
        act_scale=None,
        layout_of=layout,
    )
    value = {"_orig_mod.k.weight": weight, "_orig_mod.bias": torch.zeros(4)}
    path = saved(tmp_path, value, pickle_protocol=protocol)
    header = read_header(path)
    assert [(t.name, t.dtype, t.shape) for t in header.tensors] == [
        ("k._weight_qdata", "int8", (4, 6)),
        ("k._weight_scale", "float32", (4, 1)),
        ("bias", "float32", (4,)),
    ]
    assert all(tensor.offset is not None for tensor in header.tensors)
    assert {name: json.loads(text) for name, text in header.metadata.items()} == {
        "k.weight": {
            "_type": "Int8Tensor",
            "_data": {
                "shape": [4, 6],
                "target_dtype": {"_type": "torch.dtype", "_data": "uint8"},
            },
            "_tensor_data_names": ["qdata", "scale"],
        }
    }
    # Reading did not create the object; unpickling does.
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.usefixtures("torchao")
def test_nested_torchao_tensors(tmp_path: Path) -> None:
    inner = Int8Tensor((4, 6), int_data=torch.zeros(4, 6), scale=torch.zeros(4))
    outer = Int8Tensor((4, 6), scale=torch.zeros(1), tensor_impl=inner, block_size=(1, 6))
    header = read_header(saved(tmp_path, {"weight": outer, "tied": outer}))
    assert names(header) == [
        f"_{name}_{attribute}"
        for name in ("weight", "tied")
        for attribute in ("scale", "int_data", "tensor_impl_scale")
    ]
    assert header.shared == tuple(
        (f"_tied_{attribute}", f"_weight_{attribute}")
        for attribute in ("scale", "int_data", "tensor_impl_scale")
    )
    with pytest.raises(FormatError, match="'_weight_scale' twice"):
        read_header(saved(tmp_path, {"weight": outer, "_weight_scale": torch.zeros(1)}))
    clash = Int8Tensor((4, 6), scale=torch.zeros(1), b_scale=torch.zeros(1), b=inner)
    with pytest.raises(FormatError, match="with two attributes 'b_scale'"):
        read_header(saved(tmp_path, {"weight": clash}))
    for attributes in (
        {f"a{n}": n for n in range(65)},
        {f"a{n}": torch.zeros(1) for n in range(16)},
    ):
        many = Int8Tensor((4, 6), **attributes)
        with pytest.raises(FormatError, match="with too many attributes"):
            read_header(saved(tmp_path, {"weight": many}))
    for _ in range(40):  # 2**40 ways to the innermost
        inner = Int8Tensor((4, 6), a=inner, b=inner)
    with pytest.raises(FormatError, match="with too many attributes"):
        read_header(saved(tmp_path, {"weight": inner}))


def test_the_meta_device_has_shapes_and_no_bytes(tmp_path: Path) -> None:
    value = {
        "a": torch.empty(3, 4, device="meta", dtype=torch.bfloat16),
        "b": torch.nn.Parameter(torch.empty(2**40, 2**20, device="meta")),
        "c": torch.ones(2),
    }
    header = read_header(saved(tmp_path, value))
    assert [(t.name, t.dtype, t.shape, t.nbytes, t.offset is None) for t in header.tensors] == [
        ("a", "bfloat16", (3, 4), 0, True),
        ("b", "float32", (2**40, 2**20), 0, True),
        ("c", "float32", (2,), 8, False),
    ]
    assert (header.data_bytes, header.shared) == (8, ())


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: str) -> dict[str, Any]:
    touch = f"__import__('pathlib').Path({marker!r}).touch()"
    return {
        "system": Calls(os.system, f"touch {marker}"),
        "mkdir": Calls(os.mkdir, marker),
        "eval": Calls(eval, touch),
        "exec": Calls(exec, touch),
        "path": Calls(Path.touch, Path(marker)),
        "getattr": Calls(getattr, "a", "upper"),
        "open": Calls(open, marker, "w"),
        "load": Calls(torch.load, marker),
        "import": Calls(__import__, "os"),
        "map": Calls(map, os.mkdir, [marker]),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", hostile(""))
def test_nothing_is_executed(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "executed"
    value = {"a": torch.ones(2), "b": hostile(str(marker))[name]}
    path = saved(tmp_path, value, pickle_protocol=protocol)
    with pytest.raises(FormatError, match="nothing was executed") as caught:
        read_header(path)
    assert str(caught.value).isprintable()
    assert not marker.exists()
    # The same file does run where it is unpickled.
    if name in ("system", "mkdir", "eval", "exec", "path"):
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_other_files_of_torch(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    path = saved(tmp_path, module)
    with pytest.raises(FormatError, match=r"whole module .*Linear.*save module.state_dict\(\)"):
        read_header(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="bare pickle"):
        read_header(path)


def test_a_big_endian_file(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(2)})
    path.write_bytes(torch_zip(b"}.") + b"")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/byteorder", "big")
    with pytest.raises(FormatError, match="big-endian"):
        read_header(path)


def tensor(
    offset: object = 0,
    shape: object = (2, 3),
    stride: object = (3, 1),
    key: str = "0",
    kind: str = "FloatStorage",
) -> bytes:
    """A pickle, by hand, of {"a": one tensor}."""

    def value(thing: object) -> bytes:
        if isinstance(thing, tuple):
            return b"(" + b"".join(map(value, thing)) + b"t"
        if isinstance(thing, str):
            return b"X" + struct.pack("<I", len(thing)) + thing.encode()
        return b"I%d\n" % thing if isinstance(thing, int) else b"N"

    storage = b"(" + value("storage") + b"ctorch\n%s\n" % kind.encode() + value(key)
    storage += value("cpu") + value(6) + b"tQ"
    arguments = storage + b"".join(map(value, (offset, shape, stride, 0, 0)))
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return b"\x80\x02}" + value("a") + rebuild + b"(" + arguments + b"tRs."


def subclass(
    cls: bytes = b"torchao.quantization\nInt8Tensor",
    shape: bytes = b"(I2\nI3\nt",
    state: bytes = b"}",
) -> bytes:
    """A pickle, by hand, of {"w": a tensor subclass}, which are not in it."""
    function = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_wrapper_subclass\n"
    arguments = b"c" + cls + b"\n" + b"(c" + cls + b"\nctorch\nfloat32\n" + shape + b"t"
    return b"\x80\x02}X\1\0\0\0w" + function + arguments + state + b"tRs."


def test_the_pickle_by_hand_is_right(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(tensor(), {"0": bytes(24)}))
    (read,) = read_header(path).tensors
    assert (read.name, read.dtype, read.shape, read.nbytes) == ("a", "float32", (2, 3), 24)


VALUE = tensor()[9:-2]  # the instructions that push the tensor alone


@pytest.mark.parametrize(
    ("pickled", "expected"),
    [
        (b"\x80\x02(X\1\0\0\0a" + VALUE + b"d.", ["a"]),
        (b"\x80\x02(" + VALUE + b"l.", ["0"]),
        (b"\x80\x02" + VALUE + b"2\x86.", ["0", "1"]),
        (b"\x80\x02(N1" + VALUE + b".", ["tensor"]),
        (b"\x80\x04cdecimal\nDecimal\n)}\x920" + VALUE + b".", ["tensor"]),
        (b"\x80\x02cdecimal\nDecimal\n)RNa0" + VALUE + b".", ["tensor"]),
        (b"\x80\x02cdecimal\nDecimal\n)RNNs0" + VALUE + b".", ["tensor"]),
    ],
    ids=["DICT", "LIST", "DUP", "POP_MARK", "NEWOBJ_EX", "APPEND", "SETITEM"],
)
def test_instructions_that_torch_seldom_writes(
    tmp_path: Path, pickled: bytes, expected: list[str]
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(pickled, {"0": bytes(24)}))
    assert names(read_header(path)) == expected


def test_a_tensor_with_attributes_of_its_own(tmp_path: Path) -> None:
    weight = torch.zeros(2, 3)
    weight.note = "kept by torch.save"  # type: ignore[attr-defined]
    (stored,) = read_header(saved(tmp_path, {"a": weight})).tensors
    assert (stored.name, stored.dtype, stored.shape) == ("a", "float32", (2, 3))


def deep(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def doubled(levels: int) -> bytes:
    """2**levels paths to one list."""
    return b"\x80\x02]q\0" + b"0h\0h\0\x86q\0" * levels + b"."


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (tensor(offset=1), "up to byte 28 of 24"),
        (tensor(stride=(4, 1)), "up to byte 28 of 24"),
        (tensor(stride=(2**62, 2**62)), "up to byte"),
        (tensor(offset=-1), "with strides"),
        (tensor(stride=(-1, 1)), "with strides"),
        (tensor(stride=(1,)), "with strides"),
        (tensor(shape=(2, -3)), "with shape"),
        (tensor(shape=(2**40, 2**40)), "with shape"),
        (tensor(shape=(1,) * 65, stride=(1,) * 65), "65 dimensions"),
        (tensor(shape=7), "without a shape"),
        (tensor(shape=(None,)), "with shape"),
        (tensor(key="1"), "no 'x/data/1' in it"),
        (tensor(key="../data.pkl"), "no 'x/data/../data.pkl' in it"),
        (tensor(kind="EvilStorage"), "the object 'torch.EvilStorage'"),
        (b"", "a broken pickle"),
        (b"\x80\x02}", "a broken pickle"),
        (b".", "a broken pickle"),
        (b"\x80\x02h\x07.", "a broken pickle"),
        (b"\x80\x02}(X\1\0\0\0au.", "a broken pickle"),
        (b"\x80\x02N}b}b.b", "tensors"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a broken pickle"),
        (b"\x80\x02B\xff\xff\xff\xff.", "a broken pickle"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"ios\nsystem\n.", "instruction"),
        (b"\x80\x02Pa\n.", "instruction PERSID"),
        (b"\x80\x02NR.", "a broken pickle"),
        (b"\x80\x02NNR.", "a broken pickle"),
        (b"\x80\x04NN\x93.", "a broken pickle"),
        (b"\x80\x02Nb.", "a broken pickle"),
        (b"\x80\x02\x85.", "a broken pickle"),
        (b"\x80\x02e.", "a broken pickle"),
        (b"\x80\x02}Na.", "a broken pickle"),
        (b"\x80\x02]NNs.", "a broken pickle"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n))tR.", "a broken pickle"),
        (tensor().replace(b"storage", b"strange"), "a broken pickle"),
        (b"\x80\x02](" + VALUE + b"q\0" + b"h\0" * 200_000 + b"e.", "over 200000 tensors"),
        (b"\x80\x02}(X\3\0\0\0\xed\xa0\x80" + VALUE + b"u.", "a name in valid Unicode"),
        (
            b"\x80\x02}(X\3\0\0\0a.b" + VALUE + b"X\1\0\0\0a}X\1\0\0\0b" + VALUE + b"su.",
            "tensor 'a.b' twice",
        ),
        (subclass(state=b"}I1\n" + VALUE + b"s"), "a tensor named 1"),
        (b"c" + b"a" * 5000 + b"\nb\n.", "the object 'aaa"),
        (b"ctorch\nfloat" + b"3" * 5000 + b"\n.", "the object 'torch.float33"),
        (subclass(), "no tensors"),
        (subclass(state=b"N"), "a broken pickle"),
        (subclass(shape=b"I7\n"), "without a shape"),
        (subclass(shape=b"(I-1\nt"), "with shape"),
        (subclass(cls=b"torch\nTensor"), "a broken pickle"),
        (subclass(cls=b"torchao.utils\nload"), "the object 'torchao.utils.load'"),
        (subclass(cls=b"torchao\nA-B"), "the object 'torchao.A-B'"),
        (subclass(cls=b"torchaos\nEvil"), "the object 'torchaos.Evil'"),
        (subclass(cls=b"torchao." + b"a" * 300 + b"\nA"), "the object 'torchao.aaa"),
        (subclass(cls=b"torch.distributed.tensor\nDTensor"), "the object 'torch.distributed"),
        (b"ctorch._utils\n_rebuild_wrapper_subclass\n)R.", "a broken pickle"),
        (b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(I1\n)I1\ntR.", "a broken pickle"),
        (b"cposix\nsystem\n.", "the object 'posix.system'"),
        (b"c__builtin__\neval\n.", "the object 'builtins.eval'"),
        (b"\x80\x02" + b"N" * 500_000 + b".", "over 400000 pickle instructions"),
        (deep(5000), "levels of nesting"),
    ],
)
def test_a_broken_pickle_is_one_clear_line(tmp_path: Path, pickled: bytes, message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(pickled, {"0": bytes(24)}))
    if message in ("tensors", "no tensors"):
        assert read_header(path).tensors == ()
        return
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_memo_index_reserves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(b"\x80\x02}r\xff\xff\xff\x7f."))
    assert read_header(path).tensors == ()


def test_shared_containers_are_visited_once(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(doubled(15)))
    assert read_header(path).tensors == ()
    path.write_bytes(torch_zip(tensor(shape=(2,)).replace(b"(I2\nt", doubled(60)[2:-1])))
    with pytest.raises(FormatError, match="with shape"):
        read_header(path)


def test_a_number_that_takes_long_to_print(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    number = b"\x8b" + struct.pack("<I", 10_000) + b"\x7f" * 10_000
    path.write_bytes(torch_zip(tensor(shape=(2,)).replace(b"(I2\nt", b"(" + number + b"t")))
    with pytest.raises(FormatError, match="with shape"):
        read_header(path)


def test_a_long_text_beside_the_model(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(2), "log": "x" * 5_000_000})
    assert names(read_header(path)) == ["a"]


def test_a_list_that_contains_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(b"\x80\x02]q\0h\0a."))
    assert read_header(path).tensors == ()


def test_zips_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"

    def refused(raw: bytes, message: str) -> None:
        path.write_bytes(raw)
        with pytest.raises(FormatError, match=message) as caught:
            read_header(path)
        assert str(caught.value).isprintable()

    whole = torch_zip(tensor(), {"0": bytes(24)})
    refused(b"", "no zip")
    refused(b"PK\3\4", "a broken zip")
    refused(whole[: len(whole) // 2], "a broken zip")
    refused(whole.replace(b"x/data.pkl", b"x/date.pkl"), "without data.pkl")
    # The directory points into nowhere, or at the wrong entry.
    position = whole.rindex(b"x/data/0") - 4
    refused(
        whole[:position] + struct.pack("<I", 10**6) + whole[position + 4 :], "not where the zip"
    )
    # Sizes that are not those of the data.
    sizes = struct.pack("<II", 24, 24)
    refused(whole.replace(sizes, struct.pack("<II", 10**6, 10**6)), "past the end")
    refused(whole.replace(sizes, struct.pack("<II", 24, 48)), "of two sizes")
    # Encrypted, twice, a bomb.
    at = whole.rindex(b"PK\1\2")
    refused(whole[: at + 8] + b"\1" + whole[at + 9 :], "not where the zip says")
    twice = torch_zip(tensor(), {"0": bytes(24), "1": bytes(24)})
    refused(twice.replace(b"x/data/1", b"x/data/0"), "occurs twice")
    refused(torch_zip(bytes(16_000_001), compression=8), "'x/data.pkl' of 16000001 bytes")
    refused(torch_zip(b"}.", compression=14), "compression 14")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MAX_DIRECTORY_BYTES // 60_000 + 1):
            info = zipfile.ZipInfo(str(number))
            info.comment = bytes(60_000)
            archive.writestr(info, b"")
    refused(path.read_bytes(), "a zip directory of")


def test_deflated_storages_have_no_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(tensor(), {"0": bytes(24)}, compression=8))
    (read,) = read_header(path).tensors
    assert (read.offset, read.nbytes) == (None, 24)
    raw = path.read_bytes().replace(struct.pack("<I", 24), struct.pack("<I", 10**9))
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="zip bomb"):
        read_header(path)


def test_storages_that_share_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    two = tensor()[:-1] + tensor(key="1")[3:].replace(b"\1\0\0\0a", b"\1\0\0\0b", 1)
    whole = torch_zip(two, {"0": bytes(24), "1": bytes(24)})
    path.write_bytes(whole)
    assert names(read_header(path)) == ["a", "b"]
    first, second = (whole.rindex(b"x/data/" + key) for key in (b"0", b"1"))
    path.write_bytes(whole[: second - 4] + whole[first - 4 : first] + whole[second:])
    with pytest.raises(FormatError, match="overlap"):
        read_header(path)
