"""What the verbs on trained models have in common on the command line: each option is declared once;
how such a verb runs, and how it shows what changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from minilm.cli.entry import (
    MORE_MEMORY,
    naming_options,
    option,
    options_of,
    parse_arguments,
    run_command,
)
from minilm.training.messages import messages_on_stderr

if TYPE_CHECKING:
    from minilm.operations.comparison import Comparison

Arguments = TypeVar("Arguments")

MEMORY_ADVICE = "try --dtype bfloat16, or on a GPU --device cpu"

Checkpoint = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
NewFolder = Annotated[
    str,
    tyro.conf.arg(metavar="DIR", help="The new folder; what exists is never overwritten."),
]
EvaluatedText = Annotated[
    str | None,
    option(
        "SOURCE",
        help="A text for the loss, as train takes it; all of it is evaluated. Default: the run's own "
        "validation split.",
    ),
]
TextField = Annotated[
    str | None,
    option(
        "FIELD",
        help="Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of "
        "text.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    tyro.conf.arg(help="Where to compute; auto: cuda, else mps, else cpu."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    tyro.conf.arg(help="Of the matrix products; auto: as in training."),
]
Json = Annotated[bool, tyro.conf.arg(help="Print a JSON object instead.")]


def run_operation(
    cls: Callable[..., Arguments],
    run: Callable[[Arguments], int],
    arguments: Sequence[str] | None,
    program: str,
    memory_advice: str = MORE_MEMORY,
) -> int:
    """Parse the command line as a ``cls`` and ``run`` it, messages on stderr; returns the exit status."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(cls, command_line, program)
        with messages_on_stderr(), naming_options(*options_of(cls)):
            return run(options)

    return run_command(command, memory_advice=memory_advice)


def show_comparison(comparison: Comparison, notes: Iterable[str]) -> None:
    """Print the table before and after, what it says of itself, and ``notes``."""
    from minilm.cli.console import ResultConsole
    from minilm.render.grid import table_lines, wrapped

    console = ResultConsole()
    for line in table_lines(comparison.table(), console.width):
        console.print(line)
    for note in (comparison.note(), *notes):
        for text in wrapped(note, console.width):
            console.print(text, markup=False)
