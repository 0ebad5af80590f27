"""Dropout on a CPU: how much it keeps, of what, and that its mean is that of its input."""

import math

import pytest
import torch

from minilm.model.dropout import Dropout, dropout

SHAPE = (64, 32, 65)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_neighbours_are_independent(
    dtype: torch.dtype, probability: float
) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(SHAPE, dtype=dtype), probability)
    kept = (dropped != 0).double()
    standard_error = 1 / math.sqrt(kept.numel())
    deviation = math.sqrt(probability * (1 - probability))
    assert abs(kept.mean() - (1 - probability)) < 4 * deviation * standard_error
    centred = kept - kept.mean()
    for shift in (1, 2, 3, 4, 65, 32 * 65):
        correlation = (centred.flatten() * centred.flatten().roll(shift)).mean() / deviation**2
        assert abs(correlation) < 4 * standard_error, shift


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_kept_is_scaled_and_has_that_gradient(dtype: torch.dtype) -> None:
    x = torch.full(SHAPE, 3.0, dtype=dtype, requires_grad=True)
    dropped = dropout(x, 0.25)
    torch.autograd.backward(dropped.sum())
    assert x.grad is not None
    scale = torch.tensor(4 / 3, dtype=dtype)
    assert torch.equal(x.grad, torch.where(dropped != 0, scale, 0))
    assert torch.equal(dropped.detach(), 3 * x.grad)


def test_the_same_seed_gives_the_same_mask_and_the_next_call_another() -> None:
    x = torch.ones(SHAPE)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(dropout(x.bfloat16(), 0.5) != 0, first != 0)


@pytest.mark.parametrize(("probability", "kept"), [(1e-9, SHAPE[0]), (1 - 1e-9, 0)])
def test_a_probability_next_to_zero_or_one(probability: float, kept: int) -> None:
    dropped = dropout(torch.ones(SHAPE[0]), probability)
    assert abs(int((dropped != 0).sum()) - kept) <= 1


def test_it_is_off_outside_of_training_and_at_zero() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert dropout(x, 0.0) is x
    assert dropout(torch.ones(0, 3), 0.5).shape == (0, 3)


def test_columns_of_a_matrix_that_is_stored_by_columns() -> None:
    """Its own strides, not those of the input, are the mask's."""
    x = torch.arange(1.0, 13).view(4, 3).t()
    torch.manual_seed(1)
    dropped = dropout(x, 0.5)
    kept = dropped != 0
    assert torch.equal(dropped[kept], 2 * x[kept])
