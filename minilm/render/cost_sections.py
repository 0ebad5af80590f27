"""Sections of what a model costs: memory, FLOPs, and what fits in a given memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minilm.inspection.report import Report
from minilm.render.cells import (
    bar_lengths,
    format_letters,
    format_number,
    format_size,
    format_tokens,
    key_label,
    number_columns,
    training_method_label,
)
from minilm.render.document import Block, Code, Column, Paragraph, Section, Table
from minilm.safe_text import one_line
from minilm.units import format_bytes, format_count

if TYPE_CHECKING:
    from minilm.costs.fits import Fit

# float16 takes what bfloat16 takes.
OTHERS = " ~"  # behind what other programs do, where other rows are minilm's own
_OVERVIEW_DTYPES = ("float32", "bfloat16", "int8", "int4")


def memory_section(report: Report) -> Section:
    """Weights, training state, KV cache and activations: sizes side by side, then each in bytes."""
    memory = report.memory
    weights, training = memory["weights"], memory["training"]
    cache, activations = memory["kv_cache"], memory["activations"]
    blocks: list[Block] = [_overview(memory)]
    blocks.append(_byte_table("weights", "precision", weights, with_bars=True))
    state = {key: value for key, value in training.items() if key != "variants"}
    caption = "training state, float32 with AdamW (weights, gradients, two Adam moments)"
    blocks.append(replace(_byte_table(caption, "part", state), total_last=True))
    if training.get("variants"):
        blocks.append(_training_table(training["variants"]))
    if cache is not None:
        sizes = {key: value for key, value in cache.items() if key not in ("context", "batch")}
        caption = f"KV cache of {format_tokens(cache['batch'], cache['context'])}"
        blocks.append(_byte_table(caption, "precision", sizes))
    if recurrent := memory.get("recurrent_state"):
        text = f"The recurrent layers keep {format_bytes(recurrent['float32'])} in float32 of "
        text += f"{recurrent['batch']:,} sequence{'s' * (recurrent['batch'] > 1)}, however long."
        blocks.append(Paragraph(text))
    if activations is not None:
        blocks.append(_activation_table(activations))
        if activations.get("components"):
            parts = activations["components"]
            blocks.append(_byte_table("activations by component", "component", parts))
        if activations.get("formula"):
            formula = one_line(activations["formula"])
            letters = format_letters(activations["symbols"], report.architecture)
            blocks.append(Code("activations in bytes", formula, full_only=True))
            blocks.append(Code("where", letters, full_only=True))
    return Section("memory", "Memory", tuple(blocks))


def compute_section(report: Report) -> Section | None:
    """Floating-point operations of a token; None where they are not known."""
    if not report.flops:
        return None
    rows = tuple(
        (key_label(key), format_count(value), f"{value:,}") for key, value in report.flops.items()
    )
    text = "Floating-point operations; a multiplication and an addition are two."
    cache = report.memory["kv_cache"]
    if cache is not None:
        text += f" They are for the last of {cache['context']:,} tokens."
    table = Table(number_columns("FLOPs", "about", "exactly"), rows, full_only=True)
    return Section("compute", "Compute", (Paragraph(text, full_only=True), table))


def fits_section(fits: Sequence[Fit], cache: Mapping[str, Any] | None) -> Section:
    """Which uses of the model fit into the budget of ``fits``, and how far each goes.

    ``cache`` is the KV cache of the report, in each dtype.
    """
    from minilm.costs.common_needs import PREFILL_TOKENS
    from minilm.costs.memory import SMALL_CACHE_DTYPES, cache_bytes
    from minilm.costs.memory_need import CONTEXT_BYTES, FRAGMENTATION, PROCESS_BYTES

    title = "What fits"
    if not fits:
        text = "What a use of this model takes beside its weights is not known."
        return Section("fits", title, (Paragraph(text),), requested=True)
    first = fits[0]
    budget = (
        f"{_cards_text(first)}, {format_tokens(first.batch, first.context)}. The "
        f"longest context is for this batch, the largest batch for this context.{_sold_text(first)}"
    )
    fixed = f"{format_bytes(CONTEXT_BYTES)} for the CUDA context"
    if first.device == "cpu":
        fixed = f"{format_bytes(PROCESS_BYTES)} for Python and torch"
    overhead = (
        "A use needs weights, training state, KV cache and activations (an estimate), and a margin for the "
        f"framework: {1 / FRAGMENTATION:.0%} more for fragmentation and {fixed}. Prompts are read "
        f"{PREFILL_TOKENS:,} tokens at a time. Checkpointing: whether training uses activation checkpointing."
    )
    if any(fit.own for fit in fits):
        overhead += (
            f" Those without a{OTHERS} are what minilm itself does: the peak of its own step, which reads a "
            "prompt at once; LoRA under bfloat16 autocast."
        )
    if first.cards > 1:
        overhead += (
            " Of several cards each needs what is listed: inference divides weights and KV cache, "
            "training divides weights, state and sequences, and gathers one layer at a time."
        )
    ranks = {fit.lora_rank for fit in fits if fit.lora_rank}
    if ranks:
        rank = ranks.pop()
        own = {fit.use for fit in fits if fit.own}
        if own == {"LoRA"}:  # a run that is an adapter
            overhead += f" LoRA is that of the run, of rank {rank}."
        else:
            overhead += f" LoRA has rank {rank} on every matrix (--lora-rank)."
    if cache is not None:
        elements = cache["int8"]  # a byte each
        sizes = ", ".join(
            f"{format_bytes(cache_bytes(elements, dtype))} in {dtype}"
            for dtype in ("bfloat16", *SMALL_CACHE_DTYPES)
        )
        dtypes = {fit.cache_dtype for fit in fits if fit.cache_dtype}
        chosen = dtypes.pop() if len(dtypes) == 1 else "as the arithmetic"
        overhead += f" The KV cache of these tokens is {sizes}; here {chosen} (--kv-cache)."
    columns = (
        Column("use"),
        Column("checkpointing"),
        Column("needs", "number"),
        Column("fits"),
        Column("max context", "number"),
        Column("max batch", "number"),
        *(
            Column(part, "number", full_only=True)
            for part in ("weights", "state", "KV cache", "activations", "overhead")
        ),
    )
    marks = any(fit.own for fit in fits)
    table = Table(columns, tuple(_fit_cells(fit, OTHERS * (marks and not fit.own)) for fit in fits))
    blocks = (Paragraph(budget), table, Paragraph(overhead))
    return Section("fits", title, blocks, requested=True)


def _cards_text(fit: Fit) -> str:
    """44.7 GiB of memory; 2 cards with 44.7 GiB of memory each."""
    size = format_bytes(fit.budget)
    return (
        f"{size} of memory" if fit.cards == 1 else f"{fit.cards:,} cards with {size} of memory each"
    )


def _sold_text(fit: Fit) -> str:
    """What the cards that are sold with so many GB really have."""
    from minilm.costs.hardware import cards_sold_as

    cards = [f"{name} {format_bytes(size)}" for name, size in cards_sold_as(fit.budget).items()]
    if not cards:
        return ""
    sold = f"{fit.budget // 10**9} GB"
    return (
        f" Cards sold as {sold} have more or less: {', '.join(cards)} (name the card to use that)."
    )


def _overview(memory: Mapping[str, Any]) -> Table:
    """One row a use, one column a precision: the sizes that people ask for first."""
    weights, training = memory["weights"], memory["training"]
    cache, activations = memory["kv_cache"], memory["activations"]
    stored = weights.get("stored")
    uses: dict[str, Mapping[str, int]] = {"weights": weights}
    variants = training.get("variants") or {}
    uses["training state (AdamW)"] = {"float32": training["total"]} | (
        {"bfloat16": variants["adamw_bfloat16"]["total"]} if variants else {}
    )
    title = "memory"
    if cache is not None:
        title = f"memory, {format_tokens(cache['batch'], cache['context'])}"
        uses["KV cache"] = cache
    if activations is not None:
        name = f"activations ({one_line(activations['basis'])})"
        uses[name] = {activations["dtype"]: activations["saved"]}
    dtypes = _OVERVIEW_DTYPES if stored is None else ("stored", *_OVERVIEW_DTYPES)
    rows = tuple(
        (use, *(format_size(sizes.get(dtype)) for dtype in dtypes)) for use, sizes in uses.items()
    )
    return Table(number_columns(title, *dtypes), rows)


def _byte_table(
    caption: str, title: str, sizes: Mapping[str, int | None], *, with_bars: bool = False
) -> Table:
    known = {key: value for key, value in sizes.items() if value is not None}
    rows = tuple((key_label(key), format_size(value), f"{value:,}") for key, value in known.items())
    bars = bar_lengths(list(known.values())) if with_bars else ()
    columns = number_columns(title, "size", "bytes")
    return Table(columns, rows, caption=caption, bars=bars, full_only=True)


def _activation_table(activations: Mapping[str, Any]) -> Table:
    tokens = format_tokens(activations["batch"], activations["context"])
    dtype, basis = one_line(activations["dtype"]), one_line(activations["basis"])
    sizes = {
        "everything": activations["saved"],
        "with activation checkpointing": activations["checkpointed"],
    }
    measured = activations.get("measured")
    if measured is not None:
        sizes |= {f"measured, {key}": measured.get(key) for key in ("saved", "allocated", "peak")}
    table = _byte_table(f"activations of {tokens}, {dtype} ({basis})", "what is kept", sizes)
    if measured is None:
        return table
    error = ("error of the prediction", f"{measured['relative_error']:+.3%}", "")
    return replace(table, rows=(*table.rows, error))


def _training_table(variants: Mapping[str, Mapping[str, int]]) -> Table:
    rows = []
    for key, sizes in variants.items():
        # Adapters are float32 weights that are trained beside the stored ones, as a master copy is.
        master = sizes.get("master") or sizes.get("adapters")
        trained = (master, sizes["gradients"], sizes["optimizer"])
        parts = (sizes["weights"], *trained, sizes["total"])
        rows.append((training_method_label(key), *(format_size(part or None) for part in parts)))
    columns = number_columns("method", "weights", "master", "gradients", "optimizer", "total")
    caption = (
        "training state by method (master: the float32 weights that are updated; for LoRA, the "
        "adapters)"
    )
    return Table(columns, tuple(rows), caption=caption, full_only=True)


def _fit_cells(fit: Fit, mark: str) -> tuple[str, ...]:
    if fit.use == "inference":
        use, checkpointing = f"inference, {fit.precision}", ""
    else:
        use = training_method_label(fit.precision)
        checkpointing = "yes" if fit.checkpointing else "no"
    parts = (fit.weights, fit.states, fit.kv_cache, fit.activations, fit.overhead)
    return (
        use + mark,
        checkpointing,
        format_size(fit.required),
        "yes" if fit.fits else "no",
        _largest_searched(fit.max_context),
        _largest_searched(fit.max_batch),
        *(format_size(part or None) for part in parts),
    )


def _largest_searched(largest: int) -> str:
    """A largest context or batch; where the search ended, the true one may be larger."""
    from minilm.costs.fits import SEARCHED

    if not largest:
        return "none"
    return f"{'>= ' if largest >= SEARCHED else ''}{format_number(largest)}"
