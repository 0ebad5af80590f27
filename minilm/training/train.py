"""train() and resume(): set a run up, train it, finish it. The one way in, for Python and the shell."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilm import files
from minilm.checkpoint import read_run_config
from minilm.config import TrainConfig, from_dict, to_dict
from minilm.config.lora import lora_config
from minilm.config.validation import RENAMED, names_of, with_current_names
from minilm.data.cache import default_cache
from minilm.errors import ConfigError
from minilm.model.device import release_free_memory
from minilm.parallel.process_group import process_group, world
from minilm.quantization.packing import FORMATS, Format, Packing
from minilm.quantization.packings import make_packing
from minilm.runs import files as run_files
from minilm.runs.lock import run_lock
from minilm.runs.new_folder import new_run_folder, remove_beginning, remove_temporary_files
from minilm.text.chat_template import PLAIN
from minilm.text.deduplication import Mode
from minilm.training.data_source import DataSource
from minilm.training.finetune import run_from_checkpoint
from minilm.training.finish import Outcome, finish, finished_run
from minilm.training.messages import messages_shown
from minilm.training.resume_options import changed_settings, check_not_ended, is_finished
from minilm.training.run_spec import Adapter, RunSpec
from minilm.training.setup import new_run, resumed_run
from minilm.training.signals import stop_request
from minilm.training.trainer import Trainer
from minilm.transforms import adapter_files

__all__ = ["Outcome", "finetune", "resume", "train"]

logger = logging.getLogger(__name__)


def train(
    preset: str = "nano",
    *,
    data: str | Path = "stdlib",
    run_dir: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    cleaning: Sequence[str] = (),
    text_field: str | None = None,
    raw_text: bool = False,
    init_from: str | Path | None = None,
    dedup: Mode | None = None,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    started: float | None = None,
) -> Outcome:
    """Train a new model and leave a run folder, by default checkpoints/PRESET-DATA.

    ``model`` and ``settings`` replace fields of the preset's ModelConfig and TrainConfig. With
    ``init_from`` the model and the tokenizer are those of that run, training begins with its weights, and
    the folder is by default checkpoints/MODEL-DATA. ``text_field`` is where JSON, CSV, Parquet and datasets
    have the text; ``raw_text`` takes a file as it is; ``dedup`` leaves out documents that are there before.
    Raises InputError before anything is written; an existing run is never overwritten.

    ``started``: when the run began, by time.monotonic(), for its seconds; default: now. Progress goes
    through the logger "minilm"; where logging is not configured, to stderr.
    """
    started = time.monotonic() if started is None else started
    with messages_shown(), process_group(), stop_request() as stop:
        if run_dir == "":
            raise ConfigError("run_dir", "an empty name", "a folder, or None for the default one")
        source = DataSource(
            str(data),
            tuple(cleaning),
            cache or default_cache(),
            text_field,
            raw_text,
            dedup=dedup,
        )
        folder = None if run_dir is None else Path(run_dir)
        model, settings = dict(model or {}), _current_settings(settings)
        if init_from is None:
            spec = new_run(
                preset,
                source=source,
                run_dir=folder,
                tokenizer=tokenizer,
                vocab_size=vocab_size,
                model=model,
                settings=settings,
            )
        else:
            spec = run_from_checkpoint(
                Path(init_from),
                preset,
                source=source,
                run_dir=folder,
                vocabulary={"tokenizer": tokenizer, "vocab_size": vocab_size},
                model=model,
                settings=settings,
            )
        return start(Trainer(spec, stop, started))


def finetune(
    checkpoint: str | Path,
    *,
    data: str,
    run_dir: str | Path | None = None,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_dropout: float | None = None,
    targets: Sequence[str] | None = None,
    rank_stabilised: bool = False,
    dora: bool = False,
    freeze: Sequence[str] = (),
    quantize_base: Format | None = None,
    double_quantization: bool = False,
    preset: str = "nano",
    cleaning: Sequence[str] = (),
    text_field: str | None = None,
    raw_text: bool = False,
    chat_template: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    started: float | None = None,
) -> Outcome:
    """Train ``checkpoint``, a run or what convert imports, further: whole, in part, or an adapter on it.

    With ``lora_rank`` a LoRA adapter on the matrices ``targets`` (default: query, key, value, output) is
    trained and the rest is frozen, with ``dora`` a weight-decomposed one. The new run holds the adapter
    alone and names its base, or has it in ``quantize_base``, int8, int4 or nf4 (QLoRA), whose scales
    ``double_quantization`` rounds too. ``freeze`` are components that stay as they are. The preset says how
    long it is trained and in which batches; all other arguments are those of `train`.
    Of JSON Lines of ``messages``, or of ``prompt`` and ``completion``, the answers are learned:
    ``chat_template`` is a file with the template that writes them, or "plain"; by default the base's own,
    or the plain one. Raises InputError before anything is written.
    """
    started = time.monotonic() if started is None else started
    if chat_template not in (None, PLAIN.name):
        chat_template = os.path.abspath(str(chat_template))
    lora = lora_config(
        lora_rank,
        alpha=lora_alpha,
        dropout=lora_dropout,
        targets=targets,
        rank_stabilised=rank_stabilised,
        dora=dora,
    )
    packing = _base_packing(quantize_base, double_quantization)
    with (
        messages_shown(),
        process_group(),
        stop_request() as stop,
        tempfile.TemporaryDirectory() as temporary,
    ):
        spec = run_from_checkpoint(
            Path(checkpoint),
            preset,
            source=DataSource(
                data,
                tuple(cleaning),
                cache or default_cache(),
                text_field,
                raw_text,
                None if chat_template is None else str(chat_template),
            ),
            run_dir=None if run_dir is None else Path(run_dir),
            vocabulary={},
            model=dict(model or {}),
            settings=_current_settings(settings),
            lora=lora,
            frozen=names_of("freeze", freeze),
            quantize_base=packing,
            temporary=Path(temporary),
        )
        return start(Trainer(spec, stop, started))


def _base_packing(format: Format | None, double_quantization: bool) -> Packing | None:
    """How the base of an adapter is stored; None: as it is."""
    if format not in (None, *FORMATS):
        raise ConfigError("quantize_base", repr(format), f"one of {', '.join(FORMATS)}")
    if format is not None:
        return make_packing(format, double_quantization=double_quantization)
    if double_quantization:
        raise ConfigError("double_quantization", "given without quantize_base", "nf4 with it")
    return None


def resume(
    run_dir: str | Path,
    *,
    data: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    started: float | None = None,
) -> Outcome:
    """Go on with a run from its last saved step: it ends in the same bytes as one that never stopped.

    (A run that its own limit of time ended was evaluated there, which the same run without one is not.)
    ``settings`` may move where it ends (RESUMABLE_OVERRIDES), and ``data`` says where its text is now; a
    run that is finished is left as it is. What the run began with may be repeated in ``settings`` and in
    ``options``, other arguments of `train` and `finetune`. Raises InputError for a folder without a run,
    and for what would change what it computes.
    """
    started = time.monotonic() if started is None else started
    with messages_shown(), process_group(), stop_request() as stop:
        folder, data = Path(run_dir), None if data is None else str(data)
        read_run_config(folder, with_weights=False)
        changed = changed_settings(folder, options or {}, _current_settings(settings))
        if is_finished(folder, data, changed):
            return finished_run(folder)
        check_not_ended(folder, changed)
        with run_lock(folder) if world().is_main else contextlib.nullcontext():
            stop.saved = True
            spec = resumed_run(folder, data=data, settings=changed, cache=cache or default_cache())
            trainer = Trainer(spec, stop, started)
            summary = run_files.last_summary(folder)
            _repair(trainer)
            if changed:
                _record_changes(trainer, changed)
            return finish(trainer, trainer.run(), summary_before=summary)


def _record_changes(trainer: Trainer, changed: Mapping[str, Any]) -> None:
    """Save the state with its new settings, and write them to config.json.

    summary.json goes in between. Before the state is saved, nothing may be lost. Once config.json has the new
    end, the same command changes nothing: with the old summary a run that is killed then would be finished.
    """
    trainer.save()
    trainer.checkpoints.wait()
    if not trainer.world.is_main:
        return
    folder = trainer.spec.run_dir
    (folder / run_files.SUMMARY).unlink(missing_ok=True)
    record = run_files.read_record(folder / run_files.CONFIG)
    train = from_dict(TrainConfig, to_dict(record.train) | dict(changed), "settings")
    run_files.write_record(folder, replace(record, train=train))


def start(trainer: Trainer) -> Outcome:
    """Write a new run's folder, train, and finish; a run without a first step is removed again."""
    spec, is_main = trainer.spec, world().is_main
    with new_run_folder(spec.run_dir) if is_main else contextlib.nullcontext():
        try:
            _write_beginning(trainer)
        except BaseException:
            with contextlib.suppress(OSError):
                trainer.checkpoints.close()  # it may be writing there
            if is_main:
                remove_beginning(spec.run_dir)
            raise
        trainer.stop.saved = True
        release_free_memory()
        try:
            reason = trainer.run()
        except Exception:
            if (
                is_main and trainer.progress.step == 0
            ):  # nothing was learned, and it would stand in the way
                remove_beginning(spec.run_dir)
            raise
        return finish(trainer, reason)


