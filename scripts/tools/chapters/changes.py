"""LoRA, quantization, pruning, sharing, in numbers of nano."""

from __future__ import annotations

from dataclasses import replace

import minilm
from minilm.architectures.minilm import layout as declared
from minilm.dtypes import storage_bytes
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import with_adapters
from minilm.quantization.packing import quantized_matrices
from minilm.quantization.packings import make_packing
from minilm.render.cells import number_columns
from minilm.render.document import Column, Paragraph, Section
from minilm.units import format_bytes
from scripts.tools.chapters.tables import table

OTHER_PAGE = "parameters.md"
RANK = 8


def section(layout: Layout) -> Section:
    """What is counted, trained and stored after each change."""
    config = minilm.preset("nano")
    sharing = declared(replace(config, shared_layers=config.num_layers // 2))
    fewer_units = declared(replace(config, d_feed_forward=config.d_feed_forward // 2))
    width = config.d_model
    rows = [
        row("nano", layout, "in float32"),
        row(
            f"LoRA, rank {RANK} on query and value",
            with_adapters(layout, ("query", "value"), RANK),
            "the matrices stay frozen, narrow ones beside them are trained",
        ),
        quantized(
            layout,
            "int8",
            "the matrices of the blocks in 8 bits, too few for small steps; what is left stays trainable",
        ),
        quantized(layout, "nf4", "the same, in 4 bits"),
        row("half of the weights zero", layout, "zeros still count, and are stored"),
        row("half of the feed-forward units", fewer_units, "removed: they no longer count"),
        row(
            f"{sharing.symbols['S']} blocks for {config.num_layers} layers",
            sharing,
            "each block runs twice and counts once",
        ),
        row(
            "tied LM head",
            declared(replace(config, tied_embeddings=True)),
            "the embedding, used twice and counted once",
        ),
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
                "A trained model can be changed without training it from the start. LoRA adapts it "
                "to other text: a matrix of m × n stays frozen, as it was. Beside it two narrow "
                "ones of m × r and r × n are trained, the adapter; what they make of the input, one "
                "after the other, is added to the matrix's result. At rank r = "
                f"{RANK} and m = n = {width} that is {RANK} × ({width} + {width}) = "
                f"{RANK * 2 * width:,} parameters instead of {width} × {width} = {width * width:,}; on two "
                f"matrices in each of {config.num_layers} layers "
                f"{RANK * 2 * width:,} × 2 × {config.num_layers} = "
                f"{RANK * 2 * width * 2 * config.num_layers:,}. "
                "Quantization stores weights in fewer bits, with scales; pruning sets some to zero "
                "or removes them; sharing lets several layers use the same block. The count "
                "changes only by what is removed or shared."
            ),
            Paragraph(
                "What each change does to the count and to memory (what is not quantized is in "
                "float32 here):"
            ),
            table(columns, rows),
            Paragraph(
                f"What each costs in loss is measured in {OTHER_PAGE}, with the commands that do it."
            ),
        ),
    )


def row(name: str, layout: Layout, why: str) -> tuple[str, ...]:
    """A change whose result is in float32."""
    size = format_bytes(storage_bytes(layout.count(), "float32"))
    return name, f"{layout.count():,}", f"{layout.trainable():,}", size, why


def quantized(layout: Layout, format: str, why: str) -> tuple[str, ...]:
    """A format as `minilm quantize` stores it: whole numbers have no gradients."""
    packing = make_packing(format)
    matrices = quantized_matrices(layout)
    stored = [tensor for name, shape in matrices.items() for tensor in packing.tensors(name, shape)]
    left = layout.count() - sum(rows * columns for rows, columns in matrices.values())
    size = sum(tensor.nbytes for tensor in stored) + storage_bytes(left, "float32")
    return format, f"{layout.count():,}", f"{left:,}", format_bytes(size), why
