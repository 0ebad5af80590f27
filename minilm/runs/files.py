"""What a run is on disk: the names of its files, and its config.json.

config.json  model.safetensors  tokenizer.json  metrics.jsonl  samples.jsonl  summary.json  report.html
resume/  tensorboard/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minilm import files
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.errors import FormatError
from minilm.formats.json_file import read_object
from minilm.version import __version__

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
SUMMARY = "summary.json"
RESUME = "resume"

FAMILY = "minilm"

# Reasons to stop after which nothing is left to resume.
FINISHED = ("max_steps", "target_val_loss", "early_stopping")


def write_config(run_dir: Path, config: ModelConfig, train: TrainConfig) -> None:
    """Write config.json: the family, every field of the model, and how it is trained."""
    value = {
        "family": FAMILY,
        "minilm": __version__,
        "model": to_dict(config),
        "train": to_dict(train),
    }
    files.write_json(run_dir / CONFIG, value)


def read_config(path: Path) -> ModelConfig:
    """The model of a run's config.json. Raises FormatError, ConfigError, or OSError."""
    value = read_object(path)
    if value.get("family") != FAMILY:
        raise FormatError(path, f"family {value.get('family')!r}", f"{FAMILY!r}")
    return from_dict(ModelConfig, value.get("model"), path)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary.json of a run; empty while there is none. Raises FormatError for another file."""
    path = run_dir / SUMMARY
    return read_object(path) if path.is_file() else {}


def finished_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary.json of a run that reached its end; None for one that can be resumed."""
    summary = read_summary(run_dir)
    return summary if summary.get("stopped_because") in FINISHED else None
