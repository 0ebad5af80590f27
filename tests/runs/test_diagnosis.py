"""What the curves say in words."""

from minilm.runs.diagnosis import findings, fit, help_sentence, overfitting_since
from minilm.runs.forecast import Forecast


def curve(values: list[float], train: float = 1.0) -> list[dict]:
    lines = []
    for index, value in enumerate(values):
        lines.append({"step": 10 * index + 5, "tokens": 100 * index + 50, "train_loss": train + 1})
        lines.append({"step": 10 * index + 10, "tokens": 100 * index + 100, "train_loss": train})
        lines.append({"step": 10 * index + 10, "tokens": 100 * index + 100, "val_loss": value})
    return lines


def test_each_verdict() -> None:
    assert fit(curve([3.0, 2.0, 1.5], train=1.4)) == (
        "Still underfitting: validation loss fell by 0.500 over the last 10 steps. Training loss "
        "1.400, validation 1.500: a gap of +0.100."
    )
    assert fit(curve([3.0, 1.5, 2.0])).startswith("Overfitting since step 20: ")
    assert fit(curve([3.0, 2.0, 2.001])).startswith("Levelled off: ")
    assert fit(curve([3.0])).startswith("One evaluation only, at step 10. Training loss 1.000, ")
    assert fit([]) == "No evaluation was made, so nothing can be said about the fit."


def test_a_run_that_diverged_is_not_overfitting() -> None:
    lines = curve([5.0, 6.0, 7.0])
    for number, line in enumerate(lines):
        if "train_loss" in line:
            line["train_loss"] = 3.0 + number
    assert fit(lines).startswith("Diverged: the training loss rose from 3.000 to 10.000; ")
    whole = {"parameters": 1000, "data": {"train_tokens": 100}}
    assert findings(lines, whole) == [fit(lines)]


def test_noise_is_not_overfitting() -> None:
    assert overfitting_since([]) is None
    assert overfitting_since(curve([3.0, 2.0, 2.001])) is None
    best = overfitting_since(curve([3.0, 2.0, 2.5]))
    assert best is not None
    assert best["step"] == 20


def test_what_helps_most_comes_first() -> None:
    assert help_sentence(
        Forecast(steps=0.02, parameters=0.014, data=0.1, regularisation=0.001)
    ) == (
        "What would lower the validation loss, by a rough forecast: twice the text by about 0.10, "
        "twice the steps by about 0.02, twice the parameters by about 0.01, more regularisation "
        "(dropout, weight decay) hardly."
    )


def test_of_an_overfitted_run_fewer_steps_are_named() -> None:
    gains = Forecast(steps=0.0, parameters=0.0, data=0.2, fewer_steps=0.1, best_steps=94)
    assert help_sentence(gains) == (
        "What would lower the validation loss, by a rough forecast: twice the text by about 0.20, "
        "fewer steps (--max-steps 94) by about 0.10, twice the steps hardly, twice the parameters hardly."
    )


def test_a_forecast_needs_a_summary_of_numbers() -> None:
    metrics = curve([3.0, 2.5, 2.2, 2.0])
    whole = {"parameters": 1000, "data": {"train_tokens": 100}}
    assert len(findings(metrics, whole)) == 2
    for broken in ({}, {"parameters": "x", "data": 3}, whole | {"parameters": 0}):
        assert findings(metrics, broken) == [fit(metrics)]
