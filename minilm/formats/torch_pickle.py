"""Reads a pickle of torch.save without unpickling: tensors become descriptions, nothing is called.

The standard library's pickletools decodes the instructions
(https://github.com/python/cpython/blob/main/Lib/pickletools.py documents each); the stack machine here
executes them on dicts, lists, tuples and plain values only. Nothing named in the file is imported or
called: torch_calls.py has what the calls of torch.save stand for.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.torch_calls import STORAGE_DTYPES, call_result, is_known
from minilm.formats.torch_objects import GlobalName, OpaqueObject, ScriptObject, Storage
from minilm.safe_text import short_repr

# A tensor takes some 35 instructions and 200 bytes.
MAX_PICKLE_BYTES = 16_000_000
MAX_INSTRUCTIONS = 400_000
MAX_NAME_LENGTH = 256


def read_pickle(path: Path, raw: bytes) -> Any:
    """The contents of ``raw``: dicts, lists, tuples, plain values, tensors. Raises FormatError."""
    return read_next_pickle(path, io.BytesIO(raw))[0]


def read_next_pickle(path: Path, stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The contents of the pickle at the position of ``stream``, and every storage in it by its key.

    The stream is left behind the pickle. Raises FormatError.
    """
    reader = _PickleReader(path)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_INSTRUCTIONS:
                raise FormatError(path, f"over {MAX_INSTRUCTIONS} pickle instructions", "fewer")
            reader.step(instruction.name, argument)
        return reader.stack.pop(), reader.storages
    except FormatError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, Warning) as error:
        # A Warning (about an escape in a string) if the interpreter turns warnings into errors.
        got = f"a broken pickle ({type(error).__name__})"
        raise FormatError(path, got, "a file that torch.save wrote") from None


# Python 2's name of the module builtins, which protocol 2 still writes.
_PYTHON_2_BUILTINS = "__builtin__."

_MARK = object()


class _PickleReader:
    """The pickle machine: a stack, a memo, and a method for each instruction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.attributes_left = MAX_INSTRUCTIONS  # one state may be that of many objects

    def step(self, instruction: str, argument: Any) -> None:
        """Execute one instruction."""
        if instruction in _LITERALS:
            is_long = isinstance(argument, int) and argument.bit_length() > 64
            self.stack.append(OpaqueObject("int") if is_long else argument)
        elif instruction in _CONSTANTS:
            make = _CONSTANTS[instruction]
            self.stack.append(make())
        elif instruction in _PUT:
            self.memo[argument] = self.stack[-1]
        elif instruction in _GET:
            self.stack.append(self.memo[argument])
        elif instruction not in _IGNORED:
            method = _INSTRUCTIONS.get(instruction)
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
        self._pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def tuple_of_mark(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def list_of_mark(self, _: Any) -> None:
        self.stack.append(self._pop_to_mark())

    def dict_of_mark(self, _: Any) -> None:
        items = self._pop_to_mark()
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
        self._add_items(self._pop_to_mark())

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._pop_to_mark())

    def global_name(self, argument: str) -> None:
        self._push_name(".".join(argument.split(" ", 1)))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self._push_name(f"{module}.{name}")

    def persistent(self, _: Any) -> None:
        """torch.save's only persistent objects are ("storage", class, key, location, elements).

        Before torch 1.6 there was a sixth item, None but for a view of another storage.
        """
        reference = self.stack.pop()
        if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6:
            raise TypeError
        tag, storage_class, key = reference[:3]
        class_name = storage_class.text.rpartition(".")[2]
        if tag != "storage" or not isinstance(key, str) or len(key) > MAX_NAME_LENGTH:
            raise ValueError
        if reference[5:] not in ((), (None,)):
            raise ValueError
        storage = Storage(key, STORAGE_DTYPES[class_name])
        self.storages.setdefault(key, storage)
        self.stack.append(storage)

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(call_result(function, arguments))

    def new_object(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(call_result(cls, arguments))

    def new_object_with_names(self, _: Any) -> None:
        self.stack.pop()
        self.new_object(None)

    def build(self, _: Any) -> None:
        """The state of an object of TorchScript; that of any other is skipped, as the object is."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, ScriptObject):
            attributes = state if isinstance(state, dict) else {"state": state}
            self.attributes_left -= len(attributes)
            if self.attributes_left < 0:
                raise FormatError(self.path, f"over {MAX_INSTRUCTIONS} attributes", "fewer")
            target.update(attributes)

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        return self.stack[-count:]

    def _pop_to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError

    def _add_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], OpaqueObject):
            raise TypeError

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, OpaqueObject):
            raise TypeError

    def _push_name(self, name: str) -> None:
        if name.startswith(_PYTHON_2_BUILTINS):
            name = "builtins." + name.removeprefix(_PYTHON_2_BUILTINS)
        if len(name) > MAX_NAME_LENGTH or not is_known(name):
            raise self._refusal(name)
        self.stack.append(GlobalName(name))

    def _refusal(self, name: str) -> FormatError:
        if name.startswith("torch.nn.modules."):
            got, remedy = f"a whole module ({short_repr(name)[1:-1]})", "save module.state_dict()"
        else:
            got, remedy = f"the object {short_repr(name)}", "save a state dict of tensors"
        return FormatError(
            self.path, got, "tensors and plain values", f"{remedy}; nothing was executed"
        )


def _key(key: Any) -> Any:
    """A key of a dict: a string or number as it is; any other object as a unique hashable value."""
    return key if isinstance(key, (str, int)) else (type(key).__name__, id(key))


_LITERALS = frozenset(
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
_INSTRUCTIONS: dict[str, Callable[[_PickleReader, Any], None]] = {
    "MEMOIZE": _PickleReader.memoize,
    "POP": _PickleReader.pop,
    "POP_MARK": _PickleReader.pop_mark,
    "DUP": _PickleReader.duplicate,
    "MARK": _PickleReader.mark,
    "TUPLE": _PickleReader.tuple_of_mark,
    "TUPLE1": _PickleReader.tuple_of_1,
    "TUPLE2": _PickleReader.tuple_of_2,
    "TUPLE3": _PickleReader.tuple_of_3,
    "LIST": _PickleReader.list_of_mark,
    "FROZENSET": _PickleReader.list_of_mark,
    "DICT": _PickleReader.dict_of_mark,
    "APPEND": _PickleReader.append,
    "APPENDS": _PickleReader.appends,
    "ADDITEMS": _PickleReader.appends,
    "SETITEM": _PickleReader.set_item,
    "SETITEMS": _PickleReader.set_items,
    "GLOBAL": _PickleReader.global_name,
    "STACK_GLOBAL": _PickleReader.stack_global,
    "BINPERSID": _PickleReader.persistent,
    "REDUCE": _PickleReader.call,
    "NEWOBJ": _PickleReader.new_object,
    "NEWOBJ_EX": _PickleReader.new_object_with_names,
    "BUILD": _PickleReader.build,
}
