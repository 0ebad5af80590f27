"""`quantize CHECKPOINT --format F --out DIR`: a model in few bits, and what that changed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import DONE, option, refuse_empty
from minilm.cli.operation_options import (
    Checkpoint,
    Device,
    EvaluatedText,
    Json,
    NewFolder,
    TextField,
    run_operation,
    show_comparison,
)
from minilm.units import format_bytes


@dataclass(frozen=True)
class Arguments:
    """A trained model whose matrices are stored in 8 or 4 bits; embeddings, head and norms stay."""

    checkpoint: Checkpoint
    """A run, or what convert imports."""
    format: Literal["int8", "int4", "nf4"]
    """int8: a scale for each row; int4: for each group of a row; nf4: 16 values spaced as a normal
    distribution is, in blocks of 64."""
    out: NewFolder
    group_size: Annotated[int | None, option("{32,64,128}")] = None
    """int4: how many inputs share a scale. Default: 32."""
    double_quantization: tyro.conf.FlagCreatePairsOff[bool] = False
    """nf4: the scales are rounded to 8 bits, in blocks of 256."""
    calibrate: Annotated[str | None, option("SOURCE")] = None
    """int8, int4: a text on which rounding keeps the outputs of each layer (GPTQ). Default: to nearest."""
    data: EvaluatedText = None
    layout: Annotated[
        Literal["compressed-tensors", "gptq", "torchao", "gguf"] | None,
        option("{compressed-tensors,gptq,torchao,gguf}"),
    ] = None
    """compressed-tensors, gptq, torchao (int8): a folder for transformers; gguf: a file for llama.cpp, in
    q8_0 or q4_0. Default: a run."""
    text_field: TextField = None
    device: Device = "auto"
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "quantize.py") -> int:
    """Parse, quantize, show what changed."""
    return run_operation(Arguments, _run, arguments, program)


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
        return DONE
    storage = result.storage
    notes = (
        f"{storage.quantized:,} weights in {storage.bits_per_weight:.3f} bits each: "
        f"{format_bytes(storage.code_bytes)} of codes, {format_bytes(storage.scale_bytes)} of scales; "
        f"{format_bytes(storage.left_bytes)} are left as they were: {', '.join(_kinds(result.left))}",
        f"{result.out}: {result.what}",
    )
    show_comparison(result.comparison, notes)
    return DONE


def _kinds(names: Sequence[str]) -> list[str]:
    """Names of tensors, those of all layers as one, and norms and biases as such at the end."""
    kinds: dict[str, None] = {}
    for name in names:
        if "norm" not in name and not name.endswith(".bias"):
            kinds[re.sub(r"^blocks\.\d+\.", "blocks.*.", name)] = None
    ends = {"norms": "norm.weight", "biases": ".bias"}
    return [*kinds, *(kind for kind, end in ends.items() if any(n.endswith(end) for n in names))]
