"""Freezing by component: what is frozen gets no gradient, and no optimizer has it."""

from __future__ import annotations

from collections.abc import Sequence

from minilm.architectures.minilm import layout as minilm_layout
from minilm.ledger.layout_changes import with_frozen
from minilm.model.transformer import Transformer


def freeze(model: Transformer, words: Sequence[str]) -> Transformer:
    """Freeze the components of ``words``, of `FREEZABLE`, in place; return the model.

    Raises ConfigError for what the model does not have.
    """
    layout = with_frozen(minilm_layout(model.config), words)
    parameters = dict(model.named_parameters())
    for tensor in layout.named_tensors([each for each in layout.tensors if each.frozen]):
        parameters[tensor.name].requires_grad_(False)
    return model
