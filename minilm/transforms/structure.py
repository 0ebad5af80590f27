"""Whole heads, feed-forward units and layers taken out: the tensors shrink, and the formula follows.

Every layer loses as many, so that a ModelConfig still describes the model; of layers that share a block, L
counts the blocks. With grouped-query attention a key/value head goes with all query heads that read it.
Shapes: h query heads, g key/value heads, k head width, f feed-forward units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.errors import InputError
from minilm.model.transformer import Transformer


def head_scores(model: Transformer, norms: Mapping[str, Tensor] | None) -> Tensor:
    """(L, g): of each key/value head, the norm of what its query heads write, input by input.

    The norm of a column of the output projection times that of its input, where ``norms`` has it.
    """
    columns = _column_scores(model, "attention.output", norms)
    heads: Tensor = columns.view(len(columns), model.config.num_kv_heads, -1).norm(dim=2)
    return heads


def unit_scores(model: Transformer, norms: Mapping[str, Tensor] | None) -> Tensor:
    """(L, f): of each feed-forward unit, the norm of what it writes."""
    return _column_scores(model, "feed_forward.down", norms)


def _column_scores(model: Transformer, matrix: str, norms: Mapping[str, Tensor] | None) -> Tensor:
    """(L, i) of the inputs of one matrix of each block."""
    rows = []
    for layer in range(model.config.num_blocks):
        name = f"blocks.{layer}.{matrix}"
        columns = model.get_parameter(f"{name}.weight").detach().float().norm(dim=0)
        rows.append(columns if norms is None else columns * norms[name])
    return torch.stack(rows)


def highest(scores: Tensor, fraction: float, what: str) -> Tensor:
    """(L, n) -> (L, kept): the indices of what stays when ``fraction`` goes, in their order.

    Raises InputError where that is nothing or all.
    """
    count = scores.shape[1]
    removed = int(fraction * count + 1e-9)  # 0.29 of 100 is 29
    if fraction and not 0 < removed < count:
        raise InputError(
            "--sparsity",
            f"{fraction:g} of {count} {what}: {removed} of them",
            f"at least one, and not all: {math.ceil(1000 / count) / 1000:g} or more",
        )
    kept: Tensor = scores.topk(count - removed, dim=1).indices.sort(dim=1).values
    return kept


def keep_heads(model: Transformer, kept: Tensor) -> Transformer:
    """The model with the key/value heads (L, kept) of each layer, and the query heads that read them."""
    config, count = model.config, kept.shape[1]
    group, k = config.num_heads // config.num_kv_heads, config.head_dim
    smaller = replace(config, num_heads=count * group, num_kv_heads=count)
    rows = {}
    for i, heads in enumerate(kept):
        queries = (heads[:, None] * group + torch.arange(group)).flatten()
        columns = _elements(queries, k)
        for name, index in (("query", columns), ("key", _elements(heads, k))):
            rows[f"blocks.{i}.attention.{name}."] = index
        rows[f"blocks.{i}.attention.value."] = _elements(heads, k)
        rows[f"blocks.{i}.attention.output.weight"] = columns
    return _rebuilt(model, smaller, rows, columns_of=("attention.output.weight",))


def keep_units(model: Transformer, kept: Tensor) -> Transformer:
    """The model with the feed-forward units (L, kept) of each layer."""
    smaller = replace(model.config, d_feed_forward=kept.shape[1])
    rows = {
        f"blocks.{i}.feed_forward.{name}": units
        for i, units in enumerate(kept)
        for name in ("up.", "gate.", "down.weight")
    }
    return _rebuilt(model, smaller, rows, columns_of=("feed_forward.down.weight",))


def keep_layers(model: Transformer, kept: Sequence[int]) -> Transformer:
    """The model with these layers, in their order."""
    config = replace(model.config, num_layers=len(kept))
    old = {f"blocks.{new}.": f"blocks.{number}." for new, number in enumerate(kept)}

    def source(name: str) -> str:
        prefix = next((prefix for prefix in old if name.startswith(prefix)), "")
        return name.replace(prefix, old[prefix], 1) if prefix else name

    return _rebuilt(model, config, {}, source=source)


def least_missed_layer(
    model: Transformer, loss: Callable[[Transformer], float], among: Sequence[int]
) -> int:
    """The one of the layers ``among`` without which the model of them has the least loss."""
    losses = {i: loss(keep_layers(model, [each for each in among if each != i])) for i in among}
    return min(losses, key=losses.__getitem__)


def _elements(heads: Tensor, width: int) -> Tensor:
    """Of heads, the numbers of their elements."""
    return (heads[:, None] * width + torch.arange(width)).flatten()


@torch.no_grad()
def _rebuilt(
    model: Transformer,
    config: ModelConfig,
    indices: Mapping[str, Tensor],
    *,
    columns_of: Sequence[str] = (),
    source: Callable[[str], str] = str,
) -> Transformer:
    """A model of ``config`` with the values of ``model``: those at ``indices``, by a prefix of the name.

    They are rows, or the columns of names that end in one of ``columns_of``.
    """
    parameters = dict(model.named_parameters())
    with torch.device("meta"):
        smaller = Transformer(config)
    tensors = {}
    for name, parameter in smaller.named_parameters():
        values = parameters[source(name)].detach()
        prefix = next((prefix for prefix in indices if name.startswith(prefix)), None)
        if prefix is not None:
            dimension = 1 if name.endswith(tuple(columns_of)) else 0
            values = values.index_select(dimension, indices[prefix].to(values.device))
        assert values.shape == parameter.shape, (name, values.shape, parameter.shape)
        tensors[name] = values.clone()
    if config.tied_embeddings:
        tensors["lm_head.weight"] = tensors["embedding.token.weight"]
    smaller.load_state_dict(tensors, assign=True)
    if config.tied_embeddings:
        smaller.lm_head.weight = smaller.embedding.token.weight
    return smaller.train(model.training).requires_grad_(next(model.parameters()).requires_grad)
