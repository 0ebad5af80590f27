"""share(): a trained model whose layers share blocks or whose head is the token table, or the inverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm import files
from minilm.checkpoint import load
from minilm.errors import ConfigError, InputError
from minilm.interop.convert import as_run, check_new, weights_files
from minilm.operations.comparison import Comparison, measure_run
from minilm.operations.folders import write_model, write_summary
from minilm.runs import files as run_files
from minilm.training.evaluation_text import evaluation_text
from minilm.training.runtime import resolve_for_use
from minilm.transforms import share as transforms

OPTIONS = "--layers, --tie-head, --untie-head"


@dataclass(frozen=True)
class Shared:
    """Where the changed model is, what was done, and the model before and after."""

    out: Path
    transform: Mapping[str, Any]
    comparison: Comparison


def share(
    checkpoint: str | Path,
    out: str | Path,
    *,
    layers: int | None = None,
    sharing: transforms.Sharing | None = None,
    tie_head: bool = False,
    untie_head: bool = False,
    data: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    text_field: str | None = None,
    cache: Path | None = None,
) -> Shared:
    """Write a run in which all layers share ``layers`` blocks, or with a tied or untied head, to ``out``.

    Exactly one of ``layers``, ``tie_head`` and ``untie_head`` is given; as many as the model has layers
    undoes sharing. ``sharing``: group (the default), neighbours share a block, or cycle. The loss before
    and after is that of ``data``, by default of the run's own validation split. Raises InputError for what
    is not to be done with this model; then nothing is written.
    """
    _check_one(layers is not None, tie_head, untie_head)
    if layers is not None and type(layers) is not int:
        raise ConfigError("layers", repr(layers), "a whole number")
    if sharing is not None and layers is None:
        raise ConfigError("sharing", f"{sharing} without layers to share", "--layers")
    out = Path(out)
    check_new(out)
    with as_run(Path(checkpoint)) as run:
        record = run_files.read_record(run / run_files.CONFIG)
        run_files.refuse_transformed(checkpoint, record, "share first, then quantize")
        runtime = resolve_for_use("share", device, dtype)
        model, tokenizer = load(run)
        transform: dict[str, Any] = {"tool": "share"}
        if layers is not None:
            sharing = sharing or "group"
            shared = transforms.share_layers(model, layers, sharing)
            transform["layers"] = layers
            if shared.config.shared_layers:
                transform["sharing"] = sharing
        else:
            shared = (transforms.tie_head if tie_head else transforms.untie_head)(model)
            transform["tied_embeddings"] = tie_head
        text = evaluation_text(run, tokenizer, data, text_field=text_field, cache=cache)
        with files.staged(out) as folder:
            write_model(folder, run, shared, transform)
            before = measure_run(run, text, runtime, weights_files(Path(checkpoint)))
            comparison = Comparison(before, measure_run(folder, text, runtime))
            write_summary(folder, run, comparison)
    return Shared(out, transform, comparison)


def _check_one(*given: bool) -> None:
    if sum(given) != 1:
        raise InputError(OPTIONS, f"{sum(given)} of them" if any(given) else "none", "one of them")
