"""`architectures`: every model_type whose tensors are declared, and what is known of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from minilm.architectures.overview import Overview, overviews
from minilm.cli.entry import DONE, option, parse_arguments, run_command
from minilm.cli.operation_options import Json
from minilm.errors import InputError

TITLES = Overview("model_type", "counted", "KV cache", "GGUF", "runs", "the same as")


@dataclass(frozen=True)
class Arguments:
    """Every model_type of a Hugging Face config.json that is counted without weights.

    counted: names, shapes, formula, memory, or of which part of the model; KV cache: whether some layers have
    a window, a latent or sparse one, or a state of constant size; GGUF: what llama.cpp's files call it, where
    they are held against the declaration; runs: minilm trains and exports it, or imports it.
    """

    name: Annotated[tuple[str, ...], tyro.conf.Positional, option("[NAME ...]")] = ()
    """Only types with one of these in their names, or in those of GGUF: qwen."""
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "minilm architectures") -> int:
    """Parse, list."""
    command_line = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, command_line, program)))


def _run(options: Arguments) -> int:
    rows = [row for row in overviews() if _is_named(row, options.name)]
    if not rows:
        names = " or ".join(map(repr, options.name))
        raise InputError(
            "NAME", f"{names}, which no declared type has in it", "a part of a model_type"
        )
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
        return DONE
    widths = [max(len(row[column]) for row in (TITLES, *rows)) for column in range(len(TITLES))]
    for row in (TITLES, *rows):
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    return DONE


def _is_named(row: Overview, parts: Sequence[str]) -> bool:
    names = f"{row.model_type} {row.gguf}".lower()
    return not parts or any(part.lower() in names for part in parts)
