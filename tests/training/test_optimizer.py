"""AdamW's groups and the L1 term."""

import torch

from minilm.config import ModelConfig, TrainConfig
from minilm.model.transformer import Transformer
from minilm.training.optimizer import add_l1_gradient, make_optimizer, matrices


def test_only_matrices_decay() -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=8, num_heads=2, position="learned"))
    decayed, others = make_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.3
    assert {names[id(p)] for p in decayed["params"]} == {
        *(f"blocks.0.attention.{part}.weight" for part in ("query", "key", "value", "output")),
        "blocks.0.feed_forward.up.weight",
        "blocks.0.feed_forward.down.weight",
        "lm_head.weight",
    }
    assert others["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_decay_is_decoupled_from_the_gradient() -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=8, num_heads=2))
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.5, learning_rate=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {id(p) for p in matrices(model)}
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if id(parameter) in decayed else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_l1_is_the_gradient_of_the_norm() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.5, -2.0], [0.0, 3.0]]))
    (0.1 * weight.abs().sum() + (weight**2).sum()).backward()
    expected = weight.grad.clone()
    weight.grad = None
    (weight**2).sum().backward()
    add_l1_gradient([weight], 0.1)
    torch.testing.assert_close(weight.grad, expected)
