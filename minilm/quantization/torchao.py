"""torchao: `X._weight_qdata` with `X._weight_scale`, described in the file's metadata.

Names: torchao 0.18 `prototype/safetensors/safetensors_support.py` (`flatten_tensor_state_dict`): for
`X.weight` the metadata has its class, `_type`, the class's attributes, `_data`, and the names of its
tensors. `formats/torch_contents.py` describes the tensors of torch.save checkpoints the same way;
some classes found there have other names for their values.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    MAX_DESCRIPTION_BYTES,
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
    parse_shape,
)

_VALUES = re.compile(
    r"(?P<module>.*\.|)_(?P<parameter>\w+?)_"
    r"(?P<values>qdata|int_data|float8_data|packed_weights?|quantized_data)"
)

SCALE_ATTRIBUTES = (
    "scale",
    "zero_point",
    "scale_and_zero",
    "per_tensor_scale",
    "act_per_tensor_scale",
    "act_pre_scale",
    "act_quant_scale",
    "act_quant_zero_point",
)

# Classes that pack two values in a byte and do not store their shape.
PACKED_PAIR_CLASSES = ("NVFP4Tensor", "MXTensor")


def decode_torchao(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """The shape is the description's, else the formula's, else that of the values."""
    match = _VALUES.fullmatch(values.name)
    if match is None:
        return None
    module, parameter = match["module"], match["parameter"]
    name = f"{module}{parameter}"
    class_name, data, attributes = description(name, checkpoint)
    if not class_name and match["values"] != "qdata":
        return None
    others = dict.fromkeys((*SCALE_ATTRIBUTES, *attributes))
    others.pop(match["values"], None)
    scales = checkpoint.companions(f"{module}_{parameter}_", *others)
    if not scales and len(attributes) != 1:  # a class with one tensor keeps its scales in it
        raise UndecodableError("no scale")
    shape = _shape(name, values, class_name, data, checkpoint)
    if any(scale.count > math.prod(shape) for scale in scales):
        raise UndecodableError("more scales than values")
    dtype = _dtype(values, class_name, data, math.prod(shape))
    return Decoded(name, checkpoint.oriented_shape(name, shape), dtype, "torchao", scales)


def description(name: str, checkpoint: Checkpoint) -> tuple[str, dict[str, Any], list[str]]:
    """Class, plain attributes and names of the inner tensors, as far as the metadata has them."""
    text = checkpoint.metadata.get(name, "")
    try:
        value = json.loads(text) if 0 < len(text) <= MAX_DESCRIPTION_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return "", {}, []
    class_name, data, names = (value.get(key) for key in ("_type", "_data", "_tensor_data_names"))
    return (
        class_name if isinstance(class_name, str) else "",
        data if isinstance(data, dict) else {},
        [name for name in names if isinstance(name, str)] if isinstance(names, list) else [],
    )


def _shape(
    name: str, values: StoredTensor, class_name: str, data: dict[str, Any], checkpoint: Checkpoint
) -> Shape:
    shape = parse_shape(data.get("shape"))
    if shape is not None and math.prod(shape) <= values.nbytes * 8:
        return shape
    stored_shape = values.shape
    if class_name in PACKED_PAIR_CLASSES and values.dtype == "uint8" and stored_shape:
        return (*stored_shape[:-1], stored_shape[-1] * 2)
    if values.dtype in ("uint8", "int32") or not class_name:
        # The packing is unknown: accept what fills the formula's tensor exactly.
        if checkpoint.expected_bits(name, values) is not None:
            return checkpoint.expected[name]
        if values.dtype in ("uint8", "int32"):
            raise UndecodableError("no description of its packing in the metadata")
    if not stored_shape or 0 in stored_shape:
        raise UndecodableError(f"values of shape {list(stored_shape)}")
    return stored_shape


def _dtype(values: StoredTensor, class_name: str, data: dict[str, Any], count: int) -> str:
    if class_name in PACKED_PAIR_CLASSES and values.dtype == "uint8":
        return "nvfp4" if class_name == "NVFP4Tensor" else "mxfp4"
    if class_name == "NF4Tensor":
        return "nf4"
    target = data.get("target_dtype")
    target_dtype = target.get("_data") if isinstance(target, dict) else None
    if isinstance(target_dtype, str) and re.fullmatch(r"u?int[1-8]", target_dtype):
        return target_dtype
    if values.dtype.startswith("float8") or values.nbytes >= count:
        return values.dtype
    return f"int{values.nbytes * 8 // count}"
