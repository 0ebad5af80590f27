"""Layouts that no library writes on a CPU: transposed, stacked, older packings, ends of blocks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minilm.errors import FormatError
from minilm.formats.safetensors import read_header
from minilm.formats.tensor_io import Array
from minilm.quantization.bit_fields import unpack, unpack_words
from minilm.quantization.logical_tensors import decode
from minilm.quantization.nf4_packing import Nf4Packing
from minilm.quantization.sparse_packing import SparseFormat, SparsePacking
from minilm.values.packed import with_decoded
from tests.quantization.library_examples import Example
from tests.quantization.record_values import recorded
from tests.quantization.test_dequantized import read

RECORDED = recorded()


def decoded(
    folder: Path,
    method: str,
    tensors: dict[str, Tensor],
    expected: dict[str, tuple[int, ...]],
    config: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> dict[str, Array]:
    """Name -> values; every tensor must be decoded."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    header, config = read_header(path), {"quant_method": method, **(config or {})}
    header, left_out = with_decoded(header, decode(header, config, expected), config, dtype)
    assert left_out == {}
    return {tensor.name: read(tensor) for tensor in header.tensors}


def reason(folder: Path, method: str, example: Example, **changed: Tensor | None) -> str:
    """Why the matrix of an example is not decoded once some of its tensors are others, or are gone."""
    tensors = dict(example.tensors)
    for ending, tensor in changed.items():
        name = next(name for name in tensors if name.endswith(ending))
        del tensors[name]
        if tensor is not None:
            tensors[name] = tensor
    path = folder / "model.safetensors"
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(kept, path, metadata=dict(example.metadata))
    header, config = read_header(path), {"quant_method": method, **example.config}
    expected = {"m.weight": tuple(example.values.shape)}
    _, left_out = with_decoded(header, decode(header, config, expected), config)
    (text,) = {entry.reason for entry in left_out.values()}
    return text.removeprefix(f"not decoded: packed by {method}")


