"""The folder of a transformed model: a run that was not trained here, with what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minilm import files
from minilm.checkpoint import save_weights
from minilm.errors import InputError
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.text.tokenizers import Tokenizer
from minilm.training.base_model import companions, weights_dtype


def check_new(out: Path) -> None:
    """Raises InputError unless a folder can be made at ``out``, before anything is computed."""
    if out.exists():
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    if not out.absolute().parent.is_dir():
        raise InputError(out.parent, "no such folder", "one that the new path is in")


def write_model(
    folder: Path,
    source: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    transform: Mapping[str, Any],
) -> None:
    """Make ``folder``: the model in the dtype of the run ``source``, and how it is recorded and tokenized.

    ``transform`` is what was done, for config.json.
    """
    folder.mkdir()
    record = run_files.read_record(source / run_files.CONFIG)
    dtype: torch.dtype = getattr(torch, weights_dtype(source))
    save_weights(folder / run_files.WEIGHTS, model.to(dtype), {"format": "pt"})
    tokenizer.save(folder / run_files.TOKENIZER)
    for name, content in companions(source).items():
        files.write_bytes(folder / name, content)
    transforms = (*record.transforms, transform)
    run_files.write_record(folder, replace(record, model=model.config, transforms=transforms))


def write_summary(folder: Path, source: Path, fields: Mapping[str, Any]) -> None:
    """summary.json: ``fields``, and which text ``source`` has: the next tool finds its split there."""
    of_source = run_files.last_summary(source)
    data = {"data": of_source["data"]} if "data" in of_source else {}
    files.write_json(folder / run_files.SUMMARY, data | dict(fields))
