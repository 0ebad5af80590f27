"""open_target: a Target of a preset, a run or Hugging Face folder, a config.json, weights or a module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm import formats
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.task_heads import class_name_of, without_head
from minilm.config.presets import PRESETS
from minilm.errors import ConfigError, InputError
from minilm.formats.header import Header, wrapper_prefix
from minilm.formats.huggingface import ADAPTER as ADAPTER_WEIGHTS
from minilm.formats.huggingface import (
    ADAPTER_CONFIG,
    find_weights,
    join_headers,
    read_shards,
    shard_number,
    shards_beside,
)
from minilm.formats.json_file import read_object
from minilm.inspection import folders
from minilm.inspection.comparison import body_prefix
from minilm.inspection.declared_target import hugging_face_target, minilm_target, open_config
from minilm.inspection.file_class import as_class_of_file
from minilm.inspection.gguf_files import special_file
from minilm.inspection.module_names import with_names_of_file
from minilm.inspection.similar_types import check_declared, uncounted_parts
from minilm.inspection.target import UNKNOWN, Target
from minilm.inspection.tied_copies import stored_apart, with_copied_head
from minilm.ledger import components
from minilm.ledger.layout_changes import with_adapters, with_own_copy
from minilm.runs import files as run_files

if TYPE_CHECKING:
    from torch import nn


def open_target(
    target: str | os.PathLike[str] | nn.Module,
    state_dict: str | None = None,
    model_type: str | None = None,
) -> Target:
    """Open what ``target`` names, or is. Raises InputError where it cannot be inspected.

    A file or folder goes before a preset of the same name. ``state_dict`` names the part of a
    torch.save checkpoint that is the model. ``model_type`` is taken in place of the one in config.json.
    """
    opened = _open_target(target, state_dict)
    if model_type is not None:
        opened = _read_as(opened, model_type)
    if state_dict is not None and opened.header is None:
        raise InputError("--state-dict", opened.name, "a target with weights that torch.save wrote")
    if opened.layout is not None or opened.header is None:
        return opened
    header = with_copied_head(opened.header, opened.hugging_face)
    return replace(opened, header=header, notes=(*opened.notes, *_copy_note(opened.header, header)))


def _open_target(target: str | os.PathLike[str] | nn.Module, state_dict: str | None) -> Target:
    if not isinstance(target, (str, os.PathLike)):
        return _open_module(target)
    name = os.fspath(target)
    if not name:
        raise InputError("target", "an empty name", "a file, a folder or a preset")
    path = Path(name)
    if "\0" in name:
        raise InputError(name, "a name with a zero byte", "a file, a folder or a preset")
    if path.is_dir():
        return _open_folder(name, path, state_dict)
    if path.exists():
        if path.suffix == ".json" and not path.name.endswith(".index.json"):
            return open_config(name, path)
        return _open_weights(name, path, state_dict)
    if name in PRESETS:
        return minilm_target(name, PRESETS[name].model_config())
    raise InputError(
        name,
        "neither a file, a folder nor a preset",
        "a run or Hugging Face folder, a weights file, a config.json, or a preset",
        f"presets are {', '.join(PRESETS)}",
    )


def _read_as(target: Target, model_type: str) -> Target:
    """The target with its config.json read as that of ``model_type``."""
    check_declared(model_type)
    if not target.hugging_face:
        raise InputError("--as", target.name, "a target with a config.json of Hugging Face")
    fields = {**target.hugging_face, "model_type": model_type}
    declared = hugging_face_target(target.name, fields)
    left_out = uncounted_parts(fields)
    without = f"; {left_out}: not counted" if left_out else ""
    note = f"read as {model_type}: config.json says {target.architecture}{without}"
    target = replace(
        target,
        architecture=model_type,
        layout=declared.layout,
        hugging_face=fields,
        undeclared="",
        notes=(*target.notes, *declared.notes, note),
    )
    return target if target.header is None else _with_header(target, target.header)


def _open_module(module: nn.Module) -> Target:
    """minilm's own model has a formula, and transformers' may; any other module is counted alone."""
    from minilm.inspection.module_reader import (
        hugging_face_config,
        read_adapted,
        read_module,
    )
    from minilm.model.transformer import Transformer
    from minilm.transforms.lora import configs_of

    name = type(module).__name__
    if not isinstance(module, Transformer):
        contents, config = read_module(module), hugging_face_config(module)
        try:
            target = hugging_face_target(name, config) if config else Target(name, name)
        except InputError as error:  # as where layers were cut off, and config lists them all
            target = replace(_without_config(name, error), architecture=name)
        return replace(target, module=contents)
    layout = minilm_layout(module.config)
    for number, lora in enumerate(configs_of(module).values(), start=1):
        layout = with_adapters(layout, lora.targets, lora.rank, dora=lora.dora, number=number)
    return Target(name, layout.family, layout, module.config, module=read_adapted(module))


def _open_folder(name: str, path: Path, state_dict: str | None) -> Target:
    snapshot = folders.snapshot_of_cache(path)
    if snapshot is None:
        return _open_published(name, path, state_dict)
    target = _open_published(name, snapshot, state_dict)
    note = f"a cache of the Hugging Face Hub: its snapshot {snapshot.name}"
    return replace(target, notes=(note, *target.notes))


def _open_published(name: str, path: Path, state_dict: str | None) -> Target:
    """A folder as it is published: of modules with folders of their own, or of one model."""
    if (path / folders.MODULES).is_file():
        return _open_sentence_transformer(name, path)
    if (path / folders.PIPELINE).is_file():
        return _open_pipeline(name, path)
    return _open_model_folder(name, path, state_dict)


def _open_model_folder(name: str, path: Path, state_dict: str | None = None) -> Target:
    """The folder of one model, or of an adapter."""
    config = path / run_files.CONFIG
    target = Target(name)
    if config.is_file():
        target = open_config(name, config, beside_weights=find_weights(path) is not None)
    is_run = target.config is not None
    weights = path / run_files.WEIGHTS if is_run else find_weights(path)
    if weights is None and not config.is_file():
        caches = [child.name for child in path.glob("models--*")][:3]
        raise InputError(
            name,
            "a folder without config.json and without weights",
            "a run or model folder",
            f"name one of the models in it: {', '.join(caches)}" if caches else "",
        )
    target = replace(target, folder=path, is_run=is_run)
    if target.lora is not None:
        from minilm.inspection.adapters import with_adapter  # numpy: a count needs none

        return with_adapter(target, path, target.lora)
    if weights is None or not weights.is_file():
        return target
    if weights.name.startswith(ADAPTER_WEIGHTS) and (path / ADAPTER_CONFIG).is_file():
        return _open_adapter(name, weights)
    if formats.is_gguf(weights):
        return replace(_gguf_target(name, _read_header(weights)), folder=path)
    if shard_number(weights) is None:
        return _with_header(target, _read_header(weights, state_dict))
    shards = shards_beside(weights)
    header = _without_prefix(read_shards(tuple(shards.files.values())))
    partial = "" if shards.is_complete else folders.shards_text(shards.files, shards.total)
    return replace(_with_header(target, header), partial=partial)


def _open_weights(name: str, path: Path, state_dict: str | None) -> Target:
    if path.name.startswith(ADAPTER_WEIGHTS) and (path.parent / ADAPTER_CONFIG).is_file():
        return _open_adapter(name, path)
    header = _read_header(path, state_dict)
    if formats.is_gguf(path):
        return _gguf_target(name, header)
    number = shard_number(path)
    partial = folders.shards_text((number,), shards_beside(path).total) if number else ""
    config = path.parent / run_files.CONFIG
    if not config.is_file():
        return Target(name, header=header, partial=partial)
    try:
        target = open_config(name, config, beside_weights=True)
        return replace(_with_header(target, header), partial=partial)
    except InputError as error:
        return replace(_without_config(name, error), header=header, partial=partial)


def _without_config(name: str, error: InputError) -> Target:
    """A target that is no configuration: it is counted, whatever lies beside it."""
    return Target(name, undeclared="no usable configuration", notes=(f"not used: {error}",))


def _with_own_heads(target: Target, header: Header) -> Target:
    """The target with what it ties and the file stores with values of its own, as transformers 5 loads it."""
    layout = target.layout
    if layout is None or target.config is not None:
        return target
    tables = {tensor.name for tensor in layout.tensors}
    for copy, table in stored_apart(header, [pair for pair in layout.ties if pair[1] in tables]):
        layout = with_own_copy(layout, copy, table)
        note = f"{copy} is stored with values of its own: counted, though it is declared as tied"
        target = replace(
            target,
            layout=layout,
            notes=(*target.notes, note),
            hugging_face=_untied(target.hugging_face),  # a module is built so
        )
    return target


def _untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model whose head is its own, and of its text."""
    text = config.get("text_config")
    parts = {"text_config": _untied(text)} if isinstance(text, Mapping) else {}
    return {**config, **parts, "tie_word_embeddings": False}


