"""Fine-tuning: a run that begins with the weights and the tokenizer of another model.

base, a run or what convert imports -> its config, tokenizer, optimizer, rates -> corpus -> token shards
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minilm.architectures.adapter_map import adapter_map
from minilm.architectures.minilm import layout
from minilm.checkpoint import load_record, read_run_config
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.lora import LoraConfig
from minilm.config.presets import find_preset
from minilm.data.conversations import Conversations, check_settings
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError
from minilm.interop.convert import as_run
from minilm.ledger.layout_changes import with_frozen
from minilm.parallel.process_group import world
from minilm.parallel.tensor_checks import check as check_tensor_parallel
from minilm.quantization.packing import Packing
from minilm.runs import base_run
from minilm.runs import files as run_files
from minilm.runs.new_folder import default_run_dir
from minilm.text.chat_template import ChatTemplate
from minilm.text.corpus import Corpus
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer
from minilm.training.base_model import WeightDtypes, companions
from minilm.training.base_template import chat_template, with_template
from minilm.training.data_source import DataSource
from minilm.training.loggers import check_installed
from minilm.training.preconditions import refuse_folder, refuse_other_encodings, refuse_too_large
from minilm.training.quantized_run import quantized_base
from minilm.training.run_plan import announce
from minilm.training.run_spec import Adapter, RunSpec
from minilm.training.runtime import resolve_for_run
from minilm.training.text_size import fit_to_text
from minilm.transforms.freeze import freeze
from minilm.transforms.lora import apply
from minilm.units import counted

logger = logging.getLogger(__name__)

# Of the configuration that a base was trained with: what fine-tuning takes over.
RATES = ("learning_rate", "muon_learning_rate")
OPTIMIZER_FIELDS = (
    *("optimizer", *RATES, "muon_momentum", "beta1", "beta2"),
    *("weight_decay", "gradient_clip"),
)
# On a text like those of the base, its own rates end above its loss; on another text a tenth of them learns
# little (measured: docs/training.md, "Fine-tuning").
FINE_TUNING_RATE = 0.3


def run_from_checkpoint(
    base: Path,
    preset: str,
    *,
    source: DataSource,
    run_dir: Path | None,
    vocabulary: Mapping[str, Any],
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    lora: LoraConfig | None = None,
    frozen: Sequence[str] = (),
    quantize_base: Packing | None = None,
    temporary: Path | None = None,
    announced: bool = True,
) -> RunSpec:
    """A run that begins with the weights and the tokenizer of ``base``: a run, or what convert imports.

    The preset says how long it is trained and in which batches. Optimizer and rates are those of the base,
    the rates lower by FINE_TUNING_RATE; an adapter has AdamW at the base's rate. ``model`` replaces fields
    that change no tensor, as dropout; ``vocabulary``, tokenizer and vocab_size where they are given, must be
    the base's. With ``lora`` an adapter is trained instead of the model, whose matrices are stored by
    ``quantize_base`` if that is given; a base that is made for it is in ``temporary`` until the run has it.
    ``frozen`` are components of `FREEZABLE` that are not trained.
    """
    _refuse_together(lora, frozen, quantize_base)
    refuse_other_encodings("init_from", os.path.abspath(base))
    with as_run(base) as imported, quantized_base(imported, quantize_base) as run:
        record = run_files.read_record(run / run_files.CONFIG)
        _refuse_transformed(base, record, lora)
        config = _train_config(record, preset, settings, lora)
        model_config = _model_config(base, run, record, model)
        check_installed(config.trackers)
        check_tensor_parallel(model_config, config.tensor_parallel, world())
        corpus = source.open()
        folder = run_dir or default_run_dir(preset, base, corpus.name)
        refuse_folder(folder, source.name)
        refuse_too_large(model_config, config, lora)
        with_frozen(layout(model_config), frozen)
        tokenizer = load_tokenizer(run / run_files.TOKENIZER)
        own = _own_vocabulary(tokenizer, vocabulary)
        # Last of what refuses options, as it may have a note.
        template, source = _template(run, source, corpus, config)
        beside_tokenizer = companions(run)
        if template is not None:
            beside_tokenizer = with_template(beside_tokenizer, template, tokenizer)
        dataset = source.prepare(
            corpus,
            tokenizer,
            config,
            context_length=model_config.context_length,
            template=template,
        )
        config, model_config = _fitted(config, model_config, dataset, {*settings, *model})
        began_with: dict[str, Any] = {"preset": preset, **own, "init_from": os.path.abspath(base)}
        network = load_record(run, replace(record, model=model_config), keep_packed=True)
        adapter = None
        if lora is not None:
            apply(network, lora, torch.Generator().manual_seed(config.seed))
            began_with["quantize_base"] = quantize_base and quantize_base.format
            began_with["double_quantization"] = getattr(quantize_base, "double", False)
            imported_from = base if quantize_base is None else None
            adapter = _adapter(lora, record, run, temporary if run != base else None, imported_from)
        elif frozen:
            freeze(network, frozen)
            began_with["freeze"] = list(frozen)
        spec = RunSpec(
            folder,
            network,
            config,
            dataset,
            source,
            resolve_for_run(config, model_config, dataset),
            began_with=began_with | source.options(),
            is_fine_tuning=True,
            companions=beside_tokenizer,
            weights_dtype="float32" if adapter else _common_dtype(base, run),
            adapter=adapter,
            transforms=record.transforms,
        )
        if announced:
            _announce(spec, base, record, preset)
        if adapter is not None and adapter.own_base is not None:
            shutil.copytree(run, adapter.own_base, copy_function=shutil.move)
        return spec


def _refuse_together(
    lora: LoraConfig | None, frozen: Sequence[str], quantize_base: Packing | None
) -> None:
    if lora is not None and frozen:
        raise ConfigError(
            "freeze", "given with lora_rank", "one of the two: a base is frozen whole"
        )
    if quantize_base is not None and lora is None:
        raise ConfigError(
            "quantize_base",
            f"{quantize_base.format} without lora_rank",
            "an adapter to train on it",
        )


def _refuse_transformed(base: Path, record: run_files.RunRecord, lora: LoraConfig | None) -> None:
    """Quantized matrices are trained by an adapter alone."""
    if lora is not None:
        record = replace(record, quantization={})
    remedy = "`minilm finetune --lora-rank R` trains an adapter on it"
    run_files.refuse_transformed(base, record, remedy)


def _train_config(
    record: run_files.RunRecord, preset: str, settings: Mapping[str, Any], lora: LoraConfig | None
) -> TrainConfig:
    """That of the preset, with optimizer and rates of the base, and ``settings``."""
    of_base = {name: getattr(record.train, name) for name in OPTIMIZER_FIELDS}
    if lora is None:
        of_base |= {name: FINE_TUNING_RATE * of_base[name] for name in RATES}
    else:
        # An adapter begins at zero, and nothing is undone at the base's own rate (docs/parameters.md).
        # Muon, which makes every direction of an update equally large, is not for a few of them.
        of_base["optimizer"] = "adamw"
        for name in ("muon_learning_rate", "muon_momentum"):
            if name in settings:
                raise ConfigError(name, f"{settings[name]} for an adapter", "none: AdamW trains it")
    config = find_preset(preset).train_config(**(of_base | dict(settings)))
    if lora is not None and config.optimizer != "adamw":
        raise ConfigError("optimizer", config.optimizer, "adamw, for an adapter")
    return config


def _model_config(
    base: Path, run: Path, record: run_files.RunRecord, overrides: Mapping[str, Any]
) -> ModelConfig:
    """That of the base, with ``overrides``, which change no tensor."""
    fields = to_dict(read_run_config(run)) | dict(overrides)
    config = from_dict(ModelConfig, fields, base / run_files.CONFIG)
    _refuse_other_shape(record.model, config, overrides)
    return config


def _template(
    run: Path, source: DataSource, corpus: Corpus, config: TrainConfig
) -> tuple[ChatTemplate | None, DataSource]:
    """The chat template of conversations, and the source that names it."""
    with world().main_first():  # what is downloaded is, as soon as it is read
        has_conversations = corpus.has_conversations()
    if has_conversations:
        check_settings(config)
        template, name = chat_template(run, source.chat_template)
        return template, replace(source, chat_template=name)
    if source.chat_template is not None:
        expected = (
            "JSON Lines of messages, or of prompt and completion, or Parquet with such columns"
        )
        raise ConfigError("chat_template", f"given with {source.name}, a text", expected)
    return None, source


def _own_vocabulary(tokenizer: Tokenizer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Kind and size of the tokenizer. Raises ConfigError where others were ``given``."""
    own = {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
    for name, value in given.items():
        if value not in (None, own[name]):
            expected = f"{own[name]}, that of the model it is to start from"
            raise ConfigError(name, str(value), expected, "leave it out")
    return own


def _fitted(
    config: TrainConfig, model: ModelConfig, dataset: Dataset, overrides: Collection[str]
) -> tuple[TrainConfig, ModelConfig]:
    """Both for a text of this size, but for the fields in ``overrides``."""
    if isinstance(dataset, Conversations) and "batch_size" not in overrides:
        # A row that is in a batch twice teaches nothing more.
        rows = len(dataset.train_rows.rows)
        config = replace(config, batch_size=min(config.batch_size, rows))
    config, dropout = fit_to_text(config, model, overrides=overrides, dataset=dataset)
    return config, replace(model, dropout=dropout)


def _common_dtype(base: Path, run: Path) -> str:
    """The dtype that all weights of the new run have; a note where the base has several."""
    dtypes = WeightDtypes(run)
    if len(dtypes.all) > 1:
        logger.warning(
            f"note: the weights of {base.name} are in {' and '.join(dtypes.all)}; the new run has all "
            f"in {dtypes.common}"
        )
    return dtypes.common


def _announce(spec: RunSpec, base: Path, record: run_files.RunRecord, preset: str) -> None:
    config, model = spec.config, spec.model.config
    of_what = f"{spec.adapter.lora.description}, on {base.name}" if spec.adapter else base.name
    # What was imported has no such record.
    known = f"where it was trained at {record.train.learning_rate:g}" if record.began_with else ""
    logger.info(
        f"fine-tuning {of_what}, with {config.optimizer}, at a rate of {config.learning_rate:g} "
        f"{known or '(at which it was trained is not recorded)'}"
    )
    if _differ(model, find_preset(preset).model_config()):
        logger.info(
            f"of the preset {preset}: only steps, batches and schedule; the model has the shape "
            f"of {base.name}: {counted(model.num_layers, 'layer')} of width {model.d_model}, "
            f"{model.context_length:,} tokens of context"
        )
    announce(spec)


def _adapter(
    lora: LoraConfig,
    record: run_files.RunRecord,
    run: Path,
    temporary: Path | None,
    imported_from: Path | None,
) -> Adapter:
    """What is trained on the base ``run``; with ``temporary`` that was imported or quantized for it, and
    goes from there into the run.
    """
    names, reference = adapter_map(record.model, lora), base_run.reference(run)
    if temporary is None:
        return Adapter(lora, names, reference, record.transforms)
    return Adapter(
        lora,
        names,
        {**reference, "path": run_files.BASE},
        record.transforms,
        own_base=temporary / run_files.BASE,
        imported_from=imported_from,
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
