"""Linear(4, 2): counted three times, trained, frozen, saved."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import minilm
from minilm.render.cells import number_columns
from minilm.render.document import Block, Code, Column, Paragraph, Section
from scripts.tools.chapters.tables import rows_text, table

RULE_WEIGHTS = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, -3.0, 1.0, 0.5]])
RULE_BIASES = torch.tensor([0.25, -0.75])
EXAMPLES, STEPS = 256, 200


def section() -> Section:
    """The same model throughout: each part goes on with it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    return Section(
        "ten", "A model of ten parameters", (*counted(model), *trained(model), *saved(model))
    )


def counted(model: nn.Linear) -> tuple[Block, ...]:
    """Its parameters by hand, by formula and by name."""
    by_hand, by_formula = 4 * 2 + 2, model.out_features * model.in_features + model.out_features
    named = list(model.named_parameters())
    by_name = sum(value.numel() for _, value in named)
    parameters = minilm.inspect(model).parameters
    assert by_hand == by_formula == by_name == parameters.total
    return (
        Paragraph(
            "A linear layer takes some numbers and gives others: each result is the sum of all "
            "inputs, each times a weight, plus a bias. From 4 inputs to 2 results, in PyTorch "
            "nn.Linear(4, 2), it is small enough to be counted by hand. Its parameters are the "
            "weights and the biases: numbers that nobody types, because training sets them. "
            "With inputs x1 to x4, weights w and biases b:"
        ),
        Code("result 1", "w11 x1 + w12 x2 + w13 x3 + w14 x4 + b1"),
        Code("result 2", "w21 x1 + w22 x2 + w23 x3 + w24 x4 + b2"),
        Paragraph("Counted in three ways, which must agree:"),
        table(
            number_columns("way", "parameters"),
            [
                ("by hand: 8 w and 2 b above", f"{by_hand}"),
                ("by formula: outputs × inputs + outputs", f"{by_formula}"),
                ("from the model: the sum over named_parameters()", f"{by_name}"),
            ],
        ),
        Paragraph(
            "The weights are stored as a matrix of 2 rows with 4 numbers each, the biases as a "
            "vector of 2. Such arrangements of numbers are called tensors; the sizes are the shape, "
            "and their product is the number of elements:"
        ),
        table(
            (Column("name", "code"), Column("shape"), Column("elements", "number")),
            [
                (name, " × ".join(map(str, value.shape)), str(value.numel()))
                for name, value in named
            ],
        ),
        Paragraph(
            f"minilm.inspect(model) says the same: {parameters.total} parameters, "
            f"{parameters.weights} weights, {parameters.biases} biases."
        ),
    )


def trained(model: nn.Linear) -> tuple[Block, ...]:
    """It learns a rule; then another one with its biases frozen."""
    before = rows_text(model.weight), rows_text(model.bias)
    inputs = torch.randn(EXAMPLES, 4)
    targets = inputs @ RULE_WEIGHTS.T + RULE_BIASES
    first = F.mse_loss(model(inputs), targets).item()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(targets: torch.Tensor) -> float:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
        return loss.item()

    last = train(targets)
    after = rows_text(model.weight), rows_text(model.bias)
    model.bias.requires_grad_(False)
    total = sum(value.numel() for value in model.parameters())
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    frozen_bias = model.bias.clone()
    frozen_loss = train(targets + 1.0)
    assert torch.equal(frozen_bias, model.bias)
    return (
        Paragraph(
            f"Trained: we show it {EXAMPLES} inputs with the results that a hidden rule gives, and "
            f"take {STEPS} steps. The mean squared error of the results falls from {first:.2f} to "
            f"{last:.4f}, and the parameters have become those of the rule:"
        ),
        table(
            (Column("parameters"), Column("weights, row by row"), Column("biases")),
            [
                ("before", *before),
                ("after", *after),
                ("the rule", rows_text(RULE_WEIGHTS), rows_text(RULE_BIASES)),
            ],
        ),
        Paragraph(
            "The count has not changed, only the values. Frozen: with the biases frozen "
            f"(requires_grad = False) {trainable} of the {total} parameters are trainable. All "
            f"{total} still count; training leaves the frozen ones as they are. We add 1 to every "
            f"wanted result and train again: the error stays at {frozen_loss:.2f}, since only the "
            "biases could learn that. (The weights take away the little that is missing to 1: on "
            "average these inputs are not quite 0.)"
        ),
    )


def saved(model: nn.Linear) -> tuple[Block, ...]:
    """Its file, byte by byte."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(dict(model.state_dict()), path)
        content = path.read_bytes()
        loaded = load_file(path)
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode()
    total = sum(value.numel() for value in loaded.values())
    assert len(content) == 8 + size + total * 4
    return (
        Paragraph(
            f"Saved as safetensors, the file has {len(content)} bytes: 8 for the length of the "
            f"header, {size} of header, and {total} parameters of 4 bytes (float32). The header is "
            "text (JSON), filled up with spaces; F32 is float32:"
        ),
        Code("header", header.rstrip()),
        Paragraph("Loaded again, every parameter is the same to the last bit."),
    )
