"""AMD Quark: integers of 4 and 8 bits and FP8, as amd-quark 0.13 exports them to safetensors.

Layouts: `torch/utils/pack.py` and `torch/export/nn/modules/realquantizer.py`. Groups are of inputs; a matrix
with groups is stored transposed.

    4 bits  X.weight int32 (o, i/8), in groups (i, o/8)   X.weight_zero_point packed alike
    8 bits  X.weight (o, i), in groups (i, o)             X.weight_zero_point, of integers, one a scale
            X.weight_scale () or (o,), in groups (i/group, o)

config.json says whether integers have a sign, and whether those of a word are out of order.
"""

from __future__ import annotations

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import Checkpoint, Decoded, Shape, UndecodableError
from minilm.quantization.compressed import ACTIVATION_SCALES

METHOD = "quark"
IN_ORDER = f"{METHOD} (in order)"  # of `pack_method` order: the first of a word in its lowest bits
WORD = 8  # integers of 4 bits in an int32

# The dtype of global_quant_config -> that of the stored tensor.
_STORED = {
    "int4": "int32",
    "uint4": "int32",
    "int8": "int8",
    "uint8": "uint8",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}


def decode_quark(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` with `X.weight_scale`, of one kind in the whole model: config.json must say which."""
    config, name = checkpoint.config, values.name
    scale = checkpoint.tensors.get(f"{name}_scale")
    if config.get("quant_method") != METHOD or scale is None or len(values.shape) != 2:
        return None
    if config.get("layer_quant_config") or config.get("layer_type_quant_config"):
        return None
    export, layers = config.get("export"), config.get("global_quant_config")
    weight = layers.get("weight") if isinstance(layers, dict) else None
    kind = weight.get("dtype") if isinstance(weight, dict) else None
    if not isinstance(kind, str) or _STORED.get(kind) != values.dtype:
        return None
    shape = _shape(values, scale)
    if shape is None:
        if values.dtype != "int32":
            return None  # blocks of FP8 have the same names as other methods'
        raise UndecodableError(f"weight_scale of shape {list(scale.shape)}")
    pack_method = export.get("pack_method") if isinstance(export, dict) else None
    scales = (
        *checkpoint.companions(name, "_scale", "_zero_point"),
        *checkpoint.companions(name.removesuffix("weight"), *ACTIVATION_SCALES),
    )
    method = IN_ORDER if values.dtype == "int32" and pack_method == "order" else METHOD
    dtype = values.dtype if kind.startswith("fp8") else kind
    return Decoded(name, checkpoint.oriented_shape(name, shape), dtype, method, scales)


def _shape(values: StoredTensor, scale: StoredTensor) -> Shape | None:
    rows, columns = values.shape
    per_word = WORD if values.dtype == "int32" else 1
    if scale.shape in ((), (rows,)):
        return rows, columns * per_word
    if len(scale.shape) == 2 and not values.dtype.startswith("float8"):
        groups, outputs = scale.shape
        if groups and rows % groups == 0 and columns == -(-outputs // per_word):
            return outputs, rows
    return None
