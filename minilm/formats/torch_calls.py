"""The functions and classes that torch.save names in a pickle, and what each call stands for.

They are recognised by their names; none is imported or called.
"""

from __future__ import annotations

import re
from typing import Any

from minilm.formats.torch_objects import (
    GlobalName,
    OpaqueObject,
    PickledSubclass,
    PickledTensor,
    ScriptObject,
    Storage,
)

# torch's storage classes; with UntypedStorage the dtype is an argument of the tensor.
STORAGE_DTYPES: dict[str, str] = {
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


def is_known(name: str) -> bool:
    """Whether a pickle may name this function or class, by its full name."""
    module, _, last = name.rpartition(".")
    is_storage = last in STORAGE_DTYPES and module in ("torch", "torch.storage", "torch.cuda")
    is_allowed = name in _CALLABLE or is_storage or _is_torch_constant(module, last)
    return is_allowed or bool(_TORCHAO.fullmatch(name) or _SCRIPT_OBJECT.fullmatch(name))


def call_result(function: Any, arguments: Any) -> Any:
    """What a call stands for, of what `is_known` has passed.

    Raises TypeError, ValueError or LookupError for a call that torch.save does not write.
    """
    if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
        raise TypeError
    name = function.text
    if name in _TENSOR_FUNCTIONS:
        return _tensor(name, arguments)
    if name in _PARAMETER_FUNCTIONS or name == _RESTORE_TYPE:
        return arguments[0]
    if _SCRIPT_OBJECT.fullmatch(name):
        return ScriptObject(name)
    if name == _REBUILD_FROM_TYPE:
        function, _, inner, state = arguments
        if isinstance(function, GlobalName) and function.text == _REBUILD_SUBCLASS:
            return _subclass(inner, state)
        return call_result(function, inner)
    if name == _REBUILD_META:
        dtype, shape, stride = arguments[:3]
        return PickledTensor(None, _dtype(dtype), 0, shape, stride)
    if name == _REBUILD_SUBCLASS:
        raise TypeError  # its tensors are in the state that only the call above has
    if name in _DICTS:
        return {}
    # Copies would multiply the size of a container that is referenced repeatedly.
    if name in _LISTS:
        return arguments[0] if arguments and isinstance(arguments[0], list) else []
    if name in _TUPLES:
        return arguments[0] if arguments and isinstance(arguments[0], tuple) else ()
    return OpaqueObject(name)


# Classes of plain data that checkpoints hold next to their tensors; their objects are skipped.
_DATA_CLASSES = {
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

# Calls that make a container: an empty one, filled by later instructions, or one from an argument.
_DICTS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "builtins.dict",
}
_LISTS = {
    "builtins.list",
    "builtins.set",
    "collections.deque",
    # TorchScript's typed lists.
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
}
_TUPLES = {"torch.Size", "builtins.tuple"}

# torch's functions that rebuild a tensor.
_TENSOR_FUNCTIONS = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_qtensor",
}
_PARAMETER_FUNCTIONS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}
_REBUILD_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_REBUILD_SUBCLASS = "torch._utils._rebuild_wrapper_subclass"
_RESTORE_TYPE = "torch.jit._pickle.restore_type_tag"
_REBUILD_META = "torch._utils._rebuild_meta_tensor_no_storage"

_CALLABLE = (
    _DATA_CLASSES
    | _DICTS
    | _LISTS
    | _TUPLES
    | _TENSOR_FUNCTIONS
    | _PARAMETER_FUNCTIONS
    | {_REBUILD_FROM_TYPE, _REBUILD_SUBCLASS, _REBUILD_META, _RESTORE_TYPE}
)

# torchao's classes: tensors, and the settings and enums among their attributes.
_TORCHAO = re.compile(r"torchao(\.\w+)*\.[A-Z]\w*", re.ASCII)

# TorchScript's classes, and torch's class for objects of one that a state dict holds.
_SCRIPT_OBJECT = re.compile(r"__torch__(\.\w+)+|torch\.ScriptObject", re.ASCII)


def _is_torch_constant(module: str, name: str) -> bool:
    """Whether it is one of torch's dtypes or quantization schemes."""
    prefixes = ("float", "bfloat", "int", "uint", "complex", "bool", "qint", "quint", "per_")
    return module == "torch" and name.startswith(prefixes)


def _tensor(name: str, arguments: tuple[Any, ...]) -> PickledTensor:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _dtype(arguments[6])
    return PickledTensor(storage, dtype, offset, shape, stride)


def _subclass(arguments: tuple[Any, ...], state: Any) -> PickledSubclass:
    """From torch's arguments to rebuild it, (class, dtype, shape, ...), and its attributes."""
    cls, _, shape = arguments[:3]
    if (
        not isinstance(cls, GlobalName)
        or not _TORCHAO.fullmatch(cls.text)
        or not isinstance(state, dict)
    ):
        raise TypeError
    return PickledSubclass(cls.text.rpartition(".")[2], shape, state)


def _dtype(name: Any) -> str:
    if not isinstance(name, GlobalName):
        raise TypeError
    return name.text.removeprefix("torch.")
