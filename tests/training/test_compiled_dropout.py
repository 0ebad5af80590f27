"""Compiled dropout is looked at before it is used: the faults that it may have, and what is done then."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import config

from minilm.training import runtime
from minilm.training.compiled_dropout import fault_of_compiled_dropout
from minilm.training.runtime import Runtime
from minilm.training.signals import StopRequest

CPU = torch.device("cpu")


class Masked(torch.autograd.Function):
    """x times one mask, and its gradient times another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, backward: Tensor) -> Tensor:
        ctx.save_for_backward(backward)
        return x * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None, None


def sound(x: Tensor, probability: float) -> Tensor:
    return torch.nn.functional.dropout(x, probability)


def shared_by_four(x: Tensor, probability: float) -> Tensor:
    mask = (torch.rand(*x.shape[:2], x.shape[2] // 4) >= probability).repeat_interleave(4, dim=2)
    return x * mask


def shared_by_rows(x: Tensor, probability: float) -> Tensor:
    return x * (torch.rand(1, *x.shape[1:]) >= probability)


def another_rate(x: Tensor, probability: float) -> Tensor:
    return x * (torch.rand(x.shape) >= 1.1 * probability)


def drawn_twice(x: Tensor, probability: float) -> Tensor:
    masks = (torch.rand(x.shape) >= probability for _ in range(2))
    dropped: Tensor = Masked.apply(x, *masks)  # type: ignore[no-untyped-call]
    return dropped


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize(
    ("dropout", "fault"),
    [
        (sound, None),
        (shared_by_four, "its masks of neighbours are not independent"),
        (shared_by_rows, "its masks of neighbours are not independent"),
        (another_rate, "it keeps "),
        (drawn_twice, "its backward pass drops others than its forward pass"),
    ],
)
def test_each_fault_is_found_and_random_states_are_kept(
    dropout: Callable[..., Tensor],
    fault: str | None,
    probability: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the compiler had made that of it."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: dropout)
    state = torch.get_rng_state()
    found = fault_of_compiled_dropout(CPU, probability)
    assert torch.equal(torch.get_rng_state(), state)
    assert found is None if fault is None else (found or "").startswith(fault)


@pytest.mark.slow
def test_the_compiler_of_a_cpu_makes_sound_masks() -> None:
    assert fault_of_compiled_dropout(CPU, 0.3) is None


@pytest.mark.gpu
def test_the_compiler_of_a_card_is_looked_at_and_then_makes_sound_masks() -> None:
    card = Runtime(torch.device("cuda"), torch.float32, compile=True)
    with config.patch(fallback_random=False):
        card.compiled(lambda *_: torch.ones(()), StopRequest(), 0.3)
        torch._dynamo.reset()  # the masks of a run are compiled after that look, by what it decided
        assert fault_of_compiled_dropout(card.device, 0.3) is None


@pytest.mark.parametrize("fault", [None, "it keeps 60.00% instead of 70.00%"])
def test_wrong_masks_are_left_to_eager_with_a_note(
    fault: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []

    def look(device: torch.device, probability: float) -> str | None:
        asked.append(probability)
        return fault

    monkeypatch.setattr(runtime, "fault_of_compiled_dropout", look)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    on_a_card = Runtime(torch.device("cuda"), torch.bfloat16, compile=True)
    with config.patch(fallback_random=False):
        loss = on_a_card.compiled(lambda *_: torch.ones(()), StopRequest(), 0.3)
        assert config.fallback_random == (fault is not None)
    assert float(loss(None)) == 1  # type: ignore[arg-type]
    assert asked == [0.3]
    note = "the random numbers of dropout are not compiled: it keeps 60.00% instead of 70.00%"
    assert caplog.messages == ([note] if fault else [])
    others = (
        (on_a_card, 0.0),
        (Runtime(CPU, torch.float32, compile=True), 0.3),
        (Runtime(torch.device("cuda"), torch.float32, compile=False), 0.3),
    )
    for other, dropout in others:
        other.compiled(lambda *_: torch.ones(()), StopRequest(), dropout)
    assert asked == [0.3], "without dropout, on a CPU and uncompiled nothing is looked at"
