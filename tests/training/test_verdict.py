"""What the curves say in words."""

from minilm.training.verdict import verdict


def curve(values: list[float], train: float = 1.0) -> list[dict]:
    lines = []
    for index, value in enumerate(values):
        lines.append({"step": 10 * index + 5, "train_loss": train})
        lines.append({"step": 10 * index + 10, "val_loss": value})
    return lines


def test_each_verdict() -> None:
    assert verdict(curve([3.0, 2.0, 1.5], train=1.4)) == (
        "Still underfitting: validation loss fell by 0.500 over the last 10 steps. Training loss "
        "1.400, validation 1.500: a gap of +0.100. More steps would help."
    )
    assert verdict(curve([3.0, 1.5, 2.0])).startswith("Overfitting since step 20: ")
    assert verdict(curve([3.0, 2.0, 2.001])).startswith("Levelled off: ")
    assert verdict(curve([3.0])).startswith("One evaluation only, at step 10.")
    assert verdict([]) == "No evaluation was made, so nothing can be said about the fit."
