"""Muon: torch's own update, orthogonal directions, one batch for all matrices of a shape."""

import pytest
import torch

from minilm.training.muon import Muon, orthogonalize


def drawn(*shapes: tuple[int, int]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters


SHAPES = [(8, 8), (32, 8), (8, 32), (8, 8), (32, 8)]


def test_updates_are_those_of_torch() -> None:
    """torch's Muon works on one matrix after the other, in bfloat16: 8 bits of mantissa."""
    parameters, reference_parameters = drawn(*SHAPES), drawn(*SHAPES)
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.2}
    muon = Muon(parameters, **settings, dtype=torch.bfloat16)
    reference = torch.optim.Muon(reference_parameters, **settings)
    before = [parameter.detach().clone() for parameter in reference_parameters]
    for step in range(3):
        for a, b in zip(parameters, reference_parameters, strict=True):
            a.grad += step
            b.grad += step
        muon.step()
        reference.step()
    for a, b, start in zip(parameters, reference_parameters, before, strict=True):
        torch.testing.assert_close(a - start, b - start, rtol=0.02, atol=2e-3)


def test_directions_are_nearly_orthogonal() -> None:
    matrices = torch.randn(4, 16, 48, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.65
    assert values.max() < 1.25
    exact = torch.linalg.svdvals(orthogonalize(matrices * 1e-4))
    torch.testing.assert_close(exact, values, rtol=1e-3, atol=1e-3)  # the scale does not matter


def test_matrices_in_a_batch_do_not_see_each_other() -> None:
    together, alone = drawn(*SHAPES), drawn(*SHAPES)
    Muon(together, lr=0.1, momentum=0.9).step()
    for parameter in alone:
        Muon([parameter], lr=0.1, momentum=0.9).step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_a_gradient_of_zero_changes_nothing_but_by_decay() -> None:
    (parameter,) = drawn((8, 16))
    parameter.grad.zero_()
    before = parameter.detach().clone()
    Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), before * 0.95)


def test_its_state_is_a_view_that_stays_where_it_is() -> None:
    parameters = drawn((8, 8), (8, 8))
    muon = Muon(parameters, lr=0.1, momentum=0.9)
    states = [muon.state[parameter]["momentum_buffer"] for parameter in parameters]
    places = [state.data_ptr() for state in states]
    for _ in range(3):
        muon.step()
    assert [muon.state[p]["momentum_buffer"].data_ptr() for p in parameters] == places
    for parameter, state in zip(parameters, states, strict=True):
        torch.testing.assert_close(state, parameter.grad * (1 - 0.9**3))


def test_only_matrices_are_taken() -> None:
    with pytest.raises(AssertionError, match=r"Muon takes matrices, not \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.9)
