"""The folder of a transformed model: a run that was not trained here, with what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minilm import files
from minilm.model.transformer import Transformer
from minilm.operations.comparison import Comparison
from minilm.parallel.tensor_parts import write_tensors
from minilm.runs import files as run_files
from minilm.training.base_model import WeightDtypes, companions


def write_model(
    folder: Path,
    source: Path,
    model: Transformer,
    *done: Mapping[str, Any],
    base: Path | None = None,
) -> None:
    """Make ``folder``: the model in the dtypes of the run ``source``, and how it is recorded and tokenized.

    ``done`` is for config.json. ``base`` has the dtypes where ``source`` is an adapter on it.
    """
    folder.mkdir()
    record = run_files.read_record(source / run_files.CONFIG)
    dtypes = WeightDtypes(base or source)
    tensors = {
        name: parameter.detach().to(getattr(torch, dtypes.of(name)))
        for name, parameter in model.named_parameters()
    }
    write_tensors(folder / run_files.WEIGHTS, tensors, {"format": "pt"})
    files.write_bytes(folder / run_files.TOKENIZER, (source / run_files.TOKENIZER).read_bytes())
    for name, content in companions(source).items():
        files.write_bytes(folder / name, content)
    record = record.transformed(*done, model=model.config, base={}, quantization={})
    run_files.write_record(folder, record)


def write_summary(folder: Path, source: Path, comparison: Comparison, **more: Any) -> None:
    """summary.json: ``comparison``, and which text ``source`` has: the next tool finds its split there."""
    fields: dict[str, Any] = {"parameters": comparison.after.parameters, **comparison.to_dict()}
    fields |= more
    of_source = run_files.last_summary(source)
    if "data" in of_source:
        fields["data"] = of_source["data"]
    files.write_json(folder / run_files.SUMMARY, fields)
