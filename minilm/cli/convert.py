"""`convert SOURCE --to FORMAT --out PATH`: a run for other programs, or their model as a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minilm import files
from minilm.cli.entry import (
    DONE,
    naming_options,
    option,
    options_of,
    parse_arguments,
    refuse_empty,
    run_command,
)


@dataclass(frozen=True)
class Arguments:
    """A run as a Hugging Face folder or a GGUF file, or one of these as a run."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The folder of a run or of a Hugging Face model, a GGUF file, or nanoGPT's ckpt.pt."""
    to: Literal["minilm", "huggingface", "gguf"]
    """What to make: a run, a folder that transformers opens, a file that llama.cpp runs."""
    out: str
    """The new folder or file; what exists is never overwritten. A GGUF file may go into a pipe."""
    gguf_format: Annotated[
        Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None, option("{f32,f16,bf16,q8_0,q4_0}")
    ] = None
    """gguf: what the matrices are stored in. Default: f16."""
    modelfile: str = ""
    """gguf: a new file for `ollama create NAME -f FILE`, beside the GGUF file."""
    license: str = ""
    """huggingface: license of the weights in the model card, as the Hub names it: mit, apache-2.0, ..."""
    base_model: str = ""
    """huggingface: the model on the Hub that these weights come from, for the model card."""
    shared_layers: Literal["copy", "refuse"] = "copy"
    """Layers that share a block, which other formats do not have: each gets a copy, or none is written."""


def main(arguments: Sequence[str] | None = None, program: str = "convert.py") -> int:
    """Parse, convert, say what was written."""
    command_line = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, command_line, program)))


def _run(options: Arguments) -> int:
    from minilm.interop.convert import convert

    refuse_empty(options, "SOURCE", "--out")
    out = Path(options.out)
    # What goes to /dev/stdout must stay a file.
    stream = sys.stdout if files.is_replaceable(out) else sys.stderr
    with naming_options(*options_of(Arguments)):
        result = convert(
            options.source,
            options.to,
            out,
            gguf_format=options.gguf_format,
            modelfile=options.modelfile,
            license=options.license,
            base_model=options.base_model,
            shared_layers=options.shared_layers,
        )
    print(f"{out}: {result}", file=stream)
    return DONE