def _repair(trainer: Trainer) -> None:
    """Remove what a killed process left, set aside what is damaged, and make lost weights anew."""
    spec = trainer.spec
    assert spec.saved is not None
    (is_lost,) = trainer.world.maximum(not run_files.has_weights(spec.run_dir))
    if not trainer.world.is_main:
        if is_lost:
            trainer.progress.forget_best()
            trainer.save()
        return
    remove_temporary_files(spec.run_dir)
    if spec.adapter is not None:
        _write_adapter(spec, spec.adapter)
    weights = run_files.weights_path(spec.run_dir)
    damaged = list(spec.saved.damaged)
    if is_lost and os.path.lexists(weights):
        damaged.append(weights)
    for path in damaged:
        logger.warning(f"{path} is set aside as {run_files.set_aside(path).name}")
    if is_lost:
        best = trainer.progress.best_step
        trainer.progress.forget_best()
        # With new weights and the old summary a run that is killed now would be finished.
        (spec.run_dir / run_files.SUMMARY).unlink(missing_ok=True)
        logger.warning(
            f"{weights} is made anew from the training state of step {trainer.progress.step}"
            + ("" if best == trainer.progress.step else f"; the best, of step {best}, are lost")
        )
        trainer.save()


def _write_beginning(trainer: Trainer) -> None:
    """All that --resume needs, config.json last: with it the folder becomes a run."""
    spec = trainer.spec
    if trainer.world.is_main:
        _write_companions(spec)
    trainer.save()
    trainer.checkpoints.wait()
    if trainer.world.is_main:
        run_files.write_record(spec.run_dir, spec.record())


