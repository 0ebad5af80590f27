"""A Plan as a few lines and two tables, each layout of the ranks in a row."""

from __future__ import annotations

import math
from collections.abc import Iterator

from minilm.costs.shapes import ASPECTS, CLOSE, MULTIPLES, NARROWEST
from minilm.operations.plan import MEASURED_MFU, shape_text
from minilm.operations.plan_result import LayoutPlan, Plan
from minilm.render.document import Column, Table
from minilm.units import format_bytes, format_count, format_seconds


def plan_blocks(plan: Plan) -> Iterator[Table | list[str]]:
    """The shapes that were proposed, what is planned, memory, time, and the fastest that fits."""
    if plan.shapes:
        yield _shapes(plan)
        notes = list(_shape_notes(plan))
        if notes:
            yield notes
    yield list(_head(plan))
    yield _memory(plan)
    yield _time(plan)
    yield list(_answer(plan))


def _shapes(plan: Plan) -> Table:
    return Table(
        (
            Column("proposed shape"),
            Column("parameters", "number"),
            Column("off by", "number"),
        ),
        tuple(
            (shape_text(shape.config), f"{shape.parameters:,}", f"{shape.error:+.2%}")
            for shape in plan.shapes
        ),
    )


def _shape_notes(plan: Plan) -> Iterator[str]:
    """What is unusual of the shape that is planned."""
    best = plan.shapes[0]
    if abs(best.error) > CLOSE:
        more = "more" if best.error > 0 else "fewer"
        yield (
            f"no shape comes closer: {abs(best.error):.1%} {more} than asked for. Widths are multiples of "
            f"{MULTIPLES[-1]} from {NARROWEST} on, {ASPECTS[0]} to {ASPECTS[1]} times the layers; another "
            "--vocab-size, or --tied-embeddings, gives other sizes"
        )
    if best.config.d_model % MULTIPLES[0]:
        yield (
            f"no width in multiples of {MULTIPLES[0]} is as close; {best.config.d_model} uses matrix units "
            "less well"
        )


def _head(plan: Plan) -> Iterator[str]:
    job, machines = plan.job, plan.job.machines
    servers = f", {machines.servers:,} servers" if machines.servers > 1 else ""
    yield (
        f"{job.name}: {job.layout.count():,} parameters, {format_count(job.tokens)} tokens on "
        f"{machines.gpus:,} x {machines.gpu}{servers}"
    )
    network = ""
    if machines.servers > 1 and machines.network is not None:
        network = f", {machines.network / 1e9:g} GB/s between servers"
    link = f"; links {machines.link / 1e9:g} GB/s{network}" if machines.gpus > 1 else ""
    products = "float32 (TF32 where a card has it)" if job.dtype == "float32" else job.dtype
    yield (
        f"a card: {format_bytes(machines.memory)}, {machines.flops / 1e12:g} TFLOP/s of dense "
        f"{products}{link}"
    )
    source = ", measured with GPT-2 124M on an H100" if job.mfu == MEASURED_MFU else ""
    yield f"MFU {job.mfu:.0%} where no link is waited for{source}"
    yield (
        f"{format_count(plan.flops_per_token)} FLOPs a token in training, attention over the full "
        f"context of {job.context:,} (causal alone: {format_count(plan.causal_flops_per_token)})"
    )
    if job.config is None:
        yield "activations are an estimate: minilm does not run this architecture"


def _memory(plan: Plan) -> Table:
    titles = ("weights", "optimizer", "gradients", "gathered", "activations", "other", "in all")
    rows = []
    for layout in plan.layouts:
        memory = layout.memory
        sizes = (
            memory.weights,
            memory.optimizer,
            memory.gradients,
            memory.gathered + memory.reduced,
            memory.activations,
            layout.overhead,
            layout.required,
        )
        rows.append((layout.mesh.name, *map(_gib, sizes)))
    columns = (Column("GiB a card"), *(Column(title, "number") for title in titles))
    return Table(columns, tuple(rows))


