"""A trained model whose layers share blocks, or whose head is the token table; and both undone.

Each function returns a new model. Unsharing and untying leave every logit as it is, bit for bit; sharing
layers that are equal, and tying a head that is the table, too. Sharing across layers: Lan et al. 2019
(ALBERT, arXiv:1909.11942); in which order: Takase and Kiyono 2021 (arXiv:2104.06022).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from minilm.errors import InputError
from minilm.model.transformer import Transformer

Sharing = Literal["cycle", "group"]


@torch.no_grad()
def share_layers(model: Transformer, blocks: int, sharing: Sharing) -> Transformer:
    """Layers that share ``blocks`` blocks, each the mean of the layers that it stands for.

    As many blocks as layers: each layer gets a copy of what it ran. Raises ConfigError for a number
    that the model cannot have.
    """
    layers = model.config.num_layers
    config = replace(model.config, shared_layers=blocks, sharing=sharing)
    if blocks == layers:
        config = replace(config, shared_layers=0)
    by_layer = [model.blocks[number] for number in model.config.block_order]
    shared = copy.deepcopy(model)
    shared.blocks = nn.ModuleList(
        _mean([by_layer[layer] for layer in range(layers) if config.block_order[layer] == number])
        for number in range(config.num_blocks)
    )
    shared.config, shared.block_order = config, config.block_order
    return shared


def _mean(blocks: Sequence[nn.Module]) -> nn.Module:
    """A block of the mean of each parameter; of equal ones their value, which float64 leaves exact."""
    merged = copy.deepcopy(blocks[0])
    for name, parameter in merged.named_parameters():
        values = torch.stack([block.get_parameter(name).double() for block in blocks])
        parameter.copy_(values.mean(dim=0))
    return merged


def tie_head(model: Transformer) -> Transformer:
    """The head becomes the token table; its own weights are lost. Raises InputError where it is tied."""
    if model.config.tied_embeddings:
        raise InputError("--tie-head", "a head that is tied already", "one with its own weights")
    tied = copy.deepcopy(model)
    tied.config = replace(model.config, tied_embeddings=True)
    tied.lm_head.weight = tied.embedding.token.weight
    return tied


def untie_head(model: Transformer) -> Transformer:
    """The head gets a copy of the token table. Raises InputError where it has its own weights."""
    if not model.config.tied_embeddings:
        raise InputError("--untie-head", "a head with its own weights", "one tied to the table")
    untied = copy.deepcopy(model)
    untied.config = replace(model.config, tied_embeddings=False)
    table = untied.embedding.token.weight
    untied.lm_head.weight = nn.Parameter(table.detach().clone(), requires_grad=table.requires_grad)
    return untied
