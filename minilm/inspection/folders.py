"""What a folder of the Hugging Face Hub is beyond one model: a cache, modules in folders, an adapter.

Layouts: huggingface_hub's cache (refs/, snapshots/), sentence-transformers' modules.json, diffusers'
model_index.json, PEFT's adapter_config.json.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from minilm import formats
from minilm.architectures.config_fields import flag, size
from minilm.errors import FormatError, InputError
from minilm.formats.checks import open_regular
from minilm.formats.header import Header
from minilm.formats.huggingface import find_weights, join_headers
from minilm.formats.json_file import MAX_JSON_BYTES, parse_object, read_object
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial
from minilm.runs import files as run_files

MODULES = "modules.json"
PIPELINE = "model_index.json"
# More than any published folder has.
_MAX_PARTS = 64
_MAX_NAMES = 6
_REVISION = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_MODEL_NAME = re.compile(r"\w[\w.-]{0,200}(/\w[\w.-]{0,200})?", re.ASCII)
# What PEFT puts before the names of the base, and what it adds to a layer that it changes.
_PEFT_PREFIX = "base_model.model."
_PEFT_TENSOR = re.compile(r"\.(lora|ia3|vera|hada|lokr|oft|boft|prompt)_\w+")


# os.path.isfile and isdir, unlike those of Path, are false for a name that is too long: a name in a file
# must not end the inspection.


class Part(NamedTuple):
    """A module in a folder of its own; its tensors are named after ``name``."""

    name: str
    kind: str
    folder: Path


def snapshot_of_cache(folder: Path) -> Path | None:
    """The snapshot of models--ORGANISATION--NAME that refs/main names, or the only one; else None.

    Raises InputError where the choice is ambiguous.
    """
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or (folder / run_files.CONFIG).exists():
        return None
    main = folder / "refs" / "main"
    if main.is_file():
        with open_regular(main) as (stream, _):
            revision = stream.read(200).decode("utf-8", "replace").strip()
        if _REVISION.fullmatch(revision) and (snapshots / revision).is_dir():
            return snapshots / revision
    names = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    if len(names) != 1:
        got = f"{len(names)} snapshots and no refs/main that names one"
        raise InputError(folder, got, "one", "name the folder of the snapshot")
    return snapshots / names[0]


def cached_model(name: str) -> Path | None:
    """The folder of a model of the Hub, given as ORGANISATION/NAME, in the cache of this machine."""
    if not _MODEL_NAME.fullmatch(name):
        return None
    # Path.home() raises where there is none; this then names no folder.
    home = Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"models--{name.replace('/', '--')}"
    try:
        return snapshot_of_cache(folder) if os.path.isdir(folder) else None
    except InputError:
        return None


def sentence_transformer_parts(folder: Path) -> tuple[Part, ...]:
    """The modules that modules.json lists, in their order; the first is mostly the folder itself."""
    path = folder / MODULES
    with open_regular(path) as (stream, _):
        raw = stream.read(MAX_JSON_BYTES + 1)
    entries = parse_object(path, b'{"modules":' + raw + b"}")["modules"]
    if not isinstance(entries, list):
        raise FormatError(path, type(entries).__name__, "a list of modules")
    parts = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {}
        name, kind = fields.get("path"), fields.get("type")
        if not isinstance(name, str) or not isinstance(kind, str) or not _is_inside(name):
            raise FormatError(path, "a module without path and type", "a folder inside and a class")
        parts.append(Part(name, kind.rpartition(".")[2], folder / name))
    return _few(path, tuple(parts))


def pipeline_parts(folder: Path, fields: Mapping[str, Any]) -> tuple[Part, ...]:
    """The components of model_index.json, each [library, class], that have a folder with a model."""
    listed = tuple(
        Part(name, value[1], folder / name)
        for name, value in fields.items()
        if isinstance(value, list)
        and len(value) == 2
        and isinstance(value[1], str)
        and name
        and _is_inside(name)
    )
    return tuple(
        part
        for part in _few(folder / PIPELINE, listed)
        if os.path.isfile(part.folder / run_files.CONFIG) or has_weights(part.folder)
    )


def _few(path: Path, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    if len(parts) > _MAX_PARTS:
        raise FormatError(path, f"{len(parts)} modules", f"at most {_MAX_PARTS}")
    return parts


def _is_inside(name: str) -> bool:
    return not name or (name == Path(name).name and name != ".." and "\0" not in name)


def has_weights(folder: Path) -> bool:
    """Whether a part's folder holds weights."""
    return os.path.isdir(folder) and find_weights(folder) is not None


def read_part(part: Part) -> Header | None:
    """The header of a part with the part's name before its tensors' names; None without weights."""
    weights = find_weights(part.folder) if os.path.isdir(part.folder) else None
    header = formats.read_model(weights) if weights is not None else None
    if header is None or not part.name:
        return header
    prefix = f"{part.name}."
    return replace(
        header,
        tensors=tuple(replace(tensor, name=prefix + tensor.name) for tensor in header.tensors),
        metadata={f"{prefix}{key}": value for key, value in header.metadata.items()},
        shared=tuple((prefix + first, prefix + second) for first, second in header.shared),
        buffers=frozenset(prefix + name for name in header.buffers),
        prefix="",
        omissions=tuple(f"{part.name}: {line}" for line in header.lines),
    )


