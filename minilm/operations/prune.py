"""prune(): a run with zeros among its weights, or without some heads, feed-forward units or layers.

What is scored by its use is scored on the first windows of the training part of the text.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from minilm import files
from minilm.checkpoint import load
from minilm.data.cache import default_cache
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError, InputError
from minilm.interop.convert import as_run, check_new, convert, name_of, weights_files
from minilm.interop.huggingface import SPARSE_OPTION, find_kept, sparse_bytes
from minilm.interop.model_source import open_source
from minilm.model.transformer import Transformer, next_token_loss
from minilm.operations.calibration import FEW_TOKENS
from minilm.operations.comparison import Comparison, measure_run
from minilm.operations.folders import write_model, write_summary
from minilm.quantization.sparse_packing import SparsePacking
from minilm.runs import files as run_files
from minilm.runs.stop_reason import StopReason
from minilm.training.evaluation_text import EvaluationText, evaluation_text
from minilm.training.runtime import Runtime, resolve_for_use
from minilm.training.signals import Stopped
from minilm.transforms.activations import input_norms, linear_layers
from minilm.transforms.prune import (
    apply_masks,
    global_masks,
    matrix_masks,
    prune_by_sparsegpt,
    row_masks,
    scores,
)
from minilm.transforms.structure import (
    head_scores,
    highest,
    keep_heads,
    keep_layers,
    keep_units,
    least_missed_layer,
    unit_scores,
)
from minilm.units import counted

logger = logging.getLogger(__name__)

Method = Literal["magnitude", "wanda", "sparsegpt", "2:4", "heads", "units", "layers"]
Scope = Literal["global", "layer"]
FileLayout = Literal["compressed-tensors"]

STRUCTURED = ("heads", "units", "layers")
CORRECTED = ("sparsegpt", "2:4")  # the weights that stay make up for those that go
NEEDS_TEXT = ("wanda", *CORRECTED, "layers")
NEEDS_LAYERS_OF_THEIR_OWN = (*CORRECTED, "layers")
VAL_FRACTION = (
    0.1  # of a text that is given: its end is evaluated, the rest is for scores and recovery
)
CALIBRATION_TOKENS = 65_536
CALIBRATION_BATCH = 8192  # tokens
LAYER_TOKENS = 16_384  # each layer's loss is computed on fewer: there are L (L + 1) / 2 of them


@dataclass(frozen=True)
class Pruned:
    """Where the pruned model is, what was done, and the model before and after.

    ``sparse_bytes``: what the weights take in compressed-tensors' sparse form, which is written with
    ``--layout``; None where nothing is masked, or where no class of transformers has the shape. ``what``
    says what is in ``out``.
    """

    out: Path
    transform: Mapping[str, Any]
    comparison: Comparison
    sparse_bytes: int | None
    what: str


def prune(
    checkpoint: str | Path,
    out: str | Path,
    *,
    sparsity: float,
    method: Method = "sparsegpt",
    scope: Scope = "layer",
    recover: int = 0,
    data: str | None = None,
    layout: FileLayout | None = None,
    text_field: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Pruned:
    """Write the model of ``checkpoint``, a run or what convert imports, pruned, to the new folder ``out``.

    ``sparsity``: the fraction of the weights of the blocks' matrices that become zero, or of the heads, units
    or layers that are taken out. ``scope`` is for magnitude: the smallest of each layer's matrix, or of all
    matrices together. ``recover``: steps of training afterwards, in which zeros stay zero. ``data``: a
    text, whose last tenth is evaluated; by default that of the run. ``out`` is a run; with the ``layout``
    compressed-tensors a Hugging Face folder that stores zeros as bits. Raises InputError, with nothing
    written, for what cannot be done.
    """
    out = Path(out)
    _check_options(sparsity, method, scope, recover, layout)
    check_new(out)
    with as_run(Path(checkpoint)) as run:
        _check_prunable(run, method)
        runtime = resolve_for_use("prune", device)
        model, tokenizer = load(run, device=str(runtime.device))
        text = evaluation_text(
            run,
            tokenizer,
            data,
            text_field=text_field,
            val_fraction=VAL_FRACTION,
            cache=cache,
        )
        if text is None and (recover or method in NEEDS_TEXT):
            what = "--recover" if recover else f"--method {method}"
            raise InputError(checkpoint, f"no text of its own for {what}", "a text", "give --data")
        if layout is not None:
            find_kept(model.config, tokenizer, packed=SPARSE_OPTION)  # raises before the work
        before = measure_run(run, text, runtime, weights_files(Path(checkpoint)))
        pruned = _pruned(model, method, sparsity, scope, text)
        transform = _transform(method, sparsity, scope, recover)
        with files.staged(out) as staging, _run_folder(staging, layout) as folder:
            write_model(folder, run, pruned, transform)
            if recover:
                assert text is not None
                _recover(folder, run, recover, data, text_field, method, runtime, cache, out.name)
            after = measure_run(folder, text, runtime)
            packing = SparsePacking("sparse-24-bitmask" if method == "2:4" else "sparse-bitmask")
            size = None if method in STRUCTURED else _sparse_bytes(folder, packing)
            if layout is None:
                what = "a run, which inspect, evaluate, generate and convert take"
                write_summary(folder, run, Comparison(before, after))
            else:
                what = _write_sparse(staging, folder, packing, name_of(out))
                after = replace(after, bytes=(staging / run_files.WEIGHTS).stat().st_size)
        return Pruned(out, transform, Comparison(before, after), size, what)


def _transform(method: Method, sparsity: float, scope: Scope, recover: int) -> dict[str, Any]:
    """What is done, for config.json."""
    transform: dict[str, Any] = {"tool": "prune", "method": method, "sparsity": sparsity}
    transform |= {"scope": scope} if method == "magnitude" else {}
    return transform | ({"recover": recover} if recover else {})


@contextlib.contextmanager
def _run_folder(staging: Path, layout: FileLayout | None) -> Iterator[Path]:
    """Where the run is written: at ``staging``, or where it is converted from."""
    if layout is None:
        yield staging
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / "run"


def _write_sparse(path: Path, run: Path, packing: SparsePacking, name: str) -> str:
    """Write the folder of a pruned run; return what it is."""
    opens = convert(run, "huggingface", path, packing=packing, name=name)
    return (
        f"{opens} with its zeros left out, in {packing.format}, which compressed-tensors reads up to version "
        "0.14; transformers 5 leaves such matrices at random values"
    )


def _sparse_bytes(run: Path, packing: SparsePacking) -> int | None:
    source = open_source(run)
    if source.config.num_blocks < source.config.num_layers:
        return None  # each layer would get a copy
    try:
        return sparse_bytes(source, packing)
    except ConfigError:
        return None


def _check_options(
    sparsity: float, method: str, scope: str, recover: int, layout: str | None
) -> None:
    if type(sparsity) not in (int, float) or not 0 <= sparsity < 1:
        raise ConfigError("sparsity", repr(sparsity), "a number, 0 <= sparsity < 1")
    if method not in get_args(Method):
        raise ConfigError("method", repr(method), f"one of {', '.join(get_args(Method))}")
    if scope not in get_args(Scope):
        raise ConfigError("scope", repr(scope), f"one of {', '.join(get_args(Scope))}")
    if scope == "global" and method != "magnitude":
        raise ConfigError(
            "scope", f"global with {method}", "magnitude", "scores of its use compare in a row"
        )
    if method == "2:4" and sparsity != 0.5:
        raise ConfigError("sparsity", f"{sparsity} with 2:4", "0.5, which the pattern is")
    if type(recover) is not int or recover < 0:
        raise ConfigError("recover", repr(recover), "a whole number of steps, at least 0")
    if layout not in (None, *get_args(FileLayout)):
        raise ConfigError("layout", repr(layout), f"{get_args(FileLayout)[0]}, or none")
    if layout is not None and method in STRUCTURED:
        raise InputError(
            f"--layout {layout}",
            f"given for {method}, which leaves no zeros",
            "no --layout",
            "`minilm convert --to huggingface` makes a folder for transformers of the run",
        )


def _check_prunable(run: Path, method: str) -> None:
    record = run_files.read_record(run / run_files.CONFIG)
    if method in NEEDS_LAYERS_OF_THEIR_OWN and record.model.num_blocks < record.model.num_layers:
        remedy = (
            f"unshare it first: minilm share {run} --layers {record.model.num_layers} --out DIR"
        )
        raise InputError(run, "layers that share blocks", "layers of their own", remedy)
    run_files.refuse_transformed(run, record, "prune first, then quantize")


def _pruned(
    model: Transformer, method: Method, sparsity: float, scope: Scope, text: EvaluationText | None
) -> Transformer:
    """``model`` itself with zeros, or a smaller one."""
    model.cpu()  # where scores and indices are
    batches = None if text is None else list(_calibration(text.dataset, model, CALIBRATION_TOKENS))
    if batches is not None and method != "magnitude":
        _note_few_tokens(sum(batch.numel() for batch in batches))
    if method == "layers":
        assert text is not None
        fewer = list(_calibration(text.dataset, model, LAYER_TOKENS))
        return keep_layers(model, _kept_layers(model, sparsity, fewer))
    if method in CORRECTED:
        assert batches
        prune_by_sparsegpt(model, torch.cat(batches), sparsity, two_of_four=method == "2:4")
        return model
    matrices = linear_layers(model)
    norms = None
    if batches is not None and method != "magnitude":
        norms = input_norms(model, matrices, batches)
    if method == "heads":
        kept = highest(head_scores(model, norms), sparsity, "key/value heads of a layer")
        return keep_heads(model, kept)
    if method == "units":
        return keep_units(model, highest(unit_scores(model, norms), sparsity, "units of a layer"))
    apply_masks(matrices, _masks(matrices, norms, method, sparsity, scope))
    return model


def _note_few_tokens(tokens: int) -> None:
    if tokens < FEW_TOKENS:
        logger.warning(
            f"note: the scores are of {counted(tokens, 'token')}; of fewer than {FEW_TOKENS:,} they follow "
            "the accidents of the text"
        )


def _masks(
    matrices: Mapping[str, nn.Linear],
    norms: Mapping[str, Tensor] | None,
    method: Method,
    sparsity: float,
    scope: Scope,
) -> dict[str, Tensor]:
    importance = scores(matrices, norms)
    if method == "wanda":
        return row_masks(importance, sparsity)
    return (global_masks if scope == "global" else matrix_masks)(importance, sparsity)


def _kept_layers(model: Transformer, sparsity: float, batches: Iterable[Tensor]) -> list[int]:
    """Layer by layer, the one whose absence costs least goes."""
    count = model.config.num_layers
    removed = int(sparsity * count + 1e-9)  # 0.29 of 100 is 29
    if sparsity and not removed:
        raise InputError(
            "--sparsity",
            f"{sparsity:g} of {count} layers: none",
            f"at least {math.ceil(1000 / count) / 1000:g}",
        )

    @torch.no_grad()
    def loss(smaller: Transformer) -> float:
        return sum(float(next_token_loss(smaller, x[:, :-1], x[:, 1:])) for x in batches)

    kept = list(range(count))
    for _ in range(removed):
        kept.remove(least_missed_layer(model, loss, kept))
    return kept


def _calibration(dataset: Dataset, model: Transformer, tokens: int) -> Iterator[Tensor]:
    """Windows (b, t) from the beginning of the training part, about so many tokens."""
    t = model.config.context_length
    device = next(model.parameters()).device
    ids = torch.from_numpy(dataset.train[:tokens].astype("int64")).to(device)
    if len(ids) < t:
        if len(ids) > 1:
            yield ids[None]
        return
    windows = ids[: len(ids) // t * t].view(-1, t)
    yield from torch.split(windows, max(1, CALIBRATION_BATCH // t))


def _recover(
    folder: Path,
    run: Path,
    steps: int,
    data: str | None,
    text_field: str | None,
    method: Method,
    runtime: Runtime,
    cache: Path | None,
    model_name: str,
) -> None:
    """Train the model in ``folder`` for some steps, as fine-tuning does, and put the best weights there.

    ``model_name`` is what the folder will be called, by which messages name the model.
    """
    from minilm.training.train import train

    record = run_files.read_record(run / run_files.CONFIG)
    settings: dict[str, Any] = {
        "max_steps": steps,
        "hold_zeros": method not in STRUCTURED,
        "device": runtime.device.type,
        "val_fraction": VAL_FRACTION,
        "save_every_seconds": 0.0,
        "sample_tokens": 0,
    }
    for name in ("batch_size", "gradient_accumulation", "seed"):
        settings[name] = getattr(record.train, name)
    reading: dict[str, Any] = {"text_field": text_field}
    if data is None:
        data = run_files.last_summary(run)["data"]["source"]
        settings |= {"val_fraction": record.train.val_fraction, "split": record.train.split}
        began = record.began_with
        reading = {
            "text_field": began.get("text_field"),
            "raw_text": bool(began.get("raw_text", False)),
            "cleaning": tuple(began.get("cleaning") or ()),
        }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
        recovered, named = Path(temporary) / ".recovered", Path(temporary) / model_name
        folder.rename(named)
        outcome = train(
            data=data,
            run_dir=recovered,
            init_from=named,
            settings=settings,
            cache=cache or default_cache(),
            **reading,
        )
        named.rename(folder)
        reason = outcome.stopped_because
        if reason.signum is not None:
            raise Stopped(reason.signum, "stopped: nothing is written")
        if reason is StopReason.NON_FINITE_LOSS:
            raise InputError(
                "--recover", "a loss that is not finite", "a number", "try fewer steps"
            )
        (recovered / run_files.WEIGHTS).replace(folder / run_files.WEIGHTS)
