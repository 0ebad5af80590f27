"""Two checkpoints compared: names, ties, distances against torch in float64, ranks of updates."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from minilm.formats.header import Header
from minilm.formats.safetensors import read_header
from minilm.values import update_rank
from minilm.values.difference import Change, Difference, Renamed, Reshaped, difference
from minilm.values.statistics import Unread

Tensors = Mapping[str, torch.Tensor]


def header(path: Path, tensors: Tensors) -> Header:
    from safetensors.torch import save_file

    save_file(dict(tensors), path)
    return read_header(path)


def compare(folder: Path, before: Tensors, after: Tensors) -> Difference:
    a, b = header(folder / "a.safetensors", before), header(folder / "b.safetensors", after)
    return difference(a, b)


def change(folder: Path, before: torch.Tensor, after: torch.Tensor) -> Change:
    (result,) = compare(folder, {"x": before}, {"x": after}).changes
    return result


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_names_shapes_and_dtypes(tmp_path: Path) -> None:
    one = torch.ones(2, 3)
    result = compare(
        tmp_path,
        {"same": one, "gone": one + 1, "shape": one + 2, "dtype": one.clone()},
        {"same": one, "new": one + 1, "shape": torch.ones(3, 2), "dtype": one.half()},
    )
    assert result.added == ("new",)
    assert result.removed == ("gone",)
    assert result.reshaped == (Reshaped("shape", (2, 3), (3, 2)),)
    assert result.retyped == (Renamed("dtype", "float32", "float16"),)
    assert result.retied == ()
    assert {c.name: c.identical for c in result.changes} == {"same": 1.0, "dtype": 1.0}
    assert not result.identical


def test_the_same_files_are_identical_even_where_they_are_not_numbers(tmp_path: Path) -> None:
    tensors = {"x": torch.tensor([[1.0, math.nan], [math.inf, -0.0]]), "n": torch.tensor(7)}
    result = compare(tmp_path, tensors, tensors)
    assert result.identical
    assert result.total.norm == 0
    assert result.total.identical == 1
    assert next(c for c in result.changes if c.name == "n").max_index == ()


def test_minus_zero_is_another_bit_pattern(tmp_path: Path) -> None:
    result = change(tmp_path, torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert result.identical == 0.5
    assert result.norm == 0


@pytest.mark.parametrize(
    ("ties_a", "ties_b", "retied"),
    [
        ((("head", "table"),), (), Renamed("head", "table", None)),
        ((), (("head", "table"),), Renamed("head", None, "table")),
        ((("head", "other"),), (("head", "table"),), Renamed("head", "other", "table")),
        ((("head", "table"),), (("head", "table"),), None),
    ],
)
@pytest.mark.parametrize("from_header", [False, True])
def test_ties_added_and_removed(
    tmp_path: Path,
    ties_a: tuple[tuple[str, str], ...],
    ties_b: tuple[tuple[str, str], ...],
    retied: Renamed | None,
    from_header: bool,
) -> None:
    table = {"table": torch.ones(2), "other": torch.ones(2)}
    own = {**table, "head": torch.zeros(2)}
    a = header(tmp_path / "a", table if ties_a else own)
    b = header(tmp_path / "b", table if ties_b else own)
    if from_header:
        result = difference(replace(a, shared=ties_a), replace(b, shared=ties_b))
    else:
        result = difference(a, b, ties_a=ties_a, ties_b=ties_b)
    assert result.retied == ((retied,) if retied else ())
    assert result.added == result.removed == ()


def test_an_equal_tie_is_neither_added_nor_removed(tmp_path: Path) -> None:
    """A file may hold the copy of a tied head or not: the tie says the same."""
    table, ties = {"table": torch.ones(2)}, [("head", "table")]
    short, long = (
        header(tmp_path / "a", table),
        header(tmp_path / "b", {**table, "head": table["table"] + 0}),
    )
    for a, b in ((short, long), (long, short)):
        result = difference(a, b, ties_a=ties, ties_b=ties)
        assert result.added == result.removed == result.retied == ()
        assert result.identical


def test_no_common_names_are_reported(tmp_path: Path) -> None:
    result = compare(tmp_path, {"blk.0.w": torch.ones(2)}, {"layers.0.w": torch.ones(2)})
    assert result.nothing_in_common
    assert not compare(
        tmp_path, {"x": torch.ones(2)}, {"y": torch.ones(2), "x": torch.ones(3)}
    ).nothing_in_common
    assert not compare(tmp_path, {"x": torch.ones(2)}, {"x": torch.ones(2)}).nothing_in_common


def test_skipped_tensors_are_not_compared(tmp_path: Path) -> None:
    one, other = torch.ones(2, 3), torch.ones(6)
    a = header(tmp_path / "a", {"x": one, "w": one + 1})
    b = header(tmp_path / "b", {"x": one, "w": other})
    result = difference(a, b, left_out={"w": Unread("w", "packed", 12)})
    assert result.unread == (Unread("w", "packed", 12),)
    assert result.reshaped == ()
    assert (result.total.count, result.values) == (6, 18)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(70, 90), (3, 100_000), (2, 300_000), (400_000,)], ids=str)
def test_distances(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    before = random(*shape).to(dtype)
    after = before.clone()
    flat = after.view(-1)
    flat[::3] += random(flat[::3].numel(), seed=1).to(dtype)
    result = change(tmp_path, before, after)
    a, b = before.double().view(-1), after.double().view(-1)
    d = b - a
    index = int(d.abs().argmax())
    assert result.identical == pytest.approx((a == b).double().mean().item(), rel=1e-12)
    assert result.norm == pytest.approx(d.norm().item(), rel=1e-12)
    assert result.relative == pytest.approx((d.norm() / a.norm()).item(), rel=1e-12)
    assert result.cosine == pytest.approx((a @ b / a.norm() / b.norm()).item(), rel=1e-12)
    assert result.max_change == d.abs().max().item()
    assert result.max_index == tuple(
        int(i) for i in torch.unravel_index(torch.tensor(index), shape)
    )


def test_another_dtype_is_compared_by_value(tmp_path: Path) -> None:
    before = torch.tensor([1.0, 1.0 + 2**-20, -2.0, 3.0])
    result = change(tmp_path, before, before.bfloat16())
    assert result.identical == 0.75
    assert result.max_change == 2**-20
    assert result.max_index == (1,)


def test_non_finite_values_are_counted_and_not_compared(tmp_path: Path) -> None:
    before = torch.tensor([[1.0, math.nan, 2.0], [math.inf, 0.0, 1.0]])
    after = torch.tensor([[1.0, 3.0, 4.0], [math.inf, -math.inf, 1.0]])
    result = compare(tmp_path, {"x": before}, {"x": after})
    (x,) = result.changes
    assert x.not_finite == 3
    assert (x.norm, x.max_change, x.max_index, x.rank) == (2.0, 2.0, (0, 2), None)
    assert x.identical == 0.5
    json.dumps(asdict(result), allow_nan=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.zeros(2, 2), torch.ones(2, 2)),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (torch.tensor(1.0), torch.tensor(-2.0)),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (torch.ones(3).double() * 1e200, torch.ones(3).double() * -1e200),
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.tensor([-128], dtype=torch.int8), torch.tensor([127], dtype=torch.int8)),
    ],
    ids=str,
)
def test_edge_cases_have_none_or_finite_numbers(
    tmp_path: Path, before: torch.Tensor, after: torch.Tensor
) -> None:
    result = compare(tmp_path, {"x": before}, {"x": after})
    json.dumps(asdict(result), allow_nan=False)
    (x,) = result.changes
    if before.isfinite().all() and before.numel() and before.double().abs().max() < 1e100:
        assert x.max_change == (after.double() - before.double()).abs().max().item()
        assert x.norm == pytest.approx((after.double() - before.double()).norm().item())


# Whole by columns, whole by rows, and by the range finder, which the low limit makes quick.
@pytest.mark.parametrize("shape", [(160, 100), (100, 160), (220, 200)])
@pytest.mark.parametrize("rank", [0, 1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_adapter_is_recognised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    rank: int,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(update_rank, "MAX_GRAM_SIDE", 120)
    before = (random(*shape) * 0.02).to(dtype)
    update = random(shape[0], rank, seed=1) @ random(rank, shape[1], seed=2) * 0.01
    after = (before.double() + update.double()).to(dtype)
    result = change(tmp_path, before, after)
    assert (result.rank, result.rank_exact) == (rank, True)


def test_a_full_update_has_full_rank(tmp_path: Path) -> None:
    result = change(tmp_path, random(80, 50), random(80, 50, seed=1))
    assert (result.rank, result.rank_exact) == (50, True)


def test_the_rank_of_a_large_matrix_is_bounded_by_the_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_rank, "MAX_GRAM_SIDE", 100)
    result = change(tmp_path, random(300, 200), random(300, 200, seed=1))
    assert (result.rank, result.rank_exact) == (64, False)
    monkeypatch.setattr(
        update_rank, "MAX_BYTES", 8 * 300 * 20
    )  # 20 samples, 8 of them oversampling
    result = change(tmp_path, random(300, 200), random(300, 200, seed=1))
    assert (result.rank, result.rank_exact) == (12, False)
    for rank, exact in ((11, True), (12, False)):
        update = random(300, rank) @ random(rank, 200, seed=1)
        result = change(tmp_path, torch.zeros(300, 200), update)
        assert (result.rank, result.rank_exact) == (rank, exact)
    monkeypatch.setattr(update_rank, "MAX_BYTES", 8 * 300 * 8)
    result = change(tmp_path, random(300, 200), random(300, 200, seed=1))
    assert (result.rank, result.rank_unknown) == (None, "too large")


def test_one_element_changed_is_rank_one_though_it_is_less_than_rounding(tmp_path: Path) -> None:
    before = random(100, 100).bfloat16()
    after = before.clone()
    after[3, 4] *= 1 + 2**-7
    result = change(tmp_path, before, after)
    assert (result.rank, result.rank_exact) == (1, True)
    assert result.identical == 1 - 1e-4


# By columns, by rows, and by the range finder.
@pytest.mark.parametrize("shape", [(160, 100), (100, 160), (220, 200)])
def test_no_rank_is_given_for_a_change_within_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    monkeypatch.setattr(update_rank, "MAX_GRAM_SIDE", 120)
    before = random(*shape) * 0.02
    narrow = before.bfloat16()
    steps = narrow.clone()  # one element in ten is the next number
    steps.view(torch.int16)[random(*shape, seed=1) > 1.28] += 1
    for one, other in ((before, narrow), (narrow, steps)):
        result = change(tmp_path, one, other)
        assert (result.rank, result.rank_exact) == (None, False)
        assert result.rank_unknown == "below rounding"


@pytest.mark.parametrize("shape", [(160, 100), (220, 200)])
@pytest.mark.parametrize("spread", [1e-5, 3e-5, 5e-5, 1e-4, 3e-4])
def test_a_full_update_near_rounding_is_never_an_exact_lower_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], spread: float
) -> None:
    monkeypatch.setattr(update_rank, "MAX_GRAM_SIDE", 120)
    before = (random(*shape) * 0.02).bfloat16()
    after = (before.float() + random(*shape, seed=1) * spread).bfloat16()
    result = change(tmp_path, before, after)
    assert result.rank is None or not result.rank_exact or result.rank == min(shape)
    assert result.identical < 1


def test_rows_that_changed_are_counted_beside_large_ones_that_did_not(tmp_path: Path) -> None:
    before = random(100, 80).bfloat16()
    before[60:] *= 1000
    after = before.clone()
    update = random(60, 3, seed=1) @ random(3, 80, seed=2) * 0.1
    after[:60] = (after[:60].float() + update).bfloat16()
    result = change(tmp_path, before, after)
    assert (result.rank, result.rank_exact) == (3, True)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (torch.tensor([[1.0, math.nan]]), "not finite"),
        (torch.ones(1, (1 << 17) + 1), "rows longer than 131,072"),
        (torch.tensor([[1e200, 1.0]], dtype=torch.float64), "out of range"),
        (torch.tensor([1.0, 2.0]), None),
    ],
    ids=["nan", "long", "range", "vector"],
)
def test_why_there_is_no_rank(tmp_path: Path, after: torch.Tensor, reason: str | None) -> None:
    result = change(tmp_path, torch.zeros_like(after), after)
    assert (result.rank, result.rank_exact, result.rank_unknown) == (None, False, reason)


def test_total_is_of_everything_together(tmp_path: Path) -> None:
    before = {"x": random(40, 50), "y": random(7)}
    after = {"x": random(40, 50) + 1e-3, "y": random(7)}
    total = compare(tmp_path, before, after).total
    a, b = (torch.cat([t.double().view(-1) for t in side.values()]) for side in (before, after))
    assert total.count == 2007
    assert total.norm == pytest.approx((b - a).norm().item())
    assert total.cosine == pytest.approx((a @ b / a.norm() / b.norm()).item())
    assert total.identical == pytest.approx(7 / 2007)


def test_unreadable_tensors_are_listed(tmp_path: Path) -> None:
    a = header(tmp_path / "a", {"x": torch.ones(2), "y": torch.ones(2)})
    strided = replace(a, tensors=tuple(replace(t, offset=None) for t in a.tensors[:1]))
    result = difference(a, strided)
    assert [(t.name, t.reason) for t in result.unread] == [("x", "not contiguous in the file")]
    assert result.removed == ("y",)
    assert result.changes == ()


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    a = header(tmp_path / "a", {"x": torch.ones(300, 1000), "y": torch.ones(2)})
    difference(a, a, progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (2_400_016, 2_400_016)
    assert len(calls) > 2