@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_of_any_width_are_unpacked(bits: int) -> None:
    integers = np.random.default_rng(0).integers(2**bits, size=(2, 64))
    number = [sum(int(value) << bits * i for i, value in enumerate(row)) for row in integers]
    stream = [each.to_bytes(8 * bits, "little") for each in number]
    words = np.frombuffer(b"".join(stream), "<i4").reshape(2, -1)
    assert np.array_equal(unpack(words, bits), integers)
    whole = 32 // bits
    rows = integers[:, : 64 // whole * whole].reshape(2, -1, whole).astype(np.uint32)
    words = (rows << np.arange(whole, dtype=np.uint32) * np.uint32(bits)).sum(-1, dtype=np.uint32)
    assert np.array_equal(unpack_words(words.view("<i4"), bits), rows.reshape(2, -1))


@pytest.mark.parametrize("is_conv1d", [True, False])
def test_square_matrices_are_transposed_where_all_others_are(
    tmp_path: Path, is_conv1d: bool
) -> None:
    """bitsandbytes stores GPT-2's Conv1D as linear layers: (out, in), where the model has (in, out)."""
    packing, generator = Nf4Packing(), np.random.default_rng(0)
    tensors: dict[str, Tensor] = {}
    values: dict[str, Array] = {}
    for name, shape in {"c_attn.weight": (192, 64), "c_proj.weight": (64, 64)}.items():
        rounded = packing.round(generator.standard_normal(shape, np.float32))
        packed = packing.pack(name, rounded)
        tensors |= {key: torch.from_numpy(array.copy()) for key, array in packed.items()}
        matrix = packing.values(rounded)
        values[name] = matrix.T if is_conv1d else matrix
    expected = {name: matrix.shape for name, matrix in values.items()}
    actual = decoded(tmp_path, "bitsandbytes", tensors, expected)
    assert actual.keys() == values.keys()
    for name, matrix in values.items():
        assert np.array_equal(actual[name], matrix), name


def test_four_bits_in_the_dtype_of_another_storage(tmp_path: Path) -> None:
    """bnb_4bit_quant_storage, which FSDP needs."""
    example = RECORDED["bitsandbytes"][0]
    tensors = dict(example.tensors)
    tensors["m.weight"] = tensors["m.weight"].reshape(-1).view(torch.bfloat16)[:, None]
    actual = decoded(tmp_path, "bitsandbytes", tensors, {"m.weight": (8, 64)})
    assert np.array_equal(actual["m.weight"], example.values.numpy())


def test_values_are_rounded_to_the_dtype_that_config_json_states(tmp_path: Path) -> None:
    example = RECORDED["gptq"][0]
    shape = {"m.weight": tuple(example.values.shape)}
    exact, rounded = (
        decoded(tmp_path, "gptq", dict(example.tensors), shape, dict(example.config), dtype)
        for dtype in ("float32", "bfloat16")
    )
    values = torch.from_numpy(exact["m.weight"])
    assert not torch.equal(values, example.values.float())
    assert torch.equal(values.half(), example.values)
    assert torch.equal(torch.from_numpy(rounded["m.weight"]), values.bfloat16().float())


def test_words_of_whole_integers_as_compressed_tensors_had_them(tmp_path: Path) -> None:
    """Up to version 0.13: ten integers of 3 bits in a word, two of its bits unused."""
    integers = torch.randint(8, (20, 64))
    zeros, scales = torch.randint(8, (20, 2)), torch.rand(20, 2)

    def packed(rows: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 10))
        fields = padded.reshape(len(rows), -1, 10) << 3 * torch.arange(10)
        return fields.sum(-1).to(torch.int32)

    tensors = {
        "m.weight_packed": packed(integers),
        "m.weight_scale": scales,
        "m.weight_shape": torch.tensor([20, 64]),
        "m.weight_zero_point": packed(zeros.T).T,
    }
    actual = decoded(tmp_path, "compressed-tensors", tensors, {"m.weight": (20, 64)})
    centred = integers.reshape(20, 2, 32) - zeros[..., None]
    assert np.array_equal(actual["m.weight"], (centred * scales[..., None]).reshape(20, 64).numpy())


def test_groups_out_of_order_of_compressed_tensors(tmp_path: Path) -> None:
    integers, scales = torch.randint(16, (8, 64)), torch.rand(8, 2)
    group = torch.arange(2, dtype=torch.int32).repeat(32)
    words = (integers.reshape(8, 8, 8) << 4 * torch.arange(8)).sum(-1).to(torch.int32)
    tensors = {"m.weight_packed": words, "m.weight_scale": scales, "m.weight_g_idx": group}
    tensors["m.weight_shape"] = torch.tensor([8, 64])
    actual = decoded(tmp_path, "compressed-tensors", tensors, {"m.weight": (8, 64)})
    assert np.array_equal(actual["m.weight"], ((integers - 8) * scales[:, group]).numpy())


def test_awq_stored_by_outputs(tmp_path: Path) -> None:
    """GEMV, whose groups are padded: 3 of 128 inputs to the 8 zero points of a word."""
    integers, zeros = torch.randint(16, (16, 384)), torch.randint(16, (16, 8))
    scales = torch.rand(16, 8).half()

    def packed(rows: Tensor) -> Tensor:
        return (rows.reshape(len(rows), -1, 8) << 4 * torch.arange(8)).sum(-1).to(torch.int32)

    tensors = {"m.qweight": packed(integers), "m.qzeros": packed(zeros), "m.scales": scales}
    actual = decoded(
        tmp_path, "awq", tensors, {"m.weight": (16, 384)}, {"bits": 4, "group_size": 128}
    )
    centred = integers.reshape(16, 3, 128) - zeros[:, :3, None]
    values = (centred * scales[:, :3, None]).reshape(16, 384).float()
    assert np.array_equal(actual["m.weight"], values.numpy())


