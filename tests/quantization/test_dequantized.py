"""Values of packed matrices, against what the libraries that wrote them dequantize: recorded, and anew."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor
from minilm.formats.safetensors import read_header
from minilm.formats.tensor_io import Array
from minilm.quantization.dequantized import DequantizedTensor, rounding_to
from minilm.quantization.logical_tensors import decode
from minilm.values.difference import difference
from minilm.values.packed import with_decoded
from minilm.values.read import Reader
from minilm.values.statistics import Unread, statistics
from tests.quantization.library_examples import Example
from tests.quantization.record_values import LIBRARIES, examples, recorded

RECORDED = recorded()
CASES = [
    pytest.param(method, each, id=f"{method}: {each.name}")
    for method, of_method in RECORDED.items()
    for each in of_method
]


def stored_header(folder: Path, method: str, example: Example) -> tuple[Header, dict[str, Unread]]:
    path = folder / "model.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in example.tensors.items()}
    save_file(tensors, path, metadata=dict(example.metadata))
    header = read_header(path)
    expected = {"m.weight": tuple(example.values.shape)}
    config = {"quant_method": method, **example.config}
    return with_decoded(header, decode(header, config, expected), config)


def read(tensor: StoredTensor, step: int = 0) -> Array:
    """All values, ``step`` at a time."""
    step = step or tensor.count
    with Reader(tensor) as reader:
        parts = [
            reader.codes(start, min(step, tensor.count - start)).copy()
            for start in range(0, tensor.count, step)
        ]
    return np.concatenate(parts).reshape(tensor.shape)


def check(folder: Path, method: str, example: Example) -> None:
    header, left_out = stored_header(folder, method, example)
    assert (left_out, [tensor.name for tensor in header.tensors]) == ({}, ["m.weight"])
    values, expected = read(header.tensors[0]), example.values.float()
    if method == "aqlm" and example.values.dtype == torch.bfloat16:
        # Each library kernel rounds a sum in bfloat16 in its own order.
        torch.testing.assert_close(torch.from_numpy(values), expected, rtol=2**-7, atol=2**-8)
    else:  # but for the sign of FP4's zero, which bitsandbytes' quant_map has not, nor ModelOpt
        actual, expected = torch.from_numpy(values) + 0.0, expected.contiguous() + 0.0
        assert torch.equal(actual.view(torch.int32), expected.view(torch.int32))
    assert np.array_equal(read(header.tensors[0], step=7), values)


@pytest.mark.parametrize(("method", "example"), CASES)
def test_values_are_the_librarys_to_the_bit(tmp_path: Path, method: str, example: Example) -> None:
    check(tmp_path, method, example)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("method", LIBRARIES)
def test_values_are_those_of_the_installed_library(tmp_path: Path, method: str) -> None:
    library = LIBRARIES[method][0]
    parent = library.partition(".")[0]
    if importlib.util.find_spec(parent) is None or importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; what it wrote once is in recorded_values.json")
    for example in examples(method):
        check(tmp_path, method, example)


@pytest.mark.parametrize("method", RECORDED)
def test_statistics_and_differences_are_of_the_decoded_values(tmp_path: Path, method: str) -> None:
    example = RECORDED[method][0]
    header, _ = stored_header(tmp_path, method, example)
    expected = example.values.double()
    result = statistics(header.tensors)
    assert (result.unread, result.values) == ((), expected.numel())
    (tensor,) = result.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("m.weight", method, tuple(expected.shape))
    assert tensor.norm == pytest.approx(float(expected.norm()))
    assert (tensor.min, tensor.max) == (float(expected.min()), float(expected.max()))
    assert (tensor.stable_rank is not None) == (expected.dim() == 2)

    plain = tmp_path / "plain.safetensors"
    save_file({"m.weight": example.values.float().contiguous() + 1}, plain)
    change = difference(header, read_header(plain))
    assert (change.added, change.removed, change.unread) == ((), (), ())
    assert [(each.before, each.after) for each in change.retyped] == [(method, "float32")]
    assert change.total.max_change == pytest.approx(1, abs=1e-6 * (1 + float(expected.abs().max())))
    assert difference(header, header).identical


def part_of(example: Example, ending: str) -> str:
    return next(name for name in example.tensors if name.endswith(ending))


def reason(folder: Path, method: str, example: Example) -> str:
    """Why its matrix is not decoded."""
    header, left_out = stored_header(folder, method, example)
    assert not any(isinstance(tensor, DequantizedTensor) for tensor in header.tensors)
    reasons = {entry.reason for entry in left_out.values()}
    assert len(reasons) == 1
    assert sum(entry.count for entry in left_out.values()) == math.prod(example.values.shape)
    return reasons.pop()


@pytest.mark.parametrize(
    ("method", "ending", "damaged", "expected"),
    [
        ("hqq", ".scale", torch.ones(7, 1), "(m.scale of shape [7, 1])"),
        ("hqq", ".zero", torch.ones(3, dtype=torch.int32), "(m.zero in int32)"),
        ("hqq", ".zero", None, "(no zero)"),
        ("hqq", ".W_q", torch.ones(3, 32, dtype=torch.uint8), "(W_q of shape [3, 32] for 8 rows)"),
        ("hqq", ".W_q", torch.ones(9, 5, dtype=torch.uint8), "(W_q of shape [9, 5] for [8, 32])"),
        ("quanto", "._scale", torch.ones(5, 1), "(m.weight._scale of shape [5, 1])"),
        ("quanto", "._shift", None, "(no shift)"),
        ("quark", ".weight_scale", torch.ones(4, 16), "(m.weight_zero_point of shape [2, 2])"),
        ("quark", ".weight_zero_point", None, "(no weight_zero_point)"),
        ("aqlm", ".scales", torch.ones(7, 1, 1, 1), "(m.scales of shape [7, 1, 1, 1])"),
        (
            *("aqlm", ".codebooks", torch.ones(1, 255, 1, 8)),
            "(codebooks of shape [1, 255, 1, 8] for codes of [8, 4, 1])",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_not_decoded(
    tmp_path: Path, method: str, ending: str, damaged: Tensor | None, expected: str
) -> None:
    example = RECORDED[method][0]
    tensors = dict(example.tensors)
    name = part_of(example, ending)
    if damaged is None:
        del tensors[name]
    else:
        tensors[name] = damaged
    text = reason(tmp_path, method, replace(example, tensors=tensors))
    assert text == f"not decoded: packed by {method} {expected}"


def test_four_bits_of_quanto_have_no_shape_without_a_formula(tmp_path: Path) -> None:
    example = RECORDED["quanto"][0]
    stored_header(tmp_path, "quanto", example)
    logical = decode(read_header(tmp_path / "model.safetensors"), {}, {})
    assert logical.notes == (
        "m.weight._data._data cannot be decoded (no shape that its bytes fill): counted as stored",
    )


def test_integers_of_quark_that_are_in_order(tmp_path: Path) -> None:
    """The same values in words packed by the other order that config.json may name."""
    example = RECORDED["quark"][0]
    nibbles = 4 * torch.arange(8)
    from_reordered = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])

    def in_order(words: Tensor) -> Tensor:
        codes = (words.long()[..., None] >> nibbles & 15)[..., from_reordered]
        return (codes << nibbles).sum(-1).to(torch.int32)

    tensors = {
        name: in_order(tensor) if tensor.dtype == torch.int32 else tensor
        for name, tensor in example.tensors.items()
    }
    config = {**example.config, "export": {"pack_method": "order"}}
    check(tmp_path, "quark", replace(example, tensors=tensors, config=config))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"global_quant_config": {"weight": {"dtype": "int3"}}},
        {"global_quant_config": [], "layer_quant_config": {"*": {}}},
    ],
)
def test_quark_of_an_unknown_kind_is_assumed(tmp_path: Path, config: dict[str, Any]) -> None:
    example = replace(RECORDED["quark"][0], config=config)
    assert reason(tmp_path, "quark", example) == "not decoded: packed by quark"


def test_blocks_of_fp8_in_a_file_of_quark_are_read_as_fp8(tmp_path: Path) -> None:
    example = next(each for each in RECORDED["quark"] if each.name.startswith("FP8E4M3PerTensor"))
    tensors = {**example.tensors, "m.weight_scale": torch.full((2, 4), 2.0)}
    values = example.tensors["m.weight"].float() * 2
    check(tmp_path, "quark", replace(example, tensors=tensors, values=values))


def test_integers_of_quark_with_other_scales_are_assumed(tmp_path: Path) -> None:
    example = RECORDED["quark"][0]
    tensors = {**example.tensors, "m.weight_scale": torch.ones(3, 16)}
    text = reason(tmp_path, "quark", replace(example, tensors=tensors))
    assert text == "not decoded: packed by quark"


def test_sinq_is_not_read_as_hqq(tmp_path: Path) -> None:
    example = RECORDED["hqq"][0]
    assert reason(tmp_path, "sinq", example) == "not decoded: packed by sinq"
    example = replace(example, tensors={**example.tensors, "m.scale2": torch.ones(1, 32)})
    text = reason(tmp_path, "hqq", example)
    assert text == "not decoded: packed by hqq (a second scale, as SINQ has)"


def test_a_file_that_was_cut_short_after_its_header_was_read(tmp_path: Path) -> None:
    header, _ = stored_header(tmp_path, "hqq", RECORDED["hqq"][0])
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cut short"):
        read(header.tensors[0])


def test_values_are_rounded_as_torch_rounds_them() -> None:
    values = torch.randn(1000) * 10.0 ** torch.arange(-10, 10).repeat(50)
    values = torch.cat([values, torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 3.4e38])])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        with np.errstate(over="ignore"):
            rounded = rounding_to(str(dtype).removeprefix("torch."))(values.numpy())
        expected = values.to(dtype).float().numpy()
        np.testing.assert_array_equal(rounded, expected)
