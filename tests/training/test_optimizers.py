"""Who updates what: AdamW's groups, Muon's matrices, decay, the schedule in them, the L1 term."""

import pytest
import torch

from minilm.config import ModelConfig, TrainConfig
from minilm.model.transformer import Transformer
from minilm.training.muon import Muon
from minilm.training.optimizers import (
    add_l1_gradient,
    hidden_matrices,
    make_optimizers,
    matrices,
    set_rates,
)

CONFIG = ModelConfig(
    num_layers=1, d_model=8, num_heads=2, position="learned", ngram=2, ngram_rows=5, convolution=2
)
HIDDEN = {
    *(f"blocks.0.attention.{part}.weight" for part in ("query", "key", "value", "output")),
    "blocks.0.feed_forward.up.weight",
    "blocks.0.feed_forward.down.weight",
}


def of_group(model: Transformer, group: dict) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_adamw_decays_matrices_alone() -> None:
    model = Transformer(CONFIG)
    settings = TrainConfig(optimizer="adamw", weight_decay=0.3)
    (adamw,) = make_optimizers(model, settings, torch.float32)
    others, decayed = adamw.param_groups
    assert decayed["weight_decay"] == 0.3
    assert of_group(model, decayed) == HIDDEN | {"lm_head.weight"}
    assert others["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = Transformer(CONFIG)
    muon, adamw = make_optimizers(model, TrainConfig(weight_decay=0.3), torch.float32)
    assert isinstance(muon, Muon)
    assert of_group(model, muon.param_groups[0]) == HIDDEN
    assert muon.param_groups[0]["weight_decay"] == 0.3
    (others,) = adamw.param_groups
    assert others["weight_decay"] == 0.0
    every = {name for name, _ in model.named_parameters()}
    assert of_group(model, others) == every - HIDDEN
    assert {"lm_head.weight", "embedding.ngram.weight", "blocks.0.convolution.weight"} <= every


def test_with_the_blocks_matrices_alone_there_is_nothing_for_adamw() -> None:
    model = Transformer(CONFIG).requires_grad_(False)
    for parameter in hidden_matrices(model):
        parameter.requires_grad_(True)
    (muon,) = make_optimizers(model, TrainConfig(), torch.float32)
    assert of_group(model, muon.param_groups[0]) == HIDDEN


def test_a_tied_head_is_an_embedding_first() -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=8, num_heads=2, tied_embeddings=True))
    assert len(matrices(model)) == len(hidden_matrices(model)) == 6


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_decay_is_decoupled_from_the_gradient(optimizer: str) -> None:
    model = Transformer(CONFIG)
    settings = TrainConfig(
        optimizer=optimizer, weight_decay=0.5, learning_rate=0.1, muon_learning_rate=0.1
    )
    optimizers = make_optimizers(model, settings, torch.float32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for each in optimizers:
        each.step()
    decayed = {id(p) for p in (matrices if optimizer == "adamw" else hidden_matrices)(model)}
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if id(parameter) in decayed else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_the_schedule_reaches_every_group() -> None:
    model = Transformer(CONFIG)
    settings = TrainConfig(
        learning_rate=0.5,
        muon_learning_rate=0.2,
        warmup_steps=4,
        momentum_warmup_steps=10,
        muon_momentum=0.95,
    )
    muon, adamw = optimizers = make_optimizers(model, settings, torch.float32)
    assert set_rates(optimizers, 0, settings) == 0.5 / 4
    assert [group["lr"] for group in adamw.param_groups] == [0.5 / 4]
    assert muon.param_groups[0]["lr"] == 0.2 / 4
    assert muon.param_groups[0]["momentum"] == 0.85
    set_rates(optimizers, 5, settings)
    assert muon.param_groups[0]["momentum"] == pytest.approx(0.9)
    set_rates(optimizers, 10, settings)
    assert muon.param_groups[0]["momentum"] == 0.95


def test_l1_is_the_gradient_of_the_norm() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.5, -2.0], [0.0, 3.0]]))
    (0.1 * weight.abs().sum() + (weight**2).sum()).backward()
    expected = weight.grad.clone()
    weight.grad = None
    (weight**2).sum().backward()
    frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
    add_l1_gradient([weight, frozen], 0.1)
    torch.testing.assert_close(weight.grad, expected)
    assert frozen.grad is None
