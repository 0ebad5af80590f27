"""A model as a run, a Hugging Face folder or a GGUF file: what is written appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from minilm import files
from minilm.errors import FormatError, InputError, naming_file
from minilm.formats.checks import open_regular
from minilm.interop import peft
from minilm.interop.model_card import NAME, Provenance, card
from minilm.interop.model_source import ModelSource, open_source
from minilm.interop.nanogpt import open_nanogpt
from minilm.runs import files as run_files

SOURCE = "the folder of a run or of a Hugging Face model, or nanoGPT's ckpt.pt"
Target = Literal["minilm", "huggingface", "gguf"]
GgufFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


def convert(
    source: str | Path,
    to: Target,
    out: str | Path,
    *,
    gguf_format: GgufFormat = "f16",
    modelfile: str | Path = "",
    license: str = "",
    base_model: str = "",
) -> str:
    """Write the model of ``source`` to the new path ``out``; return what was written, in a few words.

    ``source`` is the folder of a run or of a Hugging Face model, or nanoGPT's ckpt.pt. ``gguf_format``
    and ``modelfile`` (a new file for `ollama create`) are for GGUF, ``license`` and ``base_model`` for
    the card of a Hugging Face folder. Raises InputError for what cannot be converted; then nothing is
    written.
    """
    _check_choice("to", to, get_args(Target))
    _check_choice("gguf_format", gguf_format, get_args(GgufFormat))
    out = Path(out)
    is_stream = not files.is_replaceable(out)
    _check_out(out, is_stream, to)
    if modelfile:
        _check_modelfile(Path(modelfile), out, is_stream, to)
    if peft.is_adapter(Path(source)):
        return _import_adapter(Path(source), to, out)
    provenance = Provenance(license, base_model)
    model = _open(Path(source))
    output = _into_stream(out) if is_stream else files.staged(out)
    with naming_file(model.folder / run_files.CONFIG), output as path:
        result = _write(model, to, path, _name(out), gguf_format, provenance)
    if modelfile:
        _write_modelfile(Path(modelfile), out, model)
    return result


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(name, repr(value), f"one of {', '.join(choices)}")


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


def _is_run(path: Path) -> bool:
    try:
        run_files.read_record(path / run_files.CONFIG)
    except (FormatError, OSError):
        return False
    return True


def _open(path: Path) -> ModelSource:
    if not path.exists():
        raise InputError(path, "no such file or folder", SOURCE)
    if path.is_dir():
        return open_source(path)
    with open_regular(path) as (stream, _):
        first_bytes = stream.read(9)
    if first_bytes.startswith(b"GGUF"):
        raise InputError(path, "a GGUF file, which is not imported yet", SOURCE)
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
) -> str:
    """Write to ``path``, which is not there yet; ``name`` is that of the model."""
    if to == "gguf":
        from minilm.interop.gguf import export as export_gguf

        return export_gguf(model, path, gguf_format, name)
    from minilm.interop.huggingface import export, import_run

    path.mkdir()
    if to == "minilm":
        import_run(model, path)
        return "minilm run"
    class_name = export(model, path)
    files.write_bytes(path / NAME, card(model, name, class_name, provenance).encode())
    return class_name


def _write_modelfile(path: Path, gguf_file: Path, model: ModelSource) -> None:
    from minilm.interop.gguf_tokenizer import chat_template
    from minilm.interop.ollama import modelfile

    has_template = chat_template(model.folder) is not None
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
    if is_stream:
        if to != "gguf":
            raise InputError(out, "a pipe or device", f"a path for the new folder of --to {to}")
    elif out.exists():
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    elif not _followed(out).absolute().parent.is_dir():
        parent = _followed(out).parent
        raise InputError(parent, "no such folder", "one that the new path is in")


def _followed(out: Path) -> Path:
    """Where a symbolic link leads, which must be to nothing yet; any other path itself."""
    return files.resolved(out) if out.is_symlink() else out


def _name(out: Path) -> str:
    return out.absolute().stem if out.suffix == ".gguf" else out.absolute().name


@contextlib.contextmanager
def _into_stream(out: Path) -> Iterator[Path]:
    """A path in a temporary folder whose file is copied into ``out``, a pipe or device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        yield path
        with path.open("rb") as stream, files.atomic_writer(out) as output:
            shutil.copyfileobj(stream, output)
