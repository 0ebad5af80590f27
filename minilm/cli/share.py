"""`share CHECKPOINT`: layers that share blocks, a tied head, and the inverse of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import DONE, option, refuse_empty
from minilm.cli.operation_options import (
    MEMORY_ADVICE,
    Checkpoint,
    Device,
    Dtype,
    EvaluatedText,
    Json,
    NewFolder,
    TextField,
    run_operation,
    show_comparison,
)


@dataclass(frozen=True)
class Arguments:
    """Make a trained model share parameters between layers, or between head and token table."""

    checkpoint: Checkpoint
    """A run, or what convert imports."""
    out: NewFolder
    layers: Annotated[int | None, option("INT")] = None
    """Blocks for all layers to share, each that of the first of its layers; as many as there are layers:
    a copy for each, which changes no output."""
    sharing: Annotated[Literal["group", "cycle"] | None, option("{group,cycle}")] = None
    """Which layers share a block: neighbours (group), or every N-th. Default: group."""
    tie_head: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make the head the token table; its own weights are lost."""
    untie_head: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give a tied head a copy of the token table, which changes no output."""
    data: EvaluatedText = None
    text_field: TextField = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "share.py") -> int:
    """Parse, share, print the table."""
    return run_operation(Arguments, _run, arguments, program, MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    from minilm.operations.share import share

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
    changes = ", ".join(
        f"{name} {value}" for name, value in shared.transform.items() if name != "tool"
    )
    show_comparison(shared.comparison, [f"{options.out}: {changes}"])
    return DONE
