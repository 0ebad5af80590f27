"""What a run is, complete before its first step: a new run, one from a checkpoint, one resumed.

new:             preset + overrides -> corpus -> token shards -> model with initial weights
from checkpoint: a run's model, weights and tokenizer -> corpus -> token shards
resumed:         a run's newest state -> its settings -> the same corpus and shards

Each raises InputError, with nothing written to the run folder, for what a user can cause.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from minilm.architectures.minilm import layout
from minilm.checkpoint import load_model, read_run_config
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.presets import find_preset
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import training_bytes
from minilm.data.corpus_stats import identify
from minilm.data.shards import Dataset, find, prepare
from minilm.errors import ConfigError, InputError
from minilm.interop.exports import describe_exports
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.runs.new_folder import check_free
from minilm.text.corpora import Corpus, open_corpus
from minilm.text.tokenizers import Tokenizer, load_tokenizer
from minilm.training.base_model import as_run, companions, weights_dtype
from minilm.training.loggers import check_installed
from minilm.training.lr_schedule import lr_multiplier
from minilm.training.resume_options import absolute_source
from minilm.training.resume_state import SavedState, read_state
from minilm.training.runtime import Runtime, resolve
from minilm.training.text_size import fit_to_text, longest_context, step_tokens
from minilm.units import format_bytes

# Of the configuration that a base was trained with: what fine-tuning takes over.
RATES = ("learning_rate", "muon_learning_rate")
OPTIMIZER_FIELDS = (
    *("optimizer", *RATES, "muon_momentum", "beta1", "beta2"),
    *("weight_decay", "gradient_clip"),
)
# On a text like those of the base, its own rates end above its loss; on another text a tenth of them learns
# little (measured: docs/training.md, "Fine-tuning").
FINE_TUNING_RATE = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """A text, by name or path, how it is read and cleaned, and the folder where its tokens are kept."""

    name: str
    cleaning: tuple[str, ...]
    cache: Path
    text_field: str | None = None
    raw_text: bool = False

    def open(self) -> Corpus:
        """Raises InputError for a source that is not there."""
        return open_corpus(
            self.name,
            cleaning=self.cleaning,
            cache=self.cache,
            text_field=self.text_field,
            raw_text=self.raw_text,
        )

    def absolute_name(self) -> str:
        """The source as --resume finds it from any folder: a path made absolute, a name as it is."""
        return absolute_source(self.name)

    def options(self) -> dict[str, Any]:
        """How the text is read, as the options of a run are recorded."""
        return {
            "cleaning": list(self.cleaning),
            "text_field": self.text_field,
            "raw_text": self.raw_text,
        }


@dataclass(frozen=True)
class RunSpec:
    """A run: all that the Trainer needs, and the options that it ``began_with``, for config.json.

    ``model`` is on the CPU. It has the weights that training begins with; where there is a ``saved``
    state, the Trainer puts the weights of that in. ``companions``: files beside tokenizer.json, of the
    model that fine-tuning began with, in whose ``weights_dtype`` model.safetensors is written.
    """

    run_dir: Path
    model: Transformer
    config: TrainConfig
    dataset: Dataset
    source: DataSource
    runtime: Runtime
    saved: SavedState | None = None
    began_with: Mapping[str, Any] = field(default_factory=dict)
    is_fine_tuning: bool = False
    companions: Mapping[str, bytes] = field(default_factory=dict)
    weights_dtype: str = "float32"

    def state_settings(self) -> dict[str, Any]:
        """What a saved state has beside tensors and progress: what `resumed_run` reads."""
        return {
            "source": self.source.absolute_name(),
            **self.source.options(),
            "sha256": self.dataset.sha256,
            "tokens": self.dataset.key,
            "weights_dtype": self.weights_dtype,
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
    check_installed(config.trackers)
    corpus = source.open()
    folder = run_dir or Path(f"checkpoints/{preset}-{corpus.name}")
    _refuse_folder(folder, source.name)
    _refuse_too_large(model_config, config)
    kind = tokenizer or fields.tokenizer
    if kind == "bpe" and vocab_size is None:
        vocab_size = model_config.vocab_size
    # Of a tiny text the context becomes shorter, unless it was set.
    context_length = model_config.context_length if "context_length" in model else 1
    dataset = _prepare(corpus, source, kind, vocab_size, config, context_length)
    model_config = replace(
        model_config,
        context_length=longest_context(model_config.context_length, dataset.train_tokens),
    )
    least = dataset.tokenizer.vocab_size
    if model.get("vocab_size", least) < least:
        vocab_size = model["vocab_size"]
        raise ConfigError("vocab_size", f"{vocab_size}", f"at least the tokenizer's {least}")
    config, dropout = fit_to_text(
        config,
        model_config,
        given={*settings, *model},
        dataset=dataset,
    )
    chosen = {
        "vocab_size": least,
        "dropout": dropout,
        "context_length": model_config.context_length,
    }
    model_config = fields.model_config(**{**chosen, **model})
    network = Transformer(model_config, torch.Generator().manual_seed(config.seed))
    began_with = {"preset": preset, "tokenizer": kind, "vocab_size": vocab_size, "init_from": None}
    spec = _complete(folder, network, config, dataset, source)
    return replace(spec, began_with=began_with | source.options())


def run_from_checkpoint(
    base: Path,
    preset: str,
    *,
    source: DataSource,
    run_dir: Path | None,
    vocabulary: Mapping[str, Any],
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> RunSpec:
    """A run that begins with the weights and the tokenizer of ``base``: a run, or what convert imports.

    The preset says how long it is trained and in which batches. Optimizer and rates are those of the base,
    the rates lower by FINE_TUNING_RATE. ``model`` replaces fields that change no tensor, as dropout;
    ``vocabulary``, tokenizer and vocab_size where they are given, must be the base's.
    """
    _refuse_other_encodings("init_from", os.path.abspath(base))
    with as_run(base) as run:
        record = run_files.read_record(run / run_files.CONFIG)
        of_base = {name: getattr(record.train, name) for name in OPTIMIZER_FIELDS}
        of_base |= {name: FINE_TUNING_RATE * of_base[name] for name in RATES}
        config = find_preset(preset).train_config(**(of_base | dict(settings)))
        fields = to_dict(read_run_config(run)) | dict(model)
        model_config = from_dict(ModelConfig, fields, base / run_files.CONFIG)
        _refuse_other_shape(record.model, model_config, model)
        check_installed(config.trackers)
        corpus = source.open()
        folder = run_dir or Path(f"checkpoints/{base.name}-{corpus.name}")
        _refuse_folder(folder, source.name)
        _refuse_too_large(model_config, config)
        tokenizer = load_tokenizer(run / run_files.TOKENIZER)
        own = {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
        for name, value in vocabulary.items():
            if value not in (None, own[name]):
                expected = f"{own[name]}, that of the model it is to start from"
                raise ConfigError(name, str(value), expected, "leave it out")
        dataset = _prepare(corpus, source, tokenizer, None, config, model_config.context_length)
        config, dropout = fit_to_text(
            config,
            model_config,
            given={*settings, *model},
            dataset=dataset,
        )
        network = load_model(run / run_files.WEIGHTS, replace(model_config, dropout=dropout))
        began_with = {"preset": preset, "init_from": os.path.abspath(base)} | source.options()
        logger.info(
            f"fine-tuning {base.name} with {config.optimizer}, at a rate of {config.learning_rate:g} "
            f"where it was trained at {record.train.learning_rate:g}"
        )
        if _differ(model_config, find_preset(preset).model_config()):
            logger.info(
                f"of the preset {preset}: only steps, batches and schedule; the model has the shape "
                f"of {base.name}: {model_config.num_layers} layers of width {model_config.d_model}, "
                f"{model_config.context_length:,} tokens of context"
            )
        return replace(
            _complete(folder, network, config, dataset, source),
            began_with=began_with,
            is_fine_tuning=True,
            companions=companions(run),
            weights_dtype=weights_dtype(run),
        )


def _refuse_other_shape(
    base: ModelConfig, config: ModelConfig, overrides: Mapping[str, Any]
) -> None:
    """Where fields change the tensors: those of the base are what there is."""
    if _tensors(base) != _tensors(config):
        changed = [name for name in overrides if getattr(base, name) != getattr(config, name)]
        raise ConfigError(
            f"model.{changed[0]}",
            f"{overrides[changed[0]]}",
            f"{getattr(base, changed[0])}, that of the run it is to start from",
            "leave it out, or train from scratch",
        )


def _differ(model: ModelConfig, preset: ModelConfig) -> bool:
    """In tensors or context, with the vocabulary, which is the tokenizer's, left out."""
    preset = replace(preset, vocab_size=model.vocab_size)
    return preset.context_length != model.context_length or _tensors(preset) != _tensors(model)


