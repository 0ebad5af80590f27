"""`convert SOURCE --to FORMAT --out PATH`: a model for other programs, or theirs as a run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import DONE, parse_arguments, run_command
from minilm.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """A run as a Hugging Face folder or a GGUF file, or a Hugging Face folder as a run."""

    source: Annotated[str, tyro.conf.Positional]
    """The folder of a run, or of a Hugging Face model."""
    to: Literal["minilm", "huggingface", "gguf"]
    """What to make: a run, a folder that transformers opens, a file that llama.cpp runs."""
    out: str
    """The new folder or file; what exists is never overwritten."""
    gguf_format: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] = "f16"
    """What the matrices of a GGUF file are stored in."""


def main(arguments: Sequence[str] | None = None, program: str = "convert.py") -> int:
    """Parse, convert, say what was written."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, given, program)))


def _run(options: Arguments) -> int:
    from minilm.interop.model_source import open_source

    out = Path(options.out)
    if os.path.lexists(out):
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    if not out.absolute().parent.is_dir():
        raise InputError(out.parent, "no such folder", "one that the new path is in")
    source = open_source(Path(options.source))
    with _staged(out) as staging:
        if options.to == "gguf":
            from minilm.interop.gguf import export as export_gguf

            made = export_gguf(source, staging, options.gguf_format, _name(out))
        else:
            from minilm.interop.huggingface import export, import_run
            from minilm.interop.model_card import card

            staging.mkdir()
            if options.to == "minilm":
                import_run(source, staging)
                made = "run"
            else:
                made = export(source, staging)
                text = card(source, _name(out), made)
                (staging / "README.md").write_text(text, encoding="utf-8")
    print(f"{out}: {made}")
    return DONE


def _name(out: Path) -> str:
    return out.absolute().stem if out.suffix == ".gguf" else out.absolute().name


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A path beside ``out`` that becomes it when the block ends well, and vanishes otherwise."""
    staging = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        yield staging
        os.replace(staging, out)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)
