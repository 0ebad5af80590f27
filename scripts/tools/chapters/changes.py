"""LoRA, quantization, pruning, sharing, in numbers of nano."""

from __future__ import annotations

from dataclasses import replace

import minilm
from minilm.architectures.minilm import layout as declared
from minilm.costs.memory import stored_bytes
from minilm.dtypes import storage_bytes
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import with_adapters
from minilm.render.cells import number_columns
from minilm.render.document import Column, Paragraph, Section
from minilm.units import format_bytes
from scripts.tools.chapters.tables import table

OTHER_PAGE = "parameters.md"


def section(layout: Layout) -> Section:
    config = minilm.preset("nano")
    adapted = with_adapters(layout, ("query", "value"), 8)
    shared = declared(replace(config, shared_layers=2))
    tied = declared(replace(config, tied_embeddings=True))
    fewer = declared(replace(config, d_feed_forward=config.d_feed_forward // 2))
    total = layout.count()

    def row(name: str, changed: Layout, size: int, what: str) -> tuple[str, ...]:
        return name, f"{changed.count():,}", f"{changed.trainable():,}", format_bytes(size), what

    float32 = storage_bytes(total, "float32")
    rows = [
        row("nano", layout, float32, ""),
        row(
            "LoRA, rank 8 on query and value",
            adapted,
            storage_bytes(adapted.count(), "float32"),
            "the matrices stay frozen, narrow ones beside them are trained",
        ),
        row("int8", layout, stored_bytes(layout, "int8"), "fewer bits, the same number"),
        row("nf4", layout, stored_bytes(layout, "nf4"), "as int8, 4 bits a weight"),
        row("half of the weights zero", layout, float32, "zeros still count, and are stored"),
        row(
            "half of the feed-forward units",
            fewer,
            storage_bytes(fewer.count(), "float32"),
            "removed: they no longer count",
        ),
        row(
            "2 blocks for 4 layers",
            shared,
            storage_bytes(shared.count(), "float32"),
            "each block runs twice and counts once",
        ),
        row("tied head", tied, storage_bytes(tied.count(), "float32"), "the embedding, used twice"),
    ]
    columns = (
        *number_columns("change", "parameters", "trainable", "weights in memory"),
        Column("why"),
    )
    return Section(
        "changes",
        "LoRA, quantization, pruning, sharing",
        (
            Paragraph(
                "A trained model can be changed without being trained anew. What each change "
                "does to the count and to "
                "memory (quantized: the matrices of the blocks in so many bits with their "
                "scales, all else in bfloat16):"
            ),
            table(columns, rows),
            Paragraph(
                f"What each costs in loss is measured in {OTHER_PAGE}, with the commands that "
                "do it."
            ),
        ),
    )
