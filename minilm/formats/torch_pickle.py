"""A pickle of torch.save read without unpickling: tensors become descriptions, nothing is called.

The standard library's pickletools decodes the instructions; the stack machine here follows them
(https://github.com/python/cpython/blob/main/Lib/pickletools.py tells what each does) on dicts, lists,
tuples and plain values only. There is no code in here that imports a name or calls an object from the
file: a name stays a name, and the calls that torch.save writes are recognized by it.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.safe_text import short_repr

# A tensor takes some 35 instructions and 200 bytes.
MAX_PICKLE_BYTES = 16_000_000
MAX_INSTRUCTIONS = 400_000
MAX_NAME_LENGTH = 256

# Names of storage classes; the others carry their dtype apart.
STORAGES: dict[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "UntypedStorage": "",
}


@dataclass(frozen=True)
class Storage:
    """A stretch of numbers kept beside the pickle under ``key``; ``dtype`` is empty where it is bytes."""

    key: str
    dtype: str


@dataclass(frozen=True, repr=False)
class PickledTensor:
    """A view of a storage, unchecked: offset, shape and stride are what the file says.

    They may be structures that share parts again and again, so no part of this is ever spelled out.
    ``storage`` is None on the meta device, which has shapes and no numbers.
    """

    storage: Storage | None
    dtype: str
    offset: object
    shape: object
    stride: object


@dataclass(frozen=True, repr=False)
class PickledSubclass:
    """A tensor of torchao: ``shape`` is what it stands for, ``state`` its attributes, tensors among them.

    As unchecked as a PickledTensor.
    """

    kind: str
    shape: object
    state: dict[Any, Any]


@dataclass(frozen=True)
class Name:
    """A function or class by its full name."""

    text: str


@dataclass(frozen=True)
class Foreign:
    """Where an object stood that is no tensor, number, text or container."""

    name: str


def read_pickle(path: Path, raw: bytes) -> Any:
    """What ``raw`` describes: dicts, lists, tuples, plain values, tensors. Raises FormatError."""
    machine = _Machine(path)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(raw))):
            if count >= MAX_INSTRUCTIONS:
                raise FormatError(path, f"over {MAX_INSTRUCTIONS} pickle instructions", "fewer")
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except FormatError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, Warning) as error:
        # A Warning (about an escape in a text) where the interpreter makes errors of them.
        got = f"a broken pickle ({type(error).__name__})"
        raise FormatError(path, got, "a file that torch.save wrote") from None


# Classes that checkpoints hold beside their tensors; an object of them is data, and is left out.
_HARMLESS = {
    "argparse.Namespace",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "decimal.Decimal",
    "fractions.Fraction",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib.PureWindowsPath",
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "types.SimpleNamespace",
    "uuid.UUID",
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.object",
    "builtins.range",
    "builtins.slice",
    "builtins.str",
}

# What is called to make a container: an empty one, filled by later instructions, or of one argument.
_DICTS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "builtins.dict",
}
_LISTS = {"builtins.list", "builtins.set", "collections.deque"}
_TUPLES = {"torch.Size", "builtins.tuple"}

# torch.save's own calls: the arguments of each that make a tensor are told apart in `_tensor`.
_VIEWS = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_qtensor",
}
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_SUBCLASS = "torch._utils._rebuild_wrapper_subclass"
_META = "torch._utils._rebuild_meta_tensor_no_storage"

_CALLABLE = (
    _HARMLESS | _DICTS | _LISTS | _TUPLES | _VIEWS | _WRAPPERS | {_FROM_TYPE, _SUBCLASS, _META}
)

# Classes of torchao: those of its tensors, and of the settings and enums among their attributes.
_TORCHAO = re.compile(r"torchao(\.\w+)*\.[A-Z]\w*", re.ASCII)

# Python 2 named it otherwise, and protocol 2 still writes it so.
_BUILTINS = ("__builtin__.", "builtins.")

_MARK = object()


class _Machine:
    """The stack, the memo, and one method an instruction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Follow one instruction."""
        if instruction in _PLAIN:
            is_long = isinstance(argument, int) and argument.bit_length() > 64
            self.stack.append(Foreign("int") if is_long else argument)
        elif instruction in _CONSTANTS:
            make = _CONSTANTS[instruction]
            self.stack.append(make())
        elif instruction in _PUT:
            self.memo[argument] = self.stack[-1]
        elif instruction in _GET:
            self.stack.append(self.memo[argument])
        elif instruction not in _IGNORED:
            method = _METHODS.get(instruction)
            if method is None:
                raise FormatError(
                    self.path, f"the pickle instruction {instruction}", "what torch.save writes"
                )
            method(self, argument)

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._marked()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def tuple_of_mark(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def list_of_mark(self, _: Any) -> None:
        self.stack.append(self._marked())

    def dict_of_mark(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))

    def tuple_of_1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self._top(1))]

    def tuple_of_2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self._top(2))]

    def tuple_of_3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self._top(3))]

    def append(self, _: Any) -> None:
        self._add_items([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self._add_items(self._marked())

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._marked())

    def name(self, argument: str) -> None:
        self._push_name(".".join(argument.split(" ", 1)))

    def name_from_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self._push_name(f"{module}.{name}")

    def persistent(self, _: Any) -> None:
        """torch.save's only persistent objects are ("storage", class, key, location, elements)."""
        kind, storage_type, key, *_ = self.stack.pop()
        class_name = storage_type.text.rpartition(".")[2]
        if kind != "storage" or not isinstance(key, str) or len(key) > MAX_NAME_LENGTH:
            raise ValueError
        self.stack.append(Storage(key, STORAGES[class_name]))

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._called(function, arguments))

    def new_object(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(self._called(cls, arguments))

    def new_object_with_names(self, _: Any) -> None:
        self.stack.pop()
        self.new_object(None)

    def build(self, _: Any) -> None:
        """The state of an object: left out, as the object is."""
        self.stack.pop()
        if not self.stack:
            raise IndexError

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        return self.stack[-count:]

    def _marked(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError

    def _add_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], Foreign):
            raise TypeError

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Foreign):
            raise TypeError

    def _push_name(self, name: str) -> None:
        if name.startswith(_BUILTINS[0]):
            name = _BUILTINS[1] + name.removeprefix(_BUILTINS[0])
        module, _, last = name.rpartition(".")
        is_storage = last in STORAGES and module in ("torch", "torch.storage", "torch.cuda")
        known = name in _CALLABLE or is_storage or _is_value(module, last)
        if len(name) > MAX_NAME_LENGTH or not (known or _TORCHAO.fullmatch(name)):
            raise self._refused(name)
        self.stack.append(Name(name))

    def _refused(self, name: str) -> FormatError:
        if name.startswith("torch.nn.modules."):
            got, remedy = f"a whole module ({short_repr(name)[1:-1]})", "save module.state_dict()"
        else:
            got, remedy = f"the object {short_repr(name)}", "save a state dict of tensors"
        return FormatError(
            self.path, got, "tensors and plain values", f"{remedy}; nothing was executed"
        )

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError
        name = function.text
        if name in _VIEWS:
            return _tensor(name, arguments)
        if name in _WRAPPERS:
            return arguments[0]
        if name == _FROM_TYPE:
            function, _, inner, state = arguments
            if isinstance(function, Name) and function.text == _SUBCLASS:
                return _subclass(inner, state)
            return self._called(function, inner)
        if name == _META:
            dtype, shape, stride = arguments[:3]
            return PickledTensor(None, _dtype(dtype), 0, shape, stride)
        if name == _SUBCLASS:
            raise TypeError  # without the state that has its tensors
        if name in _DICTS:
            return {}
        # Nothing is copied: what is large once would otherwise be large as often as it is named.
        if name in _LISTS:
            return arguments[0] if arguments and isinstance(arguments[0], list) else []
        if name in _TUPLES:
            return arguments[0] if arguments and isinstance(arguments[0], tuple) else ()
        return Foreign(name)


