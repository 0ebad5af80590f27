"""`convert SOURCE --to FORMAT --out PATH`: a run for other programs, or their model as a run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minilm import files
from minilm.cli.entry import DONE, parse_arguments, run_command
from minilm.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """A run as a Hugging Face folder or a GGUF file, or a Hugging Face folder as a run."""

    source: Annotated[str, tyro.conf.Positional]
    """The folder of a run or of a Hugging Face model, or nanoGPT's ckpt.pt."""
    to: Literal["minilm", "huggingface", "gguf"]
    """What to make: a run, a folder that transformers opens, a file that llama.cpp runs."""
    out: str
    """The new folder or file; what exists is never overwritten. A GGUF file may go into a pipe."""
    gguf_format: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] = "f16"
    """What the matrices of a GGUF file are stored in."""
    modelfile: str = ""
    """gguf: a new file for `ollama create NAME -f FILE`, beside the GGUF file."""
    license: str = ""
    """huggingface: license of the weights in the model card, as the Hub names it: mit, apache-2.0, ..."""
    base_model: str = ""
    """huggingface: the model on the Hub that these weights come from, for the model card."""


def main(arguments: Sequence[str] | None = None, program: str = "convert.py") -> int:
    """Parse, convert, say what was written."""
    command_line = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, command_line, program)))


def _run(options: Arguments) -> int:
    from minilm.interop.model_card import Provenance
    from minilm.interop.model_source import open_source
    from minilm.interop.nanogpt import open_nanogpt

    out = Path(options.out)
    is_stream = not files.is_replaceable(out)
    _check_out(out, is_stream, options.to)
    if options.modelfile:
        if options.to != "gguf" or is_stream:
            raise InputError("--modelfile", "given", "only with --to gguf and a file as --out")
        _check_out(Path(options.modelfile), False, options.to)
    provenance = Provenance(options.license, options.base_model)
    path = Path(options.source)
    source = open_nanogpt(path) if path.is_file() else open_source(path)
    with _into_stream(out) if is_stream else _staged(out) as path:
        if options.to == "gguf":
            from minilm.interop.gguf import export as export_gguf

            written = export_gguf(source, path, options.gguf_format, _name(out))
        else:
            from minilm.interop.huggingface import export, import_run
            from minilm.interop.model_card import NAME, card

            path.mkdir()
            if options.to == "minilm":
                import_run(source, path)
                written = "minilm run"
            else:
                written = export(source, path)
                text = card(source, _name(out), written, provenance)
                files.write_bytes(path / NAME, text.encode())
    if options.modelfile:
        from minilm.interop.gguf_tokenizer import chat_template
        from minilm.interop.ollama import modelfile

        target = Path(options.modelfile)
        has_template = chat_template(source.folder) is not None
        text = modelfile(out, target.parent, source.config, has_chat_template=has_template)
        files.write_bytes(target, text.encode())
    # What went to /dev/stdout must stay a file.
    print(f"{out}: {written}", file=sys.stderr if is_stream else sys.stdout)
    return DONE


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
def _staged(out: Path) -> Iterator[Path]:
    """A path beside ``out`` that becomes it when the block ends well, and vanishes otherwise."""
    target = _followed(out)
    staging = target.parent / files.temporary_name(target.name)
    try:
        yield staging
        os.replace(staging, target)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)


@contextlib.contextmanager
def _into_stream(out: Path) -> Iterator[Path]:
    """A path in a temporary folder whose file is copied into ``out``, a pipe or device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        yield path
        with path.open("rb") as stream, files.atomic_writer(out) as output:
            shutil.copyfileobj(stream, output)
