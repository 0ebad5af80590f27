"""merge(): an adapter folded into its base, as a run without an adapter."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minilm import files
from minilm.checkpoint import load, read_run_record, save_weights
from minilm.config import TrainConfig, from_dict
from minilm.errors import InputError
from minilm.operations.comparison import Comparison, measure
from minilm.operations.evaluate import EvaluationText, evaluation_text
from minilm.runs import files as run_files
from minilm.runs.base_run import find_base
from minilm.text.tokenizers import Tokenizer
from minilm.training.base_model import companions, weights_dtype
from minilm.training.runtime import resolve
from minilm.transforms import lora
from minilm.transforms.quantize import dequantize_layers

# The methods of pruning that leave zeros where they are.
MASKED = ("magnitude", "wanda", "2:4")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merged:
    """The new run, the dtype of its weights, and the adapter and the merged model beside each other."""

    out: Path
    dtype: str
    comparison: Comparison


def merge(
    run_dir: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    text_field: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Merged:
    """Fold the adapter ``run_dir`` into its base, into the new folder ``out``, in the base's dtype.

    The loss is over all of ``data``, by default over the validation split of the adapter's own text where
    that is at hand. Raises InputError for a run that is no adapter and for a path that exists.
    """
    run, out = Path(run_dir), Path(out)
    record = read_run_record(run)
    if not record.base:
        raise InputError(
            run, "a whole model", "a run that is an adapter", "there is nothing to merge"
        )
    if out.exists():
        raise InputError(out, "something that exists", "a new path", "remove it or choose another")
    if not out.absolute().parent.is_dir():
        raise InputError(out.parent, "no such folder", "one that the new path is in")
    base = find_base(run, record)
    dtype = weights_dtype(base)
    settings = {"device": device, "compile": "off"}
    runtime = resolve(from_dict(TrainConfig, settings, "merge"), 0.0)
    model, tokenizer = load(run, trainable=True, device=str(runtime.device))
    text = _text(run, tokenizer, data, text_field, cache)
    weights = [base / run_files.WEIGHTS, run_files.weights_path(run)]
    before = measure(model, weights, text, runtime)
    keep_zeros = any(t.get("method") in MASKED for t in record.transforms)
    if keep_zeros:
        logger.warning(
            "note: the base is pruned, and its zeros stay zero: the merged model is not exactly the adapter"
        )
    lora.merge(model, keep_zeros=keep_zeros)
    dequantize_layers(model)
    with files.staged(out) as folder:
        folder.mkdir()
        save_weights(folder / run_files.WEIGHTS, model.to(getattr(torch, dtype)), {"format": "pt"})
        tokenizer.save(folder / run_files.TOKENIZER)
        for name, content in companions(run).items():
            files.write_bytes(folder / name, content)
        transforms = (*record.transforms, {"tool": "merge", "dtype": dtype})
        merged = replace(
            record, model=model.config, transforms=transforms, base={}, quantization={}
        )
        run_files.write_record(folder, merged)
        stored, _ = load(folder, trainable=True, device=str(runtime.device))
        after = measure(stored, [folder / run_files.WEIGHTS], text, runtime)
        comparison = Comparison(before, after)
        summary = comparison.to_dict() | {"parameters": after.parameters}
        if "data" in (of_run := run_files.last_summary(run)):
            summary = {"data": of_run["data"], **summary}
        files.write_json(folder / run_files.SUMMARY, summary)
    return Merged(out, dtype, comparison)


def _text(
    run: Path,
    tokenizer: Tokenizer,
    data: str | None,
    text_field: str | None,
    cache: Path | None,
) -> EvaluationText | None:
    """``data``, or the run's own text; a merge does without where that is not at hand any more."""
    if data is not None:
        return evaluation_text(run, tokenizer, data, text_field=text_field, cache=cache)
    try:
        return evaluation_text(run, tokenizer, cache=cache)
    except InputError as error:
        logger.warning(f"note: no loss: {error}")
        return None
