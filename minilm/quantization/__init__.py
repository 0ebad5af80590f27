"""How each method of quantization stores a tensor, read off names, dtypes and shapes of a header.

A method is one function: a stored tensor in, what it stands for out; None where it is not the
method's. Sources are named in each module.
"""

from __future__ import annotations

from minilm.formats.header import StoredTensor
from minilm.quantization.bitsandbytes import four_bits, llm_int8
from minilm.quantization.blocks import gguf, mxfp4
from minilm.quantization.checkpoint import Checkpoint, Decoded, UndecodableError
from minilm.quantization.compressed import packed, scaled
from minilm.quantization.integers import gptq_or_awq
from minilm.quantization.mlx import mlx
from minilm.quantization.torchao import torchao

METHODS = (gguf, gptq_or_awq, packed, mxfp4, mlx, torchao, four_bits, llm_int8, scaled)

# Numbers as wide as these are packed in by one method alone, and a file may have 200,000 of them.
WIDE = ("bfloat16", "float16", "float32", "float64")

# What no method knows and yet looks packed: matrices of these, but for what is kept beside weights.
PACKED = ("uint8", "uint16", "uint32", "uint64", "int16", "int32")
BESIDE = (
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


def decoded(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """What ``values`` stand for by the method that stored them; None where they are as they are.

    Raises UndecodableError where a method knows them and cannot decode them, or where none does and they
    look packed.
    """
    if values.dtype in WIDE:
        return four_bits(values, checkpoint)
    for method in METHODS:
        answer = method(values, checkpoint)
        if answer is not None:
            return answer
    if _looks_packed(values, checkpoint):
        raise UndecodableError(f"{values.dtype}, packed perhaps, in a way not known here")
    return None


def _looks_packed(values: StoredTensor, checkpoint: Checkpoint) -> bool:
    last = values.name.rpartition(".")[2]
    return (
        values.dtype in PACKED
        and len(values.shape) >= 2
        and values.count > 0
        and not any(word in last for word in BESIDE)
        and checkpoint.expected.get(values.name) != values.shape
    )
