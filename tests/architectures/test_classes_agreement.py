"""Encoders, encoder-decoders, vision and larger models against transformers' own, each declared class.

As `test_transformers_agreement.py` has it for causal language models: names, shapes, ties and buffers of
random small configs and of the defaults.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from minilm.architectures import layout_of_class
from tests.architectures import draws_classes, draws_vision

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
import torch  # noqa: E402

from tests.architectures.test_transformers_agreement import (  # noqa: E402
    IS_VERSION_4,
    assert_agrees,
)

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="transformers 4 writes some otherwise")

NUM_DRAWS = 20
DRAWS = draws_classes.DRAWS | draws_vision.DRAWS
CLASSES = [(model_type, name) for model_type, (names, _) in DRAWS.items() for name in names]


def build(class_name: str, config: dict[str, Any]) -> Any:
    """transformers' model of a class for a config.json."""
    parsed = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return getattr(transformers, class_name)._from_config(parsed)


def assert_class_agrees(class_name: str, config: dict[str, Any]) -> None:
    model = build(class_name, config)
    written = json.loads(model.config.to_json_string(use_diff=False))
    layouts = [
        layout_of_class(each | {"architectures": [class_name]}) for each in (config, written)
    ]
    assert None not in layouts
    assert_agrees(model, *(layout for layout in layouts if layout))


@pytest.mark.parametrize("model_type", DRAWS)
def test_random_configs_agree_name_by_name(model_type: str) -> None:
    classes, draw = DRAWS[model_type]
    for seed in range(max(NUM_DRAWS, 3 * len(classes))):
        config = {"model_type": model_type} | draw(Random(seed))
        assert_class_agrees(classes[seed % len(classes)], config)


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_the_defaults_are_the_architectures(model_type: str, class_name: str) -> None:
    assert_class_agrees(class_name, {"model_type": model_type})