def _with_header(target: Target, header: Header) -> Target:
    """The target with its weights: those of a body alone, whatever head config.json names, are noted."""
    names = {tensor.name for tensor in header.tensors}
    if target.layout is not None and target.config is None:
        target = replace(target, layout=with_names_of_file(target.layout, names))
    target = _with_own_heads(as_class_of_file(replace(target, header=header), header), header)
    layout = target.layout
    if layout is None or target.config is not None:
        return target
    heads = {tensor.name for tensor in layout.tensors if tensor.component in components.HEADS}
    if not heads or names & heads or any(n.startswith(body_prefix(layout)) for n in names):
        return target
    body, named = without_head(layout, components.HEADS), class_name_of(target.hugging_face)
    inner = {t.name.removeprefix(body_prefix(layout)) for t in body.named_tensors()}
    if not named and not inner & names and inner & {name.partition(".")[2] for name in names}:
        reason = "the file's prefix is of none of its declared classes"
        return replace(target, layout=None, undeclared=reason, notes=())
    note = f"the file holds the body alone, without the head of {named or target.architecture}"
    return replace(target, layout=body, notes=(*target.notes, note))


def _open_sentence_transformer(name: str, path: Path) -> Target:
    """The body, which is the module that has a model's config.json, and the modules behind it."""
    parts = folders.sentence_transformer_parts(path)
    stored = [part for part in parts if folders.has_weights(part.folder)]
    body = next(iter((*stored, *parts)), None)
    if body is None:
        raise InputError(
            name, f"no modules in its {folders.MODULES}", "a sentence-transformers model"
        )
    target = _open_model_folder(name, body.folder)
    others = tuple(part for part in stored if part != body)
    header, lines = folders.read_parts(others)
    kinds = ", ".join(part.kind for part in parts)
    notes = (*target.notes, f"sentence-transformers: {kinds}", *lines)
    if header is None or target.header is None:
        return replace(target, folder=path, notes=notes)
    layout = target.layout
    if layout is not None:
        layout, unchecked = folders.with_modules(layout, others, header)
        notes = (*notes, *unchecked)
    joined = join_headers((target.header, header))
    return replace(target, folder=path, layout=layout, header=joined, notes=notes)


