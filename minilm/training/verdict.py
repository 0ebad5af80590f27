"""What a run's curves say, in words: still underfitting, levelled off, or overfitting since when."""

from __future__ import annotations

from typing import Any

# Changes of the loss below this share are read as noise.
NOISE = 0.005


def verdict(metrics: list[dict[str, Any]]) -> str:
    """One or two sentences from the lines of a metrics.jsonl."""
    evaluations = [line for line in metrics if "val_loss" in line]
    if not evaluations:
        return "No evaluation was made, so nothing can be said about the fit."
    last = evaluations[-1]
    best = min(evaluations, key=lambda line: float(line["val_loss"]))
    train = _recent_train_loss(metrics, evaluations)
    gap = ""
    if train is not None:
        gap = (
            f" Training loss {train:.3f}, validation {last['val_loss']:.3f}: "
            f"a gap of {last['val_loss'] - train:+.3f}."
        )
    if last["val_loss"] > best["val_loss"] * (1 + NOISE):
        return (
            f"Overfitting since step {best['step']}: validation loss was best there at "
            f"{best['val_loss']:.3f} and has risen since.{gap} "
            "More data, dropout or weight decay would help; the best weights are kept."
        )
    if len(evaluations) < 2:
        return f"One evaluation only, at step {last['step']}.{gap}"
    before = evaluations[-2]
    fall = before["val_loss"] - last["val_loss"]
    if fall > NOISE * before["val_loss"]:
        return (
            f"Still underfitting: validation loss fell by {fall:.3f} over the last "
            f"{last['step'] - before['step']} steps.{gap} More steps would help."
        )
    return f"Levelled off: validation loss changed by {-fall:+.3f} at the last evaluation.{gap}"


def _recent_train_loss(
    metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]]
) -> float | None:
    """The mean training loss logged since the evaluation before the last."""
    since = evaluations[-2]["step"] if len(evaluations) > 1 else -1
    losses = [
        line["train_loss"] for line in metrics if line["step"] > since and "train_loss" in line
    ]
    return sum(losses) / len(losses) if losses else None
