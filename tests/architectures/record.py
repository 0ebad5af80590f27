"""python -m tests.architectures.record: hash what transformers builds of one draw a type into recorded.json.

`make test` compares the declarations with it without transformers; `make agree` that it is still so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.architectures import (
    draws,
    draws_bytes,
    draws_classes,
    draws_convolutions,
    draws_decoders,
    draws_gpt,
    draws_joint,
    draws_omni,
    draws_pictures,
    draws_recurrent,
    draws_speech,
    draws_transcribers,
    draws_vision,
    draws_whole,
)

PATH = Path(__file__).parent / "recorded.json"
DRAWS = draws.DRAWS | draws_gpt.DRAWS | draws_decoders.DRAWS | draws_recurrent.DRAWS
CLASS_DRAWS = draws_classes.DRAWS | draws_vision.DRAWS | draws_joint.DRAWS | draws_whole.DRAWS
CLASS_DRAWS |= draws_pictures.DRAWS | draws_convolutions.DRAWS
CLASS_DRAWS |= draws_bytes.DRAWS | draws_speech.DRAWS | draws_transcribers.DRAWS
CLASS_DRAWS |= draws_omni.DRAWS
CLASSES = [(model_type, name) for model_type, (names, _) in CLASS_DRAWS.items() for name in names]
SEED = 1

Shapes = Mapping[str, tuple[int, ...]]


def drawn(model_type: str, seed: int = SEED) -> dict[str, Any]:
    """The config.json of a draw."""
    return {"model_type": model_type} | DRAWS[model_type](Random(seed))


def drawn_class(model_type: str, class_name: str, seed: int = SEED) -> dict[str, Any]:
    """The config.json of a draw for one of the classes of a type."""
    config = CLASS_DRAWS[model_type][1](Random(seed))
    return {"model_type": model_type} | config | {"architectures": [class_name]}


def class_key(model_type: str, class_name: str) -> str:
    """What a class of a type is called in the record: two types may share one."""
    return f"{model_type}: {class_name}"


def digest(parameters: Shapes, buffers: Shapes, ties: Iterable[frozenset[str]]) -> str:
    """One hash of all names and shapes, and of the pairs of names of one parameter."""
    whole = [
        sorted((name, list(shape)) for name, shape in parameters.items()),
        sorted((name, list(shape)) for name, shape in buffers.items()),
        sorted(sorted(pair) for pair in ties),
    ]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]


def tied_names(pairs: Iterable[tuple[str, str]]) -> set[frozenset[str]]:
    """All names of one parameter, of a layout's pairs."""
    names: dict[str, set[str]] = {}
    for name, shared in pairs:
        names.setdefault(shared, {shared}).add(name)
    return set(map(frozenset, names.values()))


if __name__ == "__main__":
    from tests.architectures.test_classes_agreement import build_class
    from tests.architectures.test_transformers_agreement import build, stored, ties

    models = {model_type: build(drawn(model_type)) for model_type in DRAWS}
    models |= {
        class_key(kind, name): build_class(name, drawn_class(kind, name)) for kind, name in CLASSES
    }
    record = {name: digest(*stored(models[name]), ties(models[name])) for name in sorted(models)}
    PATH.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
