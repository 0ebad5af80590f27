"""train(): from a preset and a text source to a run folder; the one way in, for Python and the shell.

new:    preset + overrides -> corpus -> token shards -> model -> Trainer -> summary.json
resume: run folder -> its own settings -> the same shards -> saved state -> Trainer -> summary.json
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minilm import files
from minilm.architectures.minilm import layout
from minilm.checkpoint import load_model, read_run_config
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.presets import find_preset
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import training_bytes
from minilm.data.shards import Dataset, default_cache, prepare
from minilm.errors import ConfigError, InputError
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.text.corpora import NAMED_SOURCES, open_corpus
from minilm.text.tokenizers import load_tokenizer
from minilm.training.resume_state import SavedState, read_state
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest, stop_request
from minilm.training.trainer import Sampler, Trainer
from minilm.units import format_bytes
from minilm.version import __version__

# What --resume may change: where the run ends and where it runs, not what it computes.
RESUMABLE_OVERRIDES = (
    *("max_steps", "max_seconds", "target_val_loss", "early_stopping"),
    *("device", "compile", "save_seconds", "keep_last", "sample_tokens", "tensorboard"),
)


@dataclass(frozen=True)
class Outcome:
    """Where the run is, why it stopped, and its summary.json."""

    run_dir: Path
    stopped_because: str
    summary: dict[str, Any]


def train(
    preset: str = "nano",
    *,
    data: str = "stdlib",
    run_dir: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    cleaning: Sequence[str] = (),
    init_from: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    sampler: Sampler | None = None,
) -> Outcome:
    """Train a new model and leave a run folder, by default checkpoints/PRESET-DATA.

    ``model`` and ``settings`` replace fields of the preset's ModelConfig and TrainConfig. With
    ``init_from`` the model and the tokenizer are those of that run and training goes on from its
    weights. ``sampler`` makes the samples that are kept at each evaluation. Raises InputError before
    anything is written; an existing run is never overwritten.
    """
    with stop_request() as stop:
        _refuse_several_processes()
        chosen = find_preset(preset)
        config = chosen.train_config(**(settings or {}))
        base = Path(init_from) if init_from is not None else None
        if base is None:
            model_config = chosen.model_config(**(model or {}))  # wrong fields, before any work
        else:
            if tokenizer is not None or vocab_size is not None:
                raise ConfigError(
                    "tokenizer", "given with --init-from", "the one of that run alone"
                )
            fields = to_dict(read_run_config(base)) | dict(model or {})
            model_config = from_dict(ModelConfig, fields, base / run_files.CONFIG)
        corpus = open_corpus(data, cleaning=cleaning, cache=cache or default_cache())
        folder = Path(run_dir or f"checkpoints/{base.name if base else preset}-{corpus.name}")
        _refuse_folder(folder, data)
        _refuse_too_large(model_config, config)
        kind = load_tokenizer(base / run_files.TOKENIZER) if base else tokenizer or chosen.tokenizer
        if kind == "bpe" and vocab_size is None:
            vocab_size = model_config.vocab_size
        dataset = prepare(
            corpus,
            tokenizer=kind,
            vocab_size=vocab_size,
            val_fraction=config.val_fraction,
            cache=cache or default_cache(),
            context_length=model_config.context_length,
        )
        if base is None:
            asked = (model or {}).get("vocab_size")
            actual = dataset.tokenizer.vocab_size
            if asked is not None and asked < actual:
                raise ConfigError("vocab_size", f"{asked}", f"at least the tokenizer's {actual}")
            model_config = chosen.model_config(
                **{**(model or {}), "vocab_size": actual if asked is None else asked}
            )
            generator = torch.Generator().manual_seed(config.seed)
            network = Transformer(model_config, generator)
        else:
            network = load_model(base / run_files.WEIGHTS, model_config)
        inputs = {"source": _from_anywhere(data), "cleaning": list(cleaning)}
        return _train(folder, network, config, dataset, inputs, None, stop, sampler)


def resume(
    run_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    sampler: Sampler | None = None,
) -> Outcome:
    """Go on with a run from its last saved step, exactly as if nothing had stopped it.

    (A run that its own limit of time ended was evaluated there, which the same run without one is not.)
    ``settings`` may move where it ends (RESUMABLE_OVERRIDES); a run that is finished is left as it is.
    """
    with stop_request() as stop:
        _refuse_several_processes()
        folder, overrides = Path(run_dir), dict(settings or {})
        for name in overrides:
            if name not in RESUMABLE_OVERRIDES:
                allowed = ", ".join(RESUMABLE_OVERRIDES)
                raise ConfigError(name, "given with --resume", f"only {allowed}")
        model_config = read_run_config(folder)
        summary = None if overrides else run_files.finished_summary(folder)
        if summary is not None:
            return Outcome(folder, str(summary["stopped_because"]), summary)
        saved = read_state(folder)
        stop.saved = True
        where = saved.path
        inputs = {key: saved.settings[key] for key in ("source", "cleaning")}
        config = from_dict(TrainConfig, saved.settings["train"] | overrides, where)
        dataset = prepare(
            open_corpus(
                inputs["source"], cleaning=inputs["cleaning"], cache=cache or default_cache()
            ),
            tokenizer=load_tokenizer(folder / run_files.TOKENIZER),
            vocab_size=None,
            val_fraction=config.val_fraction,
            cache=cache or default_cache(),
            context_length=model_config.context_length,
        )
        if dataset.sha256 != saved.settings["sha256"]:
            raise InputError(
                inputs["source"],
                f"data with SHA-256 {dataset.sha256[:12]}",
                f"the run's own data, {saved.settings['sha256'][:12]}",
                "the text has changed since: start a new run",
            )
        for stale in folder.rglob(".*.tmp"):  # what a killed process was writing
            stale.unlink()
        network = Transformer(model_config)
        return _train(folder, network, config, dataset, inputs, saved, stop, sampler)


def _train(
    folder: Path,
    network: Transformer,
    config: TrainConfig,
    dataset: Dataset,
    inputs: dict[str, Any],
    saved: SavedState | None,
    stop: StopRequest,
    sampler: Sampler | None,
) -> Outcome:
    count = sum(parameter.numel() for parameter in network.parameters())
    model_config = network.config
    tokens = config.batch_size * model_config.context_length * config.gradient_accumulation
    if config.initial_context_length > model_config.context_length:
        raise ConfigError(
            "initial_context_length",
            f"{config.initial_context_length}",
            f"at most the model's context_length, {model_config.context_length}",
        )
    costs = flops_per_token(layout(model_config), context=model_config.context_length)
    runtime = resolve(config, costs["training_per_token"] * tokens * config.max_steps)
    for note in runtime.notes:
        print(note, file=sys.stderr)
    # The resolved dtype is kept, so that a resumed run computes with the same arithmetic.
    settings = to_dict(config) | {"dtype": runtime.dtype_name}
    kept = {**inputs, "sha256": dataset.sha256, "train": settings}
    print(
        f"{count:,} parameters, {dataset.train_tokens:,} training and {dataset.val_tokens:,} "
        f"validation tokens, {config.max_steps} steps of {tokens:,} tokens on {runtime.device.type} "
        f"in {runtime.dtype_name}{', compiled' if runtime.compile else ''}",
        file=sys.stderr,
    )
    loop = Trainer(network, config, dataset, folder, runtime, kept, saved, stop, sampler)
    if saved is None:
        _begin_folder(loop, folder)
    stop.saved = True
    try:
        reason = loop.run()
    except Exception:
        if saved is None and loop.progress.step == 0:
            shutil.rmtree(folder)  # nothing was learned, and it would stand in the way
        raise
    progress = loop.progress
    rate = loop.meters.average(progress.tokens)
    if not rate and saved is not None:  # nothing was left to train: the rate is what it was
        before = run_files.read_summary(folder).get("tokens_per_second")
        rate = float(before) if isinstance(before, (int, float)) else 0.0
    summary = {
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(loop.meters.seconds(), 3),
        "best_val_loss": progress.best_val_loss,
        "best_val_bits_per_byte": progress.best_val_bits_per_byte,
        "stopped_because": reason,
        "parameters": count,
        "device": runtime.device.type,
        "dtype": runtime.dtype_name,
        "tokens_per_second": round(rate, 1),
        "model_flops_utilisation": loop.meters.utilisation(rate),
        "peak_flops": loop.meters.peak,
        "energy_joules": loop.meters.joules(),
        "loss_spikes": progress.loss_spikes,
        "data": {
            "source": inputs["source"],
            "bytes": dataset.bytes,
            "sha256": dataset.sha256,
            "train_tokens": dataset.train_tokens,
            "val_tokens": dataset.val_tokens,
        },
        "minilm": __version__,
        "torch": torch.__version__,
        "seed": config.seed,
        "val_dtype": runtime.dtype_name,  # of best_val_loss: a dtype moves its last digits
    }
    files.write_json(folder / run_files.SUMMARY, summary)
    return Outcome(folder, reason, summary)


def _from_anywhere(source: str) -> str:
    """The source as --resume finds it from any folder: a path made absolute, a name as it is."""
    if source in NAMED_SOURCES or source.startswith("hf:"):
        return source
    return os.path.abspath(os.path.expanduser(source))


def _begin_folder(loop: Trainer, folder: Path) -> None:
    """Make the run folder beside its place and rename it there: it appears as a run to go on with."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".{folder.name}.new"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
    except OSError as error:
        raise InputError(folder, f"{error.strerror}", "a folder that can be made") from None
    try:
        loop.run_dir = staging
        loop.data.tokenizer.save(staging / run_files.TOKENIZER)
        run_files.write_config(staging, loop.model.config, loop.config)
        loop.save()
        loop.saver.wait()
        staging.rename(folder)  # over an empty folder too, never over one with files
        files.sync_directory(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            loop.saver.close()  # it may be writing there
        shutil.rmtree(staging, ignore_errors=True)
        raise
    loop.run_dir = folder


def _refuse_folder(folder: Path, data: str) -> None:
    """Before any work: a run or other files there, no permission, or a place inside the data."""
    for field, name in (("data", data), ("run_dir", str(folder))):
        try:
            name.encode()  # both are written into the run's JSON
        except UnicodeEncodeError:
            raise InputError(field, repr(name), "a name in UTF-8") from None
    if (folder / run_files.CONFIG).exists():
        raise InputError(
            folder,
            "a run is there already",
            "a folder without one",
            "add --resume to go on with it, or --run-dir for another",
        )
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(folder, "something is there already", "an empty folder or none")
    above = next(path for path in folder.absolute().parents if os.path.lexists(path))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(folder, f"{above} cannot be written in", "a folder that can be made")
    source = Path(data).expanduser()
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(
            folder,
            "a run inside the data folder would become data",
            "another place",
            "name one with --run-dir",
        )


def _refuse_too_large(model: ModelConfig, config: TrainConfig) -> None:
    """Before a model is built that this machine cannot hold: the ledger knows its size."""
    count = layout(model).count()
    on_cpu = config.device == "cpu" or (
        config.device == "auto"
        and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    # Weights are drawn on the CPU whatever the device; there training keeps four times as much.
    needed = training_bytes(count)["total" if on_cpu else "weights"]
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ConfigError(
            "model",
            f"{count:,} parameters, which take {format_bytes(needed)} before activations",
            f"at most the {format_bytes(present)} of this machine",
            "choose a smaller --preset or fewer --model.num-layers",
        )


def _refuse_several_processes() -> None:
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise InputError("WORLD_SIZE", world, "1", "start one process; several are not supported")
