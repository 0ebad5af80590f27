"""bitsandbytes: NF4 and FP4 with absmax scales, and LLM.int8().

Names: bitsandbytes `functional.py` (`QuantState.as_dict`) and `nn/modules.py` (`Linear8bitLt`), 0.50.
"""

from __future__ import annotations

import json
import math
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    shape_in,
)

METHOD = "bitsandbytes"
STATE = ".quant_state.bitsandbytes__"


def four_bits(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` of packed bytes, `X.weight.absmax`, `.quant_map`, `.quant_state.bitsandbytes__nf4`.

    With double quantization absmax is quantized too: `.nested_absmax`, `.nested_quant_map`.
    """
    name = values.name
    absmax = checkpoint.tensors.get(f"{name}.absmax")
    if absmax is None:
        if f"{name}.quant_map" in checkpoint.tensors:
            raise UndecodableError("no absmax")
        return None
    states = checkpoint.companions(name, f"{STATE}nf4", f"{STATE}fp4")
    scales = checkpoint.companions(
        name, ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"
    )
    state = _state(states, checkpoint)
    shape = _shape(values, state, checkpoint)
    blocksize = state.get("blocksize", 0)
    if type(blocksize) is int and blocksize > 0:
        blocks = -(-math.prod(shape) // blocksize)
        if absmax.count != blocks:
            raise UndecodableError(f"{absmax.count} absmax for {blocks} blocks")
    elif not 0 < absmax.count <= math.prod(shape):
        raise UndecodableError(f"{absmax.count} absmax for {math.prod(shape)} values")
    said = states[0].name.rpartition("__")[2] if states else None
    kind = said or checkpoint.config.get("bnb_4bit_quant_type")
    return Decoded(
        name,
        checkpoint.settled(name, shape),
        kind if kind in ("nf4", "fp4") else "int4",
        METHOD,
        (*scales, *states),
    )


def llm_int8(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` of int8 (rows, columns), `X.SCB` (rows,), `X.weight_format`."""
    if values.dtype != "int8" or values.name.rpartition(".")[2] != "weight":
        return None
    module = values.name.removesuffix("weight")
    scales = checkpoint.companions(module, "SCB", "weight_format")
    if not scales:
        return None
    statistics = checkpoint.tensors.get(f"{module}SCB")
    if statistics is None:
        raise UndecodableError("no SCB")
    if statistics.shape != values.shape[:1]:
        raise UndecodableError(f"SCB of shape {list(statistics.shape)}")
    shape = checkpoint.settled(values.name, values.shape)
    return Decoded(values.name, shape, "int8", METHOD, scales)


def _state(states: tuple[StoredTensor, ...], checkpoint: Checkpoint) -> dict[str, Any]:
    """The JSON that describes a tensor; empty where it is missing or nonsense."""
    raw = checkpoint.read(states[0]) if states else None
    try:
        state = json.loads(raw.decode("utf-8")) if raw else {}
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _shape(values: StoredTensor, state: dict[str, Any], checkpoint: Checkpoint) -> Shape:
    """What the file says if its bytes can hold that, else what the formula says if they can."""
    for shape in (shape_in(state.get("shape")), checkpoint.expected.get(values.name)):
        # The last of the storage's elements, of at most 8 bytes, may not be full.
        if shape is not None and 0 <= 2 * values.nbytes - math.prod(shape) < 16:
            return shape
    raise UndecodableError("no shape that its bytes can hold")
