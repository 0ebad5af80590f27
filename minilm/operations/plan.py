"""plan(): what a training run takes on given GPUs, before it is paid for, from the ledger alone.

For each layout of the ranks: memory of a rank, what it sends in a step, tokens a second, days and energy. The
arithmetic and its sources are in minilm/costs: rank_memory.py, communication.py, flops.py and hardware.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from minilm.architectures.conversion import importable_for
from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.costs.activation_estimate import estimate
from minilm.costs.communication import Links, step_time, transfers
from minilm.costs.fits import SEARCHED, largest
from minilm.costs.flops import causal_training_flops, flops_per_token
from minilm.costs.memory import DEFAULT_CONTEXT, context_or_default
from minilm.costs.memory_need import overhead_bytes
from minilm.costs.mesh import Mesh, divides, largest_tensor_parallel, meshes, part_of
from minilm.costs.rank_memory import RankMemory, RankStep
from minilm.costs.shapes import Shape, propose_shapes
from minilm.dtypes import BITS
from minilm.errors import ConfigError, InputError
from minilm.inspection.open_target import open_target
from minilm.inspection.reconciliation.numbers import parse_number
from minilm.ledger.layout import Layout
from minilm.operations.machines import find_machines
from minilm.operations.plan_result import Job, LayoutPlan, Plan

# What GPT-2 124M reached on one H100, without links to wait for (docs/performance.md).
MEASURED_MFU = 0.37
# Tokens of a step for models up to so many parameters: GPT-3's (Brown et al. 2020, table 2.1).
STEP_TOKENS = ((10**9, 500_000), (5 * 10**9, 10**6), (10**11, 2 * 10**6), (math.inf, 3_200_000))
GPUS_PER_SERVER = 8
MOST_GPUS = 2**20
LEAST_MFU, MOST_PRICE = 0.0001, 10**9
GPT2_VOCABULARY = 50257


def plan(
    target: str | os.PathLike[str] | ModelConfig | None = None,
    *,
    gpus: int,
    gpu: str,
    tokens: int | str,
    params: int | str | None = None,
    vocab_size: int | None = None,
    tied_embeddings: bool = False,
    context: int | None = None,
    batch_tokens: int | str | None = None,
    optimizer: str = "adamw",
    dtype: str = "bfloat16",
    mfu: float = MEASURED_MFU,
    tensor_parallel: int | None = None,
    gpus_per_server: int = GPUS_PER_SERVER,
    price: float | None = None,
    gpu_memory: int | None = None,
    gpu_flops: float | None = None,
    gpu_link: float | None = None,
    network: float | None = None,
    gpu_watts: float | None = None,
) -> Plan:
    """Plan to train ``target`` (a preset, a run, a model folder, a config.json), or a model of ``params``.

    ``gpu`` is a card of `minilm.costs.hardware.GPUS`, or any other where its ``gpu_memory`` (bytes),
    ``gpu_flops`` (dense, of ``dtype``) and ``gpu_link`` (bytes a second, one direction) are given;
    ``network`` is in bytes a second a card. ``batch_tokens`` are those of a step. ``mfu`` is the share of
    the peak that a card reaches while it waits for no link and recomputes nothing; attention counts the
    full context. ``price`` is that of a card and hour. ``tensor_parallel`` is by default the largest that a
    server and the heads allow. Raises InputError for what cannot be planned.
    """
    _check_options(gpus, gpus_per_server, mfu, price, context, vocab_size)
    machines = find_machines(
        gpu,
        gpus,
        gpus_per_server,
        dtype,
        memory=gpu_memory,
        flops=gpu_flops,
        link=gpu_link,
        network=network,
        watts=gpu_watts,
    )
    name, layout, config, shapes = _planned(target, params, vocab_size, tied_embeddings, context)
    run_tokens = parse_count(tokens, "--tokens")
    job = Job(
        name=name,
        layout=layout,
        config=config,
        machines=machines,
        tokens=run_tokens,
        step_tokens=_step_tokens(batch_tokens, run_tokens, layout.count()),
        context=context_or_default(layout, context),
        optimizer=optimizer,
        dtype=dtype,
        mfu=mfu,
        price=price,
    )
    return Plan(
        job=job,
        flops_per_token=flops_per_token(layout, context=job.context)["training_per_token"],
        causal_flops_per_token=causal_training_flops(layout, context=job.context),
        layouts=tuple(_layout_plan(job, mesh) for mesh in _meshes(job, tensor_parallel)),
        shapes=shapes,
        notes=tuple(_notes(job, tensor_parallel)),
    )


def _planned(
    target: str | os.PathLike[str] | ModelConfig | None,
    params: int | str | None,
    vocab_size: int | None,
    tied: bool,
    context: int | None,
) -> tuple[str, Layout, ModelConfig | None, tuple[Shape, ...]]:
    """Name, layout and, of a model that minilm runs, configuration of what is planned; proposed shapes."""
    shapes: list[Shape] = []
    if (target is None) == (params is None):
        got = "none of them" if target is None else "both"
        raise InputError("--preset, TARGET, --params", got, "one of them")
    if params is None and (vocab_size is not None or tied):
        got = "beside a model, which has its own"
        raise InputError("--vocab-size, --tied-embeddings", got, "--params")
    if params is not None:
        shapes = propose_shapes(
            parse_count(params, "--params"),
            lambda config: minilm_layout(config).count(),
            vocab_size=vocab_size or GPT2_VOCABULARY,
            context_length=context or DEFAULT_CONTEXT,
            tied=tied,
        )
        target = shapes[0].config
    assert target is not None
    name, layout, config = _model(target)
    if context is not None and layout.context_length and context > layout.context_length:
        expected = f"at most the {layout.context_length:,} tokens of {name}"
        raise InputError("--context", f"{context:,}", expected)
    return name, layout, config, tuple(shapes)


def _check_options(
    gpus: int,
    gpus_per_server: int,
    mfu: float,
    price: float | None,
    context: int | None,
    vocab_size: int | None,
) -> None:
    for name, number, most in (
        ("--gpus", gpus, MOST_GPUS),
        ("--gpus-per-server", gpus_per_server, MOST_GPUS),
        ("--context", 1 if context is None else context, 2**31 - 1),
        ("--vocab-size", 1 if vocab_size is None else vocab_size, 2**31 - 1),
    ):
        if not 1 <= number <= most:
            raise InputError(name, str(number), f"a whole number from 1 to {most:,}")
    if not LEAST_MFU <= mfu <= 1:
        raise InputError("--mfu", str(mfu), f"{LEAST_MFU} to 1, a share of the dense peak: 0.4")
    if price is not None and not 0 <= price <= MOST_PRICE:
        expected = f"the price of a card and hour, 0 to {MOST_PRICE:,}"
        raise InputError("--price", str(price), expected)


def parse_count(value: int | str, where: str) -> int:
    """A positive number of tokens, parameters or FLOP/s. Raises InputError naming ``where``."""
    try:
        number = parse_number(str(value), where)
    except InputError:
        number = None
    if number is None or number.is_bytes:
        expected = "a positive number up to 1e18, such as 125M, 10B, 2.5e9 or 10,000,000,000"
        raise InputError(where, repr(str(value)[:40]), expected)
    return number.value


def _step_tokens(batch_tokens: int | str | None, run_tokens: int, parameters: int) -> int:
    if batch_tokens is not None:
        wished = parse_count(batch_tokens, "--batch-tokens")
        if wished > run_tokens:
            raise InputError("--batch-tokens", f"{wished:,}", f"at most the run's {run_tokens:,}")
        return wished
    return next(tokens for most, tokens in STEP_TOKENS if parameters <= most)


def _model(
    target: str | os.PathLike[str] | ModelConfig,
) -> tuple[str, Layout, ModelConfig | None]:
    """Name, layout and, of a model that minilm runs, its configuration."""
    if isinstance(target, ModelConfig):
        return shape_text(target), minilm_layout(target), target
    opened = open_target(target)
    config, layout = opened.config, opened.layout
    if config is None and layout is not None and opened.hugging_face:
        try:
            config = importable_for(opened.hugging_face).model_config(opened.hugging_face)
        except ConfigError:
            config = None  # minilm does not run it
        if config is not None and minilm_layout(config).count() != layout.count():
            config = None
    if config is not None:
        return opened.name, minilm_layout(config), config
    if layout is None:
        raise InputError(opened.name, "an architecture without a formula", "one with a formula")
    if estimate(layout) is None:
        raise InputError(
            opened.name, "no estimate of its activations", "a transformer without a recurrence"
        )
    return opened.name, layout, None


def shape_text(config: ModelConfig) -> str:
    """12 layers x 768, 12 heads, vocabulary 50304."""
    layers, heads = (
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((config.num_layers, "layer"), (config.num_heads, "head"))
    )
    return f"{layers} x {config.d_model}, {heads}, vocabulary {config.vocab_size}"


def _meshes(job: Job, tensor: int | None) -> Iterator[Mesh]:
    machines, config = job.machines, job.config
    if config is None:
        if tensor not in (None, 1):
            expected = "1 for an architecture that minilm does not run"
            raise InputError("--tensor-parallel", str(tensor), expected)
        tensor = 1
    elif config.convolution:
        if tensor not in (None, 1):
            raise InputError("--tensor-parallel", str(tensor), "1 for a model with a convolution")
        tensor = 1
    elif tensor is None:
        tensor = largest_tensor_parallel(config, machines.gpus, machines.gpus_per_server)
    elif tensor < 1 or machines.gpus % tensor or not divides(config, tensor):
        raise InputError(
            "--tensor-parallel",
            str(tensor),
            f"a divisor of {machines.gpus} cards, {config.num_kv_heads} key/value heads and a "
            f"feed-forward of {config.d_feed_forward}",
        )
    return meshes(machines.gpus, machines.gpus_per_server, tensor)


def _notes(job: Job, tensor: int | None) -> Iterator[str]:
    """Why a layout is not among those that are planned, and what one of them asks for."""
    machines, config = job.machines, job.config
    if machines.gpus == 1:
        return
    each = machines.gpus_per_server
    if machines.gpus <= each:
        yield "no hsdp: all cards are in one server"
    elif machines.gpus % each:
        yield f"no hsdp: {machines.gpus:,} cards do not fill servers of {each}"
    elif each == 1:
        yield "no hsdp: a server has one card"
    if config is None:
        yield "no tensor parallel: minilm does not run this architecture"
    elif config.convolution:
        yield "no tensor parallel: minilm does not divide a convolution"
    elif tensor is None and largest_tensor_parallel(config, machines.gpus, each) == 1:
        yield (
            f"no tensor parallel: no power of 2 divides {machines.gpus:,} cards, servers of {each}, "
            f"{config.num_kv_heads} key/value heads and a feed-forward of {config.d_feed_forward}"
        )
    elif config.dropout and tensor != 1:
        yield f"tensor parallel needs --model.dropout 0, not {config.dropout:g}"


def _layout_plan(job: Job, mesh: Mesh) -> LayoutPlan:
    """Without activation checkpointing or with it: what has the tokens of a step, then what is faster."""
    plans = [_with_checkpointing(job, mesh, checkpointing) for checkpointing in (False, True)]
    candidates = [each for each in plans if each.fits]
    return min(candidates, key=lambda each: (each.is_cut, each.seconds), default=plans[-1])


def _with_checkpointing(job: Job, mesh: Mesh, checkpointing: bool) -> LayoutPlan:
    machines, context = job.machines, job.context
    config = part_of(job.config, mesh.tensor) if job.config is not None else None
    layout = job.layout if config is None else minilm_layout(config)
    step = RankStep(
        mesh,
        layout,
        config,
        optimizer=job.optimizer,
        dtype=job.dtype,
        checkpointing=checkpointing,
    )
    step, shares = _shares(job, step)
    memory, overhead = _required(job, step, shares.micro_batch)
    micro_tokens = shares.micro_batch * context
    step_transfers = tuple(
        transfers(
            mesh,
            parameters=layout.count(),
            outside=step.outside_elements,
            columns=0 if config is None else 3 + (2 if config.gated else 1),
            layers=sum(kind.layers.value(layout.symbols) for kind in layout.attention),
            activation_elements=micro_tokens * layout.symbols["d"],
            width=BITS[job.dtype] // 8,
            checkpointing=checkpointing,
        )
    )
    forward = flops_per_token(job.layout, context=context)["forward_per_token"]
    time = step_time(
        step_transfers,
        Links(machines.link, machines.network),
        forward=forward * micro_tokens / mesh.tensor / (machines.flops * job.mfu),
        checkpointing=checkpointing,
        micro_steps=shares.micro_steps,
    )
    step_tokens = micro_tokens * shares.micro_steps * mesh.data_ranks
    return LayoutPlan(
        mesh=mesh,
        checkpointing=checkpointing,
        memory=memory,
        overhead=overhead,
        largest_micro_batch=shares.most,
        micro_batch=shares.micro_batch,
        micro_steps=shares.micro_steps,
        step_tokens=step_tokens,
        is_cut=shares.is_cut,
        transfers=step_transfers,
        time=time,
        seconds=math.ceil(job.tokens / step_tokens) * time.seconds,
    )


class _Shares(NamedTuple):
    """Sequences of a rank: the ``most`` that fit, and those of a micro-step, of which a step has some.

    ``is_cut``: a step has fewer tokens than it is wished to have.
    """

    most: int
    micro_batch: int
    micro_steps: int
    is_cut: bool


def _shares(job: Job, step: RankStep) -> tuple[RankStep, _Shares]:
    """How a rank computes its part of a step, which accumulates gradients where it does not fit at once."""
    sequences = max(1, round(job.step_tokens / (job.context * step.mesh.data_ranks)))
    most, is_cut = _most_sequences(job, step), False
    if 0 < most < sequences:
        accumulating = replace(step, accumulating=True)
        if most_accumulating := _most_sequences(job, accumulating):
            step, most = accumulating, most_accumulating
        else:  # a step has no more tokens than one micro-step
            sequences, is_cut = most, True
    micro_steps = -(-sequences // max(1, min(most, sequences)))
    return step, _Shares(most, -(-sequences // micro_steps), micro_steps, is_cut)


def _most_sequences(job: Job, step: RankStep) -> int:
    def fits(micro_batch: int) -> bool:
        memory, overhead = _required(job, step, micro_batch)
        return memory.total + overhead <= job.machines.memory

    return largest(fits, SEARCHED)


def _required(job: Job, step: RankStep, micro_batch: int) -> tuple[RankMemory, int]:
    """Bytes of a rank, and those that CUDA and its allocator take besides."""
    memory = step.memory(micro_batch, job.context)
    return memory, overhead_bytes(memory.total)
