"""What a target is: a preset, a run or Hugging Face folder, a config.json, or a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minilm import formats
from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import with_its_head
from minilm.config import ModelConfig, to_dict
from minilm.config.presets import PRESETS
from minilm.errors import ConfigError, InputError
from minilm.formats.header import Header
from minilm.formats.huggingface import shards_of
from minilm.formats.json_file import read_object
from minilm.ledger.layout import Layout
from minilm.runs import files as run_files

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """A target resolved: what declares it, what it stores, and where its folder is.

    ``config`` is set for minilm's own models, ``hugging_face`` is the config.json of any other;
    ``layout`` is None where no family declares the architecture. ``folder`` is set where the target is
    a folder, or a file whose neighbours belong to it.
    """

    target: str
    architecture: str = UNKNOWN
    layout: Layout | None = None
    config: ModelConfig | None = None
    hugging_face: Mapping[str, Any] = field(default_factory=dict)
    header: Header | None = None
    is_folder: bool = False
    folder: Path | None = None
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether the target is a folder that minilm wrote."""
        return self.is_folder and self.config is not None


def resolve(target: str) -> Source:
    """Find what ``target`` names. Raises InputError where it is nothing we can inspect.

    A file or folder goes before a preset of the same name.
    """
    if not target:
        raise InputError("target", "an empty name", "a file, a folder or a preset")
    path = Path(target)
    if "\0" in target:
        raise InputError(target, "a name with a zero byte", "a file, a folder or a preset")
    if path.is_dir():
        return _folder(target, path)
    if path.exists():
        if path.suffix == ".json" and not path.name.endswith(".index.json"):
            return _configuration(target, path)
        return _weights(target, path)
    if target in PRESETS:
        return _minilm(target, PRESETS[target].model_config())
    raise InputError(
        target,
        "neither a file, a folder nor a preset",
        "a run or Hugging Face folder, a weights file, a config.json, or a preset",
        f"presets are {', '.join(PRESETS)}",
    )


def _folder(target: str, path: Path) -> Source:
    config = path / run_files.CONFIG
    source = _configuration(target, config) if config.is_file() else Source(target)
    weights: Path | None = path / run_files.WEIGHTS
    if source.config is None:
        weights = shards_of(path)
    if weights is None and not config.is_file():
        raise InputError(
            target, "a folder without config.json and without weights", "a run or model folder"
        )
    header = _unwrapped(weights) if weights is not None and weights.is_file() else None
    if weights is not None and weights.suffix == ".gguf" and header is not None:
        return replace(_gguf(target, header), is_folder=True, folder=path)
    return replace(source, header=header, is_folder=True, folder=path)


def _weights(target: str, path: Path) -> Source:
    header = _unwrapped(path)
    if path.suffix == ".gguf":
        return _gguf(target, header)
    config = path.parent / run_files.CONFIG
    if not config.is_file():
        return Source(target, header=header)
    try:
        return replace(_configuration(target, config), header=header)
    except InputError as error:
        # The weights were asked for: they are counted, whatever lies beside them.
        return Source(target, header=header, notes=(f"not used: {error}",))


def _unwrapped(path: Path) -> Header:
    """The header without the prefix that torch.compile and DistributedDataParallel give every name."""
    header = formats.read(path)
    for prefix in ("_orig_mod.", "module."):
        if header.tensors and all(t.name.startswith(prefix) for t in header.tensors):
            tensors = tuple(replace(t, name=t.name[len(prefix) :]) for t in header.tensors)
            shared = tuple((a[len(prefix) :], b[len(prefix) :]) for a, b in header.shared)
            header = replace(header, tensors=tensors, shared=shared)
    return header


def _gguf(target: str, header: Header) -> Source:
    """A GGUF file has its configuration in itself."""
    from minilm.architectures.gguf_layout import gguf_layout

    architecture = header.metadata.get("general.architecture", UNKNOWN)
    plain = {k: v for k, v in header.metadata.items() if k.startswith(f"{architecture}.")}
    return Source(
        target,
        architecture,
        gguf_layout(header),
        header=header,
        hyperparameters={"model": plain} if plain else {},
    )


def _configuration(target: str, path: Path) -> Source:
    value = read_object(path)
    if value.get("family") == run_files.FAMILY:
        source = replace(_minilm(target, run_files.read_config(path)), folder=path.parent)
        training = value.get("train")
        if not isinstance(training, dict):
            return source
        return replace(source, hyperparameters={**source.hyperparameters, "training": training})
    model_type = value.get("model_type")
    if not isinstance(model_type, str):
        model_type = UNKNOWN
    plain = {k: v for k, v in value.items() if isinstance(v, (bool, int, float, str))}
    layout = _declared(path, value) if model_type in MODEL_TYPES else None
    return Source(
        target,
        model_type,
        with_its_head(layout, value) if layout else None,
        hugging_face=value,
        folder=path.parent,
        hyperparameters={"model": plain},
    )


def _declared(path: Path, value: Mapping[str, Any]) -> Layout:
    """What its family declares; a field that is wrong is told with the path of its file."""
    try:
        return layout_of(value)
    except ConfigError as error:
        field = f"{path}: {str(error.where).removeprefix('config.json: ')}"
        raise ConfigError(field, error.came, error.expected, error.remedy) from None


def _minilm(target: str, config: ModelConfig) -> Source:
    return Source(
        target,
        run_files.FAMILY,
        minilm_layout(config),
        config,
        hyperparameters={"model": to_dict(config)},
    )
