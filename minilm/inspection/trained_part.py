"""What the run that a target is trains of its model."""

from __future__ import annotations

from minilm.costs.trained import Trained
from minilm.inspection.target import Target
from minilm.quantization.packings import packing_of


def trained_part(target: Target) -> Trained:
    """All of it, what ``--freeze`` left, or an adapter on a base in the format that it is stored in."""
    if target.lora is not None:
        packing = packing_of(target.quantization).format if target.quantization else ""
        return Trained(lora=target.lora, packing=packing)
    tensors = target.layout.tensors if target.layout is not None else ()
    return Trained(frozenset(tensor.component for tensor in tensors if tensor.frozen))
