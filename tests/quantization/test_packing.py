"""Packed matrices: packing and reading are inverses, and other programs read the same numbers."""

from __future__ import annotations

import json

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import ConfigError, FormatError, InputError
from minilm.formats.tensor_io import Array
from minilm.quantization.double_quantization import DYNAMIC_VALUES, RoundedScales
from minilm.quantization.gptq_packing import GptqPacking
from minilm.quantization.integer_packing import IntegerPacking, pack_int4, unpack_int4
from minilm.quantization.nf4_packing import NF4_VALUES, Nf4Packing
from minilm.quantization.packing import FORMATS, GROUP_SIZES, Packing, Rounded, to_bfloat16
from minilm.quantization.packings import make_packing, packing_of
from minilm.quantization.torchao_packing import TorchaoPacking

PACKINGS = [
    *(IntegerPacking(8), *(IntegerPacking(4, size) for size in GROUP_SIZES), Nf4Packing()),
    Nf4Packing(double=True),
    *(GptqPacking(8), *(GptqPacking(4, size) for size in GROUP_SIZES), TorchaoPacking()),
]
NAME = "blocks.0.attention.query.weight"


def name(packing: Packing) -> str:
    kind = {GptqPacking: "gptq-", TorchaoPacking: "torchao-"}.get(type(packing), "")
    double = "-double" if getattr(packing, "double", False) else ""
    return f"{kind}{packing.format}-{packing.group_size}{double}"


packings = pytest.mark.parametrize("packing", PACKINGS, ids=name)


def matrix(rows: int, columns: int, seed: int = 0, deviation: float = 0.02) -> Array:
    return np.random.default_rng(seed).normal(0, deviation, (rows, columns)).astype(np.float32)


