"""MLX: values packed in uint32 along the last dimension, with a scale and bias for each group.

Layouts: mlx `mlx.core.quantize` (its table of modes) and mlx-lm `utils.py` (`quantize_model`):
config.json has bits and group_size, and under a layer's name that layer's own.

    affine               X.weight (..., in*bits/32)  X.scales, X.biases (..., in/group)
    mxfp4, mxfp8, nvfp4  X.weight (..., in*bits/32)  X.scales (..., in/group) of uint8
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import Checkpoint, Decoded, UndecodableError

METHOD = "mlx"
WORD_BITS = 32

# Of the affine mode, the default first: it is assumed where several fit.
GROUP_SIZES = (64, 32, 128)
BIT_WIDTHS = (2, 3, 4, 5, 6, 8)

# Bits of a group -> mode and bits a value, of the modes without biases.
FLOAT_MODES = {32 * 4: ("mxfp4", 4), 32 * 8: ("mxfp8", 8), 16 * 4: ("nvfp4", 4)}


def decode_mlx(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` of uint32 with `X.scales`: a linear layer, an embedding or stacked experts."""
    if values.dtype != "uint32" or values.name.rpartition(".")[2] != "weight":
        return None
    module = values.name.removesuffix("weight")
    companions = checkpoint.companions(module, "scales", "biases")
    if not companions:
        return None
    scales = checkpoint.tensors.get(f"{module}scales")
    if scales is None:
        raise UndecodableError("no scales")
    shape = scales.shape
    if len(shape) < 2 or shape[:-1] != values.shape[:-1] or 0 in shape:
        raise UndecodableError(f"scales of shape {list(shape)}")
    group_bits, remainder = divmod(values.shape[-1] * WORD_BITS, shape[-1])
    if remainder or any(companion.shape != shape for companion in companions):
        raise UndecodableError(f"scales of shape {list(shape)}")
    method = METHOD
    if len(companions) == 1 and scales.dtype == "uint8":
        if group_bits not in FLOAT_MODES:
            raise UndecodableError(f"{group_bits} bits a scale")
        dtype, bits = FLOAT_MODES[group_bits]
    else:
        bits, is_sure = _bits(values, group_bits, checkpoint)
        dtype = f"int{bits}"
        method += "" if is_sure else f" (groups of {GROUP_SIZES[0]} assumed)"
    inputs = values.shape[-1] * WORD_BITS // bits
    return Decoded(values.name, (*values.shape[:-1], inputs), dtype, method, companions)


def _bits(values: StoredTensor, group_bits: int, checkpoint: Checkpoint) -> tuple[int, bool]:
    """Bits a value, and whether configuration, formula or shapes determine them."""
    bits, group_size = _configured(values.name.removesuffix(".weight"), checkpoint.config)
    bits_by_size = {
        size: group_bits // size
        for size in GROUP_SIZES
        if group_bits % size == 0 and group_bits // size in BIT_WIDTHS
    }
    if not bits_by_size:
        raise UndecodableError(f"{group_bits} bits a scale")
    is_configured = (
        bits_by_size.get(group_size) == bits
        or (not group_size and bits in bits_by_size.values())
        or (not bits and group_size in bits_by_size)
    )
    if is_configured:
        return bits or bits_by_size[group_size], True
    expected = checkpoint.expected_bits(values.name, values)
    if expected is not None and expected in bits_by_size.values():
        return expected, True
    return next(iter(bits_by_size.values())), len(bits_by_size) == 1


def _configured(module: str, config: Mapping[str, Any]) -> tuple[int, int]:
    """Bits and group size from the layer's entry, else from the config's own; 0 where absent."""
    layer_entry = config.get(module)
    entry = layer_entry if isinstance(layer_entry, dict) else config
    bits, group_size = entry.get("bits"), entry.get("group_size")
    return bits if type(bits) is int else 0, group_size if type(group_size) is int else 0
