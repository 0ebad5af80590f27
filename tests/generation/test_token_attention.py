"""One new token's attention in half precision: in float32, or as it is where that is faster."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.generation import token_attention
from minilm.generation.fast_decoder import FastDecoder
from tests.interop.shapes import random_model
from tests.model.architectures import ARCHITECTURES

halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@pytest.fixture
def attended_in(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes of the queries of one token, in turn."""
    dtypes: list[torch.dtype] = []

    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        dtypes.append(query.dtype)
        return F.scaled_dot_product_attention(query, *others)

    functional = types.SimpleNamespace(**vars(F) | {"scaled_dot_product_attention": attend})
    monkeypatch.setattr(token_attention, "F", functional)
    return dtypes


@halves
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("number", [0, 1, None])
@torch.no_grad()
def test_it_is_computed_in_the_dtype_that_was_chosen(
    name: str,
    dtype: torch.dtype,
    number: int | None,
    attended_in: list[torch.dtype],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 where nothing is measured; and the rest of the pass in its own dtype."""
    questions: list[str] = []

    def choose(question: str, ways: list[tuple[str, Any]]) -> str:
        for _, run in ways:
            run()
        questions.append(question)
        chosen: str = ways[number or 0][0]
        return chosen

    monkeypatch.setattr(token_attention, "choose", choose)
    model = random_model(ModelConfig(**ARCHITECTURES[name])).eval().to(dtype)
    decoder = FastDecoder(model, tune=number is not None)
    tokens = torch.randint(1, 48, (2, 5), generator=torch.Generator().manual_seed(0))
    cache = decoder.new_cache(2, 8)
    decoder(tokens[:, :4], cache)
    # Each way is timed over the cache of every layer.
    layers = model.config.num_layers
    assert attended_in == ([] if number is None else [torch.float32] * layers + [dtype] * layers)
    attended_in.clear()
    logits = decoder(tokens[:, 4:], cache)
    chosen = dtype if number == 1 else torch.float32
    assert attended_in == [chosen] * layers
    assert logits.dtype == dtype
    expected = model(tokens)[:, -1].float()
    assert (logits.float() - expected).norm() < 0.02 * expected.norm()
    assert decoder.choices["attention"] == ({} if number is None else {2: str(chosen)[6:]})
    decoder.new_cache(2, 8)
    assert len(questions) == (number is not None), "measured once for a number of texts"


@torch.no_grad()
def test_in_float32_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_attention, "choose", lambda *_: pytest.fail("measured"))
    decoder = FastDecoder(random_model(ModelConfig(**ARCHITECTURES["gpt2"])).eval(), tune=True)
    decoder.new_cache(1, 8)
    assert decoder.choices["attention"] == {}
