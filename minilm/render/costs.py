"""What a model costs, for the terminal: training state, KV cache, activations, and what fits.

Each function takes the values of the ledger or of a report and returns a table that is readable in 80
columns. No name from a file is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minilm.costs.fits import CONTEXT_BYTES, FRAGMENTATION, PREFILL_TOKENS, SEARCHED, Fit
from minilm.render.grid import grid, settle
from minilm.units import format_bytes

_WAYS = {
    "adamw_float32": "AdamW, float32",
    "muon_float32": "Muon, float32",
    "adamw_bfloat16": "AdamW, bfloat16 + master",
    "muon_bfloat16": "Muon, bfloat16 + master",
    "lora_bfloat16": "LoRA on bfloat16",
    "lora_int8": "LoRA on int8",
    "lora_nf4": "LoRA on nf4",
}


def training_table(training: Mapping[str, Any]) -> RenderableType:
    """The state that each way to train keeps, from a report's ``memory.training`` with variants."""
    table = _table("training state", "weights", "master", "gradients", "optimizer", "total")
    for way, sizes in training["variants"].items():
        # Adapters are float32 weights that are trained beside the stored ones, as a master copy is.
        master = sizes.get("master", 0) or sizes.get("adapters", 0)
        cells = (sizes["weights"], master, sizes["gradients"], sizes["optimizer"], sizes["total"])
        table.add_row(_WAYS[way], *(format_bytes(size) if size else "-" for size in cells))
    note = Text("master: the float32 copy that is updated; for LoRA, the adapters", "dim")
    return Group(settle(table), note)


def kv_cache_table(cache: Mapping[str, Any]) -> RenderableType:
    """The cache in each precision, from a report's ``memory.kv_cache``."""
    dtypes = [key for key in cache if key not in ("context", "batch")]
    table = _table(f"KV cache of {cache['batch']} x {cache['context']:,} tokens", *dtypes)
    table.add_row("", *(format_bytes(cache[dtype]) for dtype in dtypes))
    return settle(table)


def activations_table(
    activations: Mapping[str, Any], measured: Mapping[str, Any] | None = None
) -> RenderableType:
    """What the backward pass needs, from ``memory.activations``, beside what was ``measured``.

    ``measured`` has ``saved`` and ``relative_error``, and on CUDA ``allocated`` and ``peak``.
    """
    size = f"{activations['batch']} x {activations['context']:,} tokens, {activations['dtype']}"
    table = _table(f"activations of {size} ({activations['basis']})", "bytes", "")
    for title, key in (("all kept", "saved"), ("a checkpoint a block", "checkpointed")):
        table.add_row(title, format_bytes(activations[key]), f"{activations[key]:,}")
    if measured is None:
        return settle(table)
    table.add_row("measured", format_bytes(measured["saved"]), f"{measured['saved']:,}")
    for title, key in (("allocated", "allocated"), ("peak of the step", "peak")):
        if measured.get(key) is not None:
            table.add_row(title, format_bytes(measured[key]), f"{measured[key]:,}")
    error = Text(f"error of the prediction: {measured['relative_error']:+.3%}", "dim")
    return Group(settle(table), error)


def fits_table(fits: Sequence[Fit]) -> RenderableType:
    """Which uses fit into the budget of ``fits``, and how far each goes."""
    if not fits:
        return Text("no use of this model has a known cost")
    first = fits[0]
    table = _table("use", "needs", "fits", "max context", "max batch")
    for fit in fits:
        name = _WAYS.get(fit.precision) or f"{fit.use} in {fit.precision}"
        verdict = Text("yes", "green") if fit.fits else Text("no", "red")
        mark = " *" if fit.checkpointing else ""
        limits = (limit_text(limit) for limit in (fit.max_context, fit.max_batch))
        table.add_row(name + mark, format_bytes(fit.required), verdict, *limits)
    size = f"{first.batch} x {first.context:,} tokens"
    return Group(
        Text(f"{format_bytes(first.budget)} of memory, {size}", "bold"),
        settle(table),
        Text(
            f"needs: weights, state, cache and estimated activations, {1 / FRAGMENTATION:.0%} for "
            f"fragmentation and {format_bytes(CONTEXT_BYTES)} for the CUDA context; prompts in pieces "
            f"of {PREFILL_TOKENS:,} tokens. max context: at this batch, up to the model's own; "
            "max batch: at this context. * with activation checkpointing.",
            "dim",
        ),
    )


def limit_text(limit: int) -> str:
    """A largest context or batch; where the search ended, the true one may be larger."""
    return f"{'>= ' if limit >= SEARCHED else ''}{limit:,}" if limit else "-"


def _table(title: str, *numbers: str) -> Table:
    return grid((title, "left"), *((header, "right") for header in numbers))
