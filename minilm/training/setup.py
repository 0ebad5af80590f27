"""What a run is, complete before its first step: a new run, one from a checkpoint, one resumed.

new:             preset + overrides -> corpus -> token shards -> model with initial weights
from checkpoint: a run's model, weights and tokenizer -> corpus -> token shards
resumed:         a run's newest state -> its settings -> the same corpus and shards

Each raises InputError, with nothing written to the run folder, for what a user can cause.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minilm.architectures.minilm import layout
from minilm.checkpoint import load_model, read_run_config
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.presets import find_preset
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import training_bytes
from minilm.data.shards import Dataset, prepare
from minilm.errors import ConfigError, InputError
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.text.corpora import NAMED_SOURCES, Corpus, open_corpus
from minilm.text.tokenizers import Tokenizer, load_tokenizer
from minilm.training.resume_state import SavedState, read_state
from minilm.training.runtime import Runtime, resolve
from minilm.units import format_bytes

# What --resume may change: where the run ends and where it runs, not what it computes.
RESUMABLE_OVERRIDES = (
    *("max_steps", "max_seconds", "target_val_loss", "early_stopping"),
    *("device", "compile", "save_every_seconds", "keep_states", "sample_tokens", "log_to"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """A text, by name or path, how it is cleaned, and the folder where its tokens are kept."""

    name: str
    cleaning: tuple[str, ...]
    cache: Path

    def open(self) -> Corpus:
        """Raises InputError for a source that is not there."""
        return open_corpus(self.name, cleaning=self.cleaning, cache=self.cache)

    def absolute_name(self) -> str:
        """The source as --resume finds it from any folder: a path made absolute, a name as it is."""
        if self.name in NAMED_SOURCES or self.name.startswith("hf:"):
            return self.name
        return os.path.abspath(os.path.expanduser(self.name))


@dataclass(frozen=True)
class RunSpec:
    """A run: all that the Trainer needs.

    ``model`` is on the CPU. It has the weights that training begins with; where there is a ``saved``
    state, the Trainer puts the weights of that in.
    """

    run_dir: Path
    model: Transformer
    config: TrainConfig
    dataset: Dataset
    source: DataSource
    runtime: Runtime
    saved: SavedState | None = None

    def state_settings(self) -> dict[str, Any]:
        """What a saved state has beside tensors and progress: what `resumed_run` reads."""
        return {
            "source": self.source.absolute_name(),
            "cleaning": list(self.source.cleaning),
            "sha256": self.dataset.sha256,
            # With the dtype that auto became: a resumed run computes with the same arithmetic.
            "train": to_dict(self.config) | {"dtype": self.runtime.dtype_name},
        }


def new_run(
    preset: str,
    *,
    source: DataSource,
    run_dir: Path | None,
    tokenizer: str | None,
    vocab_size: int | None,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> RunSpec:
    """A run of a preset, with ``model`` and ``settings`` in place of fields of its two configurations."""
    fields = find_preset(preset)
    config = fields.train_config(**settings)
    model_config = fields.model_config(**model)  # wrong fields, before any work
    corpus = source.open()
    folder = run_dir or Path(f"checkpoints/{preset}-{corpus.name}")
    _refuse_folder(folder, source.name)
    _refuse_too_large(model_config, config)
    kind = tokenizer or fields.tokenizer
    if kind == "bpe" and vocab_size is None:
        vocab_size = model_config.vocab_size
    dataset = _prepare(corpus, source, kind, vocab_size, config, model_config)
    least = dataset.tokenizer.vocab_size
    if model.get("vocab_size", least) < least:
        asked = model["vocab_size"]
        raise ConfigError("vocab_size", f"{asked}", f"at least the tokenizer's {least}")
    model_config = fields.model_config(**{"vocab_size": least, **model})
    network = Transformer(model_config, torch.Generator().manual_seed(config.seed))
    return _complete(folder, network, config, dataset, source)


def run_from_checkpoint(
    base: Path,
    preset: str,
    *,
    source: DataSource,
    run_dir: Path | None,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> RunSpec:
    """A run that begins with the weights and the tokenizer of the run in ``base``.

    The preset says how it is trained; ``model`` replaces fields that change no tensor, as dropout.
    """
    config = find_preset(preset).train_config(**settings)
    fields = to_dict(read_run_config(base)) | dict(model)
    model_config = from_dict(ModelConfig, fields, base / run_files.CONFIG)
    corpus = source.open()
    folder = run_dir or Path(f"checkpoints/{base.name}-{corpus.name}")
    _refuse_folder(folder, source.name)
    _refuse_too_large(model_config, config)
    tokenizer = load_tokenizer(base / run_files.TOKENIZER)
    dataset = _prepare(corpus, source, tokenizer, None, config, model_config)
    network = load_model(base / run_files.WEIGHTS, model_config)
    return _complete(folder, network, config, dataset, source)


def resumed_run(run_dir: Path, *, settings: Mapping[str, Any], cache: Path) -> RunSpec:
    """A run as it was last saved; ``settings`` replace some of RESUMABLE_OVERRIDES."""
    model_config = read_run_config(run_dir)
    saved = read_state(run_dir)
    source = DataSource(saved.settings["source"], tuple(saved.settings["cleaning"]), cache)
    config = from_dict(TrainConfig, saved.settings["train"], saved.path)
    config = from_dict(TrainConfig, to_dict(config) | dict(settings), saved.path)
    tokenizer = load_tokenizer(run_dir / run_files.TOKENIZER)
    dataset = _prepare(source.open(), source, tokenizer, None, config, model_config)
    if dataset.sha256 != saved.settings["sha256"]:
        raise InputError(
            source.name,
            f"data with SHA-256 {dataset.sha256[:12]}",
            f"the run's own data, {saved.settings['sha256'][:12]}",
            "the text has changed since: start a new run",
        )
    return _complete(run_dir, Transformer(model_config), config, dataset, source, saved)


def _prepare(
    corpus: Corpus,
    source: DataSource,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    config: TrainConfig,
    model: ModelConfig,
) -> Dataset:
    return prepare(
        corpus,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        val_fraction=config.val_fraction,
        cache=source.cache,
        context_length=model.context_length,
    )


def _complete(
    run_dir: Path,
    model: Transformer,
    config: TrainConfig,
    dataset: Dataset,
    source: DataSource,
    saved: SavedState | None = None,
) -> RunSpec:
    """Choose where it runs, and say what will."""
    context_length = model.config.context_length
    if config.initial_context_length > context_length:
        raise ConfigError(
            "initial_context_length",
            f"{config.initial_context_length}",
            f"at most the model's context_length, {context_length}",
        )
    tokens = config.batch_size * context_length * config.gradient_accumulation
    flops = flops_per_token(layout(model.config), context=context_length)
    runtime = resolve(config, flops["training_per_token"] * tokens * config.max_steps)
    for note in runtime.notes:
        logger.warning(note)
    logger.info(
        f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, "
        f"{dataset.train_tokens:,} training and {dataset.val_tokens:,} validation tokens, "
        f"{config.max_steps} steps of {tokens:,} tokens on {runtime.device.type} "
        f"in {runtime.dtype_name}{', compiled' if runtime.compile else ''}"
    )
    return RunSpec(run_dir, model, config, dataset, source, runtime, saved)


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
            "add --resume to continue it, or --run-dir for another",
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
    """Before a model is built that this machine cannot hold: its size is computed first."""
    count = layout(model).count()
    on_cpu = config.device == "cpu" or (
        config.device == "auto"
        and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    # Weights are drawn on the CPU whatever the device; there training keeps four times as much.
    needed = training_bytes(count)["total" if on_cpu else "weights"]
    present = _physical_memory()
    if present is not None and needed > present:
        raise ConfigError(
            "model",
            f"{count:,} parameters, which take {format_bytes(needed)} before activations",
            f"at most the {format_bytes(present)} of this machine",
            "choose a smaller --preset or fewer --model.num-layers",
        )


def _physical_memory() -> int | None:
    """Bytes, None on a system that does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; others not these names
        return None
