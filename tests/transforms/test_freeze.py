"""Freezing by component: what gets a gradient, and what is refused."""

import pytest
import torch

from minilm.config import ModelConfig, TrainConfig
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer, next_token_loss
from minilm.training.optimizers import make_optimizers
from minilm.transforms.freeze import freeze
from tests.interop.shapes import TINY

TOKENS = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(3))


def frozen_names(config: ModelConfig, *words: str) -> set[str]:
    model = freeze(Transformer(config), words)
    next_token_loss(model, TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is None} == frozen
    updated = {
        id(p)
        for optimizer in make_optimizers(model, TrainConfig(), torch.float32)
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert updated == {id(p) for p in model.parameters() if p.requires_grad}
    return frozen


def test_a_component_is_frozen_in_every_block() -> None:
    config = ModelConfig(**TINY | {"qk_norm": True, "norm": "rmsnorm", "feed_forward": "swiglu"})
    names = {name for name, _ in Transformer(config).named_parameters()}
    assert frozen_names(config, "attention") == {n for n in names if ".attention." in n}
    assert frozen_names(config, "feed_forward") == {n for n in names if ".feed_forward." in n}
    assert frozen_names(config, "norm") == {n for n in names if "norm" in n}
    assert frozen_names(config, "query", "embedding") == {
        n for n in names if ".query." in n or n.startswith("embedding.")
    }
    assert frozen_names(config, "lm_head") == {"lm_head.weight"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("attention", "gate"), "freeze: 'gate', expected any of embedding, attention"),
        (("atention",), "freeze: 'atention'"),
        (("lm_head",), "freeze: 'lm_head', which is the embedding"),
        (("embedding", "attention", "feed_forward", "norm"), "a part that is left to train"),
    ],
)
def test_what_cannot_be_frozen(words: tuple[str, ...], message: str) -> None:
    model = Transformer(ModelConfig(**TINY | {"tied_embeddings": True}))
    with pytest.raises(ConfigError, match=message):
        freeze(model, words)
    assert all(p.requires_grad for p in model.parameters())
