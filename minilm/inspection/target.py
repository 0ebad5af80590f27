"""What is inspected: a preset, a run or Hugging Face folder, a config.json, a weights file, a module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm import formats
from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import class_name_of, with_task_head
from minilm.config import ModelConfig, to_dict
from minilm.config.presets import PRESETS
from minilm.errors import ConfigError, InputError
from minilm.formats.header import Header
from minilm.formats.huggingface import find_weights
from minilm.formats.json_file import read_object
from minilm.ledger.layout import Layout
from minilm.runs import files as run_files

if TYPE_CHECKING:
    from torch import nn

    from minilm.inspection.module_reader import ModuleContents

UNKNOWN = "unknown"
# Where transformers, compressed-tensors' older versions and MLX write their quantization.
_QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")


@dataclass(frozen=True)
class Target:
    """One target, opened: its configuration, what declares it, and what it stores.

    ``config`` is set for minilm's own models, ``hugging_face`` is the config.json of any other.
    ``layout`` is None where the architecture is not declared, ``header`` where there are no weights.
    ``module`` is set where the target is a live module. ``folder`` is the folder that the target is,
    or in which its config.json stands. ``is_run`` marks a folder that minilm wrote.
    """

    name: str
    architecture: str = UNKNOWN
    layout: Layout | None = None
    config: ModelConfig | None = None
    hugging_face: Mapping[str, Any] = field(default_factory=dict)
    header: Header | None = None
    module: ModuleContents | None = None
    folder: Path | None = None
    is_run: bool = False
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def quantization_config(self) -> Mapping[str, Any]:
        """The quantization that config.json states, for the whole or for its text model; else empty."""
        for fields in (self.hugging_face, self.hugging_face.get("text_config")):
            for key in _QUANTIZATION_KEYS:
                if isinstance(fields, Mapping) and isinstance(fields.get(key), dict):
                    quantization: dict[str, Any] = fields[key]
                    return quantization
        return {}

    @property
    def weights_dtype(self) -> str:
        """The dtype that config.json gives its weights; float32 where it gives none."""
        for key in ("dtype", "torch_dtype"):
            dtype = self.hugging_face.get(key)
            if isinstance(dtype, str):
                return dtype
        return "float32"

    @property
    def reason_undeclared(self) -> str:
        """Why there is no formula: for a target that is no module and has no layout."""
        if self.notes:
            return "no usable configuration"
        if self.header is not None and "general.architecture" in self.header.metadata:
            return f"no formula for GGUF files of {self.architecture!r}"
        if self.architecture in MODEL_TYPES:
            return f"no formula for the head of {class_name_of(self.hugging_face)}"
        if self.architecture != UNKNOWN:
            return f"no formula for model_type {self.architecture!r}"
        if self.hugging_face:
            return "its config.json has no model_type"
        return "no config.json beside it"


def open_target(target: str | os.PathLike[str] | nn.Module) -> Target:
    """Open what ``target`` names, or is. Raises InputError where it cannot be inspected.

    A file or folder goes before a preset of the same name.
    """
    if not isinstance(target, (str, os.PathLike)):
        return _open_module(target)
    name = os.fspath(target)
    if not name:
        raise InputError("target", "an empty name", "a file, a folder or a preset")
    path = Path(name)
    if "\0" in name:
        raise InputError(name, "a name with a zero byte", "a file, a folder or a preset")
    if path.is_dir():
        return _open_folder(name, path)
    if path.exists():
        if path.suffix == ".json" and not path.name.endswith(".index.json"):
            return _open_config(name, path)
        return _open_weights(name, path)
    if name in PRESETS:
        return _minilm_target(name, PRESETS[name].model_config())
    raise InputError(
        name,
        "neither a file, a folder nor a preset",
        "a run or Hugging Face folder, a weights file, a config.json, or a preset",
        f"presets are {', '.join(PRESETS)}",
    )


def _open_module(module: nn.Module) -> Target:
    """minilm's own model has a formula, and transformers' may; any other module is counted alone."""
    from minilm.inspection.module_reader import hugging_face_config, read_module
    from minilm.model.transformer import Transformer

    contents, name = read_module(module), type(module).__name__
    if not isinstance(module, Transformer):
        config = hugging_face_config(module)
        target = _hugging_face_target(name, config) if config else Target(name, name)
        return replace(target, module=contents)
    layout = minilm_layout(module.config)
    return Target(name, layout.family, layout, module.config, module=contents)


def _open_folder(name: str, path: Path) -> Target:
    config = path / run_files.CONFIG
    target = _open_config(name, config) if config.is_file() else Target(name)
    is_run = target.config is not None
    weights = path / run_files.WEIGHTS if is_run else find_weights(path)
    if weights is None and not config.is_file():
        raise InputError(
            name, "a folder without config.json and without weights", "a run or model folder"
        )
    if weights is None or not weights.is_file():
        return replace(target, folder=path, is_run=is_run)
    header = _read_header(weights)
    if weights.suffix == ".gguf":
        return replace(_gguf_target(name, header), folder=path)
    return replace(target, header=header, folder=path, is_run=is_run)


def _open_weights(name: str, path: Path) -> Target:
    header = _read_header(path)
    if path.suffix == ".gguf":
        return _gguf_target(name, header)
    config = path.parent / run_files.CONFIG
    if not config.is_file():
        return Target(name, header=header)
    try:
        return replace(_open_config(name, config), header=header)
    except InputError as error:
        # The weights are the target: they are counted, whatever lies beside them.
        return Target(name, header=header, notes=(f"not used: {error}",))


def _read_header(path: Path) -> Header:
    """The header without the prefix that torch.compile and DistributedDataParallel give every name."""
    header = formats.read(path)
    for prefix in ("_orig_mod.", "module."):
        if header.tensors and all(t.name.startswith(prefix) for t in header.tensors):
            tensors = tuple(replace(t, name=t.name[len(prefix) :]) for t in header.tensors)
            shared = tuple((a[len(prefix) :], b[len(prefix) :]) for a, b in header.shared)
            header = replace(header, tensors=tensors, shared=shared)
    return header


def _gguf_target(name: str, header: Header) -> Target:
    """A GGUF file has its configuration in its metadata."""
    from minilm.architectures.gguf_layout import gguf_layout

    architecture = header.metadata.get("general.architecture", UNKNOWN)
    fields = {k: v for k, v in header.metadata.items() if k.startswith(f"{architecture}.")}
    return Target(
        name,
        architecture,
        gguf_layout(header),
        header=header,
        hyperparameters={"model": fields} if fields else {},
    )


def _open_config(name: str, path: Path) -> Target:
    config = read_object(path)
    if config.get("family") == run_files.FAMILY:
        target = replace(_minilm_target(name, run_files.read_config(path)), folder=path.parent)
        training = config.get("train")
        if not isinstance(training, dict):
            return target
        return replace(target, hyperparameters={**target.hyperparameters, "training": training})
    try:
        return replace(_hugging_face_target(name, config), folder=path.parent)
    except ConfigError as error:  # in a field: it names the field's file
        field = f"{path}: {str(error.where).removeprefix('config.json: ')}"
        raise ConfigError(field, error.got, error.expected, error.remedy) from None


def _hugging_face_target(name: str, config: Mapping[str, Any]) -> Target:
    """What a Hugging Face config.json declares. Raises ConfigError for a field that is wrong."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        model_type = UNKNOWN
    fields = {k: v for k, v in config.items() if isinstance(v, (bool, int, float, str))}
    layout = layout_of(config) if model_type in MODEL_TYPES else None
    return Target(
        name,
        model_type,
        with_task_head(layout, config) if layout else None,
        hugging_face=config,
        hyperparameters={"model": fields},
    )


def _minilm_target(name: str, config: ModelConfig) -> Target:
    return Target(
        name,
        run_files.FAMILY,
        minilm_layout(config),
        config,
        hyperparameters={"model": to_dict(config)},
    )
