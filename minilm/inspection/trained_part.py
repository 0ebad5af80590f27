"""What the run that a target is trains of its model."""

from __future__ import annotations

from minilm.costs.trained import Trained
from minilm.inspection.target import Target


def trained_part(target: Target) -> Trained:
    """All of it, what ``--freeze`` left, or an adapter on a base in the format that it is stored in."""
    if target.lora is not None:
        return Trained(lora=target.lora, packing=stored_format(target))
    tensors = target.layout.tensors if target.layout is not None else ()
    return Trained(frozenset(tensor.component for tensor in tensors if tensor.frozen))


def stored_format(target: Target) -> str:
    """How its matrices are packed; empty where they are not."""
    if not target.quantization:
        return ""
    from minilm.quantization.packings import packing_of  # which imports numpy

    return packing_of(target.quantization).format
