"""What a target is: a preset, a run folder, a config.json, or a weights file beside its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minilm import run
from minilm.config import ModelConfig, to_dict
from minilm.errors import FormatError, InputError
from minilm.formats.header import Header
from minilm.formats.json_file import read_object
from minilm.formats.safetensors import read_header
from minilm.ledger.families import HUGGING_FACE
from minilm.ledger.families.minilm import layout as minilm_layout
from minilm.ledger.layout import Layout
from minilm.presets import PRESETS


@dataclass(frozen=True)
class Source:
    """A target resolved: what declares it, what it stores, and whether a folder was named."""

    target: str
    architecture: str
    layout: Layout | None = None
    config: ModelConfig | None = None
    header: Header | None = None
    is_folder: bool = False
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def resolve(target: str) -> Source:
    """Find what ``target`` names. Raises InputError where it is nothing we can inspect.

    A file or folder goes before a preset of the same name.
    """
    path = Path(target)
    if "\0" in target:
        raise InputError(target, "a name with a zero byte", "a file, a folder or a preset")
    if path.is_dir():
        return _folder(target, path)
    if path.is_file():
        if path.suffix == ".json":
            return _configuration(target, path)
        if path.suffix == ".safetensors":
            return _weights(target, path)
        raise FormatError(path, f"a file ending in {path.suffix!r}", "*.safetensors or config.json")
    if target in PRESETS:
        config = PRESETS[target].model_config()
        return _minilm(target, config)
    raise InputError(
        target,
        "neither a file, a folder nor a preset",
        "a run folder, *.safetensors, config.json, or a preset",
        f"presets are {', '.join(PRESETS)}",
    )


def _folder(target: str, path: Path) -> Source:
    config, weights = path / run.CONFIG, path / run.WEIGHTS
    if not config.is_file():
        raise InputError(target, "a folder without config.json", "a run folder")
    source = replace(_configuration(target, config), is_folder=True)
    if not weights.is_file():
        return source
    return replace(source, header=read_header(weights))


def _weights(target: str, path: Path) -> Source:
    header = read_header(path)
    config = path.parent / run.CONFIG
    if not config.is_file():
        return Source(target, "unknown", header=header)
    return replace(_configuration(target, config), header=header)


def _configuration(target: str, path: Path) -> Source:
    value = read_object(path)
    if value.get("family") == run.FAMILY:
        source = _minilm(target, run.read_config(path))
        training = value.get("train")
        if not isinstance(training, dict):
            return source
        return replace(source, hyperparameters={**source.hyperparameters, "training": training})
    model_type = value.get("model_type")
    if not isinstance(model_type, str) or model_type not in HUGGING_FACE:
        raise FormatError(
            path,
            f"model_type {model_type!r}",
            f"a minilm run, or one of {', '.join(HUGGING_FACE)}",
        )
    plain = {k: v for k, v in value.items() if isinstance(v, (bool, int, float, str))}
    layout = HUGGING_FACE[model_type](value)
    return Source(target, model_type, layout, hyperparameters={"model": plain})


def _minilm(target: str, config: ModelConfig) -> Source:
    return Source(
        target,
        run.FAMILY,
        minilm_layout(config),
        config,
        hyperparameters={"model": to_dict(config)},
    )
