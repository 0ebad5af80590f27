"""What the linear maps of a model are given: statistics of their inputs over some text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from minilm.model.transformer import Transformer


@torch.no_grad()
def input_norms(
    model: Transformer, matrices: Mapping[str, nn.Linear], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The L2 norm of each input of each matrix, (i,) by name, over all tokens (b, t) of ``batches``."""
    squares = {
        name: torch.zeros(matrix.in_features, dtype=torch.float64)
        for name, matrix in matrices.items()
    }

    def observe(name: str, inputs: Tensor) -> None:
        squares[name] += inputs.detach().flatten(0, -2).double().square().sum(0).cpu()

    with _observed(model, matrices, observe):
        for tokens in batches:
            model(tokens)
    return {name: total.sqrt().float() for name, total in squares.items()}


@contextlib.contextmanager
def _observed(
    model: Transformer, matrices: Mapping[str, nn.Linear], observe: object
) -> Iterator[None]:
    """``observe(name, inputs)`` at each call of each matrix within the block; dropout is off."""
    was_training = model.training
    model.eval()
    hooks = [
        matrix.register_forward_pre_hook(partial(_call, observe, name))
        for name, matrix in matrices.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)


def _call(observe: object, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert callable(observe)
    observe(name, inputs[0])