def _tensors(model: ModelConfig) -> set[tuple[str, tuple[int, ...]]]:
    return {(tensor.name, tensor.shape) for tensor in layout(model).named_tensors()}


def resumed_run(
    run_dir: Path, *, data: str | None, settings: Mapping[str, Any], cache: Path
) -> RunSpec:
    """A run as it was last saved; ``settings`` replace some of RESUMABLE_OVERRIDES.

    ``data``: where its text is now, if that has moved.
    """
    model_config = read_run_config(run_dir, with_weights=False)
    saved = read_state(run_dir)
    if data is not None and absolute_source(data) == saved.settings["source"]:
        data = None  # the original command, repeated
    source = DataSource(
        data or saved.settings["source"],
        tuple(saved.settings["cleaning"]),
        cache,
        saved.settings.get("text_field"),
        saved.settings.get("raw_text", True),  # 0.1.0 read every text so
    )
    _refuse_other_encodings("data", source.absolute_name())
    before = from_dict(TrainConfig, saved.settings["train"], saved.path)
    config = from_dict(TrainConfig, to_dict(before) | dict(settings), saved.path)
    if config.max_steps < saved.progress.step:
        raise ConfigError(
            "max_steps",
            f"{config.max_steps}",
            f"at least the {saved.progress.step} steps that are done",
        )
    check_installed(config.trackers)
    tokenizer = load_tokenizer(run_dir / run_files.TOKENIZER)
    dataset = _dataset_of(saved, source, tokenizer, may_be_missing=data is None)
    if dataset is None:
        dataset = _prepare(
            source.open(), source, tokenizer, None, config, model_config.context_length
        )
    spec = _complete(run_dir, Transformer(model_config), config, dataset, source, saved)
    for note in _notes_on_changes(before, config, spec):
        logger.warning(note)
    began_with = run_files.read_record(run_dir / run_files.CONFIG).began_with
    return replace(
        spec,
        is_fine_tuning=bool(began_with.get("init_from")),
        weights_dtype=saved.settings.get("weights_dtype", "float32"),
    )


