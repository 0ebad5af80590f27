"""Methods whose files say what shape a matrix has, by the names of what is stored beside it.

HQQ     X.W_q, X.shape (2,)                                   hqq `core/quantize.py`
EXL2    X.q_weight (packed, out), X.q_invperm (in,)           exllamav2 `ext.py`
EXL3    X.trellis (in/16, out/16, packed), X.suh, X.svh       exllamav3 `modules/quant/exl3.py`
Marlin  X.B (in/16, 16*out*bits/32), X.s (groups, out)        IST-DASLab/marlin `__init__.py`
AQLM    X.codes (out/o, in/i, n), X.codebooks (n, size, o, i) AQLM `inference.py`
quanto  X.weight._data of 8 bits, or X.weight._data._data packed along the first dimension
                                                              optimum-quanto `tensor/`
"""

from __future__ import annotations

import math

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import (
    Checkpoint,
    Decoded,
    Shape,
    UndecodableError,
)

_MARLIN_TILE = 16
_EXL3_TILE = 16


def decode_by_companions(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """Any method of this module, by the last part of the name."""
    module, _, last_name = values.name.rpartition(".")
    decode = {
        "W_q": _decode_hqq,
        "q_weight": _decode_exl2,
        "trellis": _decode_exl3,
        "B": _decode_marlin,
        "codes": _decode_aqlm,
        "_data": _decode_quanto,
    }.get(last_name)
    return decode(module, values, checkpoint) if decode else None


def _decode_hqq(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    shape = checkpoint.read_shape(checkpoint.tensors.get(f"{module}.shape"))
    shape = shape or checkpoint.expected.get(f"{module}.weight")
    if shape is None:
        return None
    # SINQ has HQQ's names and packing, and a second scale.
    method = "sinq" if checkpoint.config.get("quant_method") == "sinq" else "hqq"
    return _decoded(module, shape, method, values, checkpoint)


def _decode_exl2(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    permutation = checkpoint.tensors.get(f"{module}.q_invperm")
    if permutation is None or len(values.shape) != 2:
        return None
    return _decoded(module, (values.shape[1], permutation.count), "exl2", values, checkpoint)


def _decode_exl3(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    if len(values.shape) != 3 or not checkpoint.companions(module, ".suh", ".svh", ".su", ".sv"):
        return None
    rows, columns = (_EXL3_TILE * tiles for tiles in values.shape[:2])
    return _decoded(module, (columns, rows), "exl3", values, checkpoint)


def _decode_marlin(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    scales = checkpoint.tensors.get(f"{module}.s")
    if scales is None or len(values.shape) != 2 or values.dtype != "int32":
        return None
    outputs = scales.shape[-1] if scales.shape else 0
    return _decoded(module, (outputs, values.shape[0] * _MARLIN_TILE), "marlin", values, checkpoint)


def _decode_aqlm(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    codebooks = checkpoint.tensors.get(f"{module}.codebooks")
    if codebooks is None or len(values.shape) != 3 or len(codebooks.shape) != 4:
        return None
    shape = (values.shape[0] * codebooks.shape[2], values.shape[1] * codebooks.shape[3])
    return _decoded(module, shape, "aqlm", values, checkpoint)


def _decode_quanto(module: str, values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    name = module.removesuffix("._data")  # 2 and 4 bits are a tensor in a tensor
    if not checkpoint.companions(name, "._scale"):
        return None
    shape: Shape | None = values.shape
    if values.dtype == "uint8":  # neither shape nor bits are in the file: what fills the formula's
        shape = checkpoint.expected.get(name)
        if shape is not None and not _fills(values, math.prod(shape)):
            shape = None
    if shape is None:
        raise UndecodableError("no shape that its bytes fill")
    layer = name.rpartition(".")[0]
    scales = (
        *checkpoint.companions(name, "._scale", "._shift", "._zeropoint"),
        *checkpoint.companions(layer, ".input_scale", ".output_scale"),
    )
    return Decoded(name, checkpoint.oriented_shape(name, shape), "quanto", "quanto", scales)


def _fills(values: StoredTensor, count: int) -> bool:
    """Whether rows of 2, 4 or 8 bits fill bytes, several rows a row of bytes; the last may have fewer."""
    columns = values.shape[-1] if values.shape else 0
    if not columns or count % columns:
        return False
    rows = count // columns
    return values.nbytes in [-(-rows * bits // 8) * columns for bits in (2, 4, 8)]


def _decoded(
    module: str, shape: Shape, method: str, values: StoredTensor, checkpoint: Checkpoint
) -> Decoded:
    """The weight of a module: everything else in the module that the model does not have belongs to it."""
    elements = math.prod(shape)
    if not elements or not 0.5 <= 8 * values.nbytes / elements <= 16:
        raise UndecodableError(f"{values.nbytes} bytes for a matrix of {list(shape)}")
    name = f"{module}.weight"
    scales = tuple(
        tensor
        for tensor in checkpoint.tensors_of(module)
        if tensor is not values
        and tensor.name not in checkpoint.expected
        and tensor.name != f"{module}.bias"
    )
    return Decoded(name, checkpoint.oriented_shape(name, shape), method, method, scales)
