"""The model within the contents of a torch.save checkpoint, and its tensors' names.

torchao's tensors are flattened as in its own safetensors files (torchao 0.18
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
from minilm.formats.torch_pickle import GlobalName, PickledSubclass, PickledTensor
from minilm.safe_text import short_repr

MAX_NESTING = 20
MAX_TENSORS = 200_000

# Attributes of a torchao tensor, and the inner tensors among them; real ones have up to 20 and 6.
MAX_ATTRIBUTES = 64
MAX_INNER_TENSORS = 16

# The keys that training scripts store a model under, next to an optimizer's state and others.
MODEL_KEYS = ("state_dict", "model", "model_state_dict", "module")

# The prefixes that torch.compile and DistributedDataParallel add to every name.
WRAPPERS = ("_orig_mod.", "module.")

# The metadata's key for the tensors outside the model, and how many entries its text lists.
SKIPPED_KEY = "minilm.left_out"
MAX_LISTED = 8

StateDict = dict[str, PickledTensor]
Value = PickledTensor | PickledSubclass


def find_model(path: Path, content: Any) -> tuple[StateDict, dict[str, str]]:
    """The model's tensors by name, and metadata about them. Raises FormatError.

    The model is the only state dict under one of `MODEL_KEYS`; without one, all tensors.
    """
    metadata: dict[str, str] = {}
    if isinstance(content, dict):
        models = [key for key in MODEL_KEYS if _has_tensors(content.get(key))]
        if len(models) == 1:
            line = _describe_skipped(content, models[0])
            metadata |= {SKIPPED_KEY: line} if line else {}
            content = content[models[0]]
    tensors: StateDict = {}
    for value_name, value in _without_wrappers(_named_values(path, content)).items():
        for name, tensor in _plain_tensors(path, value_name, value, metadata):
            if check_name(path, name) in tensors:
                raise FormatError(path, f"tensor {short_repr(name)} twice", "each name once")
            tensors[name] = tensor
        if len(tensors) > MAX_TENSORS:
            raise FormatError(path, f"over {MAX_TENSORS} tensors", "fewer")
    return tensors, metadata


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Value) for v in value.values())


def _named_values(path: Path, content: Any) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in _walk_values(path, content, "", 0, set()):
        if name in values:
            raise FormatError(path, f"tensor {short_repr(name)} twice", "each name once")
        values[name] = value
    return values


def _walk_values(
    path: Path, value: Any, name: str, depth: int, visited: set[int]
) -> Iterator[tuple[str, Value]]:
    """Every tensor with its dotted path; each container is visited once."""
    if isinstance(value, Value):
        yield name or "tensor", value
    elif isinstance(value, (dict, list, tuple)) and id(value) not in visited:
        visited.add(id(value))
        if depth == MAX_NESTING:
            raise FormatError(path, f"over {depth} levels of nesting", "fewer")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            if isinstance(key, (str, int)) and isinstance(inner, (dict, list, tuple, Value)):
                key_name = check_name(path, str(key))
                inner_name = check_name(path, f"{name}.{key_name}" if name else key_name)
                yield from _walk_values(path, inner, inner_name, depth + 1, visited)


def _without_wrappers(values: dict[str, Value]) -> dict[str, Value]:
    """``values`` without the prefixes that all of their names share."""
    for prefix in WRAPPERS:
        if values and all(len(n) > len(prefix) and n.startswith(prefix) for n in values):
            values = {name.removeprefix(prefix): value for name, value in values.items()}
    return values


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


def _describe_skipped(content: dict[Any, Any], model: str) -> str:
    """One line about the tensors outside the model; empty where there are none."""
    visited = {id(content), id(content[model])}
    entries = []
    for key, value in content.items():
        count = _count_tensors(value, visited) if key != model else 0
        if count:
            entries.append(f"{short_repr(key)} ({count} tensor{'s' if count > 1 else ''})")
    if not entries:
        return ""
    more = len(entries) - MAX_LISTED
    listed = ", ".join(entries[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"read {short_repr(model)}; left out {listed}"


def _count_tensors(value: Any, visited: set[int]) -> int:
    count, stack = 0, [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, Value):
            count += 1
        elif isinstance(inner, (dict, list, tuple)) and id(inner) not in visited:
            visited.add(id(inner))
            stack += inner.values() if isinstance(inner, dict) else inner
    return count
