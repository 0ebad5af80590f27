"""train() and resume(): set a run up, train it, finish it. The one way in, for Python and the shell."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm import files
from minilm.config import TrainConfig
from minilm.config.validation import RENAMED, check_names, with_current_names
from minilm.data.shards import default_cache
from minilm.errors import ConfigError, InputError
from minilm.runs import files as run_files
from minilm.training.finish import Outcome, finish, finished_run
from minilm.training.messages import messages_shown
from minilm.training.setup import (
    RESUMABLE_OVERRIDES,
    DataSource,
    RunSpec,
    new_run,
    resumed_run,
    run_from_checkpoint,
)
from minilm.training.signals import StopRequest, stop_request
from minilm.training.trainer import Trainer

__all__ = ["Outcome", "resume", "train"]

logger = logging.getLogger(__name__)


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
) -> Outcome:
    """Train a new model and leave a run folder, by default checkpoints/PRESET-DATA.

    ``model`` and ``settings`` replace fields of the preset's ModelConfig and TrainConfig. With
    ``init_from`` the model and the tokenizer are those of that run and training begins with its
    weights. Raises InputError before anything is written; an existing run is never overwritten.

    Progress goes through the logger "minilm"; where logging is not configured, to stderr.
    """
    with messages_shown(), stop_request() as stop:
        _refuse_several_processes()
        source = DataSource(data, tuple(cleaning), cache or default_cache())
        folder = Path(run_dir) if run_dir else None
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
        elif tokenizer is not None or vocab_size is not None:
            raise ConfigError("tokenizer", "given with --init-from", "the one of that run alone")
        else:
            spec = run_from_checkpoint(
                Path(init_from),
                preset,
                source=source,
                run_dir=folder,
                model=model,
                settings=settings,
            )
        return _run(spec, stop)


def resume(
    run_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Outcome:
    """Go on with a run from its last saved step: it ends in the same bytes as one that never stopped.

    (A run that its own limit of time ended was evaluated there, which the same run without one is not.)
    ``settings`` may move where it ends (RESUMABLE_OVERRIDES); a run that is finished is left as it is.
    Raises InputError for a folder without a run, and for settings that would change what it computes.
    """
    with messages_shown(), stop_request() as stop:
        _refuse_several_processes()
        folder, overrides = Path(run_dir), _current_settings(settings)
        check_names(TrainConfig, overrides, "settings")
        for name in overrides:
            if name not in RESUMABLE_OVERRIDES:
                allowed = ", ".join(RESUMABLE_OVERRIDES)
                raise ConfigError(name, "given with --resume", f"only {allowed}")
        outcome = None if overrides else finished_run(folder)
        if outcome is not None:
            return outcome
        stop.saved = True
        spec = resumed_run(folder, settings=overrides, cache=cache or default_cache())
        for stale in folder.rglob(".*.tmp"):  # what a killed process was writing
            stale.unlink()
        return _run(spec, stop)


def _run(spec: RunSpec, stop: StopRequest) -> Outcome:
    is_new = spec.saved is None
    trainer = Trainer(spec, stop)
    if is_new:
        _create_run_folder(trainer)
    stop.saved = True
    try:
        reason = trainer.run()
    except Exception:
        if is_new and trainer.progress.step == 0:
            shutil.rmtree(spec.run_dir)  # nothing was learned, and it would stand in the way
        raise
    return finish(trainer, reason)


def _create_run_folder(trainer: Trainer) -> None:
    """Make the run folder beside its place and rename it there: from then on it can be resumed."""
    spec = trainer.spec
    folder = spec.run_dir
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".{folder.name}.new"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
    except OSError as error:
        raise InputError(folder, f"{error.strerror}", "a folder that can be made") from None
    try:
        trainer.run_dir = staging
        spec.dataset.tokenizer.save(staging / run_files.TOKENIZER)
        run_files.write_config(staging, spec.model.config, spec.config)
        trainer.save()
        trainer.checkpoints.wait()
        staging.rename(folder)  # over an empty folder too, never over one with files
        files.sync_directory(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            trainer.checkpoints.close()  # it may be writing there
        shutil.rmtree(staging, ignore_errors=True)
        raise
    trainer.run_dir = folder


def _current_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of TrainConfig by their current names, with a note on each old one."""
    for name in settings or {}:
        if name in RENAMED:
            logger.warning(f"note: the setting {name} is now {RENAMED[name]}")
    return with_current_names(settings or {}, "settings")


def _refuse_several_processes() -> None:
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise InputError("WORLD_SIZE", world, "1", "start one process; several are not supported")
