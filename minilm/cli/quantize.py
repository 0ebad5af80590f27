"""`quantize CHECKPOINT --format F --out DIR`: a model in few bits, and what that changed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from minilm.cli.entry import DONE, option, parse_arguments, refuse_empty, run_command
from minilm.training.messages import messages_on_stderr
from minilm.units import format_bytes

if TYPE_CHECKING:
    from minilm.operations.quantize import Quantized


@dataclass(frozen=True)
class Arguments:
    """A trained model whose matrices are stored in 8 or 4 bits; embeddings, head and norms stay."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A run, or what convert imports."""
    format: Literal["int8", "int4", "nf4"]
    """int8: a scale for each row; int4: for each group of a row; nf4: 16 values spaced as a normal
    distribution is, in blocks of 64."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The new folder; what exists is never overwritten."""
    group_size: Annotated[int | None, option("{32,64,128}")] = None
    """int4: how many inputs share a scale. Default: 32."""
    double_quantization: tyro.conf.FlagCreatePairsOff[bool] = False
    """nf4: the scales are rounded to 8 bits, in blocks of 256."""
    calibrate: Annotated[str | None, option("SOURCE")] = None
    """int8, int4: a text on which rounding keeps the outputs of each layer (GPTQ). Default: to nearest."""
    data: Annotated[str | None, option("SOURCE")] = None
    """The text of the losses, as train takes it. Default: the run's own validation split."""
    layout: Annotated[
        Literal["compressed-tensors", "gptq", "torchao", "gguf"] | None,
        option("{compressed-tensors,gptq,torchao,gguf}"),
    ] = None
    """compressed-tensors, gptq, torchao (int8): a folder for transformers; gguf: a file for llama.cpp, in
    q8_0 or q4_0. Default: a run."""
    text_field: Annotated[str | None, option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the losses are computed; auto: cuda, else mps, else cpu."""
    json: bool = False
    """Print a JSON object instead of the table."""


def main(arguments: Sequence[str] | None = None, program: str = "quantize.py") -> int:
    """Parse, quantize, show what changed."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, command_line, program)
        with messages_on_stderr():
            return _run(options)

    return run_command(command)


def _run(options: Arguments) -> int:
    from minilm.operations.quantize import quantize

    refuse_empty(options, "CHECKPOINT", "--out", "--calibrate", "--data", "--text-field")
    result = quantize(
        options.checkpoint,
        options.out,
        format=options.format,
        group_size=options.group_size,
        double_quantization=options.double_quantization,
        calibrate=options.calibrate,
        data=options.data,
        layout=options.layout,
        text_field=options.text_field,
        device=options.device,
    )
    if options.json:
        fields = {**result.transform, **result.comparison.to_dict()}
        fields |= {"storage": result.storage.to_dict(), "left": result.left}
        print(json.dumps(fields, indent=2))
    else:
        _show(result)
    return DONE


def _show(result: Quantized) -> None:
    from minilm.cli.console import ResultConsole
    from minilm.render.grid import table_lines, wrapped

    console, storage = ResultConsole(), result.storage
    for line in table_lines(result.comparison.table(), console.width):
        console.print(line)
    for note in (
        result.comparison.note(),
        f"{storage.quantized:,} weights in {storage.bits_per_weight:.3f} bits each: "
        f"{format_bytes(storage.code_bytes)} of codes, {format_bytes(storage.scale_bytes)} of scales; "
        f"{format_bytes(storage.left_bytes)} are left as they were: {', '.join(_kinds(result.left))}",
        f"{result.out}: {result.what}",
    ):
        for text in wrapped(note, console.width):
            console.print(text, markup=False)


def _kinds(names: Sequence[str]) -> list[str]:
    """Names of tensors, those of all layers as one, and norms and biases as such at the end."""
    kinds: dict[str, None] = {}
    for name in names:
        if "norm" not in name and not name.endswith(".bias"):
            kinds[re.sub(r"^blocks\.\d+\.", "blocks.*.", name)] = None
    ends = {"norms": "norm.weight", "biases": ".bias"}
    return [*kinds, *(kind for kind, end in ends.items() if any(n.endswith(end) for n in names))]
