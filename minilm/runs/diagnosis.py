"""A diagnosis of a run from its curves, in sentences: how it fits, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.runs.forecast import (
    NOISE,
    Forecast,
    Metrics,
    diverged,
    forecast,
    has_risen,
    lowest,
    recent_train_loss,
)
from minilm.units import counted


def findings(metrics: Metrics, summary: Mapping[str, Any]) -> list[str]:
    """Sentences from the lines of a metrics.jsonl and, where there is one, the summary.json."""
    sentences = [fit(metrics)]
    data = summary.get("data")
    parameters = summary.get("parameters")
    train_tokens = data.get("train_tokens") if isinstance(data, dict) else None
    if type(parameters) is int and type(train_tokens) is int and min(parameters, train_tokens) > 0:
        gains = forecast(metrics, parameters=parameters, train_tokens=train_tokens)
        if gains is not None:
            sentences.append(help_sentence(gains))
    return sentences


def overfitting_since(metrics: Metrics) -> Mapping[str, Any] | None:
    """The evaluation after which the validation loss has risen by more than noise, if it has."""
    evaluations = [line for line in metrics if "val_loss" in line]
    if not evaluations:
        return None
    best = lowest(evaluations)
    return best if has_risen(evaluations[-1]["val_loss"], best["val_loss"]) else None


def fit(metrics: Metrics) -> str:
    """Still underfitting, levelled off, or overfitting since when."""
    evaluations = [line for line in metrics if "val_loss" in line]
    if not evaluations:
        return "No evaluation was made, so nothing can be said about the fit."
    last = evaluations[-1]
    training = [line for line in metrics if "train_loss" in line]
    gap = ""
    if training:
        train = recent_train_loss(training, evaluations, len(evaluations) - 1)
        gap = (
            f" Training loss {train:.3f}, validation {last['val_loss']:.3f}: "
            f"a gap of {last['val_loss'] - train:+.3f}."
        )
    if diverged(training):
        return (
            f"Diverged: the training loss rose from {training[0]['train_loss']:.3f} to "
            f"{training[-1]['train_loss']:.3f}; lower learning rates would help."
        )
    best = overfitting_since(metrics)
    if best is not None:
        return (
            f"Overfitting since step {best['step']}: validation loss was best there at "
            f"{best['val_loss']:.3f} and has risen since; the best weights are kept.{gap}"
        )
    if len(evaluations) < 2:
        return f"One evaluation only, at step {last['step']}.{gap}"
    before = evaluations[-2]
    fall = before["val_loss"] - last["val_loss"]
    if fall > NOISE * before["val_loss"]:
        steps = last["step"] - before["step"]
        return (
            f"Still underfitting: validation loss fell by {fall:.3f} over the last "
            f"{counted(steps, 'step')}.{gap}"
        )
    return f"Levelled off: validation loss changed by {-fall:+.3f} at the last evaluation.{gap}"


def help_sentence(gains: Forecast) -> str:
    """What would help, the most helpful first."""
    changes = {
        "twice the steps": gains.steps,
        f"fewer steps (--max-steps {gains.best_steps})": gains.fewer_steps,
        "twice the parameters": gains.parameters,
        "twice the text": gains.data,
        "more regularisation (dropout, weight decay)": gains.regularisation,
    }
    known = [(change, gain) for change, gain in changes.items() if gain is not None]
    known.sort(key=lambda item: -item[1])
    parts = [f"{change} {_amount(gain)}" for change, gain in known]
    return f"What would lower the validation loss, by a rough forecast: {', '.join(parts)}."


def _amount(gain: float) -> str:
    return f"by about {gain:.2f}" if gain >= 0.005 else "hardly"
