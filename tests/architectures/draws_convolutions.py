"""Random small configs of convolutional networks, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def _declare(model_type: str, start: str, classes: str, draw: Draw) -> None:
    endings = ("ForImageClassification", *classes.split())
    DRAWS[model_type] = tuple(start + ending for ending in endings), draw


def _stages(random: Random, step: int = 4, **more: Any) -> Config:
    """Widths in multiples of ``step`` and depths of some stages; ``more`` are drawn or left out."""
    count = random.randint(1, 4)
    return {
        "hidden_sizes": [step * random.randint(1, 4) for _ in range(count)],
        "depths": [random.randint(1, 3) for _ in range(count)],
        **labels(random),
        **_maybe(random, num_channels=random.randint(1, 4), **more),
    }


def _outputs(random: Random, count: int) -> Config:
    """The maps that a backbone gives out, by name or by number."""
    chosen = [i for i in range(count + 1) if _flag(random)] or [count]
    names = ["stem", *(f"stage{i + 1}" for i in range(count))]
    return random.choice(
        [
            {},
            {"out_features": [names[i] for i in chosen]},
            {"out_indices": [i - count - 1 for i in chosen]},
        ]
    )


def _resnet(random: Random) -> Config:
    return _stages(
        random,
        embedding_size=4 * random.randint(1, 4),
        layer_type=random.choice(["basic", "bottleneck"]),
        downsample_in_first_stage=_flag(random),
        downsample_in_bottleneck=_flag(random),
    )


def _regnet(random: Random) -> Config:
    return _stages(
        random,
        embedding_size=4 * random.randint(1, 4),
        layer_type=random.choice(["x", "y"]),
        downsample_in_first_stage=_flag(random),
        groups_width=random.choice([2, 4]),
    )


def _bit(random: Random) -> Config:
    more = {
        "layer_type": random.choice(["preactivation", "bottleneck"]),
        "width_factor": random.randint(1, 2),
        "global_padding": "same",
    }
    return _stages(random, 8, embedding_size=8 * random.randint(1, 3), **more) | {"num_groups": 2}


def _convnext(random: Random) -> Config:
    patch = random.choice([2, [2, 3]])
    config = _stages(random, 2, patch_size=patch, layer_scale_init_value=random.choice([0.0, 0.1]))
    count = len(config["depths"])
    return config | {"num_stages": count} | _outputs(random, count)


_declare("bit", "Bit", "Model Backbone", _bit)
_declare("convnext", "ConvNext", "Model Backbone", _convnext)
_declare("convnextv2", "ConvNextV2", "Model Backbone", _convnext)
_declare("regnet", "RegNet", "Model", _regnet)
_declare("resnet", "ResNet", "Model Backbone", _resnet)