def _gib(size: int) -> str:
    """Three digits or more: 0.46, 58.2, 1,140."""
    gib = size / 2**30
    return f"{gib:.2f}" if gib < 1 else f"{gib:,.1f}" if gib < 1000 else f"{gib:,.0f}"


def _time(plan: Plan) -> Table:
    columns = (
        Column("layout"),
        Column("micro-batch", "number"),
        Column("most", "number"),
        Column("sent/step", "number"),
        Column("waits", "number"),
        Column("tokens/s", "number"),
        Column("MFU", "number"),
        Column("time", "number"),
    )
    return Table(columns, tuple(_time_row(plan, layout) for layout in plan.layouts))


def _time_row(plan: Plan, layout: LayoutPlan) -> tuple[str, ...]:
    recomputed = " *" if layout.checkpointing else ""
    if not layout.fits:
        return (layout.mesh.name, "none fits", *("",) * 6)
    time = layout.time
    return (
        layout.mesh.name,
        f"{layout.micro_batch} x {layout.micro_steps}{recomputed}",
        f"{layout.largest_micro_batch:,}",
        f"{time.traffic / 1e9:,.2f} GB",
        f"{time.exposed / time.seconds:.0%}" if layout.transfers else "",
        f"{layout.tokens_per_second:,.0f}",
        f"{plan.utilisation(layout):.0%}",
        duration_text(layout.seconds),
    )


def _answer(plan: Plan) -> Iterator[str]:
    job, best = plan.job, plan.best
    yield (
        "gathered: of the other ranks, or being reduced; other: CUDA and the allocator; micro-batch: "
        "sequences of a rank x micro-steps; most: sequences that fit; sent: by a rank; waits: the "
        "share of a step that is spent waiting for links, at their peak rate"
    )
    if any(layout.checkpointing and layout.fits for layout in plan.layouts):
        yield "* activations are recomputed, which takes a third longer"
    cut = [layout.mesh.name for layout in plan.layouts if layout.is_cut and layout is not best]
    if cut:
        yield f"{', '.join(cut)}: steps of fewer tokens than wished, as whole gradients do not fit"
    yield from plan.notes
    if best is None:
        least = min(plan.layouts, key=lambda layout: layout.required)
        yield (
            f"nothing fits: one sequence needs {_gib(least.required)} GiB a card at least "
            f"({least.mesh.name}); more cards, or cards with more memory"
        )
        return
    others = [each for each in plan.layouts if each.fits]
    of_size = ""
    if any(each.tokens_per_second > best.tokens_per_second for each in others):
        of_size = " with steps of the wished size"
    parts = [
        f"{best.mesh.name} is the fastest that fits{of_size}: {duration_text(best.seconds)}",
        f"{plan.gpu_hours(best):,.1f} GPU hours",
    ]
    energy, cost = plan.kilowatt_hours(best), plan.cost(best)
    if energy is not None:
        parts.append(f"{energy:,.1f} kWh of {job.machines.watts:g} W a card")
    else:
        parts.append("energy unknown (--gpu-watts)")
    parts.append(
        f"cost {cost:,.2f} at {job.price:g} an hour" if cost is not None else "cost: give --price"
    )
    yield ", ".join(parts)
    wish = ""
    if best.step_tokens != job.step_tokens:
        reason = "; whole gradients, for several micro-steps, do not fit" if best.is_cut else ""
        wish = f" ({job.step_tokens:,} wished{reason})"
    steps = max(1, math.ceil(job.tokens / best.step_tokens))
    yield (
        f"a step: {best.step_tokens:,} tokens{wish}, {best.time.seconds:,.3f} s; {steps:,} step"
        f"{'' if steps == 1 else 's'}"
    )


def duration_text(seconds: float) -> str:
    """A duration, of two days and more in days."""
    days = seconds / 86400
    return f"{days:,.1f} days" if days >= 2 else format_seconds(seconds)