def read_parts(parts: tuple[Part, ...]) -> tuple[Header | None, tuple[str, ...]]:
    """The joint header of all parts, and one line a part: what it is, and how many elements it stores."""
    headers, lines = [], []
    for part in parts:
        header = read_part(part)
        name = f"{part.name} ({part.kind})" if part.name else part.kind
        if header is not None:
            headers.append(header)
            lines.append(f"{name}: {sum(tensor.count for tensor in header.tensors):,} elements")
        else:
            lines.append(f"{name}: no weights here")
    return (join_headers(headers) if headers else None), tuple(lines)


def shards_text(numbers: Iterable[int], total: int) -> str:
    """Shard 1 of 2; shards 1, 3 of 4."""
    listed = ", ".join(map(str, numbers))
    return f"shard{'s' if ',' in listed else ''} {listed} of {total}"


def with_modules(
    layout: Layout, parts: tuple[Part, ...], header: Header
) -> tuple[Layout, tuple[str, ...]]:
    """``layout`` with the modules behind the body, and a note on each whose sizes only its file has.

    A Dense module declares them in its config.json: in_features, out_features, bias.
    """
    tensors, notes = [], []
    for part in parts:
        if not part.name:
            continue
        prefix = f"{part.name}."
        stored = [tensor for tensor in header.tensors if tensor.name.startswith(prefix)]
        config = part.folder / run_files.CONFIG
        fields = read_object(config) if part.kind == "Dense" and config.is_file() else {}
        shapes: dict[str, tuple[int, ...]]
        if "in_features" in fields and "out_features" in fields:
            outputs, inputs = size(fields, "out_features"), size(fields, "in_features")
            shapes = {f"{prefix}linear.weight": (outputs, inputs)}
            if flag(fields, "bias", True):
                shapes[f"{prefix}linear.bias"] = (outputs,)
        else:
            shapes = {tensor.name: tensor.shape for tensor in stored}
            if stored:
                notes.append(f"{part.name} ({part.kind}): its sizes are its file's, not checked")
        tensors += [_declared(name, shape) for name, shape in shapes.items()]
    return replace(layout, tensors=(*layout.tensors, *tensors)), tuple(notes)


def _declared(name: str, shape: tuple[int, ...]) -> Tensor:
    role = Role.ADDED if name.endswith("bias") else Role.ONCE
    return Tensor(name, tuple(map(as_polynomial, shape)), components.SENTENCE_PROJECTION, role)


def base_of_adapter(folder: Path, fields: Mapping[str, Any]) -> Path | None:
    """The base model's folder where it is at hand: beside the adapter, as named, or in the Hub's cache."""
    name = fields.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "\0" in name or len(name) > 1000:
        return None
    candidates = (folder / name, Path(name))
    bases = (path for path in candidates if os.path.isfile(path / run_files.CONFIG))
    return next(bases, None) or cached_model(name)


def adapter_kind(fields: Mapping[str, Any]) -> str:
    """LoRA adapter, IA3 adapter, ..."""
    kind = fields.get("peft_type")
    if not isinstance(kind, str) or len(kind) > 40:
        kind = "PEFT"
    return f"{'LoRA' if kind == 'LORA' else kind} adapter"


def adapter_notes(fields: Mapping[str, Any], header: Header) -> tuple[str, ...]:
    """What an adapter is: its rank, what it changes, what it replaces; and what the file lacks of it."""
    ranks = sorted({t.shape[0] for t in header.tensors if ".lora_A." in t.name and t.shape})
    rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}" if ranks else None
    details = [f"rank {rank or fields.get('r')}"] if rank or type(fields.get("r")) is int else []
    if isinstance(fields.get("lora_alpha"), (int, float)):
        details.append(f"alpha {fields['lora_alpha']}")
    if any("lora_magnitude_vector" in tensor.name for tensor in header.tensors):
        details.append("magnitudes apart (DoRA)")
    names = {tensor.name.removeprefix(_PEFT_PREFIX) for tensor in header.tensors}
    modules = {_PEFT_TENSOR.split(name)[0] for name in names if _PEFT_TENSOR.search(name)}
    targets = sorted({module.rpartition(".")[2] for module in modules})
    whole_modules = sorted({n.rpartition(".")[0] for n in names if not _PEFT_TENSOR.search(n)})
    if targets:
        details.append(
            f"on {len(modules):,} module{'s' if len(modules) > 1 else ''} ({_listed(targets)})"
        )
    if whole_modules:
        details.append(f"{_listed(whole_modules)} trained whole")
    base = fields.get("base_model_name_or_path")
    named = base[:200] if isinstance(base, str) and base else "an unnamed base"
    notes = [f"{adapter_kind(fields)} (PEFT) of {named}: {', '.join(details)}"]
    target_modules = fields.get("target_modules")
    if isinstance(target_modules, list):
        missing = sorted(
            {str(name) for name in target_modules if not _ends_any(str(name), modules)}
        )
        if missing:
            notes.append(f"target_modules names {_listed(missing)}: the file has nothing for it")
    return tuple(notes)


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(name[:100] for name in names[:_MAX_NAMES]) + (
        f" and {more} more" if more > 0 else ""
    )


def _ends_any(name: str, modules: set[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for module in modules)
