"""What a pickle of torch.save holds beside plain values: descriptions of tensors, and of other objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Storage:
    """A torch storage, kept outside the pickle under ``key``; ``dtype`` is empty if untyped."""

    key: str
    dtype: str


@dataclass(frozen=True, repr=False)
class PickledTensor:
    """A view of a storage, with offset, shape and stride as in the file, unchecked.

    They may be nested structures whose repr is exponentially long, hence no repr. ``storage`` is None
    for a tensor on the meta device.
    """

    storage: Storage | None
    dtype: str
    offset: object
    shape: object
    stride: object


@dataclass(frozen=True, repr=False)
class PickledSubclass:
    """A torchao tensor, unchecked; ``state`` are its attributes, inner tensors among them."""

    class_name: str
    shape: object
    state: dict[Any, Any]


@dataclass(frozen=True)
class GlobalName:
    """A function or class, by its full name."""

    text: str


@dataclass(frozen=True)
class OpaqueObject:
    """Stands for an object that is no tensor, number, text or container."""

    name: str


class ScriptObject(dict[Any, Any]):
    """The attributes of an object of TorchScript, whose classes have no Python code."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self.class_name = class_name
