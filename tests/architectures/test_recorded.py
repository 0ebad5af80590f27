"""One draw a type against what transformers built of it, which record.py wrote down: without transformers."""

from __future__ import annotations

import json

import pytest

from minilm.architectures import layout_of, layout_of_class
from minilm.ledger.layout import Layout
from tests.architectures.record import (
    CLASSES,
    DRAWS,
    PATH,
    class_key,
    digest,
    drawn,
    drawn_class,
    tied_names,
)

RECORD = json.loads(PATH.read_text(encoding="utf-8"))


def test_every_type_is_recorded() -> None:
    types = DRAWS.keys() | {class_key(*each) for each in CLASSES}
    assert RECORD.keys() == types, "run: python -m tests.architectures.record"


@pytest.mark.parametrize("model_type", DRAWS)
def test_names_shapes_buffers_and_ties_are_those_recorded(model_type: str) -> None:
    assert _digest(layout_of(drawn(model_type))) == RECORD[model_type]


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_a_class_is_as_recorded(model_type: str, class_name: str) -> None:
    layout = layout_of_class(drawn_class(model_type, class_name))
    assert layout is not None
    assert _digest(layout) == RECORD[class_key(model_type, class_name)]


def _digest(layout: Layout) -> str:
    parameters = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    buffers = {tensor.name: tensor.shape for tensor in layout.named_tensors(layout.buffers)}
    return digest(parameters, buffers, tied_names(layout.ties))
