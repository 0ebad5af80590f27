"""The stored tensors of a quantized checkpoint whose values are not read: packed ones and scales."""

from __future__ import annotations

from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors
from minilm.values.statistics import Unread


def not_decoded(logical: LogicalTensors | None) -> dict[str, Unread]:
    """Packed tensors and scales by their stored names; all values count for a tensor's first part."""
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
    """Whether its values are not stored directly; GGUF's blocks are, since `read` decodes them."""
    return bool(tensor.scales) or any(
        (part.dtype, part.shape) != (tensor.dtype, tensor.shape) for part in tensor.parts
    )
