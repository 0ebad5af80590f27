"""Which settings apply: each rule names a field, and no other field is ever left out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from minilm.config import ModelConfig, TrainConfig, applicable, to_dict
from minilm.config.applicable import applicable_settings
from minilm.config.presets import PRESETS

OLD_NAMES = {"final_learning_rate", "final_lr_fraction"}  # of one field, before and now


def left_out(group: str, settings: dict[str, Any]) -> set[str]:
    return settings.keys() - applicable_settings({group: settings})[group].keys()


def test_each_rule_is_for_a_field() -> None:
    for rules, config in ((applicable._MODEL, ModelConfig), (applicable._TRAINING, TrainConfig)):
        assert rules.keys() - {field.name for field in fields(config)} <= OLD_NAMES


ROPE = {"rope_theta", "rotary_dim", "rope_scaling", "rope_factor"}
LLAMA3 = {"rope_low_factor", "rope_high_factor", "rope_original_context"}
SHARED = {"shared_layers", "sharing"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"rope_factor", "ngram_rows"} | LLAMA3 | SHARED),
        ({"position": "learned"}, {"ngram_rows"} | ROPE | LLAMA3 | SHARED),
        ({"rope_scaling": "linear", "rope_factor": 2.0}, {"ngram_rows"} | LLAMA3 | SHARED),
        ({"rope_scaling": "llama3", "rope_factor": 8.0, "ngram": 2}, SHARED),
        ({"norm": "rmsnorm"}, {"rope_factor", "ngram_rows", "norm_bias"} | LLAMA3 | SHARED),
        ({"initialization": "xavier"}, {"rope_factor", "ngram_rows", "init_std"} | LLAMA3 | SHARED),
        ({"shared_layers": 2}, {"rope_factor", "ngram_rows"} | LLAMA3),
        ({"shared_layers": 4}, {"rope_factor", "ngram_rows"} | LLAMA3 | SHARED),
    ],
)
def test_fields_of_a_model(changes: dict[str, Any], expected: set[str]) -> None:
    assert left_out("model", to_dict(ModelConfig(**changes))) == expected


UNSET = {"max_seconds", "target_val_loss"}
OFF = {"bpe_dropout"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"decay_fraction", "growth_fraction"} | OFF),
        ({"schedule": "wsd", "initial_context_length": 8, "bpe_dropout": 0.1}, set()),
        ({"schedule": "constant", "initial_batch_size": 2}, {"decay_fraction"} | OLD_NAMES | OFF),
        (
            {"optimizer": "adamw", "schedule": "wsd"},
            {"growth_fraction", "muon_learning_rate", "muon_momentum", "momentum_warmup_steps"}
            | OFF,
        ),
    ],
)
def test_fields_of_training(changes: dict[str, Any], expected: set[str]) -> None:
    settings = to_dict(TrainConfig(**changes))
    assert left_out("training", settings) == (expected | UNSET) & settings.keys()


def test_other_groups_and_names_are_left_as_they_are() -> None:
    groups = {"model": {"unknown": 1, "rope_theta": 2.0}, "other": {"rope_factor": 3}}
    assert applicable_settings(groups) == groups


@pytest.mark.parametrize("name", PRESETS)
def test_what_differs_from_the_default_in_a_preset_applies(name: str) -> None:
    preset = PRESETS[name]
    assert not left_out("model", to_dict(preset.model_config())) & preset.model.keys()
    assert not left_out("training", to_dict(preset.train_config())) & preset.train.keys()
