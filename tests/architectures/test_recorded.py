"""One draw a type against what transformers built of it, which record.py wrote down: without transformers."""

from __future__ import annotations

import json

import pytest

from minilm.architectures import layout_of
from tests.architectures.record import DRAWS, PATH, digest, drawn, tied_names

RECORD = json.loads(PATH.read_text(encoding="utf-8"))


def test_every_type_is_recorded() -> None:
    assert RECORD.keys() == DRAWS.keys(), "run: python -m tests.architectures.record"


@pytest.mark.parametrize("model_type", RECORD)
def test_names_shapes_buffers_and_ties_are_those_recorded(model_type: str) -> None:
    layout = layout_of(drawn(model_type))
    parameters = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    buffers = {tensor.name: tensor.shape for tensor in layout.named_tensors(layout.buffers)}
    assert digest(parameters, buffers, tied_names(layout.ties)) == RECORD[model_type]
