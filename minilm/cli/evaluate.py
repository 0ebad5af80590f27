"""`evaluate CHECKPOINT`: loss, bits a byte and perplexity of whatever model loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from minilm.cli.entry import DONE, refuse_empty
from minilm.cli.operation_options import (
    MEMORY_ADVICE,
    Checkpoint,
    Device,
    Dtype,
    EvaluatedText,
    Json,
    TextField,
    run_operation,
)
from minilm.units import format_decimal


@dataclass(frozen=True)
class Arguments:
    """Loss, bits a byte and perplexity of a model on a text."""

    checkpoint: Checkpoint
    """A run, a quantized, pruned or fine-tuned one too, or what convert imports."""
    data: EvaluatedText = None
    text_field: TextField = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "minilm evaluate") -> int:
    """Parse, evaluate, print."""
    return run_operation(Arguments, _run, arguments, program, MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    from minilm.operations.evaluate import evaluate

    refuse_empty(options, "CHECKPOINT", "--data", "--text-field")
    result = evaluate(
        options.checkpoint,
        options.data,
        device=options.device,
        dtype=options.dtype,
        text_field=options.text_field,
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
        return DONE
    print(
        f"{result.loss:.4f} nats a token, {result.bits_per_byte:.4f} bits a byte, perplexity "
        f"{format_decimal(result.perplexity, 3)}"
    )
    print(result.extent)
    return DONE
