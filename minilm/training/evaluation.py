"""Validation: the mean loss over the whole split in consecutive windows, dropout off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from minilm.data.batches import validation_windows
from minilm.data.shards import Dataset
from minilm.model.transformer import next_token_loss
from minilm.training.runtime import Runtime

# Tokens in one forward pass: enough to fill the processor, few enough for logits to fit anywhere.
TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Validation:
    """Nats a token, and bits a byte of the text, which compares across tokenizers.

    The bits of every target, end-of-text tokens included, over every byte of the split's text.
    """

    loss: float
    bits_per_byte: float


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, context_length: int, runtime: Runtime) -> Validation:
    """The mean over every target of the validation split. The model's mode is put back."""
    was_training = model.training
    model.eval()
    total, targets_seen = 0.0, 0
    rows = max(1, TOKENS_PER_BATCH // context_length)
    for inputs, targets in validation_windows(
        data.val, context_length=context_length, batch_size=rows
    ):
        count = int((targets != -100).sum())
        with runtime.autocast():
            loss = next_token_loss(
                model,
                torch.from_numpy(inputs).to(runtime.device),
                torch.from_numpy(targets).to(runtime.device),
            )
        total += loss.item() * count
        targets_seen += count
    model.train(was_training)
    return Validation(total / targets_seen, total / math.log(2) / max(1, data.val_bytes))
