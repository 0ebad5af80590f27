"""Dtypes by torch's names: bits of an element, or bytes of a block for GGUF's quantized types.

Safetensors spells its dtypes in capitals (https://github.com/huggingface/safetensors, `Dtype` in
safetensors/src/tensor.rs).
"""

from __future__ import annotations

BITS: dict[str, int] = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8_e5m2": 8,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
    "float4_e2m1fn": 4,
    "complex128": 128,
    "complex64": 64,
    "complex32": 32,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "int4": 4,
    "uint64": 64,
    "uint32": 32,
    "uint16": 16,
    "uint8": 8,
    "bool": 8,
}

SAFETENSORS_NAMES: dict[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "F4": "float4_e2m1fn",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}

# GGUF's quantized types: (elements, bytes) of one block, scales included (ggml's type traits; the
# four- and eight-row packings of q4_0 and iq4_nl are retired but still occur in files).
GGUF_BLOCKS: dict[str, tuple[int, int]] = {
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q8_1": (32, 40),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "q8_k": (256, 292),
    "iq1_s": (256, 50),
    "iq1_m": (256, 56),
    "iq2_xxs": (256, 66),
    "iq2_xs": (256, 74),
    "iq2_s": (256, 82),
    "iq3_xxs": (256, 98),
    "iq3_s": (256, 110),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
    "mxfp4": (32, 17),
    "nvfp4": (64, 36),
    "q1_0": (128, 18),
    "q2_0": (64, 18),
    "q2_0_g128": (128, 34),
    "q4_0_4_4": (32, 18),
    "q4_0_4_8": (32, 18),
    "q4_0_8_8": (32, 18),
    "iq4_nl_4_4": (32, 18),
    "iq4_nl_4_8": (32, 18),
    "iq4_nl_8_8": (32, 18),
}

# Every report has a model's size in these.
REPORTED = ("float32", "float16", "bfloat16", "int8", "int4")


def storage_bytes(count: int, dtype: str) -> int:
    """Bytes of ``count`` packed elements of ``dtype``; of a GGUF type whole blocks with their scales."""
    if dtype in GGUF_BLOCKS:
        elements, nbytes = GGUF_BLOCKS[dtype]
        return -(-count // elements) * nbytes
    return -(-count * BITS[dtype] // 8)
