"""Statistics of streamed values against numpy in float64, on kind and on unkind data."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor
from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from minilm.quantization.logical_tensors import LogicalTensor, LogicalTensors
from minilm.values.packed import with_decoded
from minilm.values.scan import WIDE_CHUNK_ELEMENTS, Outlier
from minilm.values.statistics import TensorStatistics, Unread, statistics

SPECIAL = [0.0, -0.0, 1.0, -3.5, 0.004, math.nan, math.inf, -math.inf, 2.0**-130]


def store(folder: Path, **tensors: torch.Tensor) -> list[StoredTensor]:
    """Write tensors one behind the other into one file."""
    stored, offset = [], 0
    path = folder / "values.bin"
    with path.open("wb") as stream:
        for name, tensor in tensors.items():
            raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            dtype = str(tensor.dtype).removeprefix("torch.")
            shape = tuple(tensor.shape)
            stored.append(StoredTensor(name, dtype, shape, len(raw), offset, path))
            offset += stream.write(raw)
    return stored


def one(folder: Path, tensor: torch.Tensor, **options: Any) -> TensorStatistics:
    return statistics(store(folder, x=tensor), **options).tensors[0]


def check(result: TensorStatistics, tensor: torch.Tensor) -> None:
    """Every figure of ``result`` over again, from the whole tensor at once."""
    values = tensor.to(torch.float64).numpy()
    finite = values[np.isfinite(values)]
    assert result.count == values.size
    assert result.nan == np.isnan(values).sum()
    assert result.inf == np.isinf(values).sum()
    assert result.zeros == (values == 0).sum()
    assert result.negative == (finite < 0).sum()
    if values.ndim > 1:
        rows = values.reshape(-1, values.shape[-1]) if values.size else values.reshape(0, 1)
        assert result.rows == len(rows)
        assert result.dead_rows == (rows == 0).all(axis=1).sum()
    else:
        assert result.rows is result.dead_rows is None
    if not finite.size:
        assert result.mean is result.std is result.min is result.max is result.kurtosis is None
        return
    mean, std = finite.mean(), finite.std()
    assert result.mean == pytest.approx(mean, rel=1e-9, abs=1e-9 * std)
    assert result.std == pytest.approx(std, rel=1e-9, abs=1e-15 * abs(mean))
    assert (result.min, result.max) == (finite.min(), finite.max())
    assert result.norm == pytest.approx(math.sqrt((finite**2).sum()), rel=1e-9)
    if std > 1e-12 * abs(mean):
        deviation = finite - mean
        kurtosis = (deviation**4).mean() / (deviation**2).mean() ** 2 - 3
        assert result.kurtosis == pytest.approx(kurtosis, rel=1e-6, abs=1e-6)
    magnitudes = np.where(np.isfinite(values), np.abs(values), 0).reshape(-1)
    indices = [n for n in np.argsort(-magnitudes, kind="stable")[:5] if magnitudes[n] > 0]
    expected = [
        Outlier("x", tuple(map(int, np.unravel_index(n, values.shape))), values.reshape(-1)[n])
        for n in indices
    ]
    assert list(result.outliers) == expected
    exponents = np.frexp(np.abs(finite[finite != 0]))[1] - 1
    for number, count in enumerate(result.histogram.counts):
        assert count == (exponents == result.histogram.lowest_exponent + number).sum()
    assert sum(result.histogram.counts) == exponents.size


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


# Lengths on both sides of the table of codes, of a chunk, and of a chunk for each thread.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(30, 7), (5, 300), (700, 300), (2, 300_000), (500_000,)], ids=str
)
def test_random_values(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(shape, generator=generator)
    values.view(-1)[::1000] *= 20
    if len(shape) > 1:
        values[1] = 0
    values = values.to(dtype)
    check(one(tmp_path, values, stable_rank=False), values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("repeat", [1, 20_000])
def test_non_finite_values_are_counted_separately(
    tmp_path: Path, dtype: torch.dtype, repeat: int
) -> None:
    values = torch.tensor(SPECIAL * repeat, dtype=torch.float64).to(dtype).reshape(-1, 3)
    result = one(tmp_path, values)
    check(result, values)
    assert result.nan >= repeat
    assert result.stable_rank is None


@pytest.mark.parametrize(
    ("mean", "std"), [(1e6, 1e-3), (-1.0, 1e-7), (1e-30, 1e-36), (3e8, 40.0), (1e30, 1e25)]
)
def test_a_large_mean_and_a_small_spread(tmp_path: Path, mean: float, std: float) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(mean, std, (400, 500)))
    result = one(tmp_path, values, stable_rank=False)
    exact = values.numpy().astype(np.longdouble)
    assert result.mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert result.std == pytest.approx(float(exact.std()), rel=1e-6)
    narrow = values.float()
    check(one(tmp_path, narrow, stable_rank=False), narrow)


def test_moments_merge_between_chunks_that_differ(tmp_path: Path) -> None:
    values = torch.cat([torch.full((100, 3000), 7.0), torch.randn(100, 3000) * 1e-3 - 5])
    check(one(tmp_path, values, stable_rank=False), values)


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor(2.5),
        torch.tensor([-1.5]),
        torch.tensor([[math.nan]]),
        torch.zeros(40, 50),
        torch.zeros(300, 300, dtype=torch.bfloat16),
        torch.full((300, 300), -1.25, dtype=torch.bfloat16),
        torch.zeros(0),
        torch.zeros(0, 5),
        torch.zeros(5, 0),
        torch.tensor([True, False, True]),
        torch.arange(-60_000, 60_000, dtype=torch.int32).reshape(2, 3, 20_000),
        torch.tensor([-128, 127], dtype=torch.int8),
        torch.full((70_000, 3), math.inf, dtype=torch.float16),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_odd_tensors(tmp_path: Path, values: torch.Tensor) -> None:
    check(one(tmp_path, values), values)


def test_infinite_moments_are_none_and_everything_is_json(tmp_path: Path) -> None:
    huge = torch.tensor([1e300, -1e300, 1e-320], dtype=torch.float64)
    result = statistics(store(tmp_path, x=huge, y=torch.tensor([math.nan, math.inf])))
    assert result.tensors[0].norm is result.tensors[0].kurtosis is None
    assert result.tensors[0].max == 1e300
    json.dumps(asdict(result), allow_nan=False)


@pytest.mark.parametrize("size", [2.0**-1060, 1e-300, 2.5e-162, 1e-160, 1e-100, 1e-60])
def test_the_powers_of_tiny_values_do_not_underflow(tmp_path: Path, size: float) -> None:
    """The square of 2.5e-162 is the smallest float64, and a fourth of it is zero."""
    result = one(tmp_path, torch.tensor([[0, 0], [0, size]], dtype=torch.float64))
    assert result.norm == size
    assert result.mean == pytest.approx(size / 4)
    assert result.std == pytest.approx(size * math.sqrt(3) / 4)
    assert result.kurtosis == pytest.approx(-2 / 3)
    assert result.stable_rank == pytest.approx(1)


def test_tiny_values_merge_with_zeros_and_with_others(tmp_path: Path) -> None:
    """Chunks of their own: the scale of one is not that of the next."""
    zeros = torch.zeros(WIDE_CHUNK_ELEMENTS, dtype=torch.float64)
    for first, second in ((0, 1e-200), (1e-200, 0), (1e-200, -3e-310), (1e-200, 1.0)):
        values = torch.stack([zeros + first, zeros + second])
        result = statistics(store(tmp_path, x=values, y=torch.zeros(5)))
        norm = math.hypot(first, second) * math.sqrt(WIDE_CHUNK_ELEMENTS)
        assert result.tensors[0].norm == pytest.approx(norm)
        assert result.tensors[0].std == pytest.approx(abs(first - second) / 2)
        assert result.total.norm == pytest.approx(norm)
    json.dumps(asdict(result), allow_nan=False)


def matrix_with(singular: np.ndarray[Any, Any], rows: int, columns: int) -> torch.Tensor:
    rng = np.random.default_rng(3)
    left = np.linalg.qr(rng.standard_normal((rows, len(singular))))[0]
    right = np.linalg.qr(rng.standard_normal((columns, len(singular))))[0]
    return torch.from_numpy((left * singular) @ right.T)


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(300, 500, generator=torch.Generator().manual_seed(1)),
        torch.randn(400, 350, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.randn(3, 2000, generator=torch.Generator().manual_seed(0)),
        torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).half(),
        torch.tensor([[3.0, -4.0]]),
        torch.tensor([[3.0], [-4.0]]),
        torch.eye(100),
        torch.eye(64).double() * 1e-100,
        torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).double() * 1e150,
        matrix_with(np.array([5.0, 5.0, 4.9, 0.1]), 200, 100),
        matrix_with(np.arange(1, 101) ** -0.3, 400, 100).float(),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_stable_rank_is_within_its_tolerance(tmp_path: Path, values: torch.Tensor) -> None:
    matrix = values.double().numpy()
    scaled = matrix / np.abs(matrix).max()
    expected = (scaled**2).sum() / np.linalg.svd(scaled, compute_uv=False)[0] ** 2
    result = one(tmp_path, values)
    assert result.stable_rank is not None
    assert expected * (1 - 1e-5) <= result.stable_rank <= expected * 1.001


def test_stable_rank_is_the_same_when_the_matrix_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(900, 700, generator=torch.Generator().manual_seed(0)).bfloat16()
    stable_rank = one(tmp_path, values).stable_rank
    monkeypatch.setattr("minilm.values.stable_rank.MAX_CACHED", 0)
    assert one(tmp_path, values).stable_rank == stable_rank
    assert one(tmp_path, values, stable_rank=False).stable_rank is None


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stable_rank_of_long_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool, dtype: torch.dtype
) -> None:
    if at_once:  # as still longer rows are, which must not be read whole
        monkeypatch.setattr("minilm.values.stable_rank.MAX_ROW", 1 << 17)
        monkeypatch.setattr("minilm.values.stable_rank._WorkerRows", None)
    values = torch.randn(5, 300_001, generator=torch.Generator().manual_seed(0))
    values[1] = values[0] * 2
    values = values.to(dtype)
    singular = torch.linalg.svdvals(values.double())
    expected = (singular.square().sum() / singular[0] ** 2).item()
    result = one(tmp_path, values).stable_rank
    assert result == pytest.approx(expected, rel=2e-3)


def test_no_stable_rank_for_many_long_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.values.stable_rank.MAX_ROW", 10)
    monkeypatch.setattr("minilm.values.stable_rank.MAX_LONG_ROWS", 4)
    assert one(tmp_path, torch.ones(5, 11)).stable_rank is None
    assert one(tmp_path, torch.ones(4, 11)).stable_rank == pytest.approx(1)


def test_two_processes_give_the_result_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store(tmp_path, x=torch.randn(900, 1000), b=torch.randn(7), y=torch.randn(700, 1000))
    monkeypatch.setattr("minilm.values.scan.TASK_BYTES", 1 << 20)
    alone = statistics(stored)
    monkeypatch.setattr("minilm.values.statistics.PARALLEL_BYTES", 0)
    assert statistics(stored) == alone


def test_a_file_cut_short_is_one_error_from_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store(tmp_path, x=torch.randn(900, 1000), y=torch.randn(900, 1000))
    os.truncate(tmp_path / "values.bin", 5_000_000)
    monkeypatch.setattr("minilm.values.statistics.PARALLEL_BYTES", 0)
    with pytest.raises(FormatError, match="the end of the file within tensor 'y'"):
        statistics(stored)


def test_total_is_of_everything_together(tmp_path: Path) -> None:
    first, second = torch.randn(70, 1000) + 3, torch.randn(50) * 0.1
    first[3] = 0
    result = statistics(store(tmp_path, x=first.bfloat16(), y=second))
    both = torch.cat([first.bfloat16().double().reshape(-1), second.double()])
    assert result.total.count == both.numel()
    assert result.total.mean == pytest.approx(both.mean().item())
    assert result.total.std == pytest.approx(both.std(correction=0).item())
    assert result.total.norm == pytest.approx(both.norm().item())
    assert (result.total.rows, result.total.dead_rows) == (70, 1)
    assert [o.tensor for o in result.total.outliers] == ["x"] * 5
    assert result.unread == ()


def test_undecoded_tensors_are_listed_and_the_others_read(tmp_path: Path) -> None:
    stored = store(tmp_path, x=torch.ones(4))
    packed = StoredTensor("packed", "q8_k", (256,), 50, 0, stored[0].file)
    result = statistics([packed, *stored])
    assert [tensor.name for tensor in result.tensors] == ["x"]
    assert result.unread == (Unread("packed", "q8_k is not decoded", 256),)
    assert (result.total.count, result.values) == (4, 260)


def test_skipped_tensors_are_in_no_statistic(tmp_path: Path) -> None:
    stored = store(tmp_path, x=torch.ones(4), y=torch.full((2,), 9.0), z=torch.full((3,), 7.0))
    left_out = {"y": Unread("y", "packed", 4), "z": Unread("z", "packed", 0)}
    result = statistics(stored, left_out=left_out)
    assert [tensor.name for tensor in result.tensors] == ["x"]
    assert result.unread == (left_out["y"], left_out["z"])
    assert (result.total.count, result.values, result.total.max) == (4, 8, 1)
    assert {outlier.tensor for outlier in result.total.outliers} == {"x"}


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """4-bit values as bitsandbytes stores them, beside a matrix that is not quantized."""
    from safetensors.torch import save_file

    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "shape": [16, 8]}).encode()
    tensors = {
        "norm.weight": torch.full((8,), 0.5),
        "w.weight": torch.full((64, 1), 200, dtype=torch.uint8),
        "w.weight.absmax": torch.full((2,), 77.0),
        "w.weight.quant_map": torch.linspace(-1, 1, 16),
        "w.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(state), dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_tensor_with_scales_is_packed_whatever_its_dtype() -> None:
    values, scale = (
        StoredTensor("w", "int8", (2, 3), 6),
        StoredTensor("w.scale", "float32", (2,), 8),
    )
    plain, cache = StoredTensor("x", "int8", (5,), 5), StoredTensor("k_scale", "float32", (1,), 4)
    tensors = (
        LogicalTensor("w", (2, 3), "int8", (values,), (scale,), "method"),
        LogicalTensor("x", (5,), "int8", (plain,)),
    )
    header = Header((values, scale, plain, cache), {}, 23)
    logical = LogicalTensors(tensors, "method", (), (cache,))
    assert with_decoded(header, logical) == (
        header,
        {
            "w": Unread("w", "not decoded: packed by method", 6),
            "w.scale": Unread("w.scale", "not decoded: packed by method", 0),
            "k_scale": Unread("k_scale", "a scale of the KV cache, no weight", 0),
        },
    )
    assert with_decoded(header, None) == (header, {})


def test_packed_values_and_scales_are_not_read_as_weights(quantized: Path) -> None:
    inspection = inspect_with_sources(quantized)
    result = extras.with_statistics(inspection, None).statistics
    assert result is not None
    assert [tensor.name for tensor in result.tensors] == ["norm.weight"]
    assert {entry.name: entry.count for entry in result.unread} == {
        "w.weight": 128,
        "w.weight.absmax": 0,
        "w.weight.quant_map": 0,
        "w.weight.quant_state.bitsandbytes__nf4": 0,
    }
    reason = "not decoded: packed by bitsandbytes (quant_state with dtype None)"
    assert {entry.reason for entry in result.unread} == {reason}
    assert (result.total.max, result.total.count, result.values) == (0.5, 8, 136)
    same = extras.with_difference(inspection, inspection, None).difference
    assert same is not None
    assert [change.name for change in same.changes] == ["norm.weight"]
    assert (same.total.count, same.values) == (8, 136)


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    stored = store(tmp_path, x=torch.zeros(600, 1000, dtype=torch.bfloat16), y=torch.zeros(3))
    statistics(stored, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (1_200_012, 1_200_012, "y")
    assert {call[2] for call in calls} == {"x", "y"}


def test_the_same_file_gives_the_same_statistics(tmp_path: Path) -> None:
    stored = store(tmp_path, x=torch.randn(900, 1000), y=torch.randn(900, 1000).half())
    assert statistics(stored) == statistics(stored)


linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
# getrusage would tell the peak of the process that forked.
MEASURE = """
import sys
from pathlib import Path
from minilm.formats.header import Header, StoredTensor
from minilm.values.statistics import statistics
path, rows = Path(sys.argv[1]), int(sys.argv[2])
tensors = [
    StoredTensor(dtype, dtype, (rows * 4 // size, 1 << 10), rows * 4 << 10, 0, path)
    for dtype, size in (("bfloat16", 2), ("float32", 4))
]
result = statistics(tensors)
assert result.total.zeros == sum(tensor.count for tensor in tensors)
assert "torch" not in sys.modules
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def peak_memory(path: Path, rows: int) -> int:
    """Peak bytes of a process of its own over a sparse file of ``rows`` times 4 KiB."""
    with path.open("wb") as stream:
        stream.truncate(rows << 12)
    command = [sys.executable, "-c", MEASURE, str(path), str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024


@linux
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    assert peak_memory(tmp_path / "zeros.bin", 1 << 14) < 150e6  # 64 MiB


@linux
@pytest.mark.slow
def test_memory_does_not_grow_with_a_file_of_2_gib(tmp_path: Path) -> None:
    assert peak_memory(tmp_path / "zeros.bin", 1 << 19) < 150e6