def _open_pipeline(name: str, path: Path) -> Target:
    """diffusers' pipeline: every component is counted under its own name."""
    fields = read_object(path / folders.PIPELINE)
    parts = folders.pipeline_parts(path, fields)
    header, lines = folders.read_parts(parts)
    if header is None:
        raise InputError(name, f"{folders.PIPELINE} and no component with weights", "a pipeline")
    class_name = fields.get("_class_name")
    return Target(
        name,
        class_name if isinstance(class_name, str) else UNKNOWN,
        header=header,
        folder=path,
        parts=tuple(part.name for part in parts),
        undeclared="a pipeline has no formula of its own",
        notes=(
            "a pipeline of diffusers; name the folder of a component to have it checked",
            *lines,
        ),
    )


def _open_adapter(name: str, weights: Path) -> Target:
    """PEFT's adapter: what it changes, and its share where the base is at hand."""
    fields, header = read_object(weights.parent / ADAPTER_CONFIG), _read_header(weights)
    notes = folders.adapter_notes(fields, header)
    base = folders.base_of_adapter(weights.parent, fields)
    base_total = _count_of_base(base) if base is not None else None
    if base_total is None:
        share = "the base is not at hand: the trainable share is not known"
    else:
        trainable = sum(tensor.count for tensor in header.tensors)
        total = base_total + trainable
        share = f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.3%}), with {base}"
    return Target(
        name,
        folders.adapter_kind(fields),
        header=header,
        folder=weights.parent,
        undeclared="an adapter has no formula of its own",
        notes=(*notes, share),
    )


