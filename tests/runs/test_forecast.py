"""What would help, held against curves whose future is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from minilm.runs.forecast import (
    FEWER_STEPS_SHARE,
    RISEN_DATA_SHARE,
    SHARE_OF_DATA,
    SHARE_OF_SLOPE,
    Forecast,
    doublings_of_tokens,
    forecast,
)

Lines = list[dict[str, Any]]


def curve(loss: Any, steps: int = 100, gap: Any = lambda tokens: 0.0) -> Lines:
    """Training losses each step of 10 tokens, an evaluation every tenth, above them by ``gap``."""
    lines: Lines = []
    for step in range(1, steps + 1):
        tokens = 10 * step
        lines.append({"step": step, "tokens": tokens, "train_loss": loss(tokens)})
        if step % 10 == 0:
            lines.append({"step": step, "tokens": tokens, "val_loss": loss(tokens) + gap(tokens)})
    return lines


def look(lines: Lines, train_tokens: int = 10**6) -> Forecast:
    seen = forecast(lines, parameters=10**6, train_tokens=train_tokens)
    assert seen is not None
    return seen


def test_steps_are_worth_a_share_of_what_a_doubling_brought() -> None:
    seen = look(curve(lambda tokens: 5 - 0.3 * math.log2(tokens)))
    assert seen.steps == pytest.approx(0.3 * SHARE_OF_SLOPE)
    # Nothing is known of a text that was not seen once.
    assert seen.data is seen.regularisation is seen.fewer_steps is None


def test_a_flat_or_rising_curve_promises_nothing() -> None:
    assert look(curve(lambda tokens: 2.0)) == Forecast(0, 0)
    assert look(curve(lambda tokens: 2 + tokens / 1e6)).steps == 0
    diverged = curve(lambda tokens: 2 + tokens / 1e4)
    assert forecast(diverged, parameters=10**6, train_tokens=10**6) is None


def test_parameters_are_worth_more_the_fewer_there_are() -> None:
    assert doublings_of_tokens(10**5, 10**7) > doublings_of_tokens(10**6, 10**7)
    assert doublings_of_tokens(10**6, 10**8) > doublings_of_tokens(10**6, 10**7)
    # Hoffmann et al.'s own largest model: 70e9 parameters and 1.4e12 tokens, by their terms.
    by_size = 406.4 / 70e9**0.34 - 406.4 / 140e9**0.34
    by_tokens = 410.7 / 1.4e12**0.28 - 410.7 / 2.8e12**0.28
    chinchilla = doublings_of_tokens(70 * 10**9, 14 * 10**11)
    assert chinchilla == pytest.approx(by_size / by_tokens)


def test_what_was_learned_by_heart_is_what_the_gap_grew_by_after_the_first_pass() -> None:
    def gap(tokens: int) -> float:  # the splits differ by 0.2; after 300 tokens the text repeats
        return 0.2 + max(0, tokens - 300) / 2000

    seen = look(curve(lambda tokens: 3 - tokens / 1000, gap=gap), train_tokens=300)
    by_heart = 0.35
    assert seen.steps is seen.parameters is None  # nothing is known of 7 passes
    assert seen.data == pytest.approx(by_heart * SHARE_OF_DATA, abs=0.03)
    assert 0 < seen.regularisation < seen.data
    fresh = look(curve(lambda tokens: 3 - tokens / 1000, gap=gap), train_tokens=5000)
    assert fresh.data is fresh.regularisation is None


def test_where_validation_rises_more_steps_would_hurt() -> None:
    lines = curve(lambda tokens: 3 - tokens / 1000, gap=lambda tokens: max(0, tokens - 500) / 250)
    seen = look(lines, train_tokens=400)
    assert seen.steps == seen.parameters == 0
    # From the kept weights, of step 50 and 2.5 nats: not what the loss rose by afterwards.
    assert seen.best_steps == round(1.25 * 50)
    assert seen.fewer_steps == pytest.approx(2.5 * FEWER_STEPS_SHARE)
    assert seen.data == pytest.approx(2.5 * RISEN_DATA_SHARE)


def test_of_a_loss_that_rose_within_the_first_pass_text_and_dropout_are_not_spoken_of() -> None:
    lines = curve(lambda t: 3 - t / 1000, gap=lambda t: max(0, t - 500) / 250)
    for train_tokens, is_known in ((599, True), (600, False), (5000, False)):
        seen = look(lines, train_tokens=train_tokens)
        assert (seen.data is not None) == (seen.regularisation is not None) == is_known
        assert seen.fewer_steps == pytest.approx(2.5 * FEWER_STEPS_SHARE)


def test_fine_tuning_that_never_improved_promises_nothing() -> None:
    first = {"step": 0, "tokens": 0, "val_loss": 1.5}
    lines = [first, *curve(lambda tokens: 2.0)]
    assert forecast(lines, parameters=10**6, train_tokens=10**6) is None
    first["val_loss"] = 2.5  # one that did has its forecast
    assert look(lines).fewer_steps is None


def test_what_rose_afterwards_changes_no_promise() -> None:
    """Only the kept weights count: the same run, twice as long and far worse at its end."""

    def rising(steps: int) -> Lines:
        return curve(lambda t: 3 - t / 1000, steps, gap=lambda t: max(0, t - 500) / 100)

    short, long = look(rising(80), train_tokens=100), look(rising(160), train_tokens=100)
    assert short == long
    assert 0 < long.regularisation < 0.1 * 2.5


def test_dropout_is_worth_more_the_more_often_the_text_was_seen() -> None:
    lines = curve(lambda t: 3 - t / 1000, gap=lambda t: max(0, t - 500) / 100)
    often, seldom, never = (look(lines, train_tokens=n).regularisation for n in (125, 200, 300))
    assert often > seldom > never == 0


def test_too_few_lines_say_nothing() -> None:
    lines = curve(lambda tokens: 2.0, steps=7)
    assert forecast(lines, parameters=10, train_tokens=10) is None
    without = [line for line in curve(lambda tokens: 2.0) if "val_loss" not in line]
    assert forecast(without, parameters=10, train_tokens=10) is None


@pytest.mark.parametrize("tokens", [None, 0, -5, 0.5])
def test_a_log_without_usable_tokens_promises_nothing(tokens: float | None) -> None:
    lines = curve(lambda tokens: 2.0)
    for line in lines:
        if tokens is None:
            del line["tokens"]
        else:
            line["tokens"] = tokens
    assert forecast(lines, parameters=10**6, train_tokens=10**6) is None


def test_noise_at_the_end_is_not_taken_for_overfitting() -> None:
    lines = curve(lambda tokens: 5 - 0.3 * math.log2(tokens))
    lines[-1]["val_loss"] = min(line["val_loss"] for line in lines if "val_loss" in line) * 1.001
    assert look(lines).steps > 0.1
