"""GPTQ and SparseGPT: they keep outputs better than without correction, and say when a text is not enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import InputError
from minilm.formats.tensor_io import Array
from minilm.quantization.calibrated import prune_calibrated, round_calibrated
from minilm.quantization.integer_packing import IntegerPacking


def correlated(rows: int, inputs: int, seed: int) -> Array:
    """Inputs that a few directions explain, as those of a layer are."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(inputs // 4, inputs))
    return random.normal(size=(rows, inputs // 4)) @ mixing + 0.1 * random.normal(
        size=(rows, inputs)
    )


@given(st.integers(0, 1000), st.sampled_from([32, 64, 128]), st.integers(1, 3))
def test_the_outputs_are_nearer_than_of_rounding_to_nearest(
    seed: int, size: int, groups: int
) -> None:
    packing, inputs = IntegerPacking(4, size), size * groups
    weight = np.random.default_rng(seed).normal(0, 0.02, (16, inputs)).astype(np.float32)
    x = correlated(500, inputs, seed)
    nearest, calibrated = (
        np.square(x @ (packing.values(rounded) - weight).T).sum()
        for rounded in (packing.round(weight), round_calibrated(weight, x.T @ x, packing))
    )
    assert calibrated < nearest * 0.7


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    """Nothing can be made up for: the identity as Hessian gives the plain rounding."""
    packing = IntegerPacking(4, 32)
    weight = np.random.default_rng(0).normal(0, 0.02, (8, 64)).astype(np.float32)
    calibrated, nearest = round_calibrated(weight, np.eye(64), packing), packing.round(weight)
    assert np.array_equal(calibrated.codes, nearest.codes)
    assert np.array_equal(calibrated.scales, nearest.scales)


def test_what_was_pruned_stays_zero() -> None:
    """Two of four, as 2:4 has them."""
    packing = IntegerPacking(4, 32)
    weight = np.random.default_rng(0).normal(0, 0.02, (8, 64)).astype(np.float32)
    weight.reshape(8, -1, 4)[:, :, :2] = 0
    x = correlated(300, 64, 0)
    codes = round_calibrated(weight, x.T @ x, packing).codes
    assert ((codes.reshape(8, -1, 4) == 0).sum(-1) >= 2).all()
    assert (codes[weight == 0] == 0).all()


def test_one_scale_a_row_is_calibrated_too() -> None:
    packing = IntegerPacking(8)
    weight = np.random.default_rng(0).normal(0, 0.02, (8, 96)).astype(np.float32)
    x = correlated(300, 96, 0)
    rounded = round_calibrated(weight, x.T @ x, packing)
    assert np.abs(packing.values(rounded) - weight).max() < 3 * rounded.scales.max()


def test_too_few_inputs_are_damped() -> None:
    """One input vector: the Hessian has rank 1, and an input that is always 0 no part in it."""
    packing = IntegerPacking(4, 32)
    weight = np.random.default_rng(0).normal(0, 0.02, (8, 64)).astype(np.float32)
    x = correlated(1, 64, 0)
    x[:, 5] = 0
    rounded = round_calibrated(weight, x.T @ x, packing)
    assert np.isfinite(packing.values(rounded)).all()


def test_a_hessian_that_no_damping_helps_is_refused() -> None:
    hessian = np.full((64, 64), np.nan)
    with pytest.raises(InputError, match="says too little about 64 inputs"):
        round_calibrated(np.ones((2, 64), np.float32), hessian, IntegerPacking(4, 32))


def test_damping_is_raised_until_the_hessian_can_be_factored() -> None:
    """An indefinite matrix, as rounding errors make one: the first damping is not enough."""
    values = np.ones(64)
    values[0] = -0.05
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))
    hessian = directions @ np.diag(values) @ directions.T
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(hessian + 0.01 * np.eye(64))
    rounded = round_calibrated(
        np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32),
        hessian,
        IntegerPacking(4, 32),
    )
    assert np.abs(rounded.codes).max() <= 8


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(2, 150), st.floats(0, 0.95))
def test_as_many_are_zero_as_asked_for(seed: int, o: int, i: int, sparsity: float) -> None:
    weight = np.random.default_rng(seed).normal(size=(o, i)).astype(np.float32)
    x = np.random.default_rng(seed).normal(size=(2 * i, i))
    pruned = prune_calibrated(weight, x.T @ x, sparsity)
    assert np.count_nonzero(pruned == 0) == int(sparsity * o * i + 1e-9)
    if int(sparsity * o * i) == 0:
        assert np.array_equal(pruned, weight)


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_pruned_outputs_are_nearer_than_of_a_mask(pattern: tuple[int, int] | None) -> None:
    """The mask is Wanda's, which has as many zeros in each row or group."""
    weight = np.random.default_rng(0).normal(0, 0.02, (16, 256)).astype(np.float32)
    x = correlated(600, 256, 0)
    importance = np.abs(weight) * np.linalg.norm(x, axis=0)
    groups = importance.reshape(-1, 4 if pattern else 256)
    is_lowest = np.argsort(np.argsort(groups, axis=1), axis=1) < groups.shape[1] // 2
    masked = np.where(is_lowest.reshape(weight.shape), 0, weight)
    pruned = prune_calibrated(weight, x.T @ x, 0.5, pattern)
    if pattern:
        assert ((pruned.reshape(-1, 4) == 0).sum(1) == 2).all()
    losses = [np.square(x @ (each - weight).T).sum() for each in (pruned, masked)]
    assert losses[0] < 0.5 * losses[1]


def test_what_was_zero_counts_and_stays() -> None:
    """A matrix that is 2:4 already comes back as it is."""
    weight = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    weight.reshape(-1, 4)[:, 1:3] = 0
    x = correlated(600, 256, 0)
    for pattern in (None, (2, 4)):
        assert np.array_equal(prune_calibrated(weight, x.T @ x, 0.5, pattern), weight)
    weight = np.random.default_rng(1).normal(size=(8, 256)).astype(np.float32)
    weight[:, ::4] = 0  # what columns before lose would make them something else
    for pattern in (None, (2, 4)):
        pruned = prune_calibrated(weight, x.T @ x, 0.5, pattern)
        assert not pruned[:, ::4].any()
        assert np.count_nonzero(pruned == 0) == weight.size // 2


def test_pruning_on_too_little_text() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    x = correlated(1, 64, 0)
    assert np.isfinite(prune_calibrated(weight, x.T @ x, 0.5)).all()
    with pytest.raises(InputError, match=r"--method sparsegpt: a text that says too little"):
        prune_calibrated(weight, np.full((64, 64), np.nan), 0.5)
