"""`evaluate CHECKPOINT`: loss, bits a byte and perplexity of whatever model loads."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import DONE, option, parse_arguments, refuse_empty, run_command
from minilm.training.messages import messages_on_stderr
from minilm.units import format_decimal

MEMORY_ADVICE = "try --dtype bfloat16, or on a GPU --device cpu"


@dataclass(frozen=True)
class Arguments:
    """Loss, bits a byte and perplexity of a model on a text."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A run, a quantized, pruned or fine-tuned one too, or what convert imports."""
    data: Annotated[str | None, option("SOURCE")] = None
    """The text, as train takes it; all of it is evaluated. Default: the run's own validation split."""
    text_field: Annotated[str | None, option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the matrix products; auto: as in training."""
    json: bool = False
    """Print a JSON object."""


def main(arguments: Sequence[str] | None = None, program: str = "minilm evaluate") -> int:
    """Parse, evaluate, print."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, command_line, program)
        with messages_on_stderr():
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE)


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
    print(f"over {result.tokens:,} tokens, {result.text}, in {result.dtype} on {result.device}")
    return DONE
