"""What a torch.save checkpoint holds, once read: which part of it is the model, and its tensors' names.

Tensors of torchao are taken apart as its own safetensors files have them (torchao 0.18
`prototype/safetensors/safetensors_support.py`, `flatten_tensor_state_dict`): `X.weight` becomes
`X._weight_qdata`, `X._weight_scale`, ..., and the metadata describes `X.weight`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.checks import check_name, check_shape
from minilm.formats.torch_pickle import Name, PickledSubclass, PickledTensor
from minilm.safe_text import short_repr

MAX_NESTING = 20
MAX_TENSORS = 200_000

# Attributes of a tensor of torchao, and how many of all are tensors; the real ones have up to 20 and 6.
MAX_ATTRIBUTES = 64
MAX_INNER_TENSORS = 16

# Where training scripts keep the model among the rest: the optimizer's state is no parameter.
MODEL_KEYS = ("state_dict", "model", "model_state_dict", "module")

# What torch.compile and DistributedDataParallel put before every name.
WRAPPERS = ("_orig_mod.", "module.")

# The metadata's key for what is not counted, and how many parts that line names.
LEFT_OUT = "minilm.left_out"
MAX_LISTED = 8

Tensors = dict[str, PickledTensor]
Value = PickledTensor | PickledSubclass


def model_of(path: Path, content: Any) -> tuple[Tensors, dict[str, str]]:
    """The model's tensors by name, and what is to be known of them. Raises FormatError.

    The model is its state dict where one is told apart, else all there is.
    """
    metadata: dict[str, str] = {}
    if isinstance(content, dict):
        models = [key for key in MODEL_KEYS if _holds_tensors(content.get(key))]
        if len(models) == 1:
            line = _left_out(content, models[0])
            metadata |= {LEFT_OUT: line} if line else {}
            content = content[models[0]]
    named: Tensors = {}
    for whole, value in _without_wrappers(_named(path, content)).items():
        for name, tensor in _parts(path, whole, value, metadata):
            if check_name(path, name) in named:
                raise FormatError(path, f"tensor {short_repr(name)} twice", "each name once")
            named[name] = tensor
        if len(named) > MAX_TENSORS:
            raise FormatError(path, f"over {MAX_TENSORS} tensors", "fewer")
    return named, metadata


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Value) for v in value.values())


def _named(path: Path, content: Any) -> dict[str, Value]:
    named: dict[str, Value] = {}
    for name, value in _walk(path, content, "", 0, set()):
        if name in named:
            raise FormatError(path, f"tensor {short_repr(name)} twice", "each name once")
        named[name] = value
    return named


def _walk(
    path: Path, value: Any, name: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, Value]]:
    """Every tensor with its dotted path; a container that is reached twice is entered once."""
    if isinstance(value, Value):
        yield name or "tensor", value
    elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
        seen.add(id(value))
        if depth == MAX_NESTING:
            raise FormatError(path, f"over {depth} levels of nesting", "fewer")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            if isinstance(key, (str, int)) and isinstance(inner, (dict, list, tuple, Value)):
                part = check_name(path, str(key))
                inner_name = check_name(path, f"{name}.{part}" if name else part)
                yield from _walk(path, inner, inner_name, depth + 1, seen)


def _without_wrappers(named: dict[str, Value]) -> dict[str, Value]:
    for prefix in WRAPPERS:
        if named and all(len(n) > len(prefix) and n.startswith(prefix) for n in named):
            named = {name.removeprefix(prefix): value for name, value in named.items()}
    return named


def _parts(
    path: Path, name: str, value: Value, metadata: dict[str, str]
) -> Iterator[tuple[str, PickledTensor]]:
    """A tensor as it is; one of torchao in its parts, described in ``metadata``."""
    if isinstance(value, PickledTensor):
        yield name, value
        return
    if not isinstance(value.shape, (tuple, list)):
        raise FormatError(path, f"tensor {short_repr(name)} without a shape", "a shape")
    parts = _inner_tensors(path, name, value)
    data: dict[str, Any] = {"shape": check_shape(path, name, value.shape)}
    target = value.state.get("target_dtype")
    if isinstance(target, Name):
        data["target_dtype"] = {"_type": "torch.dtype", "_data": target.text.removeprefix("torch.")}
    metadata[name] = json.dumps(
        {"_type": value.kind, "_data": data, "_tensor_data_names": list(parts)}
    )
    module, dot, parameter = name.rpartition(".")
    for attribute, tensor in parts.items():
        yield f"{module}{dot}_{parameter}_{attribute}", tensor


def _inner_tensors(path: Path, name: str, value: PickledSubclass) -> Tensors:
    """The tensors among the attributes, and those of a tensor within it, as torchao once wrote them.

    An inner attribute keeps its name where that is free, else it takes its holder's before it.
    """
    parts: Tensors = {}
    within = [("", value)]
    for holder, subclass in within:
        if len(subclass.state) > MAX_ATTRIBUTES:
            raise FormatError(
                path, f"tensor {short_repr(name)} of many parts", "what torchao wrote"
            )
        tensors = [
            (key, inner) for key, inner in subclass.state.items() if isinstance(inner, Value)
        ]
        if len(within) + len(parts) + len(tensors) > MAX_INNER_TENSORS:
            raise FormatError(
                path, f"tensor {short_repr(name)} of many parts", "what torchao wrote"
            )
        for key, inner in tensors:
            attribute = check_name(path, key)
            if isinstance(inner, PickledSubclass):
                within.append((attribute, inner))
                continue
            attribute = f"{holder}_{attribute}" if attribute in parts else attribute
            if attribute in parts:
                got = f"tensor {short_repr(name)} with two parts {short_repr(attribute)}"
                raise FormatError(path, got, "each name once")
            parts[attribute] = inner
    return parts


def _left_out(content: dict[Any, Any], model: str) -> str:
    """One line of what holds tensors beside the model; empty where nothing does."""
    seen = {id(content), id(content[model])}
    parts = []
    for key, value in content.items():
        count = _count_tensors(value, seen) if key != model else 0
        if count:
            parts.append(f"{short_repr(key)} ({count} tensor{'s' if count > 1 else ''})")
    if not parts:
        return ""
    more = len(parts) - MAX_LISTED
    listed = ", ".join(parts[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"read {short_repr(model)}; left out {listed}"


def _count_tensors(value: Any, seen: set[int]) -> int:
    count, waiting = 0, [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Value):
            count += 1
        elif isinstance(inner, (dict, list, tuple)) and id(inner) not in seen:
            seen.add(id(inner))
            waiting += inner.values() if isinstance(inner, dict) else inner
    return count
