"""The tensors within the contents of a torch.save checkpoint, by their names.

torchao's tensors are flattened as in its own safetensors files (torchao 0.18
`prototype/safetensors/safetensors_support.py`, `flatten_tensor_state_dict`): `X.weight` becomes
`X._weight_qdata`, `X._weight_scale`, ..., and the metadata describes `X.weight`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minilm.errors import FormatError
from minilm.formats.checks import check_name, check_shape
from minilm.formats.header import wrapper_prefix
from minilm.formats.torch_objects import GlobalName, PickledSubclass, PickledTensor
from minilm.safe_text import short_repr

MAX_NESTING = 20
MAX_TENSORS = 200_000
# Of all names together: a key of a container is written once, and is in every name below it.
MAX_NAMES_LENGTH = 16_000_000

# Attributes of a torchao tensor, and the inner tensors among them; real ones have up to 20 and 6.
MAX_ATTRIBUTES = 64
MAX_INNER_TENSORS = 16

# How torch.ao's quantized modules name what they pack: weight and bias, or a weight alone.
PACKED_NAMES = ("_packed_params._packed_params", "_packed_params._packed_weight")

StateDict = dict[str, PickledTensor]
Value = PickledTensor | PickledSubclass
Named = TypeVar("Named")


@dataclass(frozen=True)
class NamedTensors:
    """Tensors by name without the ``prefix`` of wrappers, and metadata about some of them."""

    tensors: StateDict
    prefix: str
    metadata: dict[str, str]


def name_tensors(path: Path, content: Any) -> NamedTensors:
    """The tensors of ``content`` by name. Raises FormatError."""
    values = _unique(path, _walk_values(path, content, "", 0, set()))
    prefix = wrapper_prefix(values)
    metadata: dict[str, str] = {}
    plain_tensors = (
        named
        for name, value in values.items()
        for named in _plain_tensors(path, name[len(prefix) :], value, metadata)
    )
    return NamedTensors(_unique(path, plain_tensors), prefix, metadata)


def _unique(path: Path, pairs: Iterable[tuple[str, Named]]) -> dict[str, Named]:
    """The pairs as a dict. Raises FormatError for a name twice, and for more than a model has."""
    unique: dict[str, Named] = {}
    length = 0
    for name, value in pairs:
        length += len(name)
        if check_name(path, name) in unique:
            raise FormatError(path, f"tensor {short_repr(name)} twice", "each name once")
        if len(unique) == MAX_TENSORS:
            raise FormatError(path, f"over {MAX_TENSORS} tensors", "fewer")
        if length > MAX_NAMES_LENGTH:
            got = f"names of over {MAX_NAMES_LENGTH} characters together"
            raise FormatError(path, got, "shorter ones")
        unique[name] = value
    return unique


def _walk_values(
    path: Path, value: Any, name: str, depth: int, visited: set[int]
) -> Iterator[tuple[str, Value]]:
    """Every tensor with its dotted path; each container is visited once."""
    if isinstance(value, Value):
        owner = _owner_of_packed(name)
        yield (name or "tensor" if owner is None else _join(owner, "weight")), value
    elif isinstance(value, (dict, list, tuple)) and id(value) not in visited:
        visited.add(id(value))
        if depth == MAX_NESTING:
            raise FormatError(path, f"over {depth} levels of nesting", "fewer")
        items: Iterable[tuple[Any, Any]]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        owner = _owner_of_packed(name)
        if owner is not None and isinstance(value, tuple) and len(value) == 2:
            name, items = owner, zip(("weight", "bias"), value, strict=True)
        for key, inner in items:
            if isinstance(key, (str, int)) and isinstance(inner, (dict, list, tuple, Value)):
                key_name = check_name(path, str(key))
                inner_name = check_name(path, _join(name, key_name))
                yield from _walk_values(path, inner, inner_name, depth + 1, visited)


def _owner_of_packed(name: str) -> str | None:
    """The module whose packed tensors have this name, empty for the outermost; None for another name."""
    for ending in PACKED_NAMES:
        if name == ending or name.endswith(f".{ending}"):
            return name[: -len(ending)].removesuffix(".")
    return None


def _join(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _plain_tensors(
    path: Path, name: str, value: Value, metadata: dict[str, str]
) -> Iterator[tuple[str, PickledTensor]]:
    """A plain tensor as it is; the inner tensors of a torchao tensor, described in ``metadata``."""
    if isinstance(value, PickledTensor):
        yield name, value
        return
    if not isinstance(value.shape, (tuple, list)):
        raise FormatError(path, f"tensor {short_repr(name)} without a shape", "a shape")
    inner_tensors = _inner_tensors(path, name, value)
    data: dict[str, Any] = {"shape": check_shape(path, name, value.shape)}
    target = value.state.get("target_dtype")
    if isinstance(target, GlobalName):
        data["target_dtype"] = {"_type": "torch.dtype", "_data": target.text.removeprefix("torch.")}
    metadata[name] = json.dumps(
        {"_type": value.class_name, "_data": data, "_tensor_data_names": list(inner_tensors)}
    )
    module, dot, parameter = name.rpartition(".")
    for attribute, tensor in inner_tensors.items():
        yield f"{module}{dot}_{parameter}_{attribute}", tensor


def _inner_tensors(path: Path, name: str, value: PickledSubclass) -> StateDict:
    """The tensors among the attributes; older versions of torchao nest subclasses.

    A nested tensor is named by its attribute; where that name exists, by both attributes.
    """
    inner_tensors: StateDict = {}
    subclasses = [("", value)]
    for outer_attribute, subclass in subclasses:
        tensors = [
            (key, inner) for key, inner in subclass.state.items() if isinstance(inner, Value)
        ]
        total = len(subclasses) + len(inner_tensors) + len(tensors)
        if len(subclass.state) > MAX_ATTRIBUTES or total > MAX_INNER_TENSORS:
            got = f"tensor {short_repr(name)} with too many attributes"
            raise FormatError(path, got, "a tensor of torchao")
        for key, inner in tensors:
            attribute = check_name(path, key)
            if isinstance(inner, PickledSubclass):
                subclasses.append((attribute, inner))
                continue
            if attribute in inner_tensors:
                attribute = f"{outer_attribute}_{attribute}"
            if attribute in inner_tensors:
                got = f"tensor {short_repr(name)} with two attributes {short_repr(attribute)}"
                raise FormatError(path, got, "each name once")
            inner_tensors[attribute] = inner
    return inner_tensors
