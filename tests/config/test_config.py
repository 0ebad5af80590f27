"""ModelConfig and TrainConfig: derivation, validation, JSON round trip."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.presets import PRESETS, find_preset
from minilm.errors import ConfigError
from minilm.training.train import resume, train


def test_derived_fields_hold_values_after_construction() -> None:
    config = ModelConfig(d_model=96, num_heads=3)
    assert (config.num_kv_heads, config.head_dim, config.d_feed_forward) == (3, 32, 384)
    assert config.norm_bias is True
    assert ModelConfig(norm="rmsnorm").norm_bias is False
    assert None not in to_dict(config).values()


def test_overrides_are_derived_anew() -> None:
    wider = find_preset("nano").model_config(d_model=256, num_heads=8)
    assert (wider.head_dim, wider.num_kv_heads, wider.d_feed_forward) == (32, 8, 1024)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 3}, "num_heads: 3 heads do not divide d_model 128"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads: 3 key/value heads do not divide"),
        ({"num_layers": 0}, "num_layers: 0, expected at least 1"),
        ({"num_layers": 20_000}, "num_layers: 20000, expected at most 10000"),
        ({"d_model": 128.0}, "d_model: 128.0, expected a whole number"),
        ({"vocab_size": True}, "vocab_size: True, expected"),
        ({"d_model": 2**40, "num_heads": 1}, "d_model: "),
        ({"head_dim": 31}, "head_dim: 31, expected an even number"),
        ({"norm": "rmsnorm", "norm_bias": True}, "norm_bias: true with rmsnorm"),
        ({"norm": "batchnorm"}, "norm: 'batchnorm', expected one of layernorm, rmsnorm"),
        ({"dropout": 1.0}, "dropout: 1.0, expected at least 0 and below 1"),
        ({"rope_theta": float("nan")}, "rope_theta: nan"),
        ({"init_std": float("inf")}, "init_std: inf"),
    ],
)
def test_a_wrong_model_names_the_field(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**fields)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"max_steps": 0}, "max_steps"),
        ({"schedule": "step"}, "schedule"),
        ({"val_fraction": 0.0}, "val_fraction"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"beta2": 1.0}, "beta2"),
        ({"seed": -1}, "seed"),
        ({"max_seconds": float("nan")}, "max_seconds"),
        ({"batch_size": 2.0}, "batch_size"),
    ],
)
def test_a_wrong_training_names_the_field(fields: dict, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        TrainConfig(**fields)


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    for config in (PRESETS[name].model_config(), PRESETS[name].train_config()):
        text = json.dumps(to_dict(config))
        assert from_dict(type(config), json.loads(text), "x") == config


def test_a_foreign_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config\.json: unknown field 'n_embd'"):
        from_dict(ModelConfig, {"n_embd": 3}, "config.json")
    with pytest.raises(ConfigError, match="an object of configuration fields"):
        from_dict(ModelConfig, [1], "config.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: find_preset("nano").train_config(learning_rte=0.1),
            "settings: unknown field 'learning_rte', expected a field of TrainConfig; perhaps learning_rate",
        ),
        (
            lambda: find_preset("nano").model_config(n_layers=2),
            "model: unknown field 'n_layers', expected a field of ModelConfig; perhaps num_layers",
        ),
        (
            lambda: find_preset("nano").train_config(zzz=1),
            "settings: unknown field 'zzz', expected a field of TrainConfig",
        ),
        (
            lambda: train(settings={"max_step": 3}),
            "settings: unknown field 'max_step', expected a field of TrainConfig; perhaps max_steps",
        ),
        (
            lambda: train(model={"dropouts": 0.1}),
            "model: unknown field 'dropouts', expected a field of ModelConfig; perhaps dropout",
        ),
    ],
)
def test_a_wrong_name_of_a_field_says_the_nearest(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message


OLD_NAMES = {"final_learning_rate": 0.5, "save_seconds": 9.0, "keep_last": 3, "l1": 0.25}


def test_fields_under_old_names_are_read() -> None:
    config = from_dict(TrainConfig, {**OLD_NAMES, "batch_size": 5}, "config.json")
    assert (config.final_lr_fraction, config.save_every_seconds) == (0.5, 9.0)
    assert (config.keep_states, config.l1_weight, config.batch_size) == (3, 0.25, 5)
    assert not OLD_NAMES.keys() & to_dict(config).keys()
    with pytest.raises(ConfigError, match="x: both 'l1' and 'l1_weight', expected the new name"):
        from_dict(TrainConfig, {"l1": 0.1, "l1_weight": 0.1}, "x")
    with pytest.raises(ConfigError, match=r"x: keep_states: 0, expected at least 1"):
        from_dict(TrainConfig, {"keep_last": 0}, "x")


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="one of nano, nano-fast, small, gpt2"):
        find_preset("huge")


def test_a_resumed_run_says_the_nearest_too(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="unknown field 'max_second'"):
        resume(tiny_run, settings={"max_second": 3})
