"""What people choose, and which of it changes the count."""

from __future__ import annotations

import minilm
from minilm.config.presets import find_preset
from minilm.render.document import Column, Paragraph, Section
from scripts.tools.chapters.tables import table


def section() -> Section:
    """Those of nano."""
    preset = minilm.preset("nano")
    training = find_preset("nano").train_config()
    rows = [
        ("vocabulary, V", f"{preset.vocab_size:,}", "yes"),
        ("model width, d", f"{preset.d_model}", "yes"),
        ("layers, L", f"{preset.num_layers}", "yes"),
        ("feed-forward width, f", f"{preset.d_feed_forward}", "yes"),
        (
            "heads, h",
            f"{preset.num_heads}",
            "no: they share out the same matrices",
        ),
        (
            "learning rate: how far a parameter moves for its gradient",
            f"{training.learning_rate:g}",
            "no",
        ),
        ("steps of training", f"{training.max_steps:,}", "no"),
        ("dropout: results set to 0 at random in training", f"{preset.dropout:.0%}", "no"),
    ]
    return Section(
        "hyperparameters",
        "Parameters and hyperparameters",
        (
            Paragraph(
                "Parameters are learned. Hyperparameters are chosen by people before training, and "
                "training does not change them. Some of them decide how many parameters there are:"
            ),
            table(
                (
                    Column("hyperparameter"),
                    Column("in nano", "number"),
                    Column("changes the count"),
                ),
                rows,
            ),
        ),
    )
