"""The run that an adapter was trained on: which one, where it is, and that its weights are still the same.

config.json of the adapter has, under `base`, the base's folder and the SHA-256 of its model.safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.config.lora import LoraConfig
from minilm.config.validation import from_dict, to_dict
from minilm.errors import FormatError, InputError
from minilm.formats.checks import open_regular
from minilm.runs import files as run_files

LORA = "lora"
_BLOCK = 2**24  # bytes


def reference(base: Path, *, run_dir: Path | None = None) -> dict[str, str]:
    """What config.json says of ``base``; a base inside ``run_dir`` by its name there."""
    inside = run_dir is not None and base.parent == run_dir
    path = base.name if inside else str(base.absolute())
    return {"path": path, "sha256": weights_sha256(base / run_files.WEIGHTS)}


def find_base(run_dir: Path, record: run_files.RunRecord) -> Path:
    """The folder of the base: as recorded, from the run's folder, else beside that under the same name.

    Raises InputError where it is not there, is an adapter itself, or has other weights.
    """
    path, sha256 = (record.base.get(key) for key in ("path", "sha256"))
    where = run_dir / run_files.CONFIG
    if not isinstance(path, str) or not path or "\0" in path or not isinstance(sha256, str):
        raise FormatError(where, "a base without path and sha256", "those of a run")
    candidates = (run_dir / path, run_dir.parent / Path(path).name)
    base = next((each for each in candidates if (each / run_files.WEIGHTS).is_file()), None)
    if base is None:
        raise InputError(
            where,
            f"no {run_files.WEIGHTS} in its base, {path}",
            "the run that the adapter was trained on",
            "put it there or beside the run",
        )
    if run_files.read_record(base / run_files.CONFIG).base:
        raise InputError(base, "an adapter", "the run that an adapter was trained on")
    actual = weights_sha256(base / run_files.WEIGHTS)
    if actual != sha256:
        raise InputError(
            base,
            f"weights with SHA-256 {actual[:12]}",
            f"those that the adapter {run_dir} was trained on, {sha256[:12]}",
        )
    return base


def lora_of(run_dir: Path, record: run_files.RunRecord) -> LoraConfig:
    """What the adapter is, as config.json has it. Raises FormatError, ConfigError."""
    where = run_dir / run_files.CONFIG
    last: Mapping[str, Any] = record.transforms[-1] if record.transforms else {}
    if last.get("tool") != LORA:
        raise FormatError(where, "a base, and no lora as the last of transforms", "an adapter")
    return from_dict(LoraConfig, {k: v for k, v in last.items() if k != "tool"}, where)


def transform(lora: LoraConfig) -> dict[str, Any]:
    """What config.json says of the adapter, the inverse of `lora_of`."""
    return {"tool": LORA, **to_dict(lora), "targets": list(lora.targets)}


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_regular(path) as (stream, _):
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
