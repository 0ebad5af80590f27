"""A file with exactly the tensors that are declared, of every class: verified, name by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of, layout_of_class
from tests.architectures.record import CLASSES, DRAWS, drawn, drawn_class

CAUSAL = [pytest.param(name, "", id=name) for name in DRAWS]
OTHERS = [pytest.param(*each, id="-".join(each)) for each in CLASSES]


@pytest.mark.parametrize(("model_type", "class_name"), [*CAUSAL, *OTHERS])
def test_a_folder_of_the_declared_tensors_is_verified(
    model_type: str, class_name: str, tmp_path: Path
) -> None:
    config: dict[str, Any] = (
        drawn_class(model_type, class_name) if class_name else drawn(model_type)
    )
    layout = layout_of_class(config) if class_name else layout_of(config)
    assert layout is not None
    every = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    tensors = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in every}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert report.verified
    if not any("config.json gives no sizes" in note for note in report.notes):
        assert report.witnesses.formula == report.parameters.total == layout.count()