def test_groups_of_different_bits(tmp_path: Path) -> None:
    """EXL2: 5, 3 and 3 bits for 32 inputs each, and 2 for the last 16."""
    bits, counts, outputs = [5, 3, 3, 2], [32, 32, 32, 16], 32
    integers = [torch.randint(2**n, (rows, outputs)) for n, rows in zip(bits, counts, strict=True)]
    words, groups = [], []
    for n, rows in zip(bits, integers, strict=True):
        columns = [sum(int(x) << n * i for i, x in enumerate(column)) for column in rows.T]
        stream = b"".join(each.to_bytes(n * len(rows) // 8, "little") for each in columns)
        groups += [n, sum(map(len, words))]
        words.append(np.frombuffer(stream, "<i4").reshape(outputs, -1).T)
    steps, largest = torch.randint(16, (4, outputs)), torch.rand(4).half()
    order = torch.randperm(112)
    tensors = {
        "m.q_weight": torch.from_numpy(np.concatenate(words)),
        "m.q_groups": torch.tensor(groups, dtype=torch.int16),
        "m.q_scale": (steps.reshape(4, 4, 8) << 4 * torch.arange(8)).sum(-1).to(torch.int32),
        "m.q_scale_max": largest,
        "m.q_invperm": torch.argsort(order).to(torch.int32),
    }
    actual = decoded(tmp_path, "exl2", tensors, {"m.weight": (outputs, 112)})
    scales = ((steps + 1) ** 2).half() * (largest / 256)[:, None]
    values = torch.empty(112, outputs, dtype=torch.float16)
    values[order] = torch.cat(
        [(q - 2 ** (n - 1)) * s for q, n, s in zip(integers, bits, scales, strict=True)]
    )
    assert np.array_equal(actual["m.weight"], values.T.float().numpy())
    tensors["m.q_groups"][2] = 7
    with pytest.raises(
        FormatError, match=r"m\.q_groups with .* inputs in its groups, expected 112"
    ):
        decoded(tmp_path, "exl2", tensors, {"m.weight": (outputs, 112)})


@pytest.mark.parametrize("stated", [[128, 128], None])
def test_blocks_at_the_ends_are_smaller(tmp_path: Path, stated: list[int] | None) -> None:
    """DeepSeek-V3's kv_a_proj_with_mqa has 576 rows: four blocks of 128 and one of 64."""
    values = torch.randn(320, 192).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 2)
    config = {"weight_block_size": stated} if stated else {}
    actual = decoded(
        *(tmp_path, "fp8", {"m.weight": values, "m.weight_scale_inv": scales}),
        *({"m.weight": (320, 192)}, config),
    )
    by_block = scales.repeat_interleave(128, 0)[:320].repeat_interleave(128, 1)[:, :192]
    assert np.array_equal(actual["m.weight"], (values.float() * by_block).numpy())


@pytest.mark.parametrize("scales", [(), (3,), (3, 1, 1), (3, 4, 1), (1, 4, 1), (3, 1, 32)])
def test_a_stack_of_experts(tmp_path: Path, scales: tuple[int, ...]) -> None:
    values, scale = torch.randn(3, 4, 32).to(torch.float8_e4m3fn), torch.rand(scales)
    tensors = {"experts.up": values, "experts.up_scale": scale}
    actual = decoded(tmp_path, "fp8", tensors, {"experts.up": (3, 4, 32)})
    by_expert = scale.reshape(3, 1, 1) if scales == (3,) else scale
    assert np.array_equal(actual["experts.up"], (values.float() * by_expert).numpy())


@pytest.mark.parametrize("format", ["sparse-bitmask", "sparse-24-bitmask"])
def test_matrices_without_their_zeros(tmp_path: Path, format: SparseFormat) -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 32), np.float32)
    matrix.reshape(-1, 4)[:, ::2] = 0
    arrays = SparsePacking(format).pack("m.weight", matrix)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    actual = decoded(tmp_path, "compressed-tensors", tensors, {"m.weight": (8, 32)})
    assert np.array_equal(actual["m.weight"], matrix)


