"""What may stand beside --resume: the options that the run began with, and those that it may change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.config import TrainConfig, from_dict, to_dict
from minilm.config.lora import in_order, lora_options
from minilm.errors import ConfigError
from minilm.runs import files as run_files
from minilm.runs.base_run import lora_of
from minilm.runs.stop_reason import StopReason
from minilm.text.chat_template import PLAIN
from minilm.text.corpora import is_same_source

# Where the run ends and where it runs, and one that changes its arithmetic, which is said.
RESUMABLE_OVERRIDES = (
    *("max_steps", "max_seconds", "target_val_loss", "early_stopping"),
    *(
        "device",
        "parallel",
        "tensor_parallel",
        "compile",
        "cuda_graphs",
        "save_every_seconds",
        "keep_states",
        "sample_tokens",
        "watch",
        "log_to",
    ),
    "dtype",
)

_FLAGS = ("raw_text", "rank_stabilised", "dora", "double_quantization")  # options without a value


def changed_settings(
    run_dir: Path, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of ``settings`` that differ from the run's config.json.

    ``options`` are other arguments of `train` and `finetune`, None where they were not given, fields of the
    model as model.FIELD. Raises ConfigError, by name, for a value that differs and may not.
    """
    record = run_files.read_record(run_dir / run_files.CONFIG)
    own = {**record.began_with, **{f"model.{k}": v for k, v in to_dict(record.model).items()}}
    if record.base:
        own |= lora_options(lora_of(run_dir, record))
    for name, value in options.items():
        if value is None:
            continue
        value = _as_recorded(name, value)
        if name not in own:
            raise ConfigError(
                name,
                "given with --resume",
                "an option that the run has a record of",
                "leave it out",
            )
        if value != own[name]:
            raise _refusal(name, value, own[name])
    train = to_dict(record.train)
    from_dict(TrainConfig, train | dict(settings), "settings")  # unknown fields, wrong values
    changed = {name: value for name, value in settings.items() if value != train[name]}
    for name, value in changed.items():
        if name not in RESUMABLE_OVERRIDES:
            raise _refusal(name, value, train[name])
    return changed


def is_finished(run_dir: Path, data: str | None, changed: Mapping[str, Any]) -> bool:
    """Whether a run is at its end, and nothing that is asked for gives it more to do."""
    summary = run_files.finished_summary(run_dir)
    if summary is None or changed or not run_files.has_weights(run_dir):
        return False
    text = summary.get("data")
    source = text.get("source") if isinstance(text, dict) else None
    return data is None or (isinstance(source, str) and is_same_source(data, source))


def check_not_ended(run_dir: Path, changed: Mapping[str, Any]) -> None:
    """Raises ConfigError where a goal ended the run and what is ``changed`` does not move it."""
    summary = run_files.finished_summary(run_dir) or {}
    reason = summary.get("stopped_because")
    goals = (StopReason.EARLY_STOPPING, StopReason.TARGET_VAL_LOSS)
    if changed and reason in goals and reason not in changed:
        option = str(reason).replace("_", "-")
        raise ConfigError(
            next(iter(changed)),
            f"given with --resume, but {reason} ended the run at step {summary.get('steps')}",
            f"another {reason} beside it",
            f"add --{option} 0"
            if reason == StopReason.EARLY_STOPPING
            else f"add a lower --{option}",
        )


def _as_recorded(name: str, value: Any) -> Any:
    """An option of `train` as config.json has it."""
    if name == "init_from" or (name == "chat_template" and value != PLAIN.name):
        return os.path.abspath(value)
    if name == "targets":
        return in_order(value)
    return list(value) if isinstance(value, tuple) else value


def _refusal(name: str, value: Any, own: Any) -> ConfigError:
    got, expected = f" as {_shown(name, value)}", f"the run's own {_shown(name, own)}"
    if name in _FLAGS and value:
        got, expected = "", "a run that began with it"
    remedy = f"only data and {', '.join(RESUMABLE_OVERRIDES)} may change"
    return ConfigError(name, f"given with --resume{got}", expected, remedy)


def _shown(name: str, value: Any) -> str:
    """As the command line has it."""
    if isinstance(value, list):
        return ("," if name == "targets" else " ").join(map(str, value)) or "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
