"""MLX: values packed in uint32 along the last dimension, with scales and biases a group of them.

Layouts: mlx `mlx.core.quantize` (its table of modes) and mlx-lm `utils.py` (`quantize_model`): the
config.json has bits and group_size, and those of a layer under the layer's name where they differ.

    affine               X.weight (..., in*bits/32)  X.scales, X.biases (..., in/group)
    mxfp4, mxfp8, nvfp4  X.weight (..., in*bits/32)  X.scales (..., in/group) of uint8
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import Checkpoint, Decoded, UndecodableError

METHOD = "mlx"
WORD = 32

# Affine: 64 is the default, and settles what several pairs would fit.
GROUPS = (64, 32, 128)
BITS = (2, 3, 4, 5, 6, 8)

# Bits of a group -> mode and bits a value of those without biases.
FLOATS = {32 * 4: ("mxfp4", 4), 32 * 8: ("mxfp8", 8), 16 * 4: ("nvfp4", 4)}


def mlx(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` of uint32, a linear layer's, an embedding's or stacked experts', with `X.scales`."""
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
    group_bits, rest = divmod(values.shape[-1] * WORD, shape[-1])
    if rest or any(companion.shape != shape for companion in companions):
        raise UndecodableError(f"scales of shape {list(shape)}")
    method = METHOD
    if len(companions) == 1 and scales.dtype == "uint8":
        if group_bits not in FLOATS:
            raise UndecodableError(f"{group_bits} bits a scale")
        dtype, bits = FLOATS[group_bits]
    else:
        bits, is_sure = _bits(values, group_bits, checkpoint)
        dtype = f"int{bits}"
        method += "" if is_sure else f" (groups of {GROUPS[0]} assumed)"
    inputs = values.shape[-1] * WORD // bits
    return Decoded(values.name, (*values.shape[:-1], inputs), dtype, method, companions)


def _bits(values: StoredTensor, group_bits: int, checkpoint: Checkpoint) -> tuple[int, bool]:
    """Bits a value, and whether they are sure: as the configuration, the formula or the shapes have it."""
    bits, group_size = _said(values.name.removesuffix(".weight"), checkpoint.config)
    fitting = {size: group_bits // size for size in GROUPS if group_bits % size == 0}
    fitting = {size: fit for size, fit in fitting.items() if fit in BITS}
    if not fitting:
        raise UndecodableError(f"{group_bits} bits a scale")
    said = (
        fitting.get(group_size) == bits
        or (not group_size and bits in fitting.values())
        or (not bits and group_size in fitting)
    )
    if said:
        return bits or fitting[group_size], True
    expected = checkpoint.expected_bits(values.name, values)
    if expected is not None and expected in fitting.values():
        return expected, True
    return next(iter(fitting.values())), len(fitting) == 1


def _said(module: str, config: Mapping[str, Any]) -> tuple[int, int]:
    """Bits and group size by the layer's own entry, else by the one for all; 0 where none says it."""
    own = config.get(module)
    entry = own if isinstance(own, dict) else config
    bits, group_size = entry.get("bits"), entry.get("group_size")
    return bits if type(bits) is int else 0, group_size if type(group_size) is int else 0
