"""Which token comes next: each setting against the distribution it should leave."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from minilm.errors import ConfigError, InputError
from minilm.generation.sampling import Sampling, choose

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])  # probabilities 0.09 0.66 0.24 0.01


def draws(count: int = 4000, text: tuple[int, ...] = (), **settings: Any) -> torch.Tensor:
    """Shares of the tokens over many draws."""
    generator, sampling = torch.Generator().manual_seed(0), Sampling(**settings)
    picked = [choose(LOGITS[None], sampling, [generator], [text])[0] for _ in range(count)]
    return torch.bincount(torch.tensor(picked), minlength=4) / count


def test_temperature_zero_is_greedy() -> None:
    assert draws(20, temperature=0.0).tolist() == [0, 1, 0, 0]
    assert draws(20, temperature=1e-300).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(-1)
    assert (draws(temperature=temperature) - expected).abs().max() < 0.03


def test_top_k_keeps_the_likeliest() -> None:
    shares = draws(top_k=2)
    assert shares[[0, 3]].tolist() == [0, 0]
    assert (shares[[1, 2]] - LOGITS[[1, 2]].softmax(-1)).abs().max() < 0.03


def test_top_k_keeps_no_more_than_k_of_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    picked = {
        choose(torch.zeros(1, 5), Sampling(top_k=2), [generator], [()])[0] for _ in range(200)
    }
    assert len(picked) == 2


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert draws(200, top_p=0.6).tolist() == [0, 1, 0, 0]
    assert draws(top_p=0.7)[[0, 3]].tolist() == [0, 0]
    assert (draws(top_p=0.7)[[1, 2]] - LOGITS[[1, 2]].softmax(-1)).abs().max() < 0.03
    assert draws(top_p=0.95)[0] > 0


def test_min_p_keeps_what_is_near_the_likeliest() -> None:
    # Their shares of the likeliest: e^-2 = 0.135, 1, e^-1 = 0.368, e^-4 = 0.018.
    assert (draws(min_p=0.13) > 0).tolist() == [True, True, True, False]
    assert (draws(min_p=0.14) > 0).tolist() == [False, True, True, False]
    assert draws(200, min_p=1.0).tolist() == [0, 1, 0, 0]


def test_the_repetition_penalty_divides_and_multiplies() -> None:
    expected = torch.tensor([1.0, 1.5, 2.0, -2.0]).softmax(-1)
    shares = draws(text=(1, 3, 3), repetition_penalty=2.0)
    assert (shares - expected).abs().max() < 0.03
    assert draws(20, text=(1,), repetition_penalty=2.0, temperature=0.0)[2] == 1


def test_the_logits_are_left_as_they_were() -> None:
    before = LOGITS.clone()
    draws(3, text=(1,), repetition_penalty=2.0, top_k=2, top_p=0.5, min_p=0.5)
    assert torch.equal(LOGITS, before)


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(logit: float) -> None:
    with pytest.raises(InputError, match="weights: an output that is not finite"):
        choose(torch.tensor([[0.0, logit]]), Sampling(temperature=0), [torch.Generator()], [()])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_out_of_range_is_an_error(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        Sampling(**{field: value})
