"""Quantized checkpoints: logical parameters, scales and bits of every method, and what is nonsense.

The headers of bitsandbytes 0.50.2, torchao 0.18.0 and compressed-tensors 0.20.0 are those of real files:
a one-layer Llama of width 128 was quantized and saved by these libraries through transformers 5.23,
and the names, dtypes and shapes of two of its matrices are written down here. GPTQ and AWQ
follow AutoGPTQ's QuantLinear and AutoAWQ's WQLinear_GEMM, FP8 with weight_scale_inv DeepSeek-V3's
files, MXFP4 those of gpt-oss.
"""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import minilm
from minilm.architectures import layout_of
from minilm.dtypes import BITS, GGUF_BLOCKS
from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor
from minilm.formats.safetensors import read_header
from minilm.inspection.comparison import expected_shapes
from minilm.quantization.block_formats import VALUE_BITS, gguf_value_bytes
from minilm.quantization.checkpoint import Checkpoint
from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors, decode, summary

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 96,
}
EXPECTED = expected_shapes(layout_of(LLAMA))
LAYER = "model.layers.0."
DOWN, KEY = "mlp.down_proj", "self_attn.k_proj"  # (128, 256) and (64, 128): 40,960 values in all
VALUES = 128 * 256 + 64 * 128

Entry = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """How a method stores the two matrices, and what must come out."""

    method: str
    dtype: str
    config: dict[str, Any]
    down: dict[str, Entry]
    key: dict[str, Entry]
    value_bytes: int
    scale_bytes: int
    contents: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def state(kind: str, rows: int, columns: int, nested: str = "") -> bytes:
    """The JSON blob as bitsandbytes writes it; ``nested`` is its end with double quantization."""
    return (
        f'{{"quant_type": "{kind}", "blocksize": 64, "dtype": "float32", '
        f'"shape": [{rows}, {columns}]{nested}}}'
    ).encode()


def nested(offset: str) -> str:
    return f', "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": {offset}'


def two_sizes(*sizes: int) -> bytes:
    return b"".join(size.to_bytes(8, "little") for size in sizes)


def torchao(kind: str, **data: Any) -> dict[str, str]:
    text = json.dumps({"_type": kind, "_data": data, "_tensor_data_names": ["qdata", "scale"]})
    return {f"{LAYER}{module}.weight": text for module in (DOWN, KEY)}


NF4 = ".weight.quant_state.bitsandbytes__nf4"
FP4 = ".weight.quant_state.bitsandbytes__fp4"
PACKED_SHAPES = {
    f"{DOWN}.weight_shape": two_sizes(128, 256),
    f"{KEY}.weight_shape": two_sizes(64, 128),
}
COMPRESSED = {"quant_method": "compressed-tensors"}
TORCHAO = {"quant_method": "torchao"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}

