"""In which dtype a model generates: measured on itself, for so many texts, and never one that overflows."""

from typing import Any

import pytest
import torch

from minilm.config import ModelConfig
from minilm.generation import measured_dtype
from minilm.generation.measured_dtype import fastest_dtype
from minilm.model.transformer import Transformer
from tests.interop.shapes import random_model

CONFIG = ModelConfig(vocab_size=64, context_length=16, num_layers=2, d_model=16, num_heads=2)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Transformer:
    monkeypatch.setattr(measured_dtype, "FEWEST_BFLOAT16_PARAMETERS", 1)
    return random_model(CONFIG)


def fastest_is(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[str, list[str]]]:
    """The dtype of that name is measured as fastest; returns the questions, with their alternatives."""
    questions: list[tuple[str, list[str]]] = []

    def choose(question: str, alternatives: Any) -> str:
        shapes = {tuple(run().shape) for _, run in alternatives}
        questions.append((question, [each for each, _ in alternatives]))
        assert len(shapes) == 1
        return name

    monkeypatch.setattr(measured_dtype, "choose", choose)
    return questions


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_fastest_is_taken(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    questions = fastest_is(monkeypatch, name)
    assert fastest_dtype(model, torch.float32) == getattr(torch, name)
    assert fastest_dtype(model, torch.bfloat16, texts=3) == getattr(torch, name)
    assert questions[0][1] == ["float32", "bfloat16", "float16"]
    assert questions[1][1] == ["bfloat16", "float32", "float16"]
    assert questions[0][0] != questions[1][0]
    assert model.lm_head.weight.dtype == torch.float32


def test_float16_is_not_taken_where_it_overflows(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest_is(monkeypatch, "float16")
    with torch.no_grad():
        model.lm_head.weight.fill_(1e5)
    assert fastest_dtype(model, torch.bfloat16) == torch.bfloat16


def test_a_small_a_large_and_a_modified_model_stay_by_rule(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = fastest_is(monkeypatch, "float16")
    handle = model.lm_head.register_forward_hook(lambda *_: None)
    assert fastest_dtype(model, torch.float32) == torch.float32
    handle.remove()
    for name, value in (("FEWEST_BFLOAT16_PARAMETERS", 10**9), ("MOST_PARAMETERS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(measured_dtype, name, value)
            assert fastest_dtype(model, torch.float32) == torch.float32
    assert questions == []
    assert fastest_dtype(model, torch.float32) == torch.float16
