"""Which tensors of a TorchScript program are parameters: its code lists them, as text that is not run.

A class of NAME/code/__torch__/PATH.py begins with `__parameters__ = ["weight", "bias", ]` (printed by
torch/csrc/jit/serialization/python_print.cpp); other tensors are buffers and plain attributes.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from minilm.formats.torch_contents import Value
from minilm.formats.torch_objects import ScriptObject

# Code is some kilobytes a class.
MAX_CODE_BYTES = 16_000_000

_CLASS = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]$", re.MULTILINE)


def tensors_without_gradient(
    program: Any, names: Iterable[str], read_code: Callable[[str], str]
) -> frozenset[str]:
    """Those of ``names`` that the classes of ``program`` do not list as parameters.

    ``read_code`` returns the text of a file of the code by its path, empty where there is none. An object
    with several paths has the first, as in `name_tensors`, which bounds the length of all.
    """
    parameters: dict[str, Mapping[str, frozenset[str]]] = {}
    others = set()  # the paths of attributes that are no parameters
    stack, visited = [(program, "")], set()
    while stack:
        module, prefix = stack.pop()
        if id(module) in visited:
            continue
        visited.add(id(module))
        path, _, class_name = module.class_name.rpartition(".")
        if path not in parameters:
            parameters[path] = _read_classes(read_code(path.replace(".", "/") + ".py"))
        declared = parameters[path].get(class_name)
        inner = []
        for key, value in module.items():
            if not isinstance(key, (str, int)):
                continue
            if isinstance(value, ScriptObject):
                inner.append((value, f"{prefix}{key}."))
            elif (
                isinstance(value, (dict, list, tuple, Value))
                and declared is not None
                and key not in declared
            ):
                others.add(f"{prefix}{key}")
        stack += reversed(inner)
    return frozenset(_within(names, others))


def _read_classes(code: str) -> dict[str, frozenset[str]]:
    """The parameters of each class of modules in a file of the code."""
    return {
        match[1]: frozenset(re.findall(r'"(\w+)"', match[2])) for match in _CLASS.finditer(code)
    }


def _within(names: Iterable[str], paths: Iterable[str]) -> Iterator[str]:
    """Those of ``names`` that are one of ``paths`` or in one, as a.b.c is in a.b."""
    outermost: list[str] = []
    for path in sorted(f"{path}." for path in paths):
        if not outermost or not path.startswith(outermost[-1]):
            outermost.append(path)
    for name in names:
        # In sorted order, only names in a path can be between it and a name in it.
        index = bisect(outermost, f"{name}.")
        if index and f"{name}.".startswith(outermost[index - 1]):
            yield name
