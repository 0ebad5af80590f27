"""Polynomials of more and more parameters on ten points."""

from __future__ import annotations

import numpy as np

from minilm.render.cells import number_columns
from minilm.render.document import Column, Paragraph, Section
from scripts.tools.chapters.tables import table


def section() -> Section:
    """The same ten points for three curves."""
    draw = np.random.default_rng(0)
    at = np.linspace(-1, 1, 10)
    between = np.linspace(-0.95, 0.95, 10)
    noise = draw.normal(0, 0.2, (2, 10))
    curve = np.sin(np.pi * at) + noise[0], np.sin(np.pi * between) + noise[1]
    rows = []
    for degree, verdict in ((1, "underfitting"), (3, "about right"), (9, "overfitting")):
        fit = np.polynomial.Polynomial.fit(at, curve[0], degree)
        errors = (
            np.sqrt(np.mean((fit(x) - y) ** 2)) for x, y in zip((at, between), curve, strict=True)
        )
        seen, unseen = errors
        rows.append((str(degree + 1), f"{seen:.2f}", f"{unseen:.2f}", verdict))
    return Section(
        "fitting",
        "Overfitting and underfitting",
        (
            Paragraph(
                "Parameters can also learn the training examples by heart. Here are ten points of a "
                "wave with some noise, and curves of 2, 4 and 10 parameters (polynomials) that are "
                "fitted to them; the error (root mean square) on the same ten points, and on ten "
                "others between them:"
            ),
            table(
                (
                    *number_columns("parameters", "error on what it saw", "error on others"),
                    Column("which is"),
                ),
                rows,
            ),
            Paragraph(
                "With two parameters both errors are high: underfitting. With ten the first is "
                "almost 0 and the second rises: overfitting. In a language model the second is the "
                "loss on text that is kept apart, the validation loss. Where the training loss goes "
                "on falling while that of validation rises, the model overfits: training is stopped, "
                "and the state with the lowest validation loss kept."
            ),
        ),
    )
