"""The folder of a transformed model: a run that was not trained here, with what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minilm import files
from minilm.checkpoint import save_weights
from minilm.model.transformer import Transformer
from minilm.operations.comparison import Comparison
from minilm.runs import files as run_files
from minilm.training.base_model import companions, weights_dtype


def write_model(
    folder: Path,
    source: Path,
    model: Transformer,
    transform: Mapping[str, Any],
) -> None:
    """Make ``folder``: the model in the dtype of the run ``source``, and how it is recorded and tokenized.

    ``transform`` is what was done, for config.json.
    """
    folder.mkdir()
    record = run_files.read_record(source / run_files.CONFIG)
    dtype: torch.dtype = getattr(torch, weights_dtype(source))
    save_weights(folder / run_files.WEIGHTS, model.to(dtype), {"format": "pt"})
    files.write_bytes(folder / run_files.TOKENIZER, (source / run_files.TOKENIZER).read_bytes())
    for name, content in companions(source).items():
        files.write_bytes(folder / name, content)
    transforms = (*record.transforms, transform)
    run_files.write_record(folder, replace(record, model=model.config, transforms=transforms))


def write_summary(folder: Path, source: Path, comparison: Comparison, **more: Any) -> None:
    """summary.json: ``comparison``, and which text ``source`` has: the next tool finds its split there."""
    fields: dict[str, Any] = {"parameters": comparison.after.parameters, **comparison.to_dict()}
    fields |= more
    of_source = run_files.last_summary(source)
    if "data" in of_source:
        fields["data"] = of_source["data"]
    files.write_json(folder / run_files.SUMMARY, fields)
