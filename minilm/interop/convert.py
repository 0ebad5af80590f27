"""A model as a run, a Hugging Face folder or a GGUF file: what is written appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from minilm import files, formats
from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.errors import ConfigError, FormatError, InputError, naming_file
from minilm.formats.checks import open_regular
from minilm.formats.huggingface import find_weights
from minilm.inspection.folders import snapshot_of_cache
from minilm.interop import peft
from minilm.interop.gguf_source import dequantized_types, open_gguf
from minilm.interop.model_card import NAME, Provenance, card
from minilm.interop.model_source import ModelSource, open_source
from minilm.interop.nanogpt import open_nanogpt
from minilm.quantization.packing import Packing
from minilm.quantization.sparse_packing import SparsePacking
from minilm.runs import files as run_files
from minilm.text.chat_template import stored_templates

SOURCE = "the folder of a run or of a Hugging Face model, a GGUF file, or nanoGPT's ckpt.pt"
Target = Literal["minilm", "huggingface", "gguf"]
GgufFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
SharedLayers = Literal["copy", "refuse"]
DEFAULT_GGUF_FORMAT: GgufFormat = "f16"


def convert(
    source: str | Path,
    to: Target,
    out: str | Path,
    *,
    gguf_format: GgufFormat | None = None,
    modelfile: str | Path = "",
    license: str = "",
    base_model: str = "",
    shared_layers: SharedLayers = "copy",
    packing: Packing | SparsePacking | None = None,
    name: str = "",
) -> str:
    """Write the model of ``source`` to the new path ``out``; return what was written, in a few words.

    ``source`` is the folder of a run or of a Hugging Face model, a GGUF file, or nanoGPT's ckpt.pt.
    ``gguf_format`` (f16 by default) and ``modelfile`` (a new file for `ollama create`) are for GGUF,
    ``license`` and ``base_model`` for the card of a Hugging Face folder, which stores the matrices of a
    quantized run, or of one with zeros, by ``packing`` if that is given. No other format has layers that
    share a block: each gets a copy of it, unless ``shared_layers`` is refuse. ``name`` is that of the
    model, by default that of ``out``. Raises InputError for what cannot be converted; then nothing is
    written.
    """
    _check_choice("to", to, get_args(Target))
    _check_choice("gguf_format", gguf_format or DEFAULT_GGUF_FORMAT, get_args(GgufFormat))
    _check_target(to, "gguf", gguf_format=gguf_format)
    _check_target(to, "huggingface", license=license, base_model=base_model)
    out = Path(out)
    is_stream = not files.is_replaceable(out)
    _check_out(out, is_stream, to)
    if modelfile:
        _check_modelfile(Path(modelfile), out, is_stream, to)
    if peft.is_adapter(Path(source)):
        return _import_adapter(Path(source), to, out)
    provenance = Provenance(license, base_model)
    copies = ""
    with _opened(Path(source)) as model:
        if to != "minilm" and model.config.num_blocks < model.config.num_layers:
            copies = _copies(model.config, shared_layers)
            model = model.unshared()
        with _into_stream(out) if is_stream else files.staged(out) as path:
            result = _write(
                model,
                to,
                path,
                name or name_of(out),
                gguf_format or DEFAULT_GGUF_FORMAT,
                provenance,
                packing,
            )
        if modelfile:
            _write_modelfile(Path(modelfile), out, model)
    return result + copies


def _import_adapter(source: Path, to: Target, out: Path) -> str:
    if to != "minilm":
        remedy = (
            "--to minilm makes a run of both, which `minilm finetune RUN --merge` makes one model"
        )
        raise InputError(source, "an adapter without its base", "a whole model", remedy)
    with files.staged(out) as path:
        path.mkdir()
        peft.import_adapter(source, path)
    return "minilm run, an adapter"


@contextlib.contextmanager
def as_run(path: Path) -> Iterator[Path]:
    """The folder of a run as it is, or a temporary one with what `convert --to minilm` makes of ``path``.

    Raises InputError for what cannot be converted.
    """
    if _is_run(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        convert(path, "minilm", run := Path(folder) / "run")
        yield run


def weights_files(path: Path) -> list[Path]:
    """The files with the weights of what `as_run` takes."""
    if _is_run(path):
        return [path / run_files.WEIGHTS]
    weights = find_weights(snapshot_of_cache(path) or path) if path.is_dir() else path
    assert weights is not None, "as_run opens it"
    return list({tensor.file or weights: None for tensor in formats.read_model(weights).tensors})


def _is_run(path: Path) -> bool:
    try:
        run_files.read_record(path / run_files.CONFIG)
    except (FormatError, OSError):
        return False
    return True


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(name, repr(value), f"one of {', '.join(choices)}")


def _check_target(to: str, target: str, **values: str | None) -> None:
    """Raises ConfigError where one of ``values``, which are for ``target`` alone, is given for another."""
    for name, value in values.items():
        if value and to != target:
            raise ConfigError(name, f"{value} with --to {to}", f"--to {target}, which it is for")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ModelSource]:
    """The model of ``path``; what is raised about its configuration names the file of it."""
    if not path.exists():
        raise InputError(path, "no such file or folder", SOURCE)
    if path.is_dir():
        model = open_source(path)
    else:
        with open_regular(path) as (stream, _):
            first_bytes = stream.read(9)
        if first_bytes.startswith(b"GGUF") or path.suffix == ".gguf":
            with naming_file(path), tempfile.TemporaryDirectory() as folder:
                # Its name is in the metadata of the weights.
                (tokenizer_folder := Path(folder) / path.name).mkdir()
                yield open_gguf(path, tokenizer_folder)
            return
        model = _open_checkpoint(path, first_bytes)
    with naming_file(model.folder / run_files.CONFIG):
        yield model


def _open_checkpoint(path: Path, first_bytes: bytes) -> ModelSource:
    if first_bytes[8:] == b"{" or path.suffix == ".json":
        raise InputError(path, "one file of a model", SOURCE, "name the folder that it is in")
    return open_nanogpt(path)


def _write(
    model: ModelSource,
    to: Target,
    path: Path,
    name: str,
    gguf_format: GgufFormat,
    provenance: Provenance,
    packing: Packing | SparsePacking | None,
) -> str:
    """Write to ``path``, which is not there yet; ``name`` is that of the model."""
    from_packed = f", dequantized from {model.dequantized_from}" if model.dequantized_from else ""
    if to == "gguf":
        from minilm.interop.gguf import export as export_gguf

        return export_gguf(model, path, gguf_format, name) + from_packed
    from minilm.interop.huggingface import export, import_run

    path.mkdir()
    if to == "minilm":
        import_run(model, path)
        if types := dequantized_types(model):
            from_packed = f", {' and '.join(types)} dequantized to float32"
        return "minilm run" + from_packed
    class_name = export(model, path, packing)
    sparse_format = packing.format if isinstance(packing, SparsePacking) else ""
    text = card(model, name, class_name, provenance, sparse_format=sparse_format)
    files.write_bytes(path / NAME, text.encode())
    return class_name


def _copies(config: ModelConfig, shared_layers: SharedLayers) -> str:
    """What is said of shared layers that get copies. Raises ConfigError where that is not wanted."""
    if shared_layers == "refuse":
        raise ConfigError(
            "model.shared_layers",
            f"{config.num_blocks} blocks in {config.num_layers} layers",
            "a block for each layer in another format",
            "leave out --shared-layers refuse to write copies",
        )
    own, expanded = layout(config), layout(config).unshared()
    return (
        f"; {config.num_blocks} shared blocks as {config.num_layers} layers, {expanded.count():,} parameters "
        f"for {own.count():,}"
    )


def _write_modelfile(path: Path, gguf_file: Path, model: ModelSource) -> None:
    from minilm.interop.ollama import modelfile

    has_template = stored_templates(model.folder) is not None
    text = modelfile(gguf_file, path.parent, model.config, has_chat_template=has_template)
    files.write_bytes(path, text.encode())


def _check_modelfile(path: Path, out: Path, is_stream: bool, to: Target) -> None:
    """Raises InputError where there can be no Modelfile, or where it would replace the GGUF file."""
    if to != "gguf" or is_stream:
        raise InputError("--modelfile", "given", "only with --to gguf and a file as --out")
    if os.path.realpath(path) == os.path.realpath(out):
        raise InputError("--modelfile", f"{path}, which is --out", "a file of its own")
    _check_out(path, False, to)


def _check_out(out: Path, is_stream: bool, to: str) -> None:
    """Raises InputError where the result cannot be written, before anything is read."""
    if not is_stream:
        check_new(out)
    elif to != "gguf":
        raise InputError(out, "a pipe or device", f"a path for the new folder of --to {to}")


def check_new(out: Path) -> None:
    """Raises InputError for a path at which something is, or whose folder is not there."""
    if out.exists():
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    if not _followed(out).absolute().parent.is_dir():
        parent = _followed(out).parent
        raise InputError(parent, "no such folder", "one that the new path is in")


def _followed(out: Path) -> Path:
    """Where a symbolic link leads, which must be to nothing yet; any other path itself."""
    return files.resolved(out) if out.is_symlink() else out


def name_of(out: Path) -> str:
    """What a model is called that is written to ``out``."""
    return out.absolute().stem if out.suffix == ".gguf" else out.absolute().name


@contextlib.contextmanager
def _into_stream(out: Path) -> Iterator[Path]:
    """A path in a temporary folder whose file is copied into ``out``, a pipe or device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        yield path
        with path.open("rb") as stream, files.atomic_writer(out) as output:
            shutil.copyfileobj(stream, output)