CASES = {
    "nf4 with double quantization": Case(
        "bitsandbytes",
        "nf4",
        BNB,
        {
            ".weight": ("uint8", (16384, 1)),
            ".weight.absmax": ("uint8", (512,)),
            ".weight.nested_absmax": ("float32", (2,)),
            ".weight.nested_quant_map": ("float32", (256,)),
            ".weight.quant_map": ("float32", (16,)),
            NF4: ("uint8", (169,)),
        },
        {
            ".weight": ("uint8", (4096, 1)),
            ".weight.absmax": ("uint8", (128,)),
            ".weight.nested_absmax": ("float32", (1,)),
            ".weight.nested_quant_map": ("float32", (256,)),
            ".weight.quant_map": ("float32", (16,)),
            NF4: ("uint8", (168,)),
        },
        VALUES // 2,
        512 + 8 + 1024 + 64 + 169 + 128 + 4 + 1024 + 64 + 168,
        {
            DOWN + NF4: state("nf4", 128, 256, nested("0.05242731794714928")),
            KEY + NF4: state("nf4", 64, 128, nested("0.05242731794714928")),
        },
    ),
    "fp4": Case(
        "bitsandbytes",
        "fp4",
        BNB,
        {
            ".weight": ("uint8", (16384, 1)),
            ".weight.absmax": ("float32", (512,)),
            ".weight.quant_map": ("float32", (16,)),
            FP4: ("uint8", (79,)),
        },
        {
            ".weight": ("uint8", (4096, 1)),
            ".weight.absmax": ("float32", (128,)),
            ".weight.quant_map": ("float32", (16,)),
            FP4: ("uint8", (78,)),
        },
        VALUES // 2,
        2048 + 64 + 79 + 512 + 64 + 78,
        {DOWN + FP4: state("fp4", 128, 256), KEY + FP4: state("fp4", 64, 128)},
    ),
    "nf4 stored as bfloat16, without a description": Case(
        "bitsandbytes",
        "nf4",
        {**BNB, "bnb_4bit_quant_type": "nf4"},
        {
            ".weight": ("bfloat16", (8192, 1)),
            ".weight.absmax": ("float32", (512,)),
            ".weight.quant_map": ("float32", (16,)),
        },
        {
            ".weight": ("bfloat16", (1, 2048)),
            ".weight.absmax": ("float32", (128,)),
            ".weight.quant_map": ("float32", (16,)),
        },
        VALUES // 2,
        2048 + 64 + 512 + 64,
    ),
    "DeepSeek-V4's FP4 in int8": Case(
        "fp8",
        "mxfp4",
        {"quant_method": "fp8", "scale_fmt": "ue8m0"},
        {
            ".weight": ("int8", (128, 128)),
            ".scale": ("float8_e8m0fnu", (128, 8)),
        },
        {
            ".weight": ("int8", (64, 64)),
            ".scale": ("float8_e8m0fnu", (64, 4)),
        },
        VALUES // 2,
        128 * 8 + 64 * 4,
    ),
    "LLM.int8()": Case(
        "bitsandbytes",
        "int8",
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {
            ".weight": ("int8", (128, 256)),
            ".SCB": ("float32", (128,)),
            ".weight_format": ("uint8", ()),
        },
        {
            ".weight": ("int8", (64, 128)),
            ".SCB": ("float32", (64,)),
            ".weight_format": ("uint8", ()),
        },
        VALUES,
        4 * 128 + 1 + 4 * 64 + 1,
    ),
    "gptq": Case(
        "gptq",
        "int4",
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {
            ".qweight": ("int32", (32, 128)),
            ".qzeros": ("int32", (2, 16)),
            ".scales": ("float16", (2, 128)),
            ".g_idx": ("int32", (256,)),
        },
        {
            ".qweight": ("int32", (16, 64)),
            ".qzeros": ("int32", (1, 8)),
            ".scales": ("float16", (1, 64)),
            ".g_idx": ("int32", (128,)),
        },
        VALUES // 2,
        128 + 512 + 1024 + 32 + 128 + 512,
    ),
    "gptq of 3 bits, of a configuration that says 4": Case(
        "gptq",
        "int3",
        {"quant_method": "gptq", "bits": 3},
        {
            ".qweight": ("int32", (24, 128)),
            ".qzeros": ("int32", (2, 12)),
            ".scales": ("float16", (2, 128)),
        },
        {
            ".qweight": ("int32", (12, 64)),
            ".qzeros": ("int32", (1, 6)),
            ".scales": ("float16", (1, 64)),
        },
        VALUES * 3 // 8,
        96 + 512 + 24 + 128,
    ),
    "awq": Case(
        "awq",
        "int4",
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
        {
            ".qweight": ("int32", (256, 16)),
            ".qzeros": ("int32", (2, 16)),
            ".scales": ("float16", (2, 128)),
        },
        {
            ".qweight": ("int32", (128, 8)),
            ".qzeros": ("int32", (1, 8)),
            ".scales": ("float16", (1, 64)),
        },
        VALUES // 2,
        128 + 512 + 32 + 128,
    ),
    "awq for gemv": Case(
        "awq",
        "int4",
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"},
        {
            ".qweight": ("int32", (128, 32)),
            ".qzeros": ("int32", (128, 1)),
            ".scales": ("float16", (128, 8)),
        },
        {
            ".qweight": ("int32", (64, 16)),
            ".qzeros": ("int32", (64, 1)),
            ".scales": ("float16", (64, 8)),
        },
        VALUES // 2,
        128 * 4 + 128 * 16 + 64 * 4 + 64 * 16,
    ),
    "awq for gemv, groups of 32, as wide as its scales": Case(
        "awq",
        "int4",
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"},
        {
            ".qweight": ("int32", (128, 32)),
            ".qzeros": ("int32", (128, 4)),
            ".scales": ("float16", (128, 32)),
        },
        {
            ".qweight": ("int32", (64, 16)),
            ".qzeros": ("int32", (64, 4)),
            ".scales": ("float16", (64, 32)),
        },
        VALUES // 2,
        128 * 16 + 128 * 64 + 64 * 16 + 64 * 64,
    ),
    "awq for fast gemv": Case(
        "awq",
        "int4",
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv_fast"},
        {
            ".qweight": ("int16", (32, 256)),
            ".qzeros": ("float16", (8, 128)),
            ".scales": ("float16", (8, 128)),
        },
        {
            ".qweight": ("int16", (16, 128)),
            ".qzeros": ("float16", (8, 64)),
            ".scales": ("float16", (8, 64)),
        },
        VALUES // 2,
        4 * 8 * 128 + 4 * 8 * 64,
    ),
    "MLX": Case(
        "mlx",
        "int4",
        {"group_size": 64, "bits": 4},
        {
            ".weight": ("uint32", (128, 32)),
            ".scales": ("bfloat16", (128, 4)),
            ".biases": ("bfloat16", (128, 4)),
        },
        {
            ".weight": ("uint32", (64, 16)),
            ".scales": ("bfloat16", (64, 2)),
            ".biases": ("bfloat16", (64, 2)),
        },
        VALUES // 2,
        2 * 2 * VALUES // 64,
    ),
    "MLX of 3 bits, of a configuration that says nothing": Case(
        "mlx",
        "int3",
        {},
        {
            ".weight": ("uint32", (128, 24)),
            ".scales": ("float16", (128, 2)),
            ".biases": ("float16", (128, 2)),
        },
        {
            ".weight": ("uint32", (64, 12)),
            ".scales": ("float16", (64, 1)),
            ".biases": ("float16", (64, 1)),
        },
        VALUES * 3 // 8,
        2 * 2 * VALUES // 128,
    ),
    "MLX NVFP4": Case(
        "mlx",
        "nvfp4",
        {"group_size": 16, "bits": 4, "mode": "nvfp4"},
        {".weight": ("uint32", (128, 32)), ".scales": ("uint8", (128, 16))},
        {".weight": ("uint32", (64, 16)), ".scales": ("uint8", (64, 8))},
        VALUES // 2,
        VALUES // 16,
    ),
    "compressed-tensors W4A16, asymmetric": Case(
        "compressed-tensors",
        "int4",
        COMPRESSED,
        {
            ".weight_packed": ("int32", (128, 32)),
            ".weight_scale": ("bfloat16", (128, 2)),
            ".weight_shape": ("int64", (2,)),
            ".weight_zero_point": ("int32", (16, 2)),
        },
        {
            ".weight_packed": ("int32", (64, 16)),
            ".weight_scale": ("bfloat16", (64, 1)),
            ".weight_shape": ("int64", (2,)),
            ".weight_zero_point": ("int32", (8, 1)),
        },
        VALUES // 2,
        512 + 16 + 128 + 128 + 16 + 32,
        PACKED_SHAPES,
    ),
    "compressed-tensors W3A16": Case(
        "compressed-tensors",
        "int3",
        COMPRESSED,
        {
            ".weight_packed": ("int32", (128, 24)),
            ".weight_scale": ("bfloat16", (128, 2)),
            ".weight_shape": ("int64", (2,)),
        },
        {
            ".weight_packed": ("int32", (64, 12)),
            ".weight_scale": ("bfloat16", (64, 1)),
            ".weight_shape": ("int64", (2,)),
        },
        VALUES * 3 // 8,
        512 + 16 + 128 + 16,
        PACKED_SHAPES,
    ),
    "compressed-tensors W8A8": Case(
        "compressed-tensors",
        "int8",
        COMPRESSED,
        {".weight": ("int8", (128, 256)), ".weight_scale": ("bfloat16", (128, 1))},
        {".weight": ("int8", (64, 128)), ".weight_scale": ("bfloat16", (64, 1))},
        VALUES,
        256 + 128,
    ),
    "compressed-tensors FP8 a tensor": Case(
        "compressed-tensors",
        "float8_e4m3fn",
        COMPRESSED,
        {
            ".weight": ("float8_e4m3fn", (128, 256)),
            ".weight_scale": ("bfloat16", (1,)),
            ".input_scale": ("bfloat16", (1,)),
        },
        {
            ".weight": ("float8_e4m3fn", (64, 128)),
            ".weight_scale": ("bfloat16", (1,)),
            ".input_scale": ("bfloat16", (1,)),
        },
        VALUES,
        8,
    ),
    "compressed-tensors NVFP4": Case(
        "compressed-tensors",
        "nvfp4",
        COMPRESSED,
        {
            ".weight_packed": ("uint8", (128, 128)),
            ".weight_scale": ("float8_e4m3fn", (128, 16)),
            ".weight_global_scale": ("float32", (1,)),
            ".input_global_scale": ("float32", (1,)),
        },
        {
            ".weight_packed": ("uint8", (64, 64)),
            ".weight_scale": ("float8_e4m3fn", (64, 8)),
            ".weight_global_scale": ("float32", (1,)),
            ".input_global_scale": ("float32", (1,)),
        },
        VALUES // 2,
        2048 + 8 + 512 + 8,
    ),
    "compressed-tensors MXFP4": Case(
        "compressed-tensors",
        "mxfp4",
        COMPRESSED,
        {".weight_packed": ("uint8", (128, 128)), ".weight_scale": ("uint8", (128, 8))},
        {".weight_packed": ("uint8", (64, 64)), ".weight_scale": ("uint8", (64, 4))},
        VALUES // 2,
        VALUES // 32,
    ),
    "compressed-tensors MXFP6": Case(
        "compressed-tensors",
        "mxfp6",
        COMPRESSED,
        {".weight_packed": ("uint8", (128, 192)), ".weight_scale": ("uint8", (128, 8))},
        {".weight_packed": ("uint8", (64, 96)), ".weight_scale": ("uint8", (64, 4))},
        VALUES * 6 // 8,
        VALUES // 32,
    ),
    "ModelOpt NVFP4": Case(
        "modelopt",
        "nvfp4",
        {"quant_method": "modelopt"},
        {
            ".weight": ("uint8", (128, 128)),
            ".weight_scale": ("float8_e4m3fn", (128, 16)),
            ".weight_scale_2": ("float32", ()),
            ".input_scale": ("float32", ()),
        },
        {
            ".weight": ("uint8", (64, 64)),
            ".weight_scale": ("float8_e4m3fn", (64, 8)),
            ".weight_scale_2": ("float32", ()),
            ".input_scale": ("float32", ()),
        },
        VALUES // 2,
        2048 + 8 + 512 + 8,
    ),
    "FP8 in blocks of 128": Case(
        "fp8",
        "float8_e4m3fn",
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {".weight": ("float8_e4m3fn", (128, 256)), ".weight_scale_inv": ("float32", (1, 2))},
        {".weight": ("float8_e4m3fn", (64, 128)), ".weight_scale_inv": ("float32", (1, 1))},
        VALUES,
        12,
    ),
    "EETQ, which turns its matrices": Case(
        "eetq",
        "int8",
        {"quant_method": "eetq"},
        {".weight": ("int8", (256, 128)), ".weight_scales": ("float16", (128,))},
        {".weight": ("int8", (128, 64)), ".weight_scales": ("float16", (64,))},
        VALUES,
        256 + 128,
    ),
    "torchao int8": Case(
        "torchao",
        "int8",
        TORCHAO,
        {
            "._weight_qdata": ("int8", (128, 256)),
            "._weight_scale": ("float32", (128, 1)),
            "._weight_zero_point": ("int8", (128, 1)),
        },
        {
            "._weight_qdata": ("int8", (64, 128)),
            "._weight_scale": ("float32", (64, 1)),
            "._weight_zero_point": ("int8", (64, 1)),
        },
        VALUES,
        640 + 320,
        metadata=torchao("Int8Tensor", reduce_range=False, block_size=[1, 256]),
    ),
    "torchao int4 in bytes": Case(
        "torchao",
        "int4",
        TORCHAO,
        {
            "._weight_qdata": ("int8", (128, 256)),
            "._weight_scale": ("bfloat16", (128, 1)),
            "._weight_zero_point": ("int8", (128, 1)),
        },
        {
            "._weight_qdata": ("int8", (64, 128)),
            "._weight_scale": ("bfloat16", (64, 1)),
            "._weight_zero_point": ("int8", (64, 1)),
        },
        VALUES,
        384 + 192,
        metadata=torchao(
            "IntxUnpackedToInt8Tensor", target_dtype={"_type": "torch.dtype", "_data": "int4"}
        ),
    ),
    "torchao int4 tiles": Case(
        "torchao",
        "int4",
        TORCHAO,
        {
            "._weight_qdata": ("int32", (16, 2, 32, 4)),
            "._weight_scale_and_zero": ("bfloat16", (2, 128, 2)),
        },
        {
            "._weight_qdata": ("int32", (8, 1, 32, 4)),
            "._weight_scale_and_zero": ("bfloat16", (1, 64, 2)),
        },
        VALUES // 2,
        1024 + 256,
        metadata={
            f"{LAYER}{module}.weight": json.dumps(
                {
                    "_type": "Int4TilePackedTo4dTensor",
                    "_data": {"block_size": [1, 128], "shape": shape},
                    "_tensor_data_names": ["qdata", "scale_and_zero"],
                }
            )
            for module, shape in ((DOWN, [128, 256]), (KEY, [64, 128]))
        },
    ),
    "torchao NVFP4": Case(
        "torchao",
        "nvfp4",
        TORCHAO,
        {
            "._weight_qdata": ("uint8", (128, 128)),
            "._weight_scale": ("float8_e4m3fn", (32, 64)),
            "._weight_per_tensor_scale": ("float32", ()),
        },
        {
            "._weight_qdata": ("uint8", (64, 64)),
            "._weight_scale": ("float8_e4m3fn", (32, 32)),
            "._weight_per_tensor_scale": ("float32", ()),
        },
        VALUES // 2,
        2048 + 4 + 1024 + 4,
        metadata=torchao("NVFP4Tensor", is_swizzled_scales=True, block_size=16),
    ),
    "torchao without its metadata, as an index leaves it": Case(
        "torchao",
        "int4",
        TORCHAO,
        {
            "._weight_qdata": ("int32", (128, 32)),
            "._weight_scale": ("bfloat16", (2, 128)),
            "._weight_zero_point": ("int8", (2, 128)),
        },
        {
            "._weight_qdata": ("int32", (64, 16)),
            "._weight_scale": ("bfloat16", (1, 64)),
            "._weight_zero_point": ("int8", (1, 64)),
        },
        VALUES // 2,
        768 + 192,
    ),
}


