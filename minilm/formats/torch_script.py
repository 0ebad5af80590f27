"""Which tensors of a TorchScript program are parameters: its code lists them, as text that is not run.

A class of NAME/code/__torch__/PATH.py begins with `__parameters__ = ["weight", "bias", ]` (printed by
torch/csrc/jit/serialization/python_print.cpp); other tensors are buffers and plain attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minilm.formats.torch_objects import ScriptObject

# Code is some kilobytes a class.
MAX_CODE_BYTES = 16_000_000

_CLASS = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]$", re.MULTILINE)


def tensors_without_gradient(
    program: Any, names: Iterable[str], read_code: Callable[[str], str]
) -> frozenset[str]:
    """Those of ``names`` that the classes of ``program`` do not list as parameters.

    ``read_code`` returns the text of a file of the code by its path, empty where there is none.
    """
    parameters: dict[str, Mapping[str, frozenset[str]]] = {}
    others = set()  # the paths of attributes that are no parameters
    stack, visited = [(program, "")], {id(program)}
    while stack:
        module, prefix = stack.pop()
        path, _, class_name = module.class_name.rpartition(".")
        if path not in parameters:
            parameters[path] = _read_classes(read_code(path.replace(".", "/") + ".py"))
        declared = parameters[path].get(class_name)
        for key, value in module.items():
            if isinstance(value, ScriptObject):
                if id(value) not in visited:
                    visited.add(id(value))
                    stack.append((value, f"{prefix}{key}."))
            elif declared is not None and key not in declared:
                others.add(f"{prefix}{key}")
    return frozenset(name for name in names if not others.isdisjoint(_owners(name)))


def _read_classes(code: str) -> dict[str, frozenset[str]]:
    """The parameters of each class of modules in a file of the code."""
    return {
        match[1]: frozenset(re.findall(r'"(\w+)"', match[2])) for match in _CLASS.finditer(code)
    }


def _owners(name: str) -> list[str]:
    """``name`` and everything that it is in: a.b.c, a.b, a."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
