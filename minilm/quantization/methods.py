"""Which quantization method stored a tensor, recognised by the names, dtypes and shapes of a header.

Each method is one function: it takes a stored tensor and returns what the model has in its place, or
None where the tensor is not of that method. The layouts' sources are named in each module.
"""

from __future__ import annotations

from minilm.formats.header import StoredTensor
from minilm.quantization.bitsandbytes import decode_4bit, decode_llm_int8
from minilm.quantization.block_formats import decode_gguf, decode_mxfp4
from minilm.quantization.by_companions import decode_by_companions
from minilm.quantization.checkpoint import Checkpoint, Decoded, UndecodableError
from minilm.quantization.compressed import (
    SCALED_METHODS,
    decode_packed,
    decode_scaled,
    decode_sparse,
)
from minilm.quantization.gptq_awq import decode_gptq_or_awq
from minilm.quantization.mlx import decode_mlx
from minilm.quantization.quark import decode_quark
from minilm.quantization.torch_quantized import decode_torch_quantized
from minilm.quantization.torchao import decode_torchao

METHODS = (
    decode_gguf,
    decode_gptq_or_awq,
    decode_quark,
    decode_packed,
    decode_sparse,
    decode_mxfp4,
    decode_mlx,
    decode_torchao,
    decode_torch_quantized,
    decode_4bit,
    decode_llm_int8,
    decode_scaled,
    decode_by_companions,
)

# The quant_method values of config.json whose tensors METHODS decode: a file of theirs that they cannot
# decode is damaged. The matrices of any other method have the formula's shape, and are noted.
DECODED_METHODS = (
    "gptq",
    "awq",
    "bitsandbytes",
    *SCALED_METHODS,
    "mxfp4",
    "torchao",
    "mlx",
)

# Only bitsandbytes packs values in dtypes this wide, and sparse matrices have them: trying two methods keeps
# large headers fast.
WIDE_DTYPES = ("bfloat16", "float16", "float32", "float64")

# A matrix of these dtypes that no method recognises is probably packed, unless its name says that it
# is one of the tensors kept beside weights.
PACKING_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32")
AUXILIARY_NAMES = (
    "bias",
    "mask",
    "scale",
    "zero",
    "absmax",
    "idx",
    "ids",
    "index",
    "position",
    "perm",
    "map",
)


def decode_tensor(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """The model's tensor that ``values`` stand for; None for a tensor that is not quantized.

    Raises UndecodableError where a method recognises the tensor but cannot decode it, and where no
    method does but the tensor looks packed.
    """
    if values.dtype in WIDE_DTYPES:
        return decode_sparse(values, checkpoint) or decode_4bit(values, checkpoint)
    for decode in METHODS:
        decoded = decode(values, checkpoint)
        if decoded is not None:
            return decoded
    if _looks_packed(values, checkpoint):
        raise UndecodableError(f"{values.dtype}, perhaps packed by an unknown method")
    return None


def _looks_packed(values: StoredTensor, checkpoint: Checkpoint) -> bool:
    last_name = values.name.rpartition(".")[2]
    return (
        values.dtype in PACKING_DTYPES
        and len(values.shape) >= 2
        and values.count > 0
        and not any(word in last_name for word in AUXILIARY_NAMES)
        and checkpoint.expected.get(values.name) != values.shape
    )