def write(folder: Path, case: Case, left_out: str = "") -> Path:
    """A checkpoint with the two matrices as the case has them and everything else in bfloat16."""
    tensors = {
        name: torch.zeros(shape, dtype=torch.bfloat16)
        for name, shape in EXPECTED.items()
        if not name.startswith((f"{LAYER}{DOWN}.", f"{LAYER}{KEY}."))
    }
    for module, entries in ((DOWN, case.down), (KEY, case.key)):
        for ending, (dtype, shape) in entries.items():
            content = case.contents.get(module + ending)
            tensor = torch.zeros(shape, dtype=torch.uint8).to(getattr(torch, dtype))
            if content is not None:
                tensor = torch.frombuffer(bytearray(content), dtype=getattr(torch, dtype))
                assert tensor.shape == shape
            tensors[f"{LAYER}{module}{ending}"] = tensor
    if left_out:
        del tensors[f"{LAYER}{DOWN}{left_out}"]
    save_file(tensors, folder / "model.safetensors", case.metadata)
    (folder / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": case.config}))
    return folder / "model.safetensors"


def decoded(folder: Path, case: Case, left_out: str = "") -> LogicalTensors:
    return decode(read_header(write(folder, case, left_out)), case.config, EXPECTED)


def named(storage: LogicalTensors) -> dict[str, LogicalTensor]:
    assert len({tensor.name for tensor in storage.tensors}) == len(storage.tensors)
    return {tensor.name: tensor for tensor in storage.tensors}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_method_gives_the_models_own_tensors(tmp_path: Path, case: Case) -> None:
    storage = decoded(tmp_path, case)
    assert {name: tensor.shape for name, tensor in named(storage).items()} == EXPECTED
    assert (storage.method, storage.notes) == (case.method, ())
    for module in (DOWN, KEY):
        assert named(storage)[f"{LAYER}{module}.weight"].dtype == case.dtype
    assert named(storage)["model.norm.weight"].dtype == "bfloat16"

    quantization = summary(storage)
    assert quantization is not None
    entries = [*case.down.items(), *case.key.items()]
    elements = sum(math.prod(shape) for _, (_, shape) in entries)
    assert quantization.parameters == VALUES
    assert (quantization.value_bytes, quantization.scale_bytes) == (
        case.value_bytes,
        case.scale_bytes,
    )
    assert quantization.stored_elements + quantization.scale_elements == elements
    assert quantization.bits_per_weight == 8 * (case.value_bytes + case.scale_bytes) / VALUES


@pytest.mark.parametrize("name", ["nf4 with double quantization", "gptq", "torchao NVFP4"])
def test_a_quantized_folder_is_verified(tmp_path: Path, name: str) -> None:
    write(tmp_path, CASES[name])
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.witnesses.file == report.witnesses.formula
    assert report.quantization is not None
    assert report.quantization.method == CASES[name].method


def stored(name: str, dtype: str, *shape: int) -> StoredTensor:
    return StoredTensor(name, dtype, shape, math.prod(shape) * BITS[dtype] // 8)


def only(*tensors: StoredTensor) -> Header:
    return Header(tensors, {}, sum(tensor.nbytes for tensor in tensors))


@pytest.mark.parametrize(
    ("bits", "tensors"),
    [
        (  # a byte a block of 64, and 4 bytes a 256 of those
            4 + 8 / 64 + 32 / (64 * 256) + 8 * (64 + 1024) / 4096**2,
            (
                stored("x.weight", "uint8", 4096**2 // 2, 1),
                stored("x.weight.absmax", "uint8", 4096**2 // 64),
                stored("x.weight.nested_absmax", "float32", 4096**2 // 64 // 256),
                stored("x.weight.nested_quant_map", "float32", 256),
                stored("x.weight.quant_map", "float32", 16),
            ),
        ),
        (  # a float16 and a zero point of 4 bits a group of 128, and int32 a row
            4 + 16 / 128 + 4 / 128 + 32 / 4096,
            (
                stored("x.qweight", "int32", 512, 4096),
                stored("x.qzeros", "int32", 32, 512),
                stored("x.scales", "float16", 32, 4096),
                stored("x.g_idx", "int32", 4096),
            ),
        ),
        (
            4.15625,
            (
                stored("x.qweight", "int32", 4096, 512),
                stored("x.qzeros", "int32", 32, 512),
                stored("x.scales", "float16", 32, 4096),
            ),
        ),
    ],
    ids=["nf4", "gptq", "awq"],
)
def test_effective_bits_at_a_real_size(bits: float, tensors: tuple[StoredTensor, ...]) -> None:
    quantization = summary(decode(only(*tensors), {}, {"x.weight": (4096, 4096)}))
    assert quantization is not None
    assert quantization.parameters == 4096**2
    assert quantization.bits_per_weight == pytest.approx(bits, abs=1e-12)


def test_gpt_oss_20b_to_the_digit() -> None:
    """OpenAI's gpt-oss-20b: 24 layers, width 2880, 32 experts, as model.safetensors names them."""
    experts, layers, d, m, heads, kv, head_dim = 32, 24, 2880, 2880, 64, 8, 64
    shapes = {
        "model.embed_tokens.weight": (201088, d),
        "lm_head.weight": (201088, d),
        "model.norm.weight": (d,),
    }
    packed, expected = [], {}
    for i in range(layers):
        layer = f"model.layers.{i}."
        attention = f"{layer}self_attn."
        shapes |= {
            f"{layer}input_layernorm.weight": (d,),
            f"{layer}post_attention_layernorm.weight": (d,),
            f"{attention}sinks": (heads,),
            f"{attention}q_proj.weight": (heads * head_dim, d),
            f"{attention}q_proj.bias": (heads * head_dim,),
            f"{attention}k_proj.weight": (kv * head_dim, d),
            f"{attention}k_proj.bias": (kv * head_dim,),
            f"{attention}v_proj.weight": (kv * head_dim, d),
            f"{attention}v_proj.bias": (kv * head_dim,),
            f"{attention}o_proj.weight": (d, heads * head_dim),
            f"{attention}o_proj.bias": (d,),
            f"{layer}mlp.router.weight": (experts, d),
            f"{layer}mlp.router.bias": (experts,),
            f"{layer}mlp.experts.gate_up_proj_bias": (experts, 2 * m),
            f"{layer}mlp.experts.down_proj_bias": (experts, d),
        }
        for name, rows, columns in (("gate_up_proj", 2 * m, d), ("down_proj", d, m)):
            name = f"{layer}mlp.experts.{name}"
            packed += [
                stored(f"{name}_blocks", "uint8", experts, rows, columns // 32, 16),
                stored(f"{name}_scales", "uint8", experts, rows, columns // 32),
            ]
            expected[name] = (experts, columns, rows)
    header = only(*(stored(name, "bfloat16", *shape) for name, shape in shapes.items()), *packed)
    storage = decode(header, {"quant_method": "mxfp4"}, {**shapes, **expected})
    assert {name: t.shape for name, t in named(storage).items()} == {**shapes, **expected}
    assert sum(tensor.count for tensor in storage.tensors) == 20_914_757_184
    quantization = summary(storage)
    assert quantization is not None
    assert (quantization.method, quantization.bits_per_weight) == ("mxfp4", 4.25)
    assert quantization.scale_elements == 597_196_800
    # The total that the Hub shows takes the 4-bit values as they are and the scales as parameters.
    hub_count = 20_914_757_184 + quantization.scale_elements
    assert hub_count == 21_511_953_984
    # Without a formula a tensor is laid as gpt-oss has it.
    assert {t.name: t.shape for t in decode(header, {}, {}).tensors} == {**shapes, **expected}


# ggml-common.h: what of a block are its scales and minima, in bytes.
SCALE_BYTES = {
    "q4_0": 2,  # one float16
    "q4_1": 4,  # and a minimum
    "q5_0": 2,
    "q5_1": 4,
    "q8_0": 2,
    "q8_1": 8,  # here float32, and the sum of the block
    "q2_k": 20,  # two float16; 16 scales and minima of 4 bits
    "q3_k": 14,  # float16; 16 scales of 6 bits
    "q4_k": 16,  # two float16; 8 scales and 8 minima of 6 bits
    "q5_k": 16,
    "q6_k": 18,  # float16; 16 of int8
    "q8_k": 36,  # float32; 16 sums of int16
    "iq1_s": 6,  # float16; 8 scales of 3 bits and 8 signs of the shift
    "iq1_m": 12,  # float16 and 16 scales of 3 bits in 8 bytes; 32 signs of the shift
    "iq2_xxs": 6,  # float16; 8 scales of 4 bits
    "iq2_xs": 10,
    "iq2_s": 10,
    "iq3_xxs": 6,
    "iq3_s": 6,
    "iq4_nl": 2,
    "iq4_xs": 8,  # float16; 8 scales of 6 bits
    "tq1_0": 2,
    "tq2_0": 2,
    "mxfp4": 1,
    "nvfp4": 4,
    "q1_0": 2,
    "q2_0": 2,
    "q2_0_g128": 2,
    "q4_0_4_4": 2,
    "q4_0_4_8": 2,
    "q4_0_8_8": 2,
    "iq4_nl_4_4": 2,
    "iq4_nl_4_8": 2,
    "iq4_nl_8_8": 2,
}


def test_scales_of_every_gguf_block() -> None:
    assert VALUE_BITS.keys() == GGUF_BLOCKS.keys() == SCALE_BYTES.keys()
    for dtype, (elements, size) in GGUF_BLOCKS.items():
        tensor = StoredTensor("x", dtype, (3, elements), 3 * size)
        assert tensor.nbytes - gguf_value_bytes(tensor) == 3 * SCALE_BYTES[dtype], dtype


def test_a_gguf_file_of_several_types() -> None:
    header = only(
        StoredTensor("token_embd.weight", "q6_k", (96, 256), 96 * 210),
        StoredTensor("blk.0.ffn_up.weight", "q4_k", (512, 256), 512 * 144),
        stored("output_norm.weight", "float32", 256),
    )
    storage = decode(header, {}, {})
    assert [(t.name, t.shape, t.dtype) for t in storage.tensors] == [
        (t.name, t.shape, t.dtype) for t in header.tensors
    ]
    quantization = summary(storage)
    assert quantization is not None
    assert (quantization.method, quantization.parameters) == ("gguf", 608 * 256)
    assert (quantization.stored_elements, quantization.scale_elements) == (608 * 256, 0)
    assert quantization.scale_bytes == 96 * 18 + 512 * 16
    assert quantization.bits_per_weight == 8 * (96 * 210 + 512 * 144) / (608 * 256)


def test_a_16_bit_checkpoint_is_unchanged() -> None:
    header = only(*(stored(name, "bfloat16", *shape) for name, shape in EXPECTED.items()))
    storage = decode(header, {}, EXPECTED)
    assert storage == LogicalTensors(
        tuple(LogicalTensor(t.name, t.shape, t.dtype, (t,)) for t in header.tensors)
    )
    assert summary(storage) is None


def test_scales_of_the_cache_are_no_parameters() -> None:
    scales = (
        stored("model.layers.0.self_attn.k_scale", "bfloat16", 1),
        stored("model.layers.0.self_attn.v_scale", "bfloat16", 1),
    )
    weight = stored("model.layers.0.self_attn.k_proj.weight", "float8_e4m3fn", 64, 128)
    own = stored("model.layers.0.self_attn.k_proj.weight_scale", "bfloat16", 1)
    storage = decode(only(weight, own, *scales), COMPRESSED, EXPECTED)
    assert [tensor.name for tensor in storage.tensors] == [weight.name]
    assert storage.cache_scales == scales
    quantization = summary(storage)
    assert quantization is not None
    assert (quantization.scale_elements, quantization.scale_bytes) == (3, 6)
    # A model that has such a parameter keeps it.
    storage = decode(only(*scales), {}, {scales[0].name: (1,)})
    assert [tensor.name for tensor in storage.tensors] == [scales[0].name]


def test_a_matrix_that_is_transposed_in_the_model() -> None:
    """GPT-2's Conv1D is (in, out); GPTQ packs (out, in)."""
    tensors = (stored("x.qweight", "int32", 16, 384), stored("x.scales", "float16", 1, 384))
    zeros = stored("x.qzeros", "int32", 1, 48)
    (tensor,) = decode(only(*tensors, zeros), {}, {"x.weight": (128, 384)}).tensors
    assert tensor.shape == (128, 384)
    (tensor,) = decode(only(*tensors, zeros), {}, {}).tensors
    assert tensor.shape == (384, 128)


def test_bits_come_from_any_source() -> None:
    weight, scales = stored("x.qweight", "int32", 8, 64), stored("x.scales", "float16", 1, 64)
    order, zeros = stored("x.g_idx", "int32", 128), stored("x.qzeros", "int32", 1, 4)
    for tensors, config, expected in (
        ((order,), {}, {}),
        ((zeros,), {}, {}),
        ((), {"bits": 2}, {}),
        ((), {}, {"x.weight": (64, 128)}),
    ):
        storage = decode(only(weight, scales, *tensors), config, expected)
        assert [(t.shape, t.dtype) for t in storage.tensors] == [((64, 128), "int2")]
        assert storage.notes == ()


@pytest.mark.parametrize("bits", [0, 10**9, -4, "4", None, [4], 2.0])
def test_invalid_bits_in_a_configuration(bits: object) -> None:
    tensors = (stored("x.qweight", "int32", 16, 64), stored("x.scales", "float16", 1, 64))
    storage = decode(only(*tensors), {"quant_method": "gptq", "bits": bits}, {})
    assert [tensor.name for tensor in storage.tensors] == ["x.qweight", "x.scales"]
    assert "x.qweight cannot be decoded (no number of bits" in storage.notes[0]
    zeros = stored("x.qzeros", "int32", 1, 8)
    storage = decode(only(*tensors, zeros), {"quant_method": "gptq", "bits": bits}, {})
    assert [(t.shape, t.dtype) for t in storage.tensors] == [((64, 128), "int4")]
    assert ("bits" in " ".join(storage.notes)) == (bits not in (None, "4"))


def test_the_file_decides_against_the_configuration() -> None:
    tensors = (
        stored("x.qweight", "int32", 128, 8),
        stored("x.scales", "float16", 1, 64),
        stored("x.qzeros", "int32", 1, 8),
    )
    storage = decode(only(*tensors), {"quant_method": "gptq", "bits": 4}, {})
    assert (storage.method, storage.tensors[0].shape) == ("awq", (64, 128))
    assert storage.notes == ("quant_method 'gptq': the tensors are packed as awq",)
    plain = decode(only(stored("x.W_q", "uint8", 4)), {"quant_method": "hqq"}, {})
    assert (plain.method, summary(plain)) == (None, None)
    assert "quant_method 'hqq': no tensor is stored by a known method" in plain.notes[0]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("nf4 with double quantization", ".weight.absmax"),
        ("LLM.int8()", ".SCB"),
        ("gptq", ".scales"),
        ("awq", ".scales"),
        ("compressed-tensors W3A16", ".weight_scale"),
        ("compressed-tensors NVFP4", ".weight_scale"),
        ("MLX", ".scales"),
    ],
)
def test_without_its_scales_a_tensor_is_counted_as_stored(
    tmp_path: Path, name: str, missing: str
) -> None:
    case = CASES[name]
    storage = decoded(tmp_path, case, left_out=missing)
    names = named(storage)
    for ending, (dtype, shape) in case.down.items():
        if ending != missing:
            tensor = names[f"{LAYER}{DOWN}{ending}"]
            assert (tensor.dtype, tensor.shape, tensor.scales) == (dtype, shape, ())
    assert f"{LAYER}{KEY}.weight" in names
    assert len(storage.notes) == 1
    assert f"{LAYER}{DOWN}" in storage.notes[0]
    assert "cannot be decoded" in storage.notes[0]
    minilm.inspect(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "ending", "entry"),
    [
        ("fp4", ".weight.absmax", ("float32", (511,))),
        ("LLM.int8()", ".SCB", ("float32", (256,))),
        ("gptq", ".scales", ("float16", (257, 128))),
        ("gptq", ".scales", ("float16", (2, 127))),
        ("gptq", ".scales", ("float16", (256,))),
        ("gptq", ".qweight", ("float8_e4m3fn", (32, 128))),
        ("awq", ".scales", ("float16", (0, 128))),
        ("awq for gemv", ".scales", ("float16", (128, 24))),
        ("awq for gemv", ".qzeros", ("int32", (127, 1))),
        ("MLX", ".scales", ("bfloat16", (128, 3))),
        ("MLX", ".scales", ("bfloat16", (127, 4))),
        ("MLX", ".scales", ("bfloat16", ())),
        ("MLX", ".scales", ("bfloat16", (128, 0))),
        ("MLX", ".biases", ("bfloat16", (128, 2))),
        ("MLX", ".weight", ("uint32", (128, 28))),
        ("MLX NVFP4", ".scales", ("uint8", (128, 2))),
        ("compressed-tensors W3A16", ".weight_scale", ("bfloat16", (128, 257))),
        ("compressed-tensors NVFP4", ".weight_scale", ("float8_e4m3fn", (128, 7))),
        ("compressed-tensors MXFP6", ".weight_scale", ("uint8", ())),
        ("ModelOpt NVFP4", ".weight_scale", ("float8_e4m3fn", (3, 3, 3))),
        ("FP8 in blocks of 128", ".weight_scale_inv", ("float32", (129, 2))),
        ("FP8 in blocks of 128", ".weight_scale_inv", ("float32", (2,))),
        ("torchao int8", "._weight_scale", ("float32", (128, 257))),
    ],
)
def test_scales_of_absurd_shapes(tmp_path: Path, name: str, ending: str, entry: Entry) -> None:
    case = CASES[name]
    storage = decoded(tmp_path, replace(case, down={**case.down, ending: entry}))
    assert named(storage)[f"{LAYER}{DOWN}{ending}"].shape == entry[1]
    assert "cannot be decoded" in storage.notes[0]
    assert named(storage)[f"{LAYER}{KEY}.weight"].dtype == case.dtype


@pytest.mark.parametrize(
    "blob",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 4000,
        b"[]",
        b'{"shape": "x"}',
        b'{"shape": [-1, 5], "blocksize": -64}',
        b'{"shape": [], "blocksize": 0}',
        b'{"shape": [9223372036854775807, 9223372036854775807], "blocksize": "64"}',
        b'{"shape": [true, 32768]}',
        b'{"shape": [' + b"1, " * 1000 + b"32768]}",
        b'{"x": ' + b"9" * 4000 + b"}",
        b" " * 100_000,
    ],
)
def test_an_invalid_quant_state(tmp_path: Path, blob: bytes) -> None:
    case = CASES["fp4"]
    hostile = replace(
        case,
        down={**case.down, FP4: ("uint8", (len(blob),))},
        contents={**case.contents, DOWN + FP4: blob},
    )
    header = read_header(write(tmp_path, hostile))
    assert named(decode(header, BNB, EXPECTED))[f"{LAYER}{DOWN}.weight"].shape == (128, 256)
    storage = decode(header, BNB, {})
    assert named(storage)[f"{LAYER}{DOWN}.weight"].shape == (16384, 1)
    assert "no shape that its bytes can hold" in storage.notes[0]


def test_the_files_shape_has_priority_over_the_formulas(tmp_path: Path) -> None:
    """Else a wrong formula of the right size would prove itself."""
    case = CASES["fp4"]
    blob = state("fp4", 512, 64)
    contents = {**case.contents, DOWN + FP4: blob}
    other = replace(case, down={**case.down, FP4: ("uint8", (len(blob),))}, contents=contents)
    assert named(decoded(tmp_path, other))[f"{LAYER}{DOWN}.weight"].shape == (512, 64)
    report = minilm.inspect(str(tmp_path))
    assert any("[512, 64]" in line for line in report.mismatches)
    case = CASES["compressed-tensors W3A16"]
    other = replace(case, contents={**case.contents, f"{DOWN}.weight_shape": two_sizes(128, 128)})
    tensor = named(decoded(tmp_path, other))[f"{LAYER}{DOWN}.weight"]
    assert (tensor.shape, tensor.dtype) == ((128, 128), "int6")


@pytest.mark.parametrize(
    "shape", [(0, 256), (128, -1), (128, 2**40), (64, 512), (2**62, 2**62)], ids=str
)
def test_an_invalid_stored_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    case = CASES["compressed-tensors W3A16"]
    raw = b"".join(size.to_bytes(8, "little", signed=True) for size in shape)
    hostile = replace(case, contents={**case.contents, f"{DOWN}.weight_shape": raw})
    header = read_header(write(tmp_path, hostile))
    assert named(decode(header, COMPRESSED, EXPECTED))[f"{LAYER}{DOWN}.weight"].shape == (128, 256)
    storage = decode(header, COMPRESSED, {})
    assert f"{LAYER}{DOWN}.weight_packed" in named(storage)
    assert "no shape that its words can hold" in storage.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"_type": 3, "_data": [1]}',
        '{"_type": "Int4Tensor", "_data": {"shape": [1e9]}}',
        '{"_type": "Int4Tensor", "_data": {"shape": [9000000000, 9000000000]}}',
        "[" * 100_000,
    ],
)
def test_invalid_torchao_metadata(text: str) -> None:
    tensors = (stored("x._weight_qdata", "uint8", 64, 64), stored("x._weight_scale", "float16", 64))
    header = replace(only(*tensors), metadata={"x.weight": text})
    (tensor,) = decode(header, TORCHAO, {"x.weight": (64, 128)}).tensors
    assert (tensor.name, tensor.shape, tensor.dtype) == ("x.weight", (64, 128), "int4")
    storage = decode(header, TORCHAO, {})
    assert [tensor.name for tensor in storage.tensors] == ["x._weight_qdata", "x._weight_scale"]
    assert "no description of its packing" in storage.notes[0]