@packings
@given(data=st.data())
def test_reading_is_the_inverse_of_packing(packing: Packing, data: st.DataObject) -> None:
    # GPTQ's words hold whole outputs and inputs.
    size, rows = packing.group_size or 8, 8 if isinstance(packing, GptqPacking) else 1
    shape = (rows * data.draw(st.integers(1, 5)), size * data.draw(st.integers(1, 3)))
    low, high = {"int8": (-128, 127), "int4": (-8, 7), "nf4": (0, 15)}[packing.format]
    dtype = np.uint8 if packing.format == "nf4" else np.int8
    codes = data.draw(npst.arrays(dtype, shape, elements=st.integers(low, high)))
    groups = (shape[0], shape[1] // (packing.group_size or shape[1]))
    scales = data.draw(npst.arrays(np.float32, groups, elements=st.floats(0, 1e4, width=16)))
    if packing.format != "nf4":
        scales = to_bfloat16(scales)
    of_scales = None
    if isinstance(packing, Nf4Packing) and packing.double:
        of_scales = RoundedScales.of(scales.reshape(-1))
        scales = of_scales.values().reshape(groups)
    arrays = packing.pack(NAME, Rounded(codes, scales, of_scales))
    declared = packing.tensors(NAME, shape)
    assert list(arrays) == [tensor.name for tensor in declared]
    for tensor in declared:
        assert arrays[tensor.name].shape == tensor.shape
        assert arrays[tensor.name].nbytes == tensor.nbytes
    read = packing.unpack(NAME, shape, arrays)
    assert np.array_equal(read.codes, codes)
    assert np.array_equal(read.scales, scales)
    again = packing.pack(NAME, read)
    assert all(np.array_equal(again[each], arrays[each]) for each in arrays)


@packings
@given(data=st.data())
def test_rounding_stays_within_its_bound(packing: Packing, data: st.DataObject) -> None:
    size = packing.group_size or 8
    shape = (data.draw(st.integers(1, 4)), size * data.draw(st.integers(1, 3)))
    weight = data.draw(npst.arrays(np.float32, shape, elements=st.floats(-100, 100, width=32)))
    rounded = packing.round(weight)
    values = packing.values(rounded)
    groups = weight.reshape(shape[0], -1, packing.group_size or shape[1])
    errors = np.abs(values.reshape(groups.shape) - groups)
    extent = np.abs(groups).max(-1, keepdims=True)
    if isinstance(packing, Nf4Packing):
        step = np.diff(NF4_VALUES).max() / 2 * extent
        if (
            packing.double
        ):  # and half a step of the scales', which is relative to the largest of a block
            spread = np.abs(extent - extent.mean()).max()
            step = step + np.diff(DYNAMIC_VALUES).max() / 2 * spread + 1e-6 * extent.max()
        assert (errors <= step * (1 + 1e-5) + 1e-30).all()
        return
    # Of the scale that reaches the largest weight no error is over half a step: the chosen one is no worse.
    scale = to_bfloat16(extent / packing.largest)  # type: ignore[attr-defined]
    half = np.where(scale == 0, extent, scale) / 2 + extent * 2.0**-8
    assert (np.square(errors).sum(-1) <= groups.shape[-1] * np.square(half[..., 0]) + 1e-30).all()
    assert np.array_equal(packing.values(rounded), values)


@packings
def test_a_rounded_matrix_is_rounded_to_itself(packing: Packing) -> None:
    """dequantize(quantize(x)) for an x that the format has: nothing is lost."""
    values = packing.values(packing.round(matrix(6, 256)))
    again = packing.values(packing.round(values))
    assert np.allclose(again, values, atol=np.abs(values).max() / 100)
    if packing.format == "nf4" and not getattr(packing, "double", False):
        assert np.array_equal(again, values)


@packings
def test_zeros_stay_zero(packing: Packing) -> None:
    zeros = np.zeros((2, 128), np.float32)
    assert np.array_equal(packing.values(packing.round(zeros)), zeros)
    # And so does each zero among others: what was pruned stays so.
    pruned = matrix(4, 128)
    pruned[:, ::2] = 0
    rounded = packing.round(pruned)
    assert (rounded.codes[:, ::2] == packing.zero).all()
    assert (packing.values(rounded)[:, ::2] == 0).all()


def test_column_k_is_in_bits_4k() -> None:
    """Not AWQ's order of nibbles, and signed codes use all 16."""
    codes = (np.arange(16, dtype=np.int8) % 16 - 8)[None, :].repeat(2, 0)
    words = pack_int4(codes)
    assert [hex(word) for word in words.view("<u4")[0]] == ["0x76543210", "0xfedcba98"]
    assert np.array_equal(unpack_int4(words), codes)


@pytest.mark.parametrize("size", [0, *GROUP_SIZES])
def test_compressed_tensors_reads_the_same_numbers(size: int) -> None:
    """Every group size, one scale a row among them; codes 0 to 15 are exact."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    from compressed_tensors.quantization import QuantizationScheme

    packing = IntegerPacking(8) if size == 0 else IntegerPacking(4, size)
    weight = matrix(16, 256)
    rounded = packing.round(weight)
    if size:
        rounded.codes[0, :16] = np.arange(16) - 8
    config = packing.config([])
    scheme = QuantizationScheme(**config["config_groups"]["group_0"])
    kind = (
        compressors.PackedQuantizationCompressor if size else compressors.IntQuantizationCompressor
    )
    arrays = packing.pack("weight", rounded)
    state = {
        each: torch.from_numpy(array.astype(np.int32)).bitwise_left_shift(16).view(torch.float32)
        if each == "weight_scale"
        else torch.from_numpy(array.copy())
        for each, array in arrays.items()
    }
    theirs = kind.decompress(state, scheme)["weight"]
    assert torch.equal(theirs, torch.from_numpy(packing.values(rounded)))
    compressed = kind.compress(
        {"weight": theirs, "weight_scale": torch.from_numpy(rounded.scales)}, scheme
    )
    first = next(iter(arrays))
    assert np.array_equal(compressed[first].numpy(), arrays[first])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "shape", [(24, 192), (96, 256)]
)  # a part of a block of scales, and several
def test_bitsandbytes_packs_and_reads_the_same_numbers(
    double: bool, shape: tuple[int, int]
) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    packing, weight = Nf4Packing(double=double), matrix(*shape)
    theirs, state = functional.quantize_4bit(
        torch.from_numpy(weight), quant_type="nf4", compress_statistics=double
    )
    arrays = packing.pack("weight", rounded := packing.round(weight))
    assert np.array_equal(arrays["weight"], theirs.numpy())
    stored = state.as_dict(packed=True)
    for ending in stored.keys() - {each for each in stored if each.startswith("quant_state")}:
        bound = 1e-6 if ending == "nested_absmax" else 0  # torch sums for the mean in another order
        np.testing.assert_allclose(arrays[f"weight.{ending}"], stored[ending].numpy(), rtol=bound)
    (key,) = (each for each in stored if each.startswith("quant_state"))
    text = bytes(arrays[f"weight.{key}"]).decode()
    fields, their_fields = json.loads(text), json.loads(bytes(stored[key].numpy()).decode())
    assert fields.pop("nested_offset", 0) == pytest.approx(their_fields.pop("nested_offset", 0))
    assert fields == their_fields
    own = {each: torch.from_numpy(array.copy()) for each, array in arrays.items()}
    del own["weight"]
    read = functional.QuantState.from_dict(own, device=torch.device("cpu"))
    values = functional.dequantize_4bit(torch.from_numpy(arrays["weight"]), read)
    assert np.array_equal(values.numpy(), packing.values(rounded))
    predicted = sum(packing.predicted("weight", shape))
    assert predicted == sum(array.nbytes for array in arrays.values())


@packings
def test_the_configuration_says_which_packing_it_is(packing: Packing) -> None:
    config = json.loads(json.dumps(packing.config(["lm_head"])))
    assert name(packing_of(config)) == name(packing)
    if type(packing) in (IntegerPacking, Nf4Packing):
        size = packing.group_size if packing.format == "int4" else None
        double = getattr(packing, "double", False)
        made = make_packing(packing.format, size, double_quantization=double)
        assert name(made) == name(packing)
    with pytest.raises(ConfigError, match="as minilm does not write it"):
        packing_of(config | {"bits": 3})
    with pytest.raises(ConfigError, match="as minilm does not write it"):
        packing_of({"quant_method": "gptq", "bits": 4, "desc_act": True})


@pytest.mark.parametrize("format", FORMATS)
def test_groups_that_do_not_divide_a_row_are_refused(format: str) -> None:
    """Nothing is left in float silently."""
    make_packing(format).check({NAME: (5, 192)})
    if format == "int8":
        make_packing(format).check({NAME: (5, 97)})
        return
    with pytest.raises(InputError, match=rf"{NAME} with 97 inputs.*int8 fits every width"):
        make_packing(format).check({NAME: (5, 97)})


def test_group_sizes_that_fit_are_named() -> None:
    with pytest.raises(InputError, match=r"with 96 inputs.*group_size 32 fits every matrix"):
        make_packing("int4", 64).check({NAME: (5, 96)})
    with pytest.raises(InputError, match=r"with 192 inputs.*group_size 32 or 64 fits every matrix"):
        make_packing("int4", 128).check({NAME: (5, 192)})
    with pytest.raises(InputError, match=r"with 96 inputs.*int8 fits every width"):
        make_packing("int4", 64).check({NAME: (5, 96), "other": (5, 200)})
    for format, size in (("int4", 48), ("int8", 32), ("nf4", 128), ("fp4", None)):
        with pytest.raises(InputError):
            make_packing(format, size)


def test_gptq_stores_the_zero_point_less_one() -> None:
    """7 in version 1, which config.json names; its readers add one. A scale that float16 lacks is refused."""
    packing = GptqPacking(4, 32)
    assert packing.config([])["checkpoint_format"] == "gptq"
    arrays = packing.pack(NAME, packing.round(matrix(16, 64)))
    module = NAME.removesuffix("weight")
    assert set(arrays[f"{module}qzeros"].view("<u4").ravel().tolist()) == {0x77777777}
    assert arrays[f"{module}g_idx"].tolist() == [0] * 32 + [1] * 32
    version_2 = arrays | {f"{module}qzeros": np.full_like(arrays[f"{module}qzeros"], -2004318072)}
    with pytest.raises(FormatError, match="other zero points"):
        packing.unpack(NAME, (16, 64), version_2)
    order = arrays | {f"{module}g_idx": arrays[f"{module}g_idx"][::-1]}
    with pytest.raises(FormatError, match="or groups"):
        packing.unpack(NAME, (16, 64), order)
    with pytest.raises(InputError, match="outside of float16"):
        packing.pack(NAME, packing.round(matrix(16, 64, deviation=1e-9)))
    with pytest.raises(InputError, match=r"\[12, 64\], expected widths that 8 divides"):
        packing.check({NAME: (12, 64)})


def test_torchao_has_no_zero_points() -> None:
    packing = TorchaoPacking()
    arrays = packing.pack(NAME, packing.round(matrix(4, 64)))
    key = NAME.replace("weight", "_weight_zero_point")
    with pytest.raises(FormatError, match="zero points, expected symmetric values"):
        packing.unpack(NAME, (4, 64), arrays | {key: np.ones((4, 1), np.int8)})


def test_descriptions_that_contradict_are_refused() -> None:
    packing = IntegerPacking(4, 32)
    arrays = packing.pack(NAME, packing.round(matrix(4, 64)))
    arrays[f"{NAME}_shape"] = np.array([8, 32])
    with pytest.raises(FormatError, match="another weight_shape"):
        packing.unpack(NAME, (4, 64), arrays)
    nf4 = Nf4Packing()
    arrays = nf4.pack(NAME, nf4.round(matrix(4, 64)))
    with pytest.raises(FormatError, match="quant_map"):
        nf4.unpack(NAME, (4, 64), arrays | {f"{NAME}.quant_map": NF4_VALUES[::-1]})
