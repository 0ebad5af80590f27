"""Sharing layers and heads: what must not change any logit does not, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.errors import InputError
from minilm.generation.unmodified import check_unmodified
from minilm.inspection.comparison import expected_shapes
from minilm.model.transformer import Transformer
from minilm.transforms.share import share_layers, tie_head, untie_head
from tests.interop.shapes import UNEVEN, random_model
from tests.strategies import model_configs


def model_of(**options: Any) -> Transformer:
    return random_model(ModelConfig(**(UNEVEN | options)))


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    tokens = torch.randint(37, (3, 20), generator=torch.Generator().manual_seed(1))
    result: Tensor = model.eval()(tokens)
    return result


def check_formula(model: Transformer) -> None:
    """The module is what its config builds, and has the tensors that the ledger declares."""
    check_unmodified(model)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == expected_shapes(layout(model.config))


@pytest.mark.parametrize("sharing", ["cycle", "group"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_equal_layers_share_without_a_change(blocks: int, sharing: Any) -> None:
    model = model_of(shared_layers=blocks, sharing=sharing)
    copies = share_layers(model, 5, "cycle")
    assert copies.config == replace(model.config, shared_layers=0)
    assert len(copies.blocks) == 5
    storages = {parameter.data_ptr() for parameter in copies.parameters()}
    assert len(storages) == len(list(copies.parameters()))
    assert torch.equal(logits(copies), logits(model))
    shared = share_layers(copies, blocks, sharing)
    assert shared.config == model.config
    assert torch.equal(logits(shared), logits(model))
    for each in (model, copies, shared):
        check_formula(each)


@pytest.mark.parametrize(("sharing", "first"), [("cycle", (0, 1)), ("group", (0, 3))])
def test_a_block_is_that_of_its_first_layer(sharing: Any, first: tuple[int, ...]) -> None:
    model = model_of()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    shared = share_layers(model, 2, sharing)
    for number, layer in enumerate(first):
        for name, parameter in shared.blocks[number].named_parameters():
            assert torch.equal(parameter, model.blocks[layer].get_parameter(name))
            assert parameter is not model.blocks[layer].get_parameter(name)
    check_formula(shared)
    # The model that was given is as it was.
    assert len(model.blocks) == 5
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_shared_layers_are_shared_further() -> None:
    model = model_of(shared_layers=3, sharing="cycle")  # 0 1 2 0 1
    shared = share_layers(model, 2, "group")  # the blocks of layers 0 and 3
    own = share_layers(share_layers(model, 5, "cycle"), 2, "group")
    assert torch.equal(logits(shared), logits(own))
    other = share_layers(model, 4, "group")  # of layers 0, 2, 3, 4
    weights = [block.attention.query.weight for block in other.blocks]
    expected = [model.blocks[number].attention.query.weight for number in (0, 2, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


@pytest.mark.parametrize("blocks", [0, -1, 6])
def test_a_number_of_blocks_that_no_model_has(blocks: int) -> None:
    with pytest.raises(InputError, match=f"--layers: {blocks}, expected from 1 to 5"):
        share_layers(model_of(), blocks, "group")


def test_the_blocks_that_it_has() -> None:
    for model, blocks, sharing in (
        (model_of(), 5, "group"),
        (model_of(shared_layers=2), 2, "group"),
        (model_of(shared_layers=1), 1, "cycle"),
    ):
        with pytest.raises(InputError, match=f"{blocks}, which the model has, expected another"):
            share_layers(model, blocks, sharing)  # type: ignore[arg-type]
    assert share_layers(model_of(shared_layers=2), 2, "cycle").config.sharing == "cycle"


def test_a_head_is_untied_and_tied_again() -> None:
    tied = model_of(tied_embeddings=True)
    untied = untie_head(tied)
    assert untied.lm_head.weight.data_ptr() != untied.embedding.token.weight.data_ptr()
    assert torch.equal(logits(untied), logits(tied))
    again = tie_head(untied)
    assert again.lm_head.weight is again.embedding.token.weight
    assert again.config == tied.config
    assert torch.equal(logits(again), logits(tied))
    for model in (tied, untied, again):
        check_formula(model)
    # A head of its own is the table after tying, and nothing else is changed.
    own = model_of()
    assert torch.equal(tie_head(own).lm_head.weight, own.embedding.token.weight)
    assert not torch.equal(logits(tie_head(own)), logits(own))
    with pytest.raises(InputError, match="--tie-head: a head that is tied already"):
        tie_head(tied)
    with pytest.raises(InputError, match="--untie-head: a head with its own weights"):
        untie_head(untied)


@settings(max_examples=40, deadline=None)
@given(config=model_configs(), data=st.data())
def test_any_model_is_shared_and_unshared(config: ModelConfig, data: st.DataObject) -> None:
    model = random_model(config)
    tokens = torch.arange(config.context_length)[None] % config.vocab_size
    expected = model(tokens)
    blocks = data.draw(st.integers(1, config.num_layers))
    sharing = data.draw(st.sampled_from(["cycle", "group"]))
    try:
        shared = share_layers(model, blocks, sharing)
    except InputError:
        assert blocks == config.num_blocks
        shared = model
    check_formula(shared)
    head = (untie_head if config.tied_embeddings else tie_head)(shared)
    check_formula(head)
    if config.tied_embeddings:
        assert torch.equal(head(tokens), shared(tokens))
    if config.num_blocks < config.num_layers:
        copies = share_layers(model, config.num_layers, "cycle")
        check_formula(copies)
        assert torch.equal(copies(tokens), expected)