def test_torchao_values_without_a_description() -> None:
    values, scale = stored("x._weight_qdata", "int8", 64, 128), stored("x._weight_scale", "float16")
    (tensor,) = decode(only(values, scale), TORCHAO, {}).tensors
    assert (tensor.name, tensor.shape, tensor.dtype) == ("x.weight", (64, 128), "int8")
    for tensors, reason in (
        ((values,), "no scale"),
        ((stored("x._weight_qdata", "int8", 0, 4), scale), "values of shape [0, 4]"),
    ):
        storage = decode(only(*tensors), TORCHAO, {})
        assert [t.name for t in storage.tensors] == [t.name for t in tensors]
        assert reason in storage.notes[0]


@pytest.mark.parametrize("count", [0, 4097])
def test_an_invalid_number_of_absmax(count: int) -> None:
    tensors = stored("x.weight", "uint8", 2048, 1), stored("x.weight.absmax", "float32", count)
    storage = decode(only(*tensors), BNB, {"x.weight": (64, 64)})
    assert f"{count} absmax for 4096 values" in storage.notes[0]


@pytest.mark.parametrize(
    ("scales", "reason"),
    [((), "no _scales"), ((stored("x_scales", "uint8", 2, 3, 5),), "_scales of shape [2, 3, 5]")],
)
def test_mxfp4_without_its_scales(scales: tuple[StoredTensor, ...], reason: str) -> None:
    storage = decode(only(stored("x_blocks", "uint8", 2, 3, 4, 16), *scales), {}, {})
    assert storage.method is None
    assert reason in storage.notes[0]


