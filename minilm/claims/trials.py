"""Trials: parameters of a model are changed, and the losses of the same blocks are computed again.

A trial begins at the first layer that is changed: what the layers below it give is the same, bit for bit, and
was kept. Everything is float32 on the CPU. Shapes: n blocks of t tokens, d wide, V tokens in the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.data.batches import IGNORED
from minilm.model.explicit_attention import Rotation
from minilm.model.kv_cache import Positions
from minilm.model.packing import packed_positions
from minilm.model.rope import rotation
from minilm.model.transformer import Transformer
from minilm.quantization.packing import Packing
from minilm.transforms.activations import linear_layers

Floats = NDArray[np.float64]

LOGITS_AT_ONCE = 2**24
TOKENS_AT_ONCE = 8192  # of a pass


@dataclass(frozen=True)
class Blocks:
    """Inputs and targets, (n, t) each, and where documents share a row the positions in their own."""

    tokens: Tensor
    targets: Tensor
    positions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, rows: slice) -> Blocks:
        positions = None if self.positions is None else self.positions[rows]
        return Blocks(self.tokens[rows], self.targets[rows], positions)


class Trials:
    """The losses of blocks under changes of a model, each from the first layer that is changed."""

    def __init__(self, model: Transformer, blocks: Blocks) -> None:
        self.model, self.blocks = model, blocks
        n, t = blocks.tokens.shape
        rows = max(1, min(TOKENS_AT_ONCE // t, LOGITS_AT_ONCE // (t * model.config.vocab_size)))
        self.parts = [blocks.part(slice(first, first + rows)) for first in range(0, n, rows)]
        self.count = 0
        # inputs[p][l]: what layer l is given of part p; last what the final norm is given
        self.inputs: list[list[Tensor]] = [[] for _ in self.parts]
        self.base = self.losses(0, keep=True)

    @torch.inference_mode()
    def losses(self, layer: int = 0, *, keep: bool = False) -> Floats:
        """(n,) nats a token of each block, of the model as it is now.

        Layers below ``layer`` are as they were; 0 begins with the embedding.
        """
        model, means = self.model, []
        for number, part in enumerate(self.parts):
            positions, angles = angles_of(model, part)
            inputs = self.inputs[number]
            x = inputs[layer] if layer else model.embedding(part.tokens, None, positions)
            for each in range(layer, model.config.num_layers):
                if keep:
                    inputs.append(x)
                x = block_of(model, each)(x, angles, None, positions)
            if keep:
                inputs.append(x)
            means.append(_mean_losses(model, x, part.targets))
        self.count += 1
        return torch.cat([torch.zeros(0), *means]).double().numpy()  # of no blocks too

    def effect(self, layer: int = 0) -> Floats:
        """(n,) how much more nats a token than the unchanged model has."""
        effect: Floats = self.losses(layer) - self.base
        return effect


def _mean_losses(model: Transformer, x: Tensor, targets: Tensor) -> Tensor:
    """(n, t, d) -> (n,)."""
    logits = model.lm_head(model.final_norm(x))  # n t d -> n t V
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(targets.shape)
    return losses.sum(dim=1) / (targets != IGNORED).sum(dim=1)


def angles_of(model: Transformer, blocks: Blocks) -> tuple[Positions | None, Rotation | None]:
    """As `Transformer.features` has them: Positions where documents share a row, and the rotation."""
    config, t = model.config, blocks.tokens.shape[1]
    if blocks.positions is not None:
        positions = packed_positions(blocks.positions, config)
        return positions, positions.rotation
    return None, rotation(t, config, torch.device("cpu")) if config.position == "rope" else None


def block_of(model: Transformer, layer: int) -> nn.Module:
    """The block that a layer runs."""
    return model.blocks[model.config.block_order[layer]]


def first_layer(model: Transformer, name: str) -> int:
    """The first layer that the parameter ``name`` is in, num_layers after all of them, 0 before."""
    config = model.config
    if name.startswith("blocks."):
        return config.block_order.index(int(name.split(".")[1]))
    if name.startswith("embedding."):
        return 0
    return config.num_layers


@dataclass(frozen=True)
class Scalar:
    """One parameter: an element of the flattened tensor ``name``."""

    name: str
    index: int


@contextlib.contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Parameters, by name, with other values, within the block."""
    parameters = {name: model.get_parameter(name) for name in values}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)


@contextlib.contextmanager
def scalars_set(model: nn.Module, scalars: Sequence[Scalar], value: float = 0.0) -> Iterator[None]:
    """These parameters with one value, within the block."""
    parameters = dict(model.named_parameters())
    indices: dict[str, list[int]] = {}
    for scalar in scalars:
        indices.setdefault(scalar.name, []).append(scalar.index)
    saved = {}
    with torch.no_grad():
        for name, numbers in indices.items():
            flat = parameters[name].view(-1)
            saved[name] = flat[numbers].clone()
            flat[numbers] = value
    try:
        yield
    finally:
        with torch.no_grad():
            for name, numbers in indices.items():
                parameters[name].view(-1)[numbers] = saved[name]


def rounded_matrices(model: nn.Module, packing: Packing) -> dict[str, Tensor]:
    """The matrices of the blocks as they are after they were stored by ``packing``, to the nearest code."""
    return {
        f"{name}.weight": torch.from_numpy(packing.values(packing.round(layer.weight.numpy())))
        for name, layer in linear_layers(model).items()
    }


def random_scalars(model: nn.Module, count: int, random: np.random.Generator) -> list[Scalar]:
    """Different ones, each parameter of the model equally likely."""
    names, sizes = zip(*((n, p.numel()) for n, p in model.named_parameters()), strict=True)
    ends = np.cumsum(sizes)
    numbers = random.choice(int(ends[-1]), size=min(count, int(ends[-1])), replace=False)
    tensors = np.searchsorted(ends, numbers, side="right")
    return [
        Scalar(names[tensor], int(number - (ends[tensor] - sizes[tensor])))
        for number, tensor in zip(numbers.tolist(), tensors.tolist(), strict=True)
    ]
