"""`plan`: what a training run takes on given GPUs, before it is paid for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from minilm.cli.entry import (
    CHECK_FAILED,
    DONE,
    option,
    parse_arguments,
    refuse_empty,
    run_command,
)
from minilm.cli.operation_options import Json
from minilm.operations.plan import GPUS_PER_SERVER, MEASURED_MFU


@dataclass(frozen=True)
class Arguments:
    """Memory of a card, communication, days, energy and cost of a training run, by layout of the ranks."""

    gpus: int
    """How many cards."""
    gpu: str
    """Which: H100, A100-80GB, RTX 4090, ...; any other with --gpu-memory, --gpu-flops and --gpu-link."""
    tokens: str
    """Tokens to train on: 10B, 15T, 2.5e9."""
    target: Annotated[
        str | None,
        tyro.conf.Positional,
        option("TARGET", help="A preset, a run or model folder, a config.json."),
    ] = None
    preset: Annotated[str | None, option("NAME", help="A preset, as TARGET.")] = None
    params: Annotated[
        str | None,
        option("NUMBER", help="Propose shapes of so many parameters, and plan the best: 125M, 7B."),
    ] = None
    vocab_size: Annotated[
        int | None,
        option(
            "INT",
            help="Of what --params proposes, rounded up to a multiple of 64; by default GPT-2's 50257.",
        ),
    ] = None
    tied_embeddings: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """What --params proposes has a head that is the token table."""
    context: Annotated[
        int | None,
        option("INT", help="Tokens of a sequence; by default the model's context length."),
    ] = None
    batch_tokens: Annotated[
        str | None,
        option(
            "NUMBER",
            help="Tokens of a step, all cards together; by default 0.5M to 3.2M, as GPT-3's.",
        ),
    ] = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Its state is in float32."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the matrix products; weights stay float32, which is multiplied in TF32 where a card has it."""
    mfu: float = MEASURED_MFU
    """Share of the dense peak that a card reaches while no link is waited for: by default what GPT-2 124M
    reached on one H100 (docs/performance.md)."""
    tensor_parallel: Annotated[
        int | None,
        option(
            "INT", help="Ranks that divide a block; by default as many as heads and a server allow."
        ),
    ] = None
    gpus_per_server: int = GPUS_PER_SERVER
    """Cards that --gpu-link connects."""
    price: Annotated[
        float | None,
        option("FLOAT", help="Of a card and hour, in any currency; without it no cost."),
    ] = None
    gpu_memory: Annotated[
        str | None, option("SIZE", help="Memory of a card instead of the known one: 80GB, 79GiB.")
    ] = None
    gpu_flops: Annotated[
        str | None,
        option(
            "NUMBER",
            help="Its dense peak in --dtype instead of the known one: 989T. Not the sparse one.",
        ),
    ] = None
    gpu_link: Annotated[
        float | None,
        option(
            "FLOAT",
            help="GB/s, one direction, between cards of a server instead of the known ones.",
        ),
    ] = None
    network: Annotated[
        float | None,
        option(
            "FLOAT",
            help="Gbit/s between servers, a card's share; by default as in NVIDIA's DGX of the card.",
        ),
    ] = None
    gpu_watts: Annotated[
        float | None, option("FLOAT", help="Power of a card instead of the known one.")
    ] = None
    json: Json = False


def main(arguments: Sequence[str] | None = None, program: str = "plan.py") -> int:
    """Parse, plan, print."""
    command_line = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, command_line, program)))


def _run(options: Arguments) -> int:
    from minilm.errors import InputError
    from minilm.operations.plan import parse_count, plan
    from minilm.units import parse_bytes

    refuse_empty(options, "TARGET", "--preset", "--params", "--gpu", "--tokens")
    if options.target is not None and options.preset is not None:
        raise InputError("--preset", "a TARGET beside it", "one of them")
    memory, flops = options.gpu_memory, options.gpu_flops
    link, network = options.gpu_link, options.network
    result = plan(
        options.preset if options.target is None else options.target,
        gpus=options.gpus,
        gpu=options.gpu,
        tokens=options.tokens,
        params=options.params,
        vocab_size=options.vocab_size,
        tied_embeddings=options.tied_embeddings,
        context=options.context,
        batch_tokens=options.batch_tokens,
        optimizer=options.optimizer,
        dtype=options.dtype,
        mfu=options.mfu,
        tensor_parallel=options.tensor_parallel,
        gpus_per_server=options.gpus_per_server,
        price=options.price,
        gpu_memory=None if memory is None else parse_bytes(memory, "--gpu-memory"),
        gpu_flops=None if flops is None else parse_count(flops, "--gpu-flops"),
        gpu_link=None if link is None else link * 1e9,
        network=None if network is None else network * 1e9 / 8,
        gpu_watts=options.gpu_watts,
    )
    status = DONE if result.best is not None else CHECK_FAILED
    if options.json:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
        return status
    from minilm.cli.console import ResultConsole
    from minilm.operations.plan_text import plan_blocks
    from minilm.render.document import Table
    from minilm.render.grid import table_lines, wrapped

    console = ResultConsole()
    for number, block in enumerate(plan_blocks(result)):
        if number:
            console.print()
        if isinstance(block, Table):
            for row in table_lines(block, console.width):
                console.print(row)
            continue
        for text in block:
            for line in wrapped(text, console.width):
                console.print(line, markup=False)
    return status