def test_packed_integers_without_a_stored_shape_have_that_of_the_formula() -> None:
    tensors = (
        stored("x.weight_packed", "int32", 64, 16),
        stored("x.weight_scale", "bfloat16", 64, 1),
    )
    (tensor,) = decode(only(*tensors), COMPRESSED, {"x.weight": (64, 128)}).tensors
    assert (tensor.shape, tensor.dtype) == ((64, 128), "int4")


def test_bitnet_packs_four_values_in_a_byte() -> None:
    tensors = stored("x.weight", "uint8", 32, 128), stored("x.weight_scale", "bfloat16", 1)
    config = {"quant_method": "bitnet"}
    storage = decode(only(*tensors), config, {"x.weight": (128, 128)})
    assert [(t.shape, t.dtype) for t in storage.tensors] == [((128, 128), "int2")]
    assert storage.method == "bitnet"


def test_small_tensors_are_read_from_any_file_and_an_unreadable_one_is_none(
    tmp_path: Path,
) -> None:
    a, b, missing = (tmp_path / name for name in ("a", "b", "missing"))
    a.write_bytes(b"xA")
    b.write_bytes(b"xB")
    with Checkpoint(only(), {}, {}) as checkpoint:
        read = [
            checkpoint.read(StoredTensor("t", "uint8", (1,), 1, 1, path))
            for path in (a, b, missing, b, a)
        ]
    assert read == [b"A", b"B", None, b"B", b"A"]