def _is_value(module: str, name: str) -> bool:
    """Names that stand for themselves: torch's dtypes and quantization schemes."""
    kinds = ("float", "bfloat", "int", "uint", "complex", "bool", "qint", "quint", "per_")
    return module == "torch" and name.startswith(kinds)


def _tensor(name: str, arguments: tuple[Any, ...]) -> PickledTensor:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _dtype(arguments[6])
    return PickledTensor(storage, dtype, offset, shape, stride)


def _subclass(arguments: tuple[Any, ...], state: Any) -> PickledSubclass:
    """By what torch rebuilds it of, (class, dtype, shape, ...), and by its attributes."""
    cls, _, shape = arguments[:3]
    if not isinstance(cls, Name) or not _TORCHAO.fullmatch(cls.text) or not isinstance(state, dict):
        raise TypeError
    return PickledSubclass(cls.text.rpartition(".")[2], shape, state)


def _dtype(name: Any) -> str:
    if not isinstance(name, Name):
        raise TypeError
    return name.text.removeprefix("torch.")


def _key(key: Any) -> Any:
    """A key of a dict: plain values as they are; what cannot be a tensor's name is one of its kind."""
    return key if isinstance(key, (str, int)) else (type(key).__name__, id(key))


_PLAIN = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}
_METHODS: dict[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": _Machine.memoize,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_of_mark,
    "TUPLE1": _Machine.tuple_of_1,
    "TUPLE2": _Machine.tuple_of_2,
    "TUPLE3": _Machine.tuple_of_3,
    "LIST": _Machine.list_of_mark,
    "FROZENSET": _Machine.list_of_mark,
    "DICT": _Machine.dict_of_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_with_names,
    "BUILD": _Machine.build,
}
