"""A trained model whose layers share blocks, or whose head is the token table; and both undone.

Each function returns a new model. Unsharing and untying leave every logit as it is, bit for bit; sharing
layers that are equal, and tying a head that is the table, too. Sharing across layers: Lan et al. 2019
(ALBERT, arXiv:1909.11942); in which order: Takase and Kiyono 2021 (arXiv:2104.06022).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

from torch import nn

from minilm.errors import InputError
from minilm.model.transformer import Transformer

Sharing = Literal["group", "cycle"]


def share_layers(model: Transformer, blocks: int, sharing: Sharing) -> Transformer:
    """Layers that share ``blocks`` blocks, each that of the first of the layers that it stands for.

    (Their mean loses more: docs/parameters.md.) As many blocks as layers: each layer gets a copy of what
    it ran. Raises InputError for a number that the model cannot have, or has.
    """
    layers = model.config.num_layers
    if not 0 < blocks <= layers:
        raise InputError("--layers", f"{blocks}", f"from 1 to {layers}, the number of layers")
    config = replace(model.config, shared_layers=0)
    if blocks < layers:
        config = replace(config, shared_layers=blocks, sharing=sharing)
    order = config.block_order
    if order == model.config.block_order:
        raise InputError("--layers", f"{blocks}, which the model has", "another number of blocks")
    of_layer = model.config.block_order
    shared = copy.deepcopy(model)
    shared.blocks = nn.ModuleList(
        copy.deepcopy(model.blocks[of_layer[order.index(number)]]) for number in range(blocks)
    )
    shared.config = config
    return shared


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