def test_names_that_collide_once_decoded() -> None:
    packed = (
        stored("x.qweight", "int32", 16, 64),
        stored("x.qzeros", "int32", 1, 8),
        stored("x.scales", "float16", 1, 64),
    )
    with pytest.raises(
        FormatError, match=r"2 tensors for 'x\.weight' once they are decoded"
    ) as got:
        decode(only(*packed, stored("x.weight", "bfloat16", 64, 128)), {}, {})
    assert "\n" not in str(got.value)


def test_a_tensor_that_would_belong_to_two() -> None:
    tensors = (
        stored("x.weight", "int8", 4, 4),
        stored("x.weight_scale", "int8", 4, 1),
        stored("x.weight_scale_scale", "int8", 1, 1),
    )
    with pytest.raises(FormatError, match=r"2 tensors for 'x\.weight_scale'"):
        decode(only(*tensors), {}, {})
    shared = (stored("x.weight", "int8", 4, 4), stored("x.SCB", "float32", 4))
    other = (stored("x.weight_packed", "uint8", 4, 16), stored("x.weight_scale", "uint8", 4, 1))
    with pytest.raises(FormatError, match="once they are decoded"):
        decode(only(*shared, *other), {}, {})


def test_empty_tensors_are_not_divided_by() -> None:
    tensors = (
        stored("x_blocks", "uint8", 2, 3, 0, 16),
        stored("x_scales", "uint8", 2, 3, 0),
        stored("y.weight", "float8_e4m3fn", 0, 4),
        stored("y.weight_scale", "float32"),
    )
    storage = decode(only(*tensors), {}, {})
    assert sum(tensor.count for tensor in storage.tensors) == 0
    assert summary(storage) is None