def test_an_index_of_zeros_means_groups_in_order(tmp_path: Path) -> None:
    example = RECORDED["gptq"][0]
    shape, tensors = {"m.weight": tuple(example.values.shape)}, dict(example.tensors)
    tensors["m.g_idx"] = torch.zeros(64, dtype=torch.int32)
    actual = decoded(tmp_path, "gptq", tensors, shape, dict(example.config))
    assert np.array_equal(actual["m.weight"], example.values.float().numpy())


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    example = RECORDED["gptq"][0]
    tensors = {**example.tensors, "m.g_idx": torch.full((64,), 9, dtype=torch.int32)}
    shape = {"m.weight": tuple(example.values.shape)}
    with pytest.raises(FormatError, match=r"m\.g_idx with groups 0 to 9, expected 0 to 1"):
        decoded(tmp_path, "gptq", tensors, shape, dict(example.config))


INT32 = torch.ones(3, 3, dtype=torch.int32)


@pytest.mark.parametrize(
    ("method", "number", "ending", "tensor", "expected"),
    [
        ("gptq", 0, "qzeros", None, " (no qzeros)"),
        ("gptq", 0, "qzeros", INT32, " (m.qzeros of shape [3, 3])"),
        ("gptq", 0, "g_idx", torch.ones(64), " (m.g_idx in float32)"),
        ("gptq", 1, "qzeros", torch.ones(4, 4).short(), " (m.qzeros in int16)"),
        ("awq", 0, "qzeros", INT32, " (m.qzeros of shape [3, 3])"),
        ("awq", 0, "qzeros", INT32[0], " (m.qzeros of shape [3])"),
        ("bitsandbytes", 0, "absmax", torch.ones(8, 1), " (m.weight.absmax of shape [8, 1])"),
        ("torchao", 4, "scale", torch.ones(0, 2), " (m._weight_scale of shape [0, 2])"),
        ("bitsandbytes", 0, "nf4", None, " (no quant_state)"),
        ("bitsandbytes", 0, "quant_map", torch.ones(8), " (m.weight.quant_map of shape [8])"),
        ("bitsandbytes", 1, "nested_absmax", None, " (no nested_absmax)"),
        (
            *("bitsandbytes", 4, "weight_format", torch.tensor(2).byte()),
            " (a weight_format that is not by rows)",
        ),
        ("compressed-tensors", 1, "zero_point", INT32, " (m.weight_zero_point of shape [3, 3])"),
        ("mlx", 0, "biases", None, " (no biases)"),
        ("torchao", 0, "zero_point", INT32, " (m._weight_zero_point in int32)"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, method: str, number: int, ending: str, tensor: Tensor | None, expected: str
) -> None:
    example = RECORDED[method][number]
    assert reason(tmp_path, method, example, **{ending: tensor}) == expected


def test_other_checkpoint_formats_of_gptq_are_left_out(tmp_path: Path) -> None:
    example = replace(RECORDED["gptq"][0], config={"checkpoint_format": "marlin"})
    assert reason(tmp_path, "gptq", example) == " (checkpoint_format 'marlin')"


def test_scales_in_the_order_of_a_kernel_are_left_out(tmp_path: Path) -> None:
    example = next(each for each in RECORDED["torchao"] if each.name == "NVFP4Tensor")
    description = json.loads(example.metadata["m.weight"])
    description["_data"]["is_swizzled_scales"] = True
    metadata = {"m.weight": json.dumps(description)}
    text = reason(tmp_path, "torchao", replace(example, metadata=metadata))
    assert text == " (scales in the order of a GPU kernel)"
    assert (
        reason(tmp_path, "torchao", replace(example, metadata={})) == " (no class in the metadata)"
    )
