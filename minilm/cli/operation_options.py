"""What the verbs on trained models have in common on the command line: each option is declared once."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from minilm.cli.entry import option

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
