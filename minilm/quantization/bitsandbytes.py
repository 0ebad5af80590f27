"""bitsandbytes: NF4 and FP4 with absmax scales, and LLM.int8().

Names: bitsandbytes `functional.py` (`QuantState.as_dict`) and `nn/modules.py` (`Linear8bitLt`), 0.50.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    parse_shape,
)

METHOD = "bitsandbytes"
STATE_SUFFIX = ".quant_state.bitsandbytes__"


def decode_4bit(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """NF4 and FP4: `X.weight` packed in bytes, `X.weight.absmax`, `.quant_map`, `.quant_state.*`.

    With double quantization absmax is itself quantized: `.nested_absmax`, `.nested_quant_map`.
    """
    name = values.name
    absmax = checkpoint.tensors.get(f"{name}.absmax")
    if absmax is None:
        if f"{name}.quant_map" in checkpoint.tensors:
            raise UndecodableError("no absmax")
        return None
    states = checkpoint.companions(name, f"{STATE_SUFFIX}nf4", f"{STATE_SUFFIX}fp4")
    scales = checkpoint.companions(
        name, ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"
    )
    state = read_state(states, checkpoint)
    shape = _shape(values, state, checkpoint)
    blocksize = state.get("blocksize", 0)
    if type(blocksize) is int and blocksize > 0:
        blocks = -(-math.prod(shape) // blocksize)
        if absmax.count != blocks:
            raise UndecodableError(f"{absmax.count} absmax for {blocks} blocks")
    elif not 0 < absmax.count <= math.prod(shape):
        raise UndecodableError(f"{absmax.count} absmax for {math.prod(shape)} values")
    stored_type = states[0].name.rpartition("__")[2] if states else None
    quant_type = stored_type or checkpoint.config.get("bnb_4bit_quant_type")
    return Decoded(
        name,
        checkpoint.oriented_shape(name, shape),
        quant_type if quant_type in ("nf4", "fp4") else "int4",
        METHOD,
        (*scales, *states),
    )


def decode_llm_int8(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """LLM.int8(): `X.weight` of int8 (rows, columns), `X.SCB` (rows,), `X.weight_format`."""
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
    shape = checkpoint.oriented_shape(values.name, values.shape)
    return Decoded(values.name, shape, "int8", METHOD, scales)


def read_state(states: Sequence[StoredTensor], checkpoint: Checkpoint) -> dict[str, Any]:
    """The quant_state JSON of a tensor; empty where it is missing or invalid."""
    raw = checkpoint.read(states[0]) if states else None
    try:
        state = json.loads(raw.decode("utf-8")) if raw else {}
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _shape(values: StoredTensor, state: dict[str, Any], checkpoint: Checkpoint) -> Shape:
    """The file's shape if its bytes can hold it, else the formula's if they can hold that."""
    for shape in (parse_shape(state.get("shape")), checkpoint.expected.get(values.name)):
        # The last element of the storage, of at most 8 bytes, may be partly unused.
        if shape is not None and 0 <= 2 * values.nbytes - math.prod(shape) < 16:
            return shape
    raise UndecodableError("no shape that its bytes can hold")
