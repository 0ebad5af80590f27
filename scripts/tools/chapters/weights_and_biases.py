"""Weights and biases, and how few biases there are."""

from __future__ import annotations

import minilm
from minilm.render.cells import number_columns
from minilm.render.document import Paragraph, Section
from scripts.tools.chapters.tables import table


def section() -> Section:
    """Of two models."""
    nano = minilm.inspect("nano").parameters
    llama = minilm.inspect("llama-3-8b").parameters
    return Section(
        "weights",
        "Weights and biases",
        (
            Paragraph(
                "A weight is multiplied with an input, and says how much that input matters. A bias "
                "is added whatever the input is, and moves the result up or down. A matrix of m "
                "outputs and n inputs has m × n weights and at most m biases, so that biases are few:"
            ),
            table(
                number_columns("model", "weights", "biases", "share of biases"),
                [
                    (name, f"{p.weights:,}", f"{p.biases:,}", f"{p.biases / p.total:.2%}")
                    for name, p in (("nano", nano), ("Llama 3 8B", llama))
                ],
            ),
            Paragraph(
                "Many newer models have no biases at all. People often say weights for all "
                "parameters. Gains of norms are multiplied, so they count as weights."
            ),
        ),
    )
