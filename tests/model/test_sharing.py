"""Layers that share a block: what is stored once, runs several times, and is the model with copies."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minilm.architectures.minilm import layout
from minilm.checkpoint import load_model, save_weights
from minilm.config import ModelConfig
from minilm.costs.activation_estimate import estimate
from minilm.costs.activations import activations
from minilm.costs.fits import fits
from minilm.costs.flops import flops_per_token, tensor_flops
from minilm.costs.gguf_types import gguf_bytes
from minilm.costs.memory import kv_cache_elements, stored_bytes
from minilm.errors import ConfigError
from minilm.ledger.approximation import textbook
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer, next_token_loss
from tests.interop.shapes import UNEVEN, random_model


def shared(**options: object) -> ModelConfig:
    return ModelConfig(**(UNEVEN | {"shared_layers": 2, "sharing": "cycle"} | options))


def tokens() -> Tensor:
    return torch.randint(37, (3, 20), generator=torch.Generator().manual_seed(1))


def with_copies(model: Transformer) -> Transformer:
    """The model that has a block of its own in each layer, by the names of its tensors."""
    config = replace(model.config, shared_layers=0)
    state = model.state_dict()
    expanded = Transformer(config)
    for name in expanded.state_dict():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            state[name] = model.state_dict()[
                f"blocks.{model.config.block_order[int(layer)]}.{rest}"
            ]
    expanded.load_state_dict(copy.deepcopy(state))
    return expanded.eval()


@pytest.mark.parametrize(
    ("sharing", "layers", "blocks", "order"),
    [
        ("cycle", 4, 2, (0, 1, 0, 1)),
        ("group", 4, 2, (0, 0, 1, 1)),
        ("cycle", 5, 2, (0, 1, 0, 1, 0)),
        ("group", 5, 2, (0, 0, 0, 1, 1)),
        ("group", 7, 3, (0, 0, 0, 1, 1, 2, 2)),
        ("cycle", 3, 1, (0, 0, 0)),
        ("cycle", 3, 3, (0, 1, 2)),
        ("group", 3, 0, (0, 1, 2)),
    ],
)
def test_the_block_of_each_layer(
    sharing: str, layers: int, blocks: int, order: tuple[int, ...]
) -> None:
    config = shared(num_layers=layers, shared_layers=blocks, sharing=sharing)
    assert config.block_order == order
    assert config.num_blocks == len(set(order))


@pytest.mark.parametrize("value", [-1, 6, 2.0, True])
def test_a_number_of_blocks_that_cannot_be(value: object) -> None:
    with pytest.raises(ConfigError, match="shared_layers"):
        shared(shared_layers=value)
    with pytest.raises(ConfigError, match="sharing"):
        shared(sharing="albert")


@pytest.mark.parametrize("sharing", ["cycle", "group"])
def test_it_is_the_model_with_copies(sharing: str) -> None:
    model = random_model(shared(sharing=sharing))
    assert {name.split(".")[1] for name, _ in model.blocks.named_parameters(prefix="blocks")} == {
        *"01"
    }
    assert [*model.named_parameters()] == [*model.named_parameters(remove_duplicate=False)]
    with torch.no_grad():
        assert torch.equal(model(tokens()), with_copies(model)(tokens()))


def test_its_gradient_is_the_sum_over_the_layers() -> None:
    model = random_model(shared()).requires_grad_(True)
    expanded = with_copies(model).requires_grad_(True)
    text = tokens()
    for each in (model, expanded):
        next_token_loss(each, text[:, :-1], text[:, 1:]).backward()
    for name, parameter in model.blocks.named_parameters():
        number, rest = name.split(".", 1)
        layers = [i for i, block in enumerate(model.config.block_order) if block == int(number)]
        gradients = [expanded.blocks[i].get_parameter(rest).grad for i in layers]
        assert len(gradients) == (3, 2)[int(number)]
        total = sum(each for each in gradients if each is not None)
        assert torch.allclose(parameter.grad, total, rtol=1e-4, atol=1e-6)


def test_each_layer_has_its_own_keys_and_values() -> None:
    config = shared()
    cache = KVCache(config, 1)
    assert len(cache.blocks) == config.num_layers
    elements = sum(block.key.numel() + block.value.numel() for block in cache.blocks)
    assert kv_cache_elements(layout(config), context=20, batch=1) == elements


def test_a_file_has_each_block_once_and_loads_into_one_storage(tmp_path: Path) -> None:
    model = random_model(shared(tied_embeddings=True))
    save_weights(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors", model.config)
    assert loaded.lm_head.weight is loaded.embedding.token.weight
    storages = {parameter.untyped_storage().data_ptr() for parameter in loaded.parameters()}
    assert len(storages) == len(dict(model.named_parameters()))
    assert len(loaded.blocks) == 2
    # What is changed in one layer is changed in all that share it.
    with torch.no_grad():
        loaded.blocks[0].attention.query.weight += 1
        model.blocks[0].attention.query.weight += 1
        assert torch.equal(loaded.eval()(tokens()), model(tokens()))


@pytest.mark.parametrize("sharing", ["cycle", "group"])
def test_the_ledger_counts_once_and_computes_as_often_as_it_runs(sharing: str) -> None:
    config = shared(sharing=sharing)
    own, all_layers = layout(config), layout(replace(config, shared_layers=0))
    two_layers = layout(replace(config, shared_layers=0, num_layers=2))
    assert (
        own.count()
        == two_layers.count()
        == sum(p.numel() for p in Transformer(config).parameters())
    )
    assert own.symbols["S"] == 2
    assert "S" not in all_layers.symbols
    assert own.formula().symbolic == two_layers.formula().symbolic.replace("L", "S")
    assert flops_per_token(own, context=9) == flops_per_token(all_layers, context=9)
    assert stored_bytes(own, "int8") == stored_bytes(two_layers, "int8")
    assert estimate(own) == estimate(all_layers)
    assert fits(own, 2**30, cards=2)[-1].weights < fits(all_layers, 2**30, cards=2)[-1].weights
    assert gguf_bytes(own, "q4_k_m") == gguf_bytes(all_layers, "q4_k_m")
    rule, rule_of_two = textbook(own), textbook(two_layers)
    assert rule is not None
    assert rule_of_two is not None
    assert (rule.value, rule.text) == (rule_of_two.value, rule_of_two.text.replace("L", "S"))
    saved, of_all = (
        activations(c, batch=2, context=9) for c in (config, replace(config, shared_layers=0))
    )
    assert saved.total() == of_all.total()


def test_the_products_of_a_tensor_are_those_of_the_layers_that_run_it() -> None:
    config = shared()
    flops = {tensor.name: count for tensor, count in tensor_flops(layout(config))}
    weight = Transformer(config).blocks[0].feed_forward.up.weight
    name = "feed_forward.up.weight"
    assert [flops[f"blocks.{i}.{name}"] for i in range(2)] == [
        6 * weight.numel(),
        4 * weight.numel(),
    ]
    costs = flops_per_token(layout(config), context=9)
    assert sum(flops.values()) == costs["forward_per_token"] - costs["attention_per_token"]
