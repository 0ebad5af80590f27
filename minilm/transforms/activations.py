"""What the linear maps of a model are given: statistics of their inputs over some text.

Shapes: n windows of t tokens, b of them a batch, d wide; i inputs of a linear map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from minilm.formats.tensor_io import Array
from minilm.model.layers import Linear
from minilm.model.rope import rotation
from minilm.model.transformer import Block, Transformer

BATCH_TOKENS = 8192


def linear_layers(model: nn.Module) -> dict[str, Linear]:
    """The linear layers by name, those that are float and not replaced. The head is none of them."""
    return {name: module for name, module in model.named_modules() if type(module) is Linear}


@torch.no_grad()
def layers_in_turn(model: Transformer, windows: Tensor) -> Iterator[tuple[str, Linear, Array]]:
    """Each linear layer of the blocks by name, with the sum of x xᵀ, (i, i), over its inputs x.

    Block by block on ``windows`` (n, t) of tokens: the inputs are what the blocks before it give as they
    are then, with what was done to a layer after it came.
    """
    config, t = model.config, windows.shape[1]
    model.eval()
    hidden = [
        model.embedding(batch) for batch in torch.split(windows, max(1, BATCH_TOKENS // t))
    ]  # each b t d
    angles = rotation(t, config, windows.device) if config.position == "rope" else None
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        with input_hessians(block) as hessians:
            for x in hidden:
                block(x, angles)
        for name, layer in linear_layers(block).items():
            yield f"blocks.{number}.{name}", layer, hessians[name].numpy()
        hidden = [block(x, angles) for x in hidden]


@contextlib.contextmanager
def input_hessians(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The sum of x xᵀ, (i, i), over all inputs of each linear layer in ``module``, within the block."""
    sums: dict[str, Tensor] = {}

    def add(name: str, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().flatten(0, -2).double()
        product = rows.t() @ rows
        sums[name] = sums[name] + product if name in sums else product

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
        for name, layer in linear_layers(module).items()
    ]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


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
