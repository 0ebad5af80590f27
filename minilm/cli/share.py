"""`share CHECKPOINT`: layers that share blocks, a tied head, and the inverse of both."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import DONE, option, parse_arguments, refuse_empty, run_command
from minilm.training.messages import messages_on_stderr

MEMORY_ADVICE = "try --dtype bfloat16, or on a GPU --device cpu"


@dataclass(frozen=True)
class Arguments:
    """Make a trained model share parameters between layers, or between head and token table."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A run, or what convert imports."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The new folder of a run; what exists is never overwritten."""
    layers: Annotated[int | None, option("INT")] = None
    """Blocks for all layers to share, each that of the first of its layers; as many as there are layers:
    a copy for each, which changes no output."""
    sharing: Literal["group", "cycle"] = "group"
    """Which layers share a block: neighbours, or every N-th."""
    tie_head: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make the head the token table; its own weights are lost."""
    untie_head: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give a tied head a copy of the token table, which changes no output."""
    data: Annotated[str | None, option("SOURCE")] = None
    """A text for the loss, as train takes it; all of it is evaluated. Default: the run's validation split."""
    text_field: Annotated[str | None, option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the loss is computed; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the loss's matrix products; auto: as in training."""
    json: bool = False
    """Print a JSON object."""


def main(arguments: Sequence[str] | None = None, program: str = "share.py") -> int:
    """Parse, share, print the table."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, command_line, program)
        with messages_on_stderr():
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    from minilm.cli.console import ResultConsole
    from minilm.operations.share import share
    from minilm.render.grid import table_lines

    refuse_empty(options, "CHECKPOINT", "--out", "--data", "--text-field")
    shared = share(
        options.checkpoint,
        options.out,
        layers=options.layers,
        sharing=options.sharing,
        tie_head=options.tie_head,
        untie_head=options.untie_head,
        data=options.data,
        device=options.device,
        dtype=options.dtype,
        text_field=options.text_field,
    )
    if options.json:
        print(
            json.dumps(
                {"out": options.out, **shared.transform, **shared.comparison.to_dict()}, indent=2
            )
        )
        return DONE
    console = ResultConsole()
    for line in table_lines(shared.comparison.table(), console.width):
        console.print(line)
    console.print(shared.comparison.note(), markup=False)
    changes = ", ".join(
        f"{name} {value}" for name, value in shared.transform.items() if name != "tool"
    )
    console.print(f"{options.out}: {changes}", markup=False)
    return DONE