def _write_companions(spec: RunSpec) -> None:
    """What stands beside the weights."""
    spec.dataset.tokenizer.save(spec.run_dir / run_files.TOKENIZER)
    for name, content in spec.companions.items():
        files.write_bytes(spec.run_dir / name, content)
    if spec.adapter is not None:
        _write_adapter(spec, spec.adapter)


def _write_adapter(spec: RunSpec, adapter: Adapter) -> None:
    """What an adapter's folder has beside its weights, and its base where that was made for this run."""
    folder = spec.run_dir / run_files.ADAPTER
    folder.mkdir(exist_ok=True)
    if not (folder / run_files.ADAPTER_CONFIG).is_file():
        base = adapter.imported_from or spec.run_dir / adapter.base["path"]
        adapter_files.write_config(folder, adapter.lora, adapter.map, str(base.absolute()))
    if adapter.own_base is None:
        return
    copy = spec.run_dir / run_files.BASE
    copy.mkdir(exist_ok=True)
    for path in sorted(adapter.own_base.iterdir()):
        with path.open("rb") as stream, files.atomic_writer(copy / path.name) as output:
            shutil.copyfileobj(stream, output)
        path.unlink()


def _current_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of TrainConfig by their current names, with a note on each old one."""
    for name in settings or {}:
        if name in RENAMED:
            logger.warning(f"note: the setting {name} is now {RENAMED[name]}")
    return with_current_names(settings or {}, "settings")
