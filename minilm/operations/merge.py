"""merge(): adapters folded into their base, as a run without an adapter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minilm import files
from minilm.checkpoint import load, read_run_record
from minilm.errors import InputError
from minilm.interop.convert import check_new
from minilm.operations.comparison import Comparison, measure
from minilm.operations.folders import write_model, write_summary
from minilm.operations.prune import STRUCTURED
from minilm.runs import files as run_files
from minilm.runs.base_run import find_base
from minilm.text.tokenizers import Tokenizer
from minilm.training.base_model import WeightDtypes
from minilm.training.evaluation_text import EvaluationText, evaluation_text
from minilm.training.runtime import resolve_for_use
from minilm.transforms import lora
from minilm.transforms.quantize import dequantize_layers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merged:
    """The new run, the dtype of its weights, and the adapter and the merged model beside each other."""

    out: Path
    dtype: str
    comparison: Comparison


def merge(
    checkpoint: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    data: str | None = None,
    text_field: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Merged:
    """Fold the adapter of a run into its base, into the new folder ``out``, in the base's dtypes.

    Of several adapters of one base the sum is added. The loss is over all of ``data``, by default over the
    validation split of the first adapter's own text where that is at hand. Raises InputError for a run that
    is no adapter, for adapters of different bases and for a path that exists.
    """
    several = [checkpoint] if isinstance(checkpoint, (str, Path)) else checkpoint
    if not several:
        raise InputError("checkpoint", "no run", "a run that is an adapter, or several")
    run, *others = map(Path, several)
    out, record = Path(out), read_run_record(run)
    if not record.base:
        raise InputError(
            run, "a whole model", "a run that is an adapter", "there is nothing to merge"
        )
    check_new(out)
    base = find_base(run, record)
    runtime = resolve_for_use("merge", device)
    model, tokenizer = load(run, adapters=others, trainable=True, device=str(runtime.device))
    text = _text(run, tokenizer, data, text_field, cache)
    weights = [base / run_files.WEIGHTS, *map(run_files.weights_path, (run, *others))]
    names = " and ".join(each.name for each in (run, *others))
    logger.info(f"merging {names} into {base}: the adapter is measured first")
    before = measure(model, weights, text, runtime)
    keep_zeros = any(
        t["tool"] == "prune" and t["method"] not in STRUCTURED for t in record.transforms
    )
    if keep_zeros:
        logger.warning(
            "note: the base is pruned, and its zeros stay zero: the merged model is not exactly the adapter"
        )
    lora.merge(model, keep_zeros=keep_zeros)
    dequantize_layers(model)
    with files.staged(out) as folder:
        transforms = [read_run_record(each).transforms[-1] for each in others]
        dtype = WeightDtypes(base).described(name for name, _ in model.named_parameters())
        done = {"tool": "merge", "dtype": dtype}
        # The adapter may have been trained on shorter windows than the base reads.
        windows = model.config
        context_length = run_files.read_config(base / run_files.CONFIG).context_length
        model.config = replace(windows, context_length=context_length)
        write_model(folder, run, model, *transforms, done, base=base)
        stored, _ = load(folder, trainable=True, device=str(runtime.device))
        stored.config = windows  # evaluated in the same
        logger.info("measuring the merged model")
        after = measure(stored, [folder / run_files.WEIGHTS], text, runtime)
        comparison = Comparison(before, after)
        write_summary(folder, run, comparison)
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
