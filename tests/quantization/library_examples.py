"""What quantization libraries store of random matrices, each a few kB, and how they read it."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


@dataclass(frozen=True)
class Example:
    """What is stored of one matrix by its names, and its ``values`` as the library dequantizes it."""

    name: str
    tensors: Mapping[str, Tensor]
    values: Tensor
    config: Mapping[str, Any] = field(default_factory=dict)  # of the quantization_config
    metadata: Mapping[str, str] = field(default_factory=dict)  # of the file


def hqq() -> Iterator[Example]:
    """Linear layers of `hqq.core.quantize.HQQLinear`."""
    hqq = importlib.import_module("hqq.core.quantize")
    for bits, axis, group_size, dtype in (
        *((8, 1, 32, "f16"), (6, 0, 8, "bf16"), (4, 1, 32, "f16"), (4, 0, 8, "bf16")),
        *((4, 1, 16, "f32"), (3, 1, 32, "f16"), (3, 0, 16, "bf16"), (2, 1, 16, "bf16")),
        *((1.58, 1, 16, "f16"), (1, 1, 8, "f16")),
    ):
        config = hqq.BaseQuantizeConfig(nbits=bits, group_size=group_size, axis=axis)
        layer = hqq.HQQLinear(
            nn.Linear(32, 8, bias=False), config, compute_dtype=DTYPES[dtype], device="cpu"
        )
        stored = {f"m.{key}": value for key, value in layer.state_dict().items()}
        name = f"{bits} bits, groups of {group_size} along {axis}, {dtype}"
        yield Example(name, stored, layer.dequantize())


def quanto() -> Iterator[Example]:
    """Linear layers of `optimum.quanto.quantize`; a last one with whole zero points."""
    quanto = importlib.import_module("optimum.quanto")
    for kind, width, height, dtype in (
        *(("qint2", 64, 6, "f16"), ("qint2", 256, 2, "bf16"), ("qint4", 64, 5, "f32")),
        *(("qint4", 256, 2, "f16"), ("qint8", 32, 8, "bf16"), ("qfloat8_e4m3fn", 32, 8, "f16")),
        ("qfloat8_e5m2", 32, 8, "bf16"),
    ):
        model = nn.Sequential()
        model.m = nn.Linear(width, height, bias=False, dtype=DTYPES[dtype])
        quanto.quantize(model, weights=getattr(quanto, kind))
        quanto.freeze(model)
        values = model.m.weight.dequantize().detach()
        yield Example(f"{kind}, {height} x {width}, {dtype}", dict(model.state_dict()), values)
    weights = importlib.import_module("optimum.quanto.tensor.weights.quantization")
    matrix = torch.randn(6, 64, dtype=torch.float16)
    scale, shift = quanto.MaxOptimizer()(matrix, quanto.qint4, 0, 32, zeropoint=True)
    packed = weights.quantize_weight(matrix, quanto.qint4, 0, scale, shift=shift, group_size=32)
    parts = {"_data._data": packed._data._data, "_scale": scale, "_shift": shift}
    stored = {f"m.weight.{part}": tensor for part, tensor in parts.items()}
    yield Example("qint4, 6 x 64, whole zero points", stored, packed.dequantize())


def aqlm() -> Iterator[Example]:
    """Random codes and codebooks, which is what training changes, read by `aqlm.utils`."""
    aqlm = importlib.import_module("aqlm.utils")
    for number, bits, a, b, dtype in (
        *((1, 8, 1, 8, "f16"), (2, 5, 1, 8, "f16"), (3, 4, 2, 4, "f32"), (1, 9, 1, 2, "bf16")),
    ):
        codes = aqlm.pack_int_data(torch.randint(2**bits, (8 // a, 32 // b, number)), bits)
        codebooks = torch.randn(number, 2**bits, a, b).to(DTYPES[dtype])
        scales = torch.rand(8 // a, 1, 1, 1).to(DTYPES[dtype])
        values = aqlm._dequantize_weight(aqlm.unpack_int_data(codes, bits), codebooks, scales)
        stored = {"m.codes": codes, "m.codebooks": codebooks, "m.scales": scales}
        yield Example(f"{number} x {bits} bits for {a} x {b}, {dtype}", stored, values)


def quark() -> Iterator[Example]:
    """A matrix of a tiny Llama that `quark.torch` exports, and as it imports it again."""
    quark = importlib.import_module("quark.torch")
    configs = importlib.import_module("quark.torch.quantization.config.config")
    one = {"observer_method": "min_max", "is_dynamic": False}
    whole = {"symmetric": True, "scale_type": "float", "round_method": "half_even"} | one
    for kind, options, dtype in (
        ("Int4PerGroupSpec", {"ch_axis": -1, "group_size": 16}, "f16"),
        ("Uint4PerGroupSpec", {"ch_axis": -1, "group_size": 8, "symmetric": False}, "bf16"),
        ("Int4PerChannelSpec", {"ch_axis": 0}, "f16"),
        ("Int4PerTensorSpec", whole, "f32"),
        ("Int8PerGroupSpec", {"ch_axis": -1, "group_size": 16}, "f16"),
        ("Int8PerChannelSpec", {"ch_axis": 0}, "bf16"),
        ("Int8PerTensorSpec", whole, "f16"),
        ("FP8E4M3PerTensorSpec", one, "f16"),
        ("FP8E4M3PerChannelSpec", {"ch_axis": 0, "is_dynamic": False}, "f16"),
    ):
        weight = getattr(configs, kind)(**options).to_quantization_spec()
        layers = configs.QLayerConfig(weight=weight)
        quantizer = quark.ModelQuantizer(
            configs.QConfig(global_quant_config=layers, exclude=["lm_head"])
        )
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            model = quantizer.quantize_model(_tiny_llama(DTYPES[dtype]), [torch.ones(1, 8).long()])
            quark.export_safetensors(quantizer.freeze(model), folder)
            read = quark.import_model_from_safetensors(_tiny_llama(DTYPES[dtype]), folder)
            layer = read.model.layers[0].mlp.down_proj
            values = layer._get_qweight(layer.weight).clone()
            stored = load_file(f"{folder}/model.safetensors")
            config = json.loads(Path(folder, "config.json").read_text())["quantization_config"]
        module = "model.layers.0.mlp.down_proj."
        tensors = {
            name.replace(module, "m."): stored[name] for name in stored if name.startswith(module)
        }
        read_fields = {key: config[key] for key in ("global_quant_config", "export")}
        yield Example(f"{kind}, {dtype}", tensors, values, read_fields)


def gptq() -> Iterator[Example]:
    """Random layers of GPTQModel's `TorchLinear`; it takes zero points of version 2, made of version 1's."""
    layers = importlib.import_module("gptqmodel.nn_modules.qlinear.torch")
    quantization = importlib.import_module("gptqmodel.quantization")
    zeros_of = importlib.import_module("gptqmodel.utils.model_dequant")._correct_gptq_v1_qzeros
    for bits, group_size, is_ordered, format, dtype in (
        *((4, 32, True, "gptq", "f16"), (4, 16, False, "gptq_v2", "bf16")),
        *(
            (2, 32, False, "gptq", "f16"),
            (3, 32, False, "gptq", "f16"),
            (8, -1, True, "gptq", "f16"),
        ),
        *(
            (3, 32, True, "gptq_p", "f16"),
            (5, 32, True, "gptq_p", "f16"),
            (7, 16, True, "gptq_p", "bf16"),
        ),
    ):
        layer = layers.TorchLinear(
            *(bits, group_size, False, not is_ordered, 64, 32),
            format=quantization.FORMAT(format),
            register_buffers=True,
        )
        stored = {
            key: torch.randint(-(2**31), 2**31, getattr(layer, key).shape, dtype=torch.int32)
            for key in ("qweight", "qzeros")
        }
        stored["scales"] = torch.rand(layer.scales.shape).to(DTYPES[dtype])
        index = layer.g_idx.clone()
        stored["g_idx"] = index if is_ordered else index[torch.randperm(64)]
        for key, tensor in stored.items():
            setattr(layer, key, tensor)
        if format == "gptq":
            layer.qzeros = zeros_of(stored["qzeros"], bits)
        layer.post_init()
        name = f"{bits} bits, groups of {group_size}, in order {is_ordered}, {format}, {dtype}"
        stored = {f"m.{key}": tensor for key, tensor in stored.items()}
        config = {"checkpoint_format": format, "bits": bits}
        yield Example(name, stored, layer.dequantize_weight().T, config)


def awq() -> Iterator[Example]:
    """Random integers as AutoAWQ's GEMM packs them, read by GPTQModel's copy of its `dequantize_gemm`."""
    packing = importlib.import_module("gptqmodel.quantization.awq.utils.packing_utils")
    for group_size, dtype in ((32, "f16"), (64, "bf16"), (16, "f16")):
        words, zeros = (
            torch.randint(-(2**31), 2**31, (rows, 2), dtype=torch.int32)
            for rows in (64, 64 // group_size)
        )
        scales = torch.rand(64 // group_size, 16).to(DTYPES[dtype])
        values = packing.dequantize_gemm(words, zeros, scales, 4, group_size).T
        stored = {"m.qweight": words, "m.qzeros": zeros, "m.scales": scales}
        yield Example(f"groups of {group_size}, {dtype}", stored, values)


def bitsandbytes() -> Iterator[Example]:
    """Matrices of `bitsandbytes.functional`, as `Linear4bit` and `Linear8bitLt` save them."""
    functional = importlib.import_module("bitsandbytes.functional")
    for kind, nested, height, width, block, dtype in (
        *(("nf4", False, 8, 64, 64, "f32"), ("nf4", True, 40, 64, 64, "bf16")),
        *(("fp4", False, 3, 50, 64, "f16"), ("fp4", True, 8, 64, 128, "f32")),
    ):
        matrix = torch.randn(height, width).to(DTYPES[dtype])
        packed, state = functional.quantize_4bit(
            matrix, quant_type=kind, compress_statistics=nested, blocksize=block
        )
        stored = {"m.weight": packed} | {
            f"m.weight.{key}": value for key, value in state.as_dict(packed=True).items()
        }
        name = f"{kind}, nested {nested}, {height} x {width}, blocks of {block}, {dtype}"
        yield Example(name, stored, functional.dequantize_4bit(packed, state))
    integers, extents, _ = functional.int8_vectorwise_quant(torch.randn(8, 32).half())
    stored = {"m.weight": integers, "m.SCB": extents, "m.weight_format": torch.tensor(0).byte()}
    yield Example("int8", stored, functional.int8_vectorwise_dequant(integers, extents))


def compressed_tensors() -> Iterator[Example]:
    """Matrices that the compressors of compressed-tensors store, and decompress."""
    compressors = importlib.import_module("compressed_tensors.compressors").BaseCompressor
    quantization = importlib.import_module("compressed_tensors.quantization")
    grouped = {"strategy": "group", "group_size": 16}
    channel, block = {"strategy": "channel"}, {"strategy": "block", "block_structure": [4, 16]}
    for kind, options, scales, dtype in (
        ("pack-quantized", {"num_bits": 4, **grouped}, (16, 4), "bf16"),
        ("pack-quantized", {"num_bits": 4, "symmetric": False, **grouped}, (16, 4), "f16"),
        ("pack-quantized", {"num_bits": 3, "symmetric": False, **channel}, (16, 1), "f16"),
        ("pack-quantized", {"num_bits": 8, **channel}, (16, 1), "f32"),
        ("naive-quantized", {"num_bits": 8, "symmetric": False, **channel}, (16, 1), "bf16"),
        ("naive-quantized", {"num_bits": 8, "type": "float", **channel}, (16, 1), "bf16"),
        ("naive-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}, (1,), "f16"),
        ("naive-quantized", {"num_bits": 8, "type": "float", **block}, (4, 4), "f32"),
    ):
        compressor = compressors.get_value_from_registry(kind)
        arguments = quantization.QuantizationArgs(**options)
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
        state = {
            "weight": torch.randn(16, 64).to(DTYPES[dtype]),
            "weight_scale": (0.1 + torch.rand(scales)).to(DTYPES[dtype]),
        }
        if not arguments.symmetric:
            state["weight_zero_point"] = torch.randint(-4, 4, scales, dtype=torch.int8)
        stored = compressor.compress(state, scheme)
        values = compressor.decompress(stored, scheme)["weight"]
        name = f"{kind}, {options}, {dtype}"
        yield Example(name, {f"m.{key}": value for key, value in stored.items()}, values)
    for kind, bits, group in (
        *(("nvfp4-pack-quantized", 4, 16), ("mxfp4-pack-quantized", 4, 32)),
        ("mxfp6-pack-quantized", 6, 32),
    ):
        compressor = compressors.get_value_from_registry(kind)
        strategy = "tensor_group" if group == 16 else "group"
        arguments = quantization.QuantizationArgs(
            num_bits=bits, type="float", strategy=strategy, group_size=group
        )
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
        packed = torch.randint(256, (8, 64 * bits // 8), dtype=torch.uint8)
        if group == 16:
            scales = torch.rand(8, 4).mul(400).to(torch.float8_e4m3fn)
            stored = {"weight_global_scale": torch.tensor([3000.0])}
        else:
            scales, stored = torch.randint(100, 140, (8, 2), dtype=torch.uint8), {}
        stored |= {"weight_packed": packed, "weight_scale": scales}
        values = compressor.decompress(stored, scheme)["weight"]
        yield Example(kind, {f"m.{key}": value for key, value in stored.items()}, values)


def fp8() -> Iterator[Example]:
    """FP8 in blocks, and FP4 as DeepSeek-V4 has it, read by `Fp8Dequantize` of transformers."""
    module = importlib.import_module("transformers.integrations.finegrained_fp8")
    read = module.Fp8Dequantize(None)._dequantize_one
    for kind, shape, grid, dtype in (
        *(("float8_e4m3fn", (8, 48), (2, 3), "f32"), ("float8_e5m2", (8, 32), (8, 1), "bf16")),
        *(("float8_e4m3fn", (2, 4, 32), (2, 2, 4), "f16"),),
    ):
        values = torch.randn(shape).to(getattr(torch, kind))
        scales = torch.rand(grid).to(DTYPES[dtype])
        stored = {"m.weight": values, "m.weight_scale_inv": scales}
        config = {"weight_block_size": [shape[-2] // grid[-2], shape[-1] // grid[-1]]}
        name = f"{kind}, {list(shape)}, scales {list(grid)}, {dtype}"
        yield Example(name, stored, read(values, scales), config)
    exponents = torch.randint(110, 130, (4, 2), dtype=torch.uint8).view(torch.float8_e8m0fnu)
    pairs = torch.randint(-128, 128, (4, 32), dtype=torch.int8)
    yield Example("FP4", {"m.weight": pairs, "m.scale": exponents}, read(pairs, exponents))
    values = torch.randn(4, 64).to(torch.float8_e4m3fn)
    codes = exponents.view(torch.uint8)
    stored = {"m.weight": values, "m.weight_scale_inv": codes}
    yield Example("MXFP8", stored, read(values, codes))


def mxfp4() -> Iterator[Example]:
    """Random experts as gpt-oss has them, read by transformers."""
    module = importlib.import_module("transformers.integrations.mxfp4")
    for experts, rows, groups in ((1, 8, 2), (2, 32, 1), (3, 4, 2)):
        blocks = torch.randint(256, (experts, rows, groups, 16), dtype=torch.uint8)
        scales = torch.randint(100, 140, (experts, rows, groups), dtype=torch.uint8)
        stored = {"m.weight_blocks": blocks, "m.weight_scales": scales}
        values = module.convert_moe_packed_tensors(blocks, scales)
        yield Example(f"{experts} experts, {rows} x {32 * groups}", stored, values)


def mlx() -> Iterator[Example]:
    """Matrices of `mlx.core.quantize`."""
    mlx = importlib.import_module("mlx.core")
    numpy = importlib.import_module("numpy")

    def tensor(array: Any) -> Tensor:
        if array.dtype == mlx.bfloat16:
            return torch.from_numpy(numpy.array(array.view(mlx.int16))).view(torch.bfloat16)
        return torch.from_numpy(numpy.array(array))

    kinds = (
        *(("affine", 4, 64, "f16"), ("affine", 2, 32, "bf16"), ("affine", 3, 32, "f32")),
        *(("affine", 5, 32, "bf16"), ("affine", 6, 64, "f16"), ("affine", 8, 128, "bf16")),
        *(("mxfp4", 4, 32, "bf16"), ("mxfp8", 8, 32, "bf16"), ("nvfp4", 4, 16, "bf16")),
    )
    for mode, bits, group, dtype in kinds:
        matrix = mlx.array(torch.randn(4, 128).numpy()).astype(
            {"f16": mlx.float16, "bf16": mlx.bfloat16, "f32": mlx.float32}[dtype]
        )
        options = {"group_size": group, "bits": bits, "mode": mode}
        parts = mlx.quantize(matrix, **options)
        names = ("m.weight", "m.scales", "m.biases")
        stored = {name: tensor(part) for name, part in zip(names, parts, strict=False)}
        values = tensor(mlx.dequantize(*parts, **options))
        yield Example(f"{mode}, {bits} bits, groups of {group}, {dtype}", stored, values, options)


def marlin() -> Iterator[Example]:
    """Layers of Marlin, smaller than its kernels take; its `marlin_cuda` is not called: a stub will do."""
    marlin = importlib.import_module("marlin")
    for groups in (2, 1):
        layer = nn.Module.__new__(marlin.Layer)
        nn.Module.__init__(layer)
        layer.k, layer.n, layer.groupsize = 32, 64, 32 // groups
        layer.B = torch.zeros(2, 128, dtype=torch.int32)
        layer.s = torch.zeros(groups, 64, dtype=torch.float16)
        scales = (0.1 + torch.rand(64, groups)).half()
        integers = torch.randint(-8, 8, (64, groups, layer.groupsize))
        linear = nn.Linear(32, 64, bias=False, dtype=torch.float16)
        linear.weight.data = (integers * scales[..., None]).reshape(64, 32)
        layer.pack(linear, scales)
        stored = {"m.B": layer.B, "m.s": layer.s}
        yield Example(f"{groups} groups", stored, linear.weight.data)


def modelopt() -> Iterator[Example]:
    """NVFP4 of ModelOpt, by the names that its export gives the parts."""
    tensors = importlib.import_module("modelopt.torch.quantization.qtensor.nvfp4_tensor")
    for dtype in ("bf16", "f16"):
        matrix = torch.randn(8, 64).to(DTYPES[dtype])
        packed, scale, of_all = tensors.NVFP4QTensor.quantize(matrix, 16)
        parts = {"": packed._quantized_data, "_scale": scale, "_scale_2": of_all}
        stored = {f"m.weight{ending}": part for ending, part in parts.items()}
        options = {"scale": scale, "double_scale": of_all, "block_sizes": {-1: 16}}
        yield Example(f"NVFP4, {dtype}", stored, packed.dequantize(torch.bfloat16, **options))


def torchao() -> Iterator[Example]:
    """Linear layers of `torchao.quantization.quantize_`, flattened for safetensors; int4 needs a GPU."""
    torchao = importlib.import_module("torchao.quantization")
    support = importlib.import_module("torchao.prototype.safetensors.safetensors_support")
    tensors = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
    nvfp4 = importlib.import_module("torchao.prototype.mx_formats.nvfp4_tensor").NVFP4Tensor

    def mx(kind: torch.dtype) -> Tensor:
        made: Tensor = tensors.MXTensor.to_mx(torch.randn(4, 64).bfloat16(), kind)
        return made

    def quantized(config: Any, dtype: str) -> Tensor:
        model = nn.Sequential(nn.Linear(64, 4, bias=False, dtype=DTYPES[dtype]))
        torchao.quantize_(model, config)
        weight: Tensor = model[0].weight
        return weight

    for name, weight in (
        ("Int8WeightOnlyConfig, f32", quantized(torchao.Int8WeightOnlyConfig(version=2), "f32")),
        ("Int8WeightOnlyConfig, bf16", quantized(torchao.Int8WeightOnlyConfig(version=2), "bf16")),
        ("Float8WeightOnlyConfig, bf16", quantized(torchao.Float8WeightOnlyConfig(), "bf16")),
        (
            "IntxWeightOnlyConfig of 4 bits, bf16",
            quantized(
                torchao.IntxWeightOnlyConfig(
                    weight_dtype=torch.int4, granularity=torchao.PerGroup(32)
                ),
                "bf16",
            ),
        ),
        ("MXTensor, float8", mx(torch.float8_e4m3fn)),
        ("MXTensor, float4", mx(torch.float4_e2m1fn_x2)),
        ("NVFP4Tensor", nvfp4.to_nvfp4(torch.randn(4, 64).bfloat16())),
        (
            "NVFP4Tensor, per tensor",
            nvfp4.to_nvfp4(torch.randn(4, 64), per_tensor_scale=torch.tensor(0.003)),
        ),
    ):
        stored, metadata = support.flatten_tensor_state_dict({"m.weight": weight.data})
        yield Example(name, stored, weight.dequantize(), metadata=metadata)


def _tiny_llama(dtype: torch.dtype) -> nn.Module:
    transformers = importlib.import_module("transformers")
    widths = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**widths, **heads, tie_word_embeddings=False)
    model: nn.Module = transformers.LlamaForCausalLM(config).to(dtype)
    return model