def _count_of_base(folder: Path) -> int | None:
    """Parameters of an adapter's base by its formula, else by its file; None where it cannot be read."""
    if (folder / ADAPTER_CONFIG).is_file():
        return None
    try:
        base = _open_model_folder(str(folder), folders.snapshot_of_cache(folder) or folder)
    except (InputError, OSError):
        return None
    if base.layout is not None:
        return base.layout.count()
    return sum(tensor.count for tensor in base.header.tensors) if base.header else None


def _read_header(path: Path, state_dict: str | None = None) -> Header:
    return _without_prefix(formats.read(path, state_dict))


def _without_prefix(header: Header) -> Header:
    """The header without the prefix that torch.compile and DistributedDataParallel give every name."""
    prefix = wrapper_prefix([tensor.name for tensor in header.tensors])
    if not prefix:
        return header
    start = len(prefix)
    return replace(
        header,
        tensors=tuple(replace(tensor, name=tensor.name[start:]) for tensor in header.tensors),
        shared=tuple((a[start:], b[start:]) for a, b in header.shared),
        buffers=frozenset(name[start:] for name in header.buffers),
        prefix=header.prefix + prefix,
    )


def _gguf_target(name: str, header: Header) -> Target:
    """A GGUF file has its configuration in its metadata."""
    from minilm.architectures.gguf_layout import gguf_layout, reason_without

    architecture = header.metadata.get("general.architecture", UNKNOWN)
    special = special_file(header)
    if special is not None:
        no_parameters = () if special.has_parameters else (tensor.name for tensor in header.tensors)
        return Target(
            name,
            architecture,
            header=replace(header, buffers=frozenset(no_parameters)),
            undeclared=f"{special.noun} has no formula of its own",
            notes=(special.description,),
        )
    stored, header = header, with_copied_head(header, {})
    fields = {k: v for k, v in header.metadata.items() if k.startswith(f"{architecture}.")}
    try:
        layout = gguf_layout(header)
        undeclared = "" if layout else reason_without(header)
    except ConfigError as error:
        reason = str(error).removeprefix("config.json: ")
        layout, undeclared = None, f"no formula for what its metadata says: {reason}"
    return Target(
        name,
        architecture,
        layout,
        header=header,
        undeclared=undeclared,
        notes=_copy_note(stored, header),
        hyperparameters={"model": fields} if fields else {},
    )


def _copy_note(stored: Header, header: Header) -> tuple[str, ...]:
    """What `with_copied_head` found."""
    names = {tensor.name for tensor in stored.tensors}
    return tuple(
        f"{head} is a copy of {table}: tied, and counted once"
        if head in names
        else f"{head} is not stored: tied to {table}"
        for head, table in header.shared[len(stored.shared) :]
    )