def mlx(words: int, groups: int, *experts: int) -> Header:
    """A matrix "x" of 64 rows as MLX packs it."""
    scales = (stored(f"x.{name}", "float16", *experts, 64, groups) for name in ("scales", "biases"))
    return only(stored("x.weight", "uint32", *experts, 64, words), *scales)


@pytest.mark.parametrize(
    ("header", "config", "inputs", "bits"),
    [
        (mlx(32, 4), {"bits": 4, "group_size": 64}, 256, 4),
        (mlx(32, 4), {"bits": 8, "group_size": 32}, 128, 8),
        (mlx(32, 4), {"bits": 2}, 512, 2),
        (mlx(32, 4), {"group_size": 128}, 512, 2),
        (mlx(32, 4, 8), {"bits": 4, "group_size": 64}, 256, 4),
        (mlx(32, 4), {"bits": 4, "group_size": 64, "x": {"bits": 8, "group_size": 32}}, 128, 8),
        (mlx(32, 4), {"bits": 4, "group_size": 32, "x": {"group_size": 64}}, 256, 4),
        (mlx(32, 4), {"bits": 4, "group_size": 64, "x": False}, 256, 4),
        (mlx(40, 4), {"bits": 4, "group_size": 64}, 256, 5),  # the file is of 5
        (mlx(96, 4), {}, 512, 6),
        (mlx(256, 8), {"bits": "4", "group_size": [64]}, 1024, 8),
    ],
)
def test_bits_of_mlx(header: Header, config: dict[str, Any], inputs: int, bits: int) -> None:
    (tensor,) = decode(header, config, {}).tensors
    *experts, _ = header.tensors[0].shape
    assert (tensor.shape, tensor.dtype) == ((*experts, inputs), f"int{bits}")
    assert [part.name for part in tensor.scales] == ["x.scales", "x.biases"]


def test_bits_of_mlx_from_the_formula_or_assumed_with_a_note() -> None:
    assert decode(mlx(32, 4), {}, {"x.weight": (64, 512)}).tensors[0].dtype == "int2"
    sure = decode(mlx(20, 2), {}, {})
    assert (sure.tensors[0].shape, sure.method) == ((64, 128), "mlx")
    guess = decode(mlx(32, 4), {}, {})
    assert (guess.tensors[0].shape, guess.method) == ((64, 256), "mlx (groups of 64 assumed)")


def test_an_embedding_of_mlx_in_a_folder(tmp_path: Path) -> None:
    """With the configuration that mlx-lm writes, and no other method's words in it."""
    tensors = {name: torch.zeros(shape) for name, shape in EXPECTED.items()}
    tensors["model.embed_tokens.weight"] = torch.zeros((96, 32), dtype=torch.uint32)
    for name in ("scales", "biases"):
        tensors[f"model.embed_tokens.{name}"] = torch.zeros(96, 2)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "mlx"})
    entry = {"group_size": 64, "bits": 4, "model.embed_tokens": {"group_size": 64, "bits": 8}}
    (tmp_path / "config.json").write_text(
        json.dumps({**LLAMA, "quantization": entry, "quantization_config": entry})
    )
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.witnesses.file == report.witnesses.formula
    assert report.quantization is not None
    assert (report.quantization.method, report.quantization.parameters) == ("mlx", 96 * 128)


@pytest.mark.parametrize(
    ("tensor", "is_noted"),
    [
        (stored("x.weight", "uint32", 4, 4), True),
        (stored("x.W_q", "uint8", 4, 4), True),
        (stored("x.trellis", "int16", 4, 4, 4), True),
        (stored("x.B", "int32", 4, 4), True),
        (stored("x.qzeros", "int32", 4, 4), False),
        (stored("x.attn.bias", "uint8", 1, 1, 4, 4), False),
        (stored("x.position_ids", "int32", 1, 4), False),
        (stored("x.g_idx", "int32", 4), False),
        (stored("x.weight", "int64", 4, 4), False),
        (stored("x.weight", "int8", 4, 4), False),
        (stored("x.weight", "uint32", 4, 0), False),
        (stored("known.weight", "int32", 2, 2), False),
    ],
)
def test_tensors_that_look_packed_are_noted(tensor: StoredTensor, is_noted: bool) -> None:
    storage = decode(only(tensor), {}, {"known.weight": (2, 2)})
    assert [part.name for part in storage.tensors] == [tensor.name]
    assert [f"{tensor.dtype}, perhaps packed" in note for note in storage.notes] == [
        True
    ] * is_noted


@pytest.mark.parametrize(
    ("attribute", "class_name", "data", "dtype"),
    [
        ("int_data", "AffineQuantizedTensor", {"shape": [64, 128]}, "int8"),
        ("quantized_data", "NF4Tensor", {"shape": [64, 256]}, "nf4"),
        ("qdata", "Int4PreshuffledTensor", {"shape": [64, 256]}, "int4"),
    ],
)
def test_other_classes_of_torchao(
    attribute: str, class_name: str, data: dict[str, Any], dtype: str
) -> None:
    text = json.dumps(
        {"_type": class_name, "_data": data, "_tensor_data_names": ["group_scale", attribute]}
    )
    values = stored(f"x._weight_{attribute}", "int8", 64, 128)
    tensors = values, stored("x._weight_group_scale", "float32", 4, 64)
    (tensor,) = decode(replace(only(*tensors), metadata={"x.weight": text}), {}, {}).tensors
    assert (tensor.name, list(tensor.shape), tensor.dtype) == ("x.weight", data["shape"], dtype)
    assert tensor.scales == tensors[1:]


def test_a_name_like_torchaos_without_its_description() -> None:
    tensors = (
        stored("x._weight_int_data", "int8", 64, 128),
        stored("x._weight_scale", "float32", 64),
    )
    storage = decode(only(*tensors), {}, {})
    assert [tensor.name for tensor in storage.tensors] == [part.name for part in tensors]
    assert storage.notes == ()


MODULE = f"{LAYER}{DOWN}"


def int32s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)


