"""`search --data SOURCE --params N --trials N --study FILE`: hyperparameters and shapes under a budget."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from minilm.cli.config_options import set_fields
from minilm.cli.entry import (
    CHECK_FAILED,
    DONE,
    naming_options,
    option,
    parse_arguments,
    refuse_empty,
    run_command,
)
from minilm.cli.operation_options import Json, TextField
from minilm.cli.train_options import (
    DATA_HELP,
    UNPREFIXED_FIELDS,
    ModelOverrides,
    TrainOverrides,
    with_current_names,
)
from minilm.config import ModelConfig, TrainConfig
from minilm.errors import InputError
from minilm.training.messages import messages_on_stderr
from minilm.units import parse_bytes

if TYPE_CHECKING:
    from minilm.hyperparameters.result import SearchResult

MEMORY_ADVICE = "lower the budget, or set --train.batch-size"


@dataclass(frozen=True)
class Arguments:
    """Search learning rates, batch size, depth and width for a text, under a budget that is computed before
    anything is trained. Start the same command several times to use more processors."""

    study: Annotated[str, option("FILE")]
    """The database of the search, made or gone on with; the best run and a page are in FILE.trials."""
    data: Annotated[str, option("SOURCE", help=DATA_HELP)] = "stdlib"
    params: Annotated[str | None, option("NUMBER")] = None
    """Budget: at most so many parameters, as 1M."""
    bytes: Annotated[str | None, option("SIZE")] = None
    """Budget: at most so much for float32 weights and the KV cache of a full context, as 4MB."""
    flops: Annotated[str | None, option("NUMBER")] = None
    """Budget: at most so many FLOPs for a token, forward, as 2M."""
    joules: Annotated[float | None, option("FLOAT")] = None
    """Budget: at most so many joules for a token of training: by the counters of this machine, where they can
    be read, else estimated from FLOPs and bytes moved."""
    trials: int = 20
    """How many trials are finished at the end, by all processes together."""
    tokens: Annotated[str | None, option("NUMBER")] = None
    """Length of a trial: the FLOPs of the first one on so many tokens. Default: those of the preset's run."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe learns from the trials before; random does not."""
    preset: str = "nano"
    """Where the search begins, and all that is not searched."""
    tokenizer: Annotated[Literal["byte", "char", "bpe"] | None, option("{byte,char,bpe}")] = None
    """Default: the preset's, which is bpe."""
    vocab_size: Annotated[int | None, option("INT")] = None
    """Of a bpe tokenizer. Default: the preset's."""
    text_field: TextField = None
    json: Json = False
    model: Annotated[Any, tyro.conf.arg(constructor=ModelOverrides)] = ModelOverrides()
    """Any field of ModelConfig: fixed, and so not searched."""
    train: Annotated[Any, tyro.conf.arg(constructor=TrainOverrides)] = TrainOverrides()
    """Any field of TrainConfig but those that follow from the trials: fixed, and so not searched."""


_OPTIONS = (
    *(f"--model.{field.name.replace('_', '-')}" for field in dataclasses.fields(ModelConfig)),
    *(f"--train.{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainConfig)),
    *(f"--{name.replace('_', '-')}" for name in UNPREFIXED_FIELDS),
    *(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Arguments)),
)


def main(arguments: Sequence[str] | None = None, program: str = "search.py") -> int:
    """Parse, search, show. Exit status: 0 done, 1 no trial reached its end, 2 bad input, 130/143 stopped."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, with_current_names(command_line), program)
        with messages_on_stderr(), naming_options(*_OPTIONS):
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    refuse_empty(options, "--study", "--data", "--preset", "--text-field")
    from minilm.hyperparameters.search import search

    result = search(
        options.data,
        study=options.study,
        params=_number(options.params, "--params"),
        bytes=None if options.bytes is None else parse_bytes(options.bytes, "--bytes"),
        flops=_number(options.flops, "--flops"),
        joules=options.joules,
        trials=options.trials,
        tokens=_number(options.tokens, "--tokens"),
        sampler=options.sampler,
        preset=options.preset,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        text_field=options.text_field,
        model=set_fields(options.model),
        settings=set_fields(options.train),
    )
    if options.json:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        _show(result)
    return DONE if result.best is not None else CHECK_FAILED


def _number(text: str | None, where: str) -> int | None:
    from minilm.inspection.reconciliation.numbers import parse_number

    if text is None:
        return None
    try:
        return parse_number(text, where).value
    except InputError as error:
        raise InputError(where, error.got, "a number, as 1M or 800000") from None


def _show(result: SearchResult) -> None:
    """The sections on the terminal, of the trials the best ones."""
    import shlex
    from dataclasses import replace

    from minilm.cli.console import ResultConsole
    from minilm.hyperparameters.result import BRIEF_TRIALS
    from minilm.render.document import Code, Paragraph, Table, brief
    from minilm.render.grid import table_lines, wrapped

    console = ResultConsole()
    for section in filter(None, map(brief, result.sections())):
        console.rule(section.title.lower())
        for block in section.blocks:
            if isinstance(block, Table):
                table = replace(block, rows=block.rows[:BRIEF_TRIALS]) if not block.bars else block
                for line in table_lines(table, console.width):
                    console.print(line)
            elif isinstance(block, Paragraph):
                for text in wrapped(block.text, console.width):
                    console.print(text, markup=False)
            elif isinstance(block, Code):
                print(shlex.join(result.command))  # one line, to be pasted
    console.print(f"\nall of this, and a chart: {result.report}", markup=False)