def _dataset_of(
    saved: SavedState, source: DataSource, tokenizer: Tokenizer, *, may_be_missing: bool
) -> Dataset | None:
    """The tokens that were stored when the run began; None where they have to be made again.

    Raises InputError for another text than the run's own, or where neither text nor tokens are there.
    """
    sha256 = saved.settings["sha256"]
    dataset = find(
        source.cache, saved.settings.get("tokens", ""), tokenizer=tokenizer, sha256=sha256
    )
    try:
        current = identify(source.open()).sha256
    except InputError as error:
        if not may_be_missing:
            raise
        if dataset is None:
            raise InputError(
                error.where,
                error.got,
                f"the run's text, SHA-256 {sha256[:12]}",
                "say with --data where it is now",
            ) from None
        logger.warning(f"note: {error.where}: {error.got}: its tokens are still in the cache")
        return dataset
    if current != sha256:
        raise InputError(
            source.name,
            f"data with SHA-256 {current[:12]}",
            f"the run's own data, {sha256[:12]}",
            "the text has changed since: start a new run",
        )
    return dataset


def _notes_on_changes(before: TrainConfig, config: TrainConfig, spec: RunSpec) -> Iterator[str]:
    """What a resumed run does otherwise than one that never stopped."""
    assert spec.saved is not None
    step = spec.saved.progress.step
    last, following = lr_multiplier(max(0, step - 1), before), lr_multiplier(step, config)
    if step > 0 and config.max_steps != before.max_steps and following > last:
        yield (
            f"note: the learning rate rises again, from {last:.0%} to {following:.0%} of its peak: it now "
            f"falls until step {config.max_steps} instead of {before.max_steps}"
        )
    if spec.runtime.dtype_name != before.dtype:
        yield (
            f"note: the run continues in {spec.runtime.dtype_name}, after {before.dtype} so far: "
            "not the same numbers as without the change"
        )


