"""What would lower the validation loss further, and by about how much, from the curves of a run.

More steps: the training loss falls by some amount each time the tokens double. Part of that fall is the
decay of the learning rate, which a longer run has only once, so a half is taken. docs/training.md holds
forecasts against what then came (scripts/experiments/forecasts.py).

More parameters: Hoffmann et al. 2022 (arXiv:2203.15556, equation 10) fitted L = E + A / N^a + B / D^b.
E, A and B are of their text and tokens, but what doubling N is worth in doublings of D depends on the ratio
of the two terms alone. Here a half is taken, from runs of this project's sizes (docs/training.md).

More text and more regularisation: the part of the gap between validation and training loss that came after
the first pass through the text has been memorized.

Where the validation loss rose again, the weights with the lowest are kept, and gains are counted from them,
in shares of that loss: a schedule that ends soon after that step, since it lowers the learning rate by then;
twice the text; and dropout, which helps the more, the more often the text had been seen by then.
Nothing is said of what was not measured: text and regularisation where the loss levelled off or rose before
the text had been seen more than once, a run whose best evaluation was before its first step, and more steps
or parameters where twice the steps would be many passes through the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Metrics = Sequence[Mapping[str, Any]]

NOISE = 0.005  # changes of a loss below this share
FEWEST_LINES = 8  # of training losses, below which a slope says nothing
SLOPE_FROM = 0.25  # share of the tokens after which the slope is taken
SHARE_OF_SLOPE = 0.5
SHARE_OF_PARAMETERS = 0.5
# A, a, B, b of Hoffmann et al.
PARAMETER_TERM, PARAMETER_POWER = 406.4, 0.34
TOKEN_TERM, TOKEN_POWER = 410.7, 0.28
# Of what was memorized, what twice the text, or regularisation at its best, takes away.
SHARE_OF_DATA, SHARE_OF_REGULARISATION = 0.2, 0.05
# Of the lowest validation loss, where it rose again: what a run of BEST_STEPS times the steps to it takes
# away, and twice the text; and what dropout does for each pass through the text until it, after the first.
FEWER_STEPS_SHARE, BEST_STEPS = 0.024, 1.25
RISEN_DATA_SHARE = 0.09
DROPOUT_SHARE, DROPOUT_AFTER_EPOCHS, MOST_DROPOUT_SHARE = 0.018, 2.25, 0.06
# Passes through the text: the most for which twice the steps are forecast, the fewest for the others.
MOST_EPOCHS_FORECAST, DATA_FROM_EPOCHS, REGULARISATION_FROM_EPOCHS = 6, 1.5, 3


@dataclass(frozen=True)
class Forecast:
    """Nats a token, at least 0, by which the lowest validation loss would fall with twice the steps, twice
    the parameters, ``best_steps`` steps where those are fewer, twice the text, or some regularisation.
    Rough; None where nothing is known.
    """

    steps: float | None
    parameters: float | None
    data: float | None = None
    regularisation: float | None = None
    fewer_steps: float | None = None
    best_steps: int = 0


def forecast(metrics: Metrics, *, parameters: int, train_tokens: int) -> Forecast | None:
    """From the lines of metrics.jsonl; None where they are too few, or of a run that diverged.

    None, too, where the loss was lowest before the first step, and rose. ``train_tokens``: those of the text.
    """
    training = [line for line in metrics if "train_loss" in line and line.get("tokens", 0) >= 1]
    evaluations = [line for line in metrics if "val_loss" in line]
    if len(training) < FEWEST_LINES or not evaluations or diverged(training):
        return None
    best = lowest(evaluations)
    if has_risen(evaluations[-1]["val_loss"], best["val_loss"]):
        return _from_lowest(evaluations, best, train_tokens) if best["step"] > 0 else None
    tokens = int(training[-1]["tokens"])
    more_steps = SHARE_OF_SLOPE * _slope(training)
    parameters_share = SHARE_OF_PARAMETERS * doublings_of_tokens(parameters, tokens)
    memorized = _gap(training, evaluations, len(evaluations) - 1)
    memorized = max(0.0, memorized - _gap_of_first_pass(training, evaluations, train_tokens))
    epochs = tokens / train_tokens
    fits = 2 * epochs <= MOST_EPOCHS_FORECAST
    return Forecast(
        steps=more_steps if fits else None,
        parameters=more_steps * parameters_share if fits else None,
        data=memorized * SHARE_OF_DATA if epochs >= DATA_FROM_EPOCHS else None,
        regularisation=memorized * SHARE_OF_REGULARISATION
        if epochs >= REGULARISATION_FROM_EPOCHS
        else None,
    )


def _from_lowest(evaluations: Metrics, best: Mapping[str, Any], train_tokens: int) -> Forecast:
    """Of a run whose validation loss rose after the evaluation ``best``."""
    best_steps = max(1, round(BEST_STEPS * best["step"]))
    is_fewer = best_steps < 0.9 * evaluations[-1]["step"]
    loss = float(best["val_loss"])
    following = evaluations[evaluations.index(best) + 1]
    is_repeated = following.get("tokens", 0) > train_tokens  # by the time that the loss had risen
    epochs = int(best.get("tokens", 0)) / train_tokens
    dropout = DROPOUT_SHARE * max(0.0, epochs - DROPOUT_AFTER_EPOCHS)
    return Forecast(
        steps=0.0,
        parameters=0.0,
        data=RISEN_DATA_SHARE * loss if is_repeated else None,
        regularisation=min(dropout, MOST_DROPOUT_SHARE) * loss if is_repeated else None,
        fewer_steps=FEWER_STEPS_SHARE * loss if is_fewer else None,
        best_steps=best_steps if is_fewer else 0,
    )


def diverged(training: Metrics) -> bool:
    """Whether the training loss ended above where it began, by more than noise."""
    losses = [float(line["train_loss"]) for line in training]
    return len(losses) > 1 and has_risen(losses[-1], losses[0])


def lowest(evaluations: Metrics) -> Mapping[str, Any]:
    """The evaluation with the lowest validation loss."""
    return min(evaluations, key=lambda line: float(line["val_loss"]))


def has_risen(last: float, best: float) -> bool:
    """Whether a validation loss is above the best one by more than noise."""
    return last > best + NOISE * abs(best)


def doublings_of_tokens(parameters: int, tokens: int) -> float:
    """What doubling the parameters is worth, in doublings of the tokens, by Hoffmann et al."""

    def gain(term: float, power: float, size: int) -> float:
        return term * math.exp(-power * math.log(size)) * (1 - math.exp(-power * math.log(2)))

    of_parameters = gain(PARAMETER_TERM, PARAMETER_POWER, parameters)
    return of_parameters / gain(TOKEN_TERM, TOKEN_POWER, tokens)


def _slope(training: Metrics) -> float:
    """By how much the training loss falls when the tokens double; not below 0."""
    tokens = np.array([line["tokens"] for line in training], dtype=float)
    losses = np.array([line["train_loss"] for line in training], dtype=float)
    late = tokens >= SLOPE_FROM * tokens[-1]
    if late.sum() < 2 or np.ptp(tokens[late]) == 0:
        return 0.0
    return max(0.0, -float(np.polyfit(np.log(tokens[late]), losses[late], 1)[0]) * math.log(2))


def _gap(training: Metrics, evaluations: Metrics, number: int) -> float:
    """Validation loss of an evaluation over the training loss around it."""
    return float(evaluations[number]["val_loss"]) - recent_train_loss(training, evaluations, number)


def _gap_of_first_pass(training: Metrics, evaluations: Metrics, train_tokens: int) -> float:
    """The gap of the last evaluation before a text had been seen once: the two splits just differ."""
    within = [n for n, line in enumerate(evaluations) if 0 < line.get("tokens", 0) <= train_tokens]
    return _gap(training, evaluations, within[-1]) if within else 0.0


def recent_train_loss(training: Metrics, evaluations: Metrics, number: int) -> float:
    """The mean of the training losses logged shortly before an evaluation: its last tenth of the steps."""
    end = evaluations[number]["step"]
    until = [line for line in training if line["step"] <= end] or list(training[:1])
    recent = [line["train_loss"] for line in until if line["step"] > 0.9 * end]
    return float(np.mean(recent or [until[-1]["train_loss"]]))
