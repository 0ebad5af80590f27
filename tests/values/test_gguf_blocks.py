"""GGUF's blocks, element by element as ggml's C code indexes them, and against the gguf package."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm.dtypes import GGUF_BLOCKS
from minilm.formats.header import StoredTensor
from minilm.values.gguf_blocks import LAYOUTS, PACKAGE_LAYOUTS, block_values
from minilm.values.read import CHUNK_ELEMENTS, Reader, why_unread

NUM_BLOCKS = 20


def random_blocks(dtype: str) -> np.ndarray[Any, Any]:
    """Any bytes, but for the scales of whole blocks, which stay finite."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, NUM_BLOCKS * LAYOUTS[dtype].itemsize, dtype=np.uint8)
    blocks = raw.view(LAYOUTS[dtype])
    for name in {"d", "m"} & set(LAYOUTS[dtype].names or ()):
        blocks[name] = rng.standard_normal(NUM_BLOCKS)
    return blocks


def element(block: Any, dtype: str, i: int) -> float:
    """dequantize_row_* of ggml-quants.c for one element, in Python's numbers."""
    d = float(block["d"])
    m = float(block["m"]) if "m" in block.dtype.names else 0.0
    codes = [int(code) for code in block["codes"]]
    if dtype == "q8_0":
        return d * codes[i]
    if dtype == "q1_0":
        return d if codes[i // 8] >> i % 8 & 1 else -d
    if dtype.startswith("q2_0"):
        return d * ((codes[i // 4] >> 2 * (i % 4) & 3) - 1)
    if GGUF_BLOCKS[dtype][0] == 32:
        code = codes[i % 16] >> 4 * (i // 16) & 15
        if dtype.startswith("q5"):
            code |= (int.from_bytes(block["high"].tobytes(), "little") >> i & 1) << 4
        return {
            "q4_0": d * (code - 8),
            "q4_1": d * code + m,
            "q5_0": d * (code - 16),
            "q5_1": d * code + m,
        }[dtype]
    scales = [int(scale) for scale in block["scales"]]
    half, l, j = i // 128, i % 32, i // 32  # noqa: E741 (ggml's letters)
    if dtype == "q6_k":
        code = codes[64 * half + l + 32 * (j % 2)] >> 4 * (j % 4 // 2) & 15
        code |= (int(block["high"][32 * half + l]) >> 2 * (j % 4) & 3) << 4
        return d * scales[i // 16] * (code - 32)
    if dtype in ("q2_k", "q3_k"):
        code = codes[32 * half + l] >> 2 * (j % 4) & 3
        k = i // 16
        if dtype == "q2_k":
            return d * (scales[k] & 15) * code - m * (scales[k] >> 4)
        scale = scales[k % 8] >> 4 * (k // 8) & 15 | (scales[8 + k % 4] >> 2 * (k // 4) & 3) << 4
        return d * (scale - 32) * (code - (0 if int(block["high"][l]) >> j & 1 else 4))
    code = codes[32 * (i // 64) + l] >> 4 * (j % 2) & 15
    if dtype == "q5_k":
        code |= (int(block["high"][l]) >> j & 1) << 4
    if j < 4:  # get_scale_min_k4
        scale, minimum = scales[j] & 63, scales[j + 4] & 63
    else:
        scale = scales[j + 4] & 15 | scales[j - 4] >> 6 << 4
        minimum = scales[j + 4] >> 4 | scales[j] >> 6 << 4
    return d * scale * code - m * minimum


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_every_element_equals_ggmls(dtype: str) -> None:
    elements, size = GGUF_BLOCKS[dtype]
    assert LAYOUTS[dtype].itemsize == size
    blocks = random_blocks(dtype)
    expected = [element(block, dtype, i) for block in blocks for i in range(elements)]
    values = block_values(blocks, dtype)
    assert values.dtype == np.float32
    # ggml too calculates in float32: of a difference, what is subtracted is rounded.
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


# gguf 0.19 decodes none of these.
NEWER = ("q1_0", "q2_0", "q2_0_g128")


@pytest.mark.parametrize("dtype", [dtype for dtype in LAYOUTS if dtype not in NEWER])
def test_the_gguf_package_has_the_same_values(dtype: str) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    blocks = random_blocks(dtype)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    expected = gguf.quants.dequantize(blocks.view(np.uint8).reshape(NUM_BLOCKS, -1), kind)
    np.testing.assert_array_equal(block_values(blocks, dtype), expected.reshape(-1))


@pytest.mark.parametrize("dtype", PACKAGE_LAYOUTS)
def test_types_with_tables_are_read_by_the_gguf_package(dtype: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    elements, size = GGUF_BLOCKS[dtype]
    raw = np.random.default_rng(0).integers(0, 64, (NUM_BLOCKS, size), dtype=np.uint8)
    path = tmp_path / "x"
    path.write_bytes(b"head" + raw.tobytes())
    tensor = StoredTensor("x", dtype, (NUM_BLOCKS, elements), raw.nbytes, 4, path)
    assert why_unread(tensor) is None
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[dtype.upper()])
    with Reader(tensor) as reader:
        values = reader.values(0, min(tensor.count, CHUNK_ELEMENTS))
    np.testing.assert_array_equal(values, expected.reshape(-1))


def test_without_the_gguf_package_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensor = StoredTensor("x", "iq4_xs", (256,), 136, 0, Path("x"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install -U 'minilm[gguf]'" in str(why_unread(tensor))
