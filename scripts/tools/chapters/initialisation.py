"""Random and equal starts, and the loss of a model that knows nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import minilm
from minilm.render.document import Column, Paragraph, Section
from scripts.tools.chapters.tables import rows_text, table


def section() -> Section:
    """Of nano, and of two units."""
    torch.manual_seed(1)
    config = minilm.preset("nano")
    model = minilm.Transformer(config)
    matrix = model.get_parameter("blocks.0.attention.query.weight")
    tokens = torch.randint(config.vocab_size, (4, 64))
    logits = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, config.vocab_size), tokens[:, 1:].reshape(-1)).item()

    equal, random = two_units(equal=True), two_units(equal=False)
    return Section(
        "initialisation",
        "Initialisation",
        (
            Paragraph(
                "Before training, most matrices are small random numbers, biases are 0 and gains of "
                "norms are 1. (Matrices whose result is added to what is there already may start at "
                "0, so that a block begins by adding nothing.) In nano, "
                "blocks.0.attention.query.weight, the query matrix of the first block, has the mean "
                f"{abs(matrix.mean().item()):.2f} and the standard deviation {matrix.std().item():.2f}. "
                f"Such a model knows nothing: all {config.vocab_size:,} tokens are about equally "
                "likely to it. The loss says how wrong it is: minus the natural logarithm of the "
                "probability that it gave the right token, in nats. A probability of 1 in "
                f"{config.vocab_size:,} gives ln({config.vocab_size:,}) = "
                f"{np.log(config.vocab_size):.2f} nats; measured: {loss:.2f}."
            ),
            Paragraph(
                "Why random? Training moves each parameter by its gradient (below). Two units of a "
                "layer that start equal compute the same, so they get equal gradients, and stay "
                "equal: they are one unit stored twice. Here a network of two units, trained for 400 "
                "steps on the four cases of an exclusive or: the wanted result is 1 if exactly one of "
                "two inputs is 1, else 0. The error is the mean squared error over the four cases; "
                "a network that always answers 0.5 has 0.25."
            ),
            table(
                (
                    Column("start"),
                    Column("weights of the two units after training"),
                    Column("mean squared error", "number"),
                ),
                [
                    ("equal", rows_text(equal[0]), f"{equal[1]:.2f}"),
                    ("random", rows_text(random[0]), f"{random[1]:.2f}"),
                ],
            ),
        ),
    )


def two_units(*, equal: bool) -> tuple[torch.Tensor, float]:
    """The weights of two units after training from equal or random ones, and the error."""
    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    if equal:
        for layer in (network[0], network[2]):
            nn.init.constant_(layer.weight, 0.5)
            nn.init.zeros_(layer.bias)
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        error = F.mse_loss(network(inputs), targets)
        error.backward()
        optimizer.step()
    return network[0].weight, error.item()