# Method -> what is stored for the matrix of 128 x 256.
COMPANIONS: dict[str, dict[str, Entry]] = {
    "hqq": {
        ".W_q": ("uint8", (64, 256)),
        ".scale": ("float16", (128, 4)),
        ".zero": ("float16", (128, 4)),
        ".shape": ("int32", (2,)),
        ".nbits": ("int32", (1,)),
    },
    "exl2": {
        ".q_weight": ("int32", (40, 128)),
        ".q_invperm": ("int16", (256,)),
        ".q_perm": ("int16", (256,)),
        ".q_scale": ("int32", (2, 16)),
    },
    "exl3": {
        ".trellis": ("int16", (16, 8, 64)),
        ".suh": ("float16", (256,)),
        ".svh": ("float16", (128,)),
    },
    "marlin": {
        ".B": ("int32", (16, 256)),
        ".s": ("float16", (2, 128)),
        ".workspace": ("int32", (16,)),
    },
    "aqlm": {
        ".codes": ("int16", (128, 32, 1)),
        ".codebooks": ("float16", (1, 65536, 1, 8)),
        ".scales": ("float16", (128, 1, 1, 1)),
    },
    "quanto": {
        ".weight._data": ("int8", (128, 256)),
        ".weight._scale": ("float16", (128, 1)),
        ".weight._shift": ("uint8", (128, 1)),
        ".input_scale": ("float32", ()),
    },
}


def companions_case(method: str) -> Case:
    return Case(
        method,
        method,
        {"quant_method": method},
        COMPANIONS[method],
        {".weight": ("bfloat16", EXPECTED[f"{LAYER}{KEY}.weight"])},
        0,
        0,
        contents={f"{DOWN}.shape": int32s(128, 256)} if method == "hqq" else {},
    )


@pytest.mark.parametrize("method", COMPANIONS)
def test_the_shape_of_a_matrix_that_is_not_unpacked(tmp_path: Path, method: str) -> None:
    """With a formula and, where the file says it, without."""
    case = companions_case(method)
    storage = decoded(tmp_path, case)
    assert {name: tensor.shape for name, tensor in named(storage).items()} == EXPECTED
    assert (storage.method, storage.notes, storage.assumed) == (method, (), ())
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.witnesses.file == report.witnesses.formula
    alone = decode(read_header(tmp_path / "model.safetensors"), {}, {})
    assert named(alone)[f"{MODULE}.weight"].shape == (128, 256)


def test_the_files_shape_of_hqq_is_compared(tmp_path: Path) -> None:
    case = companions_case("hqq")
    write(tmp_path, replace(case, contents={f"{DOWN}.shape": int32s(64, 512)}))
    assert any("[64, 512]" in line for line in minilm.inspect(str(tmp_path)).mismatches)


@pytest.mark.parametrize("method", ["vptq", "spqr", "quark-next"])
def test_a_method_that_is_not_decoded_is_no_mismatch(tmp_path: Path, method: str) -> None:
    entries: dict[str, Entry] = {
        ".dense_weights": ("int64", (64, 32)),
        ".col_vals": ("int32", (10,)),
    }
    case = replace(companions_case("marlin"), config={"quant_method": method}, down=entries)
    write(tmp_path, case)
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.verdict.text.endswith("; 1 tensor not decoded")
    assert report.verdict.brief.endswith("; 1 not decoded")
    assert report.comparisons[0].assumed == 1
    assert report.notes == (
        f"not decoded: {MODULE}.weight, packed by {method!r}: the shapes are the formula's, "
        "the file's are not checked",
    )
    # What is not of the formula stays counted as stored.
    write(tmp_path, replace(case, down=entries, key={".bogus.qweight": ("int32", (3, 5))}))
    notes = minilm.inspect(str(tmp_path)).notes
    assert [note for note in notes if "counted as stored" in note] == [
        f"{LAYER}{KEY}.bogus.qweight cannot be decoded (no scales): counted as stored"
    ]
    # Too few bytes for such a matrix: a mismatch.
    write(tmp_path, replace(case, down={".dense_weights": ("int64", (4, 4))}))
    assert not minilm.inspect(str(tmp_path)).verified
    # A file of a method that is decoded is damaged.
    write(tmp_path, replace(case, config={"quant_method": "gptq"}))
    assert not minilm.inspect(str(tmp_path)).verified


def test_packed_values_under_the_name_of_the_matrix(tmp_path: Path) -> None:
    """As HIGGS and Quark store them; a float of another shape stays a mismatch."""
    packed: dict[str, Entry] = {".weight": ("int16", (64, 128)), ".tables": ("float16", (16, 2))}
    case = replace(companions_case("marlin"), config={"quant_method": "higgs"}, down=packed)
    write(tmp_path, case)
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.comparisons[0].assumed == 1
    for wrong in ({".weight": ("float16", (128, 255))}, {".values": ("float16", (128, 128))}):
        write(tmp_path, replace(case, down=wrong))
        assert not minilm.inspect(str(tmp_path)).verified


def test_a_stored_shape_of_int32(tmp_path: Path) -> None:
    case = CASES["compressed-tensors W3A16"]
    entry: Entry = ("int32", (2,))
    other = replace(
        case,
        down={**case.down, ".weight_shape": entry},
        contents={**case.contents, f"{DOWN}.weight_shape": int32s(128, 256)},
    )
    header = read_header(write(tmp_path, other))
    assert named(decode(header, COMPRESSED, {}))[f"{MODULE}.weight"].shape == (128, 256)


def test_packed_values_of_a_weight_without_elements_are_no_division_by_zero() -> None:
    tensors = (StoredTensor("m.qweight", "uint8", (2,), 2), StoredTensor("m.other", "X", (), 4))
    logical = decode(Header(tensors, {}, 6), {"quant_method": "hqq"}, {"m.weight": (0, 64)})
    assert {tensor.name for tensor in logical.tensors} == {"m.qweight", "m.other"}


# Methods that are not decoded -> what they store for the matrix of 128 x 256, by their own loaders'
# names: VPTQ `layers/vqlinear.py`, transformers `integrations/{higgs,fp_quant,sinq,spqr}.py`, quark's
# export to safetensors.
NOT_DECODED: dict[str, dict[str, Entry]] = {
    "vptq": {
        ".indices": ("int32", (1, 32, 64)),
        ".centroids.weight": ("float16", (1, 2048)),
        ".perm": ("int16", (256,)),
    },
    "higgs": {
        ".weight": ("int16", (32, 128)),
        ".scales": ("float16", (128, 1)),
        ".tables": ("float16", (256, 2)),
    },
    "fp_quant": {
        ".qweight": ("uint8", (128, 128)),
        ".scales": ("uint8", (128, 8)),
        ".forward_hadamard_matrix": ("float16", (32, 32)),
    },
    "sinq": {
        ".W_q": ("uint8", (64, 256)),
        ".meta_scale": ("float16", (512, 1)),
    },
    "spqr": {
        ".dense_weights": ("int64", (1024,)),
        ".row_offsets": ("int32", (129,)),
        ".col_vals": ("int32", (16,)),
    },
    "quark": {
        ".weight": ("int32", (256, 16)),
        ".weight_scale": ("float32", (2, 128)),
        ".weight_zero_point": ("int32", (2, 16)),
    },
}


@pytest.mark.parametrize("method", NOT_DECODED)
def test_a_method_that_is_not_decoded_is_named(tmp_path: Path, method: str) -> None:
    """With a formula the count is the formula's and it is said; without, the tensors are noted as packed."""
    case = replace(companions_case("hqq"), config={"quant_method": method})
    case = replace(case, down=NOT_DECODED[method], contents={})
    write(tmp_path, case)
    report = minilm.inspect(str(tmp_path))
    assert report.mismatches == ()
    assert report.parameters.total == sum(map(math.prod, EXPECTED.values()))
    assert any("not decoded" in note for note in report.notes) or report.quantization is not None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "novel"}))
    notes = minilm.inspect(str(tmp_path)).notes
    tensor, named_method = f"not decoded: {LAYER}{DOWN}", f"quant_method {method!r}: no tensor"
    assert any(note.startswith((tensor, named_method)) for note in notes)
