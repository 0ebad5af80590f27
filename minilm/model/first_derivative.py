"""Operations with a backward pass of their own, which has no derivative."""

import torch


def refuse_second(what: str) -> None:
    """Raise RuntimeError in a backward pass with create_graph=True, which would be wrong in silence."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{what} has no second derivative: create_graph=True is not supported")
