"""The claim of the project: formula == file == named_parameters(), name by name, for any model."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from minilm.architectures.minilm import layout
from minilm.checkpoint import load_model, save_weights
from minilm.config import ModelConfig
from minilm.config.presets import PRESETS
from minilm.formats.safetensors import read_header
from minilm.inspection.comparison import expected_shapes
from minilm.inspection.module_reader import meta_model
from minilm.model.transformer import Transformer
from tests.strategies import model_configs


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(config=model_configs())
def test_formula_is_file_is_module(config: ModelConfig, tmp_path: Path) -> None:
    formula = layout(config)
    model = Transformer(config)
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})

    by_formula = expected_shapes(formula)
    by_module = {name: tuple(p.shape) for name, p in model.named_parameters()}
    by_file = {tensor.name: tensor.shape for tensor in read_header(path).tensors}
    assert by_formula == by_file == by_module
    total = sum(parameter.numel() for parameter in model.parameters())
    assert formula.count() == total
    assert sum(tensor.count for tensor in read_header(path).tensors) == total
    assert {n: tuple(p.shape) for n, p in meta_model(config).named_parameters()} == by_formula


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_on_the_meta_device(name: str) -> None:
    config = PRESETS[name].model_config()
    model = meta_model(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == expected_shapes(
        layout(config)
    )
    assert sum(p.numel() for p in model.parameters()) == layout(config).count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(config=model_configs())
def test_saved_then_loaded_is_bitwise_the_same(config: ModelConfig, tmp_path: Path) -> None:
    model = Transformer(config, torch.Generator().manual_seed(1))
    save_weights(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors", config)
    pairs = zip(model.named_parameters(), loaded.named_parameters(), strict=True)
    for (name, before), (same_name, after) in pairs:
        assert name == same_name
        assert torch.equal(before, after)
    tokens = torch.arange(config.context_length)[None] % config.vocab_size
    assert torch.equal(model.eval()(tokens), loaded.eval()(tokens))