def _prepare(
    corpus: Corpus,
    source: DataSource,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    config: TrainConfig,
    context_length: int,
) -> Dataset:
    return prepare(
        corpus,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        val_fraction=config.val_fraction,
        split=config.split,
        cache=source.cache,
        context_length=context_length,
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
    for line in _plan(model, config, dataset, runtime, saved):
        logger.info(line)
    logger.info(describe_exports(model.config, dataset.tokenizer))
    return RunSpec(run_dir, model, config, dataset, source, runtime=runtime, saved=saved)


def _plan(
    model: Transformer,
    config: TrainConfig,
    dataset: Dataset,
    runtime: Runtime,
    saved: SavedState | None,
) -> Iterator[str]:
    """What will be computed, how often the text will be seen, and what follows from it."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield (
        f"{parameters:,} parameters, on {runtime.device.type} in {runtime.dtype_name}"
        f"{', compiled' if runtime.compile else ''}"
    )
    if saved is not None:
        yield f"resuming after step {saved.progress.step:,}"
    tokens, text = step_tokens(config, model.config), f"{dataset.train_tokens:,} training tokens"
    epochs = config.max_steps * tokens / dataset.train_tokens
    yield f"{config.max_steps:,} steps of {tokens:,} tokens: " + (
        f"the {text} {epochs:,.1f} times" if epochs > 1 else f"{epochs:.0%} of the {text}"
    )
    every = "each step" if config.eval_every == 1 else f"every {config.eval_every:,} steps"
    whole = f"{dataset.val_tokens:,} validation tokens"
    if 0 < config.eval_tokens < dataset.val_tokens - 1:
        whole = f"{config.eval_tokens:,} of {whole}, over all at the end"
    yield f"an evaluation after {every}, over {whole}"
    against_overfitting = []
    if model.config.dropout:
        against_overfitting.append(f"dropout {model.config.dropout:g}")
    if config.early_stopping:
        against_overfitting.append(
            f"early stopping after {config.early_stopping} evaluations without a better loss"
        )
    if against_overfitting:
        yield "; ".join(against_overfitting)


def _refuse_folder(folder: Path, data: str) -> None:
    """Before any work: a run or other files there, no permission, or a place inside the data."""
    _refuse_other_encodings("data", absolute_source(data))
    _refuse_other_encodings("run_dir", str(folder))
    check_free(folder)
    source = Path(os.path.expanduser(data))
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(
            folder,
            "a run inside the data folder would become data",
            "another place",
            "name one with --run-dir",
        )


def _refuse_other_encodings(option: str, name: str) -> None:
    """Before any work: a name that cannot be written into the run's JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            option, repr(name), "a path in UTF-8", "rename the file or folder"
        ) from None


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
