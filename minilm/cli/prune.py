"""`prune CHECKPOINT --sparsity S --method M --out DIR`: fewer weights, and what that changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from minilm.cli.entry import DONE, option, refuse_empty
from minilm.cli.operation_options import (
    Checkpoint,
    Device,
    Json,
    NewFolder,
    TextField,
    run_operation,
    show_comparison,
)
from minilm.units import format_bytes

if TYPE_CHECKING:
    from minilm.operations.prune import Pruned


@dataclass(frozen=True)
class Arguments:
    """A trained model with zeros among its weights, or without some heads, feed-forward units or layers."""

    checkpoint: Checkpoint
    """A run, or what convert imports."""
    sparsity: float
    """What fraction of the weights of the blocks' matrices, or of the heads, units or layers."""
    out: NewFolder
    method: Literal["magnitude", "wanda", "sparsegpt", "2:4", "heads", "units", "layers"] = (
        "sparsegpt"
    )
    """magnitude: the smallest weights; wanda: those times their inputs; sparsegpt: those that change the
    outputs least, the others corrected; 2:4: so, two of every four; or all of a key/value head, a
    feed-forward unit, a layer."""
    scope: Literal["global", "layer"] = "layer"
    """magnitude: the smallest of each matrix, or of all together."""
    recover: int = 0
    """Steps of training afterwards, in which zeros stay zero."""
    data: Annotated[str | None, option("SOURCE")] = None
    """A text: its last tenth is evaluated, the rest scores and recovers. Default: the run's own."""
    layout: Annotated[
        Literal["compressed-tensors"] | None,
        option("{compressed-tensors}"),
    ] = None
    """compressed-tensors: a folder that stores zeros as bits, for its versions up to 0.14. Default: a run."""
    text_field: TextField = None
    device: Device = "auto"
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "prune.py") -> int:
    """Parse, prune, show what changed."""
    return run_operation(Arguments, _run, arguments, program)


def _run(options: Arguments) -> int:
    from minilm.operations.prune import prune

    refuse_empty(options, "CHECKPOINT", "--out", "--data", "--text-field")
    pruned = prune(
        options.checkpoint,
        options.out,
        sparsity=options.sparsity,
        method=options.method,
        scope=options.scope,
        recover=options.recover,
        data=options.data,
        layout=options.layout,
        text_field=options.text_field,
        device=options.device,
    )
    if options.json:
        fields = {**pruned.transform, **pruned.comparison.to_dict()}
        print(json.dumps(fields | {"sparse_bytes": pruned.sparse_bytes}, indent=2))
        return DONE
    show_comparison(pruned.comparison, _notes(pruned))
    return DONE


def _notes(pruned: Pruned) -> Iterator[str]:
    before, after = pruned.comparison.before, pruned.comparison.after
    if after.parameters == before.parameters and after.nonzero < before.nonzero:
        note = "A weight that is zero is still multiplied"
        if after.bytes != pruned.sparse_bytes:
            note += " and stored: a mask by itself frees neither memory nor time"
            if pruned.sparse_bytes is not None:
                size = format_bytes(pruned.sparse_bytes)
                note += f". With --layout compressed-tensors the weights take {size}"
        yield f"{note}."
    yield f"{pruned.out}: {pruned.what}"
