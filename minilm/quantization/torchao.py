"""torchao: `X._weight_qdata` with `X._weight_scale`, described in the file's metadata.

Names: torchao 0.18 `prototype/safetensors/safetensors_support.py` (`flatten_tensor_state_dict`): the
metadata has for `X.weight` its class, `_type`, that one's attributes, `_data`, and the names of its
tensors. A checkpoint of torch.save is described alike (`formats/torch_contents.py`), and has classes
that call their values otherwise.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    LARGEST_CONTROL,
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    shape_in,
)

_VALUES = re.compile(
    r"(?P<module>.*\.|)_(?P<parameter>\w+?)_"
    r"(?P<values>qdata|int_data|float8_data|packed_weights?|quantized_data)"
)

SCALES = (
    "scale",
    "zero_point",
    "scale_and_zero",
    "per_tensor_scale",
    "act_per_tensor_scale",
    "act_pre_scale",
    "act_quant_scale",
    "act_quant_zero_point",
)

# Classes with two values in each byte and no shape among their attributes.
PAIRS = ("NVFP4Tensor", "MXTensor")


def torchao(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """Decode by the description; without one by the formula's shape, then by the values' own."""
    match = _VALUES.fullmatch(values.name)
    if match is None:
        return None
    module, parameter = match["module"], match["parameter"]
    name = f"{module}{parameter}"
    kind, data, parts = _description(name, checkpoint)
    if not kind and match["values"] != "qdata":
        return None
    others = dict.fromkeys((*SCALES, *parts))
    others.pop(match["values"], None)
    scales = checkpoint.companions(f"{module}_{parameter}_", *others)
    if not scales and len(parts) != 1:  # one class has its scales among its values
        raise UndecodableError("no scale")
    shape = _shape(name, values, kind, data, checkpoint)
    if any(scale.count > math.prod(shape) for scale in scales):
        raise UndecodableError("more scales than values")
    dtype = _dtype(values, kind, data, math.prod(shape))
    return Decoded(name, checkpoint.settled(name, shape), dtype, "torchao", scales)


def _description(name: str, checkpoint: Checkpoint) -> tuple[str, dict[str, Any], list[str]]:
    """The class, its attributes and the names of its tensors, as far as the metadata says them."""
    text = checkpoint.metadata.get(name, "")
    try:
        value = json.loads(text) if 0 < len(text) <= LARGEST_CONTROL else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return "", {}, []
    kind, data, names = (value.get(key) for key in ("_type", "_data", "_tensor_data_names"))
    return (
        kind if isinstance(kind, str) else "",
        data if isinstance(data, dict) else {},
        [part for part in names if isinstance(part, str)] if isinstance(names, list) else [],
    )


def _shape(
    name: str, values: StoredTensor, kind: str, data: dict[str, Any], checkpoint: Checkpoint
) -> Shape:
    said = shape_in(data.get("shape"))
    if said is not None and math.prod(said) <= values.nbytes * 8:
        return said
    own = values.shape
    if kind in PAIRS and values.dtype == "uint8" and own:
        return (*own[:-1], own[-1] * 2)
    if values.dtype in ("uint8", "int32") or not kind:
        # Nothing says how it is packed: what fills the expected tensor exactly.
        if checkpoint.expected_bits(name, values) is not None:
            return checkpoint.expected[name]
        if values.dtype in ("uint8", "int32"):
            raise UndecodableError("no description of its packing in the metadata")
    if not own or 0 in own:
        raise UndecodableError(f"values of shape {list(own)}")
    return own


def _dtype(values: StoredTensor, kind: str, data: dict[str, Any], count: int) -> str:
    if kind in PAIRS and values.dtype == "uint8":
        return "nvfp4" if kind == "NVFP4Tensor" else "mxfp4"
    if kind == "NF4Tensor":
        return "nf4"
    target = data.get("target_dtype")
    said = target.get("_data") if isinstance(target, dict) else None
    if isinstance(said, str) and re.fullmatch(r"u?int[1-8]", said):
        return said
    if values.dtype.startswith("float8") or values.nbytes >= count:
        return values.dtype
    return f"int{values.nbytes * 8 // count}"
