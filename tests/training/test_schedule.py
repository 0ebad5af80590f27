"""The learning rate: warm-up, each decay, and where it ends."""

import itertools
import math

import pytest

from minilm.config import TrainConfig
from minilm.training.schedule import learning_rate


def rates(**fields: object) -> list[float]:
    config = TrainConfig(
        **{"max_steps": 101, "warmup_steps": 10, "learning_rate": 1.0, "final_learning_rate": 0.1}
        | fields
    )
    return [learning_rate(step, config) for step in range(config.max_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_warm_up_is_linear_and_never_zero(schedule: str) -> None:
    assert rates(schedule=schedule)[:10] == pytest.approx([0.1 * n for n in range(1, 11)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_decay_falls_to_the_floor_at_the_last_step(schedule: str) -> None:
    values = rates(schedule=schedule)
    assert values[10] == 1.0
    assert values[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_the_shapes() -> None:
    middle = 55  # halfway between the steps 10 and 100
    assert rates(schedule="linear")[middle] == pytest.approx(0.55)
    assert rates(schedule="cosine")[middle] == pytest.approx(0.55)
    quarter = rates(schedule="cosine")[10 + 30]
    assert quarter == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2)
    assert set(rates(schedule="constant")[10:]) == {1.0}
    stable = rates(schedule="wsd", decay_fraction=0.2)
    assert set(stable[10:82]) == {1.0}
    assert stable[82] < 1.0


def test_one_step_and_no_warm_up() -> None:
    assert rates(max_steps=1, warmup_steps=0, schedule="linear") == [1.0]
    assert rates(max_steps=3, warmup_steps=50, schedule="cosine") == pytest.approx(
        [0.02, 0.04, 0.06]
    )
