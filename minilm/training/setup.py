"""What a run is, complete before its first step: a new run, or one that is resumed.

new:     preset + overrides -> corpus -> token shards -> model with initial weights
resumed: a run's newest state -> its settings -> the same corpus and shards

One that begins with the weights of another model is made in finetune.py. Each raises InputError, with
nothing written to the run folder, for what a user can cause.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minilm.architectures.adapter_map import adapter_map
from minilm.checkpoint import load_base, read_run_record
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.presets import find_preset
from minilm.data.dataset import Dataset, with_document_attention
from minilm.errors import ConfigError, FormatError, InputError
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import world
from minilm.parallel.tensor_checks import check as check_tensor_parallel
from minilm.runs import files as run_files
from minilm.runs.base_run import lora_of
from minilm.runs.files import RunRecord
from minilm.runs.new_folder import default_run_dir
from minilm.text.chat_template import read_chat_template
from minilm.text.corpora import MIXTURE, is_same_source
from minilm.text.corpus import Corpus
from minilm.text.tokenizer_file import load_tokenizer
from minilm.training.data_source import DataSource
from minilm.training.loggers import check_installed
from minilm.training.lr_schedule import lr_multiplier
from minilm.training.preconditions import refuse_folder, refuse_other_encodings, refuse_too_large
from minilm.training.resume_options import RESUMABLE_OVERRIDES
from minilm.training.resume_state import SavedState, read_state
from minilm.training.run_plan import announce
from minilm.training.run_spec import Adapter, RunSpec
from minilm.training.runtime import resolve_for_run
from minilm.training.text_size import fit_to_text, longest_context
from minilm.transforms.freeze import freeze
from minilm.transforms.lora import apply

logger = logging.getLogger(__name__)


def new_run(
    preset: str,
    *,
    source: DataSource,
    run_dir: Path | None,
    tokenizer: str | None,
    vocab_size: int | None,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    announced: bool = True,
) -> RunSpec:
    """A run of a preset, with ``model`` and ``settings`` in place of fields of its two configurations."""
    fields = find_preset(preset)
    config = fields.train_config(**settings)
    model_config = fields.model_config(**model)  # wrong fields, before any work
    check_installed(config.trackers)
    check_tensor_parallel(model_config, config.tensor_parallel, world())
    corpus = source.open()
    folder = run_dir or default_run_dir(preset, None, corpus.name)
    refuse_folder(folder, source.name)
    refuse_too_large(model_config, config)
    kind = tokenizer or fields.tokenizer
    if kind == "bpe" and vocab_size is None:
        vocab_size = model_config.vocab_size
    dataset, model_config = text_of_run(
        source, corpus, kind, vocab_size=vocab_size, config=config, model=model_config, given=model
    )
    least = dataset.tokenizer.vocab_size
    config, dropout = fit_to_text(
        config,
        model_config,
        overrides={*settings, *model},
        dataset=dataset,
    )
    defaults = {
        "vocab_size": least,
        "dropout": dropout,
        "context_length": model_config.context_length,
    }
    model_config = fields.model_config(**{**defaults, **model})
    began_with = {"preset": preset, "tokenizer": kind, "vocab_size": vocab_size, "init_from": None}
    spec = RunSpec(
        folder,
        Transformer(model_config, torch.Generator().manual_seed(config.seed)),
        config,
        dataset,
        source,
        resolve_for_run(config, model_config, dataset),
        began_with=began_with | source.options(),
    )
    if announced:
        announce(spec)
    return spec


def text_of_run(
    source: DataSource,
    corpus: Corpus,
    tokenizer: str,
    *,
    vocab_size: int | None,
    config: TrainConfig,
    model: ModelConfig,
    given: Mapping[str, Any],
) -> tuple[Dataset, ModelConfig]:
    """The tokens of a new run, and its model with the context that they allow.

    ``given`` are the model's fields that were set: of a tiny text the context becomes shorter, unless it was.
    """
    dataset = source.prepare(
        corpus,
        tokenizer,
        config,
        vocab_size=vocab_size,
        context_length=model.context_length if "context_length" in given else 1,
    )
    least = dataset.tokenizer.vocab_size
    if given.get("vocab_size", least) < least:
        got, expected = f"{given['vocab_size']}", f"at least the tokenizer's {least}"
        raise ConfigError("vocab_size", got, expected)
    context_length = longest_context(model.context_length, dataset.longest_window)
    return dataset, replace(model, context_length=context_length)


def resumed_run(
    run_dir: Path, *, data: str | None, settings: Mapping[str, Any], cache: Path
) -> RunSpec:
    """A run as it was last saved; ``settings`` replace some of RESUMABLE_OVERRIDES.

    ``data``: where its text is now, if that has moved.
    """
    record = read_run_record(run_dir, with_weights=False)
    if record.began_with.get("federation"):
        raise InputError(
            run_dir,
            "a federated run, whose optimizers are with its clients",
            "a run of one place",
            f"minilm federate {run_dir} goes on from its weights",
        )
    saved = read_state(run_dir)
    if data is not None and is_same_source(data, saved.settings["source"]):
        data = None  # the original command, repeated
    elif data is not None and is_same_source(data, saved.settings["source"], by_weight=False):
        problem, expected = f"other weights than in {saved.settings['source']}", "the run's own"
        raise InputError(data, problem, expected, "start a new run")
    source = DataSource(
        data or saved.settings["source"],
        tuple(saved.settings["cleaning"]),
        cache,
        saved.settings.get("text_field"),
        saved.settings.get("raw_text", True),  # 0.1.0 read every text so
        saved.settings.get("chat_template"),
        dedup=saved.settings.get("dedup"),
    )
    refuse_other_encodings("data", source.absolute_name())
    before = from_dict(TrainConfig, saved.settings["train"], saved.path)
    config = from_dict(
        TrainConfig, to_dict(before) | _recorded_overrides(record) | dict(settings), saved.path
    )
    if config.max_steps < saved.progress.step:
        raise ConfigError(
            "max_steps",
            f"{config.max_steps}",
            f"at least the {saved.progress.step} steps that are done",
        )
    check_installed(config.trackers)
    dataset = _resumed_dataset(run_dir, record, source, config, saved, moved=data is not None)
    dataset = with_document_attention(dataset, config)
    spec = RunSpec(
        run_dir,
        _resumed_model(run_dir, record),
        config,
        dataset,
        source,
        resolve_for_run(config, record.model, dataset, record.tuned),
        saved=saved,
        is_fine_tuning=bool(record.began_with.get("init_from")),
        weights_dtype=saved.settings.get("weights_dtype", "float32"),
        adapter=_resumed_adapter(run_dir, record, saved),
    )
    announce(spec)
    for note in _notes_on_changes(before, spec, saved.progress.step):
        logger.warning(note)
    return spec


def _resumed_dataset(
    run_dir: Path,
    record: RunRecord,
    source: DataSource,
    config: TrainConfig,
    saved: SavedState,
    *,
    moved: bool,
) -> Dataset:
    """The tokens that the run began with: as stored, or made again from its text, if need be ``moved``."""
    tokenizer, key = load_tokenizer(run_dir / run_files.TOKENIZER), saved.settings.get("tokens")
    sha256 = saved.settings["sha256"]
    dataset = source.stored(tokenizer, key=key or "", sha256=sha256, may_be_missing=not moved)
    (is_missing,) = world().maximum(int(dataset is None))  # on one of the machines
    if dataset is not None and not is_missing:
        return dataset
    dataset = source.prepare(
        source.open(),
        tokenizer,
        config,
        context_length=record.model.context_length,
        template=read_chat_template(run_dir) if source.chat_template else None,
    )
    if source.chat_template and dataset.key != key:
        raise InputError(
            run_dir / run_files.CHAT_TEMPLATE,
            "another text than when the run began",
            "a template and a tokenizer that write the same again",
            "one that writes the date does not: start a new run",
        )
    if source.name.startswith(MIXTURE) and dataset.key != key:
        problem, expected = "another mixture than when the run began", "its texts and weights"
        raise InputError(source.name, problem, expected, "start a new run")
    return dataset


def _resumed_model(run_dir: Path, record: RunRecord) -> Transformer:
    """The run's model, whose trained parameters its state has: the rest is frozen."""
    if record.base:
        return apply(load_base(run_dir, record, keep_packed=True), lora_of(run_dir, record))
    return freeze(Transformer(record.model), record.began_with.get("freeze") or ())


def _resumed_adapter(run_dir: Path, record: RunRecord, saved: SavedState) -> Adapter | None:
    if not record.base:
        return None
    if saved.settings.get("base") != record.base:
        raise FormatError(saved.path, "a state beside another base", "that of config.json")
    lora = lora_of(run_dir, record)
    return Adapter(lora, adapter_map(record.model, lora), record.base, record.transforms[:-1])


def _recorded_overrides(record: RunRecord) -> dict[str, Any]:
    """What an earlier resume may have changed, as config.json has it: an older state does not know of it."""
    train = to_dict(record.train)
    overrides = {name: train[name] for name in RESUMABLE_OVERRIDES}
    if overrides["dtype"] == "auto":
        del overrides["dtype"]  # a state has the dtype that it became
    return overrides


def _notes_on_changes(before: TrainConfig, spec: RunSpec, step: int) -> Iterator[str]:
    """What a run that is resumed after ``step`` does otherwise than one that never stopped."""
    config = spec.config
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
