"""The learning rate: warm-up, each decay, and where it ends."""

import itertools
import math

import pytest

from minilm.config import TrainConfig
from minilm.training.schedule import learning_rate

FIELDS = {"max_steps": 110, "warmup_steps": 10, "learning_rate": 1.0, "final_learning_rate": 0.1}


def rates(**fields: object) -> list[float]:
    config = TrainConfig(**FIELDS | fields)
    return [learning_rate(step, config) for step in range(config.max_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_warm_up_is_linear_and_never_zero(schedule: str) -> None:
    assert rates(schedule=schedule)[:10] == pytest.approx([0.1 * n for n in range(1, 11)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_decay_falls_to_the_floor_after_the_last_step(schedule: str) -> None:
    values = rates(schedule=schedule, max_steps=110)
    assert values[10] == 1.0
    assert 0.1 < values[-1] < 0.2
    after = learning_rate(110, TrainConfig(**FIELDS | {"schedule": schedule, "max_steps": 110}))
    assert after == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_the_shapes() -> None:
    middle = 60  # halfway between the steps 10 and 110
    assert rates(schedule="linear")[middle] == pytest.approx(0.55)
    assert rates(schedule="cosine")[middle] == pytest.approx(0.55)
    quarter = rates(schedule="cosine")[10 + 25]
    assert quarter == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert set(rates(schedule="constant")[10:]) == {1.0}
    stable = rates(schedule="wsd", decay_fraction=0.2)
    assert set(stable[10:89]) == {1.0}
    assert stable[89] < 1.0


def test_one_step_and_no_warm_up() -> None:
    assert rates(max_steps=1, warmup_steps=0, schedule="linear") == [1.0]
    assert rates(max_steps=3, warmup_steps=50, schedule="cosine") == pytest.approx(
        [0.02, 0.04, 0.06]
    )
