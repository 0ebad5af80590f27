"""Attention maps of a trained model: the weights of every layer and head over a piece of text.

Shapes: t tokens, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minilm.model.attention import Attention
from minilm.model.transformer import Transformer
from minilm.runs.attention_maps import MAX_MAPS, MAX_TOKENS, AttentionMaps, letters
from minilm.text.tokenizers import Tokenizer


@torch.no_grad()
def attention_weights(model: Transformer, *row: Tensor) -> list[Tensor]:
    """(h, t, t) of each layer, in order, of a ``row`` of one sequence as the model takes it."""
    weights: list[Tensor] = []

    def keep(attention: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(attention, Attention)
        x, rotation, _, positions = arguments
        visible = None if positions is None else positions.mask
        weights.append(attention.weights(x, rotation, visible)[0])

    hooks = [
        module.register_forward_pre_hook(keep)
        for module in model.modules()
        if isinstance(module, Attention)
    ]
    was_training = model.training
    model.eval()
    try:
        model(row[0], document_positions=row[1] if len(row) > 1 else None)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return weights


def attention_maps(
    model: Transformer, tokenizer: Tokenizer, row: Sequence[Any], step: int
) -> AttentionMaps:
    """Those of the first tokens of ``row``, arrays (1, t) of ids and, if they matter, document positions.

    Of a model with many layers and heads some are left out: the layers are evenly spread.
    """
    tensors = [torch.from_numpy(array[:, :MAX_TOKENS]) for array in row]
    weights = attention_weights(model, *tensors)
    heads = min(len(weights[0]), MAX_MAPS)
    count = min(len(weights), MAX_MAPS // heads)
    layers = [round(n * (len(weights) - 1) / max(count - 1, 1)) for n in range(count)]
    t = tensors[0].shape[1]
    below = torch.tril_indices(t, t)
    return AttentionMaps(
        step,
        tuple(tokenizer.decode([token]) for token in tensors[0][0].tolist()),
        tuple(layers),
        tuple(
            tuple(
                letters(weights[layer][head][below[0], below[1]].float().sqrt().tolist())
                for head in range(heads)
            )
            for layer in layers
        ),
    )
