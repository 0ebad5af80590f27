"""One step of one parameter, with its numbers."""

from __future__ import annotations

import torch

import minilm
from minilm.render.document import Code, Paragraph, Section
from minilm.units import format_bytes


def section() -> Section:
    """The gradient is that of autograd."""
    weight = torch.tensor(0.5, requires_grad=True)
    rate, value, wanted = 0.1, 2.0, 3.0
    loss = (weight * value - wanted) ** 2
    loss.backward()
    assert weight.grad is not None
    gradient = weight.grad.item()
    after = weight.item() - rate * gradient
    return Section(
        "training",
        "What training does to them",
        (
            Paragraph(
                "A step looks at some text, the batch, measures the loss, and computes for every "
                "parameter how the loss changes with it: the gradient. Then the parameters move "
                "against their gradients. The rule for that is the optimizer; the plainest is "
                "SGD:"
            ),
            Code("an update", "parameter after = parameter before - learning rate * gradient"),
            Paragraph(
                f"With one weight w = {weight.item():g}, input {value:g}, wanted result {wanted:g}, "
                "and for numbers in place of tokens another loss, (result - wanted)²: the result is "
                f"{weight.item() * value:g}, the loss {loss.item():g}. Its gradient is 2 (result - "
                f"wanted) input = {gradient:g}: if the weight grows by a little, the loss falls by "
                f"{-gradient:g} times as much. At a "
                f"learning rate of {rate:g} the weight becomes {after:g}, and the loss "
                f"{(after * value - wanted) ** 2:g}."
            ),
            Paragraph(
                "AdamW, with which most models are trained, keeps two means over the last steps for each "
                "parameter, the moments: of its gradient, and of the gradient's square. It moves the "
                "parameter by the first, divided by the root of the second. So training needs "
                "memory for four numbers a parameter (itself, gradient, two moments), where use "
                "of the model needs one, itself. Of nano that is "
                f"{format_bytes(minilm.inspect('nano').memory['training']['total'])} against "
                f"{format_bytes(minilm.inspect('nano').memory['weights']['float32'])}, in float32. "
                "Training changes the values of the parameters, never their number."
            ),
        ),
    )
