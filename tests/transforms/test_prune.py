"""Masks: exactly as many zeros as asked for, the right ones, and a harness that changes nothing at zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minilm.config import ModelConfig
from minilm.errors import InputError
from minilm.model.transformer import Transformer
from minilm.transforms.activations import input_norms, linear_layers
from minilm.transforms.prune import (
    apply_masks,
    global_masks,
    matrix_masks,
    prune_by_sparsegpt,
    row_masks,
    scores,
)

CONFIG = ModelConfig(
    vocab_size=61, context_length=16, num_layers=2, d_model=24, num_heads=4, num_kv_heads=2
)


def model(seed: int = 0, config: ModelConfig = CONFIG) -> Transformer:
    return Transformer(config, torch.Generator().manual_seed(seed)).eval()


def tokens(seed: int = 1, rows: int = 3) -> torch.Tensor:
    return torch.randint(0, 61, (rows, 16), generator=torch.Generator().manual_seed(seed))


def test_the_matrices_are_those_of_the_blocks() -> None:
    names = set(linear_layers(model()))
    layer = {"attention.query", "attention.key", "attention.value", "attention.output"}
    layer |= {"feed_forward.up", "feed_forward.down"}
    assert names == {f"blocks.{i}.{name}" for i in range(2) for name in layer}


def test_input_norms_are_those_of_all_tokens_together() -> None:
    network = model()
    matrices = linear_layers(network)
    together = input_norms(network, matrices, [tokens()])
    one_by_one = input_norms(network, matrices, tokens().split(1))
    inputs: list[torch.Tensor] = []
    hook = matrices["blocks.1.feed_forward.down"].register_forward_pre_hook(
        lambda _, args: inputs.append(args[0])
    )
    with torch.no_grad():
        network(tokens())
    hook.remove()
    expected = inputs[0].reshape(-1, 96).norm(dim=0)
    torch.testing.assert_close(together["blocks.1.feed_forward.down"], expected)
    for name, norms in together.items():
        torch.testing.assert_close(norms, one_by_one[name])
    assert not network.blocks[0].attention.query._forward_pre_hooks


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 9),
    sparsity=st.floats(0, 0.999),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_exactly_the_lowest_fraction_goes(
    rows: int, columns: int, sparsity: float, ties: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randint(0, 3, (rows, columns), generator=generator).float()
        if ties
        else torch.rand(rows, columns, generator=generator)
        for name in "ab"
    }
    total = global_masks(values, sparsity)
    assert sum(int(m.sum()) for m in total.values()) == int(sparsity * 2 * rows * columns)
    kept = [v[~total[n]] for n, v in values.items()]
    gone = [v[total[n]] for n, v in values.items()]
    if torch.cat(kept).numel() and torch.cat(gone).numel():
        assert torch.cat(gone).max() <= torch.cat(kept).min()
    for mask in matrix_masks(values, sparsity).values():
        assert int(mask.sum()) == int(sparsity * rows * columns)
    for name, mask in row_masks(values, sparsity).items():
        assert mask.sum(1).tolist() == [int(sparsity * columns)] * rows
        for value, each in zip(values[name], mask, strict=True):
            if each.any() and not each.all():
                assert value[each].max() <= value[~each].min()


def test_two_of_every_four_neighbours_go() -> None:
    network = model()
    prune_by_sparsegpt(network, tokens(rows=40), 0.5, two_of_four=True)
    for matrix in linear_layers(network).values():
        assert bool(((matrix.weight == 0).view(-1, 4).sum(1) == 2).all())
    odd = model(config=replace(CONFIG, d_feed_forward=30))
    with pytest.raises(InputError, match=r"down: 30 inputs, expected a multiple of 4 for 2:4"):
        prune_by_sparsegpt(odd, tokens(), 0.5, two_of_four=True)
    assert all(bool(matrix.weight.all()) for matrix in linear_layers(odd).values())


def test_sparsegpt_keeps_the_outputs_better_than_a_mask() -> None:
    """As many zeros as Wanda's, on the text that both see; biases stay, and what was zero."""
    expected = model()(tokens(rows=64))
    masked, corrected = model(), model()
    matrices = linear_layers(masked)
    norms = input_norms(masked, matrices, [tokens(rows=64)])
    apply_masks(matrices, row_masks(scores(matrices, norms), 0.5))
    with torch.no_grad():
        corrected.get_parameter("blocks.0.attention.query.weight")[:, ::3] = 0
    was_zero = {name: m.weight == 0 for name, m in linear_layers(corrected).items()}
    prune_by_sparsegpt(corrected, tokens(rows=64), 0.5)
    for name, matrix in linear_layers(corrected).items():
        assert int((matrix.weight == 0).sum()) == matrix.weight.numel() // 2
        assert bool((matrix.weight[was_zero[name]] == 0).all())
        bias = f"{name}.bias"
        assert torch.equal(corrected.get_parameter(bias), model().get_parameter(bias))
    losses = [
        float((network(tokens(rows=64)) - expected).detach().square().sum())
        for network in (masked, corrected)
    ]
    assert losses[1] < 0.8 * losses[0]


def test_wanda_weighs_by_the_input_and_magnitude_does_not() -> None:
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -2.0]]))
    matrices = {"m": linear}
    assert scores(matrices, None)["m"].tolist() == [[1.0, 2.0]]
    assert scores(matrices, {"m": torch.tensor([5.0, 1.0])})["m"].tolist() == [[5.0, 2.0]]


def test_no_sparsity_changes_no_bit() -> None:
    network = model()
    before = {name: p.clone() for name, p in network.named_parameters()}
    matrices = linear_layers(network)
    apply_masks(matrices, row_masks(scores(matrices, None), 0.0))
    prune_by_sparsegpt(network, tokens(), 0.0)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())


def test_zeros_are_exact_and_biases_stay() -> None:
    network = model()
    matrices = linear_layers(network)
    with torch.no_grad():
        for matrix in matrices.values():
            matrix.bias.fill_(0.5)
    apply_masks(matrices, matrix_masks(scores(matrices, None), 0.5))
    for matrix in matrices.values():
        assert int((matrix.weight == 0).sum()) == matrix.weight.numel() // 2
        assert bool((matrix.bias == 0.5).all())
