"""Which stored tensors are not values of the model but what those are packed in, or their scales."""

from __future__ import annotations

from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors
from minilm.values.statistics import Unread


def not_decoded(logical: LogicalTensors | None) -> dict[str, Unread]:
    """The tensors to leave out by their stored name; the first part of each stands for all values."""
    left_out = {}
    for tensor in logical.tensors if logical else ():
        if _is_packed(tensor):
            assert logical is not None
            reason = f"not decoded: packed by {logical.method}"
            for part in (*tensor.parts, *tensor.scales):
                count = tensor.count if part is tensor.parts[0] else 0
                left_out[part.name] = Unread(part.name, reason, count)
    for scale in logical.cache_scales if logical else ():
        left_out[scale.name] = Unread(scale.name, "a scale of the KV cache, no weight", 0)
    return left_out


def _is_packed(tensor: LogicalTensor) -> bool:
    """GGUF's blocks are not: they say by themselves what they stand for."""
    return bool(tensor.scales) or any(
        (part.dtype, part.shape) != (tensor.dtype, tensor.shape) for part in tensor.parts
    )
