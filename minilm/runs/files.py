"""What a run is on disk: the names of its files, and its config.json.

config.json  model.safetensors  tokenizer.json  metrics.jsonl  samples.jsonl  parameters.jsonl
attention.json  summary.json  report.html  resume/  tensorboard/  wandb/
adapter/ and base/ of an adapter, which has no model.safetensors
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minilm import files
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.errors import FormatError, InputError
from minilm.formats.header import WEIGHTS_ENDINGS
from minilm.formats.huggingface import ADAPTER_CONFIG as ADAPTER_CONFIG
from minilm.formats.huggingface import CHAT_TEMPLATE as CHAT_TEMPLATE
from minilm.formats.huggingface import GENERATION_CONFIG, SPECIAL_TOKENS_MAP
from minilm.formats.huggingface import TOKENIZER_CONFIG as TOKENIZER_CONFIG
from minilm.formats.json_file import read_object
from minilm.formats.safetensors import read_header
from minilm.runs.stop_reason import StopReason
from minilm.version import __version__

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
PARAMETERS = "parameters.jsonl"
ATTENTION = "attention.json"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
SUMMARY = "summary.json"
RESUME = "resume"
# Of a run that is an adapter: its folder, and PEFT's names of the files in it.
ADAPTER, ADAPTER_WEIGHTS = "adapter", "adapter_model.safetensors"
# Its base, where that was imported for it.
BASE = "base"
# Of an imported model, beside its tokenizer: which tokens begin and end a text, how a dialogue is written.
COMPANIONS = (GENERATION_CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, CHAT_TEMPLATE)
LOCK = ".minilm.lock"

FAMILY = "minilm"

_WRITTEN = (
    *(
        CONFIG,
        WEIGHTS,
        TOKENIZER,
        METRICS,
        SAMPLES,
        PARAMETERS,
        ATTENTION,
        REPORT,
        SUMMARY,
        *COMPANIONS,
    ),
    *(ADAPTER_CONFIG, ADAPTER_WEIGHTS),
)
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".pt", ".pth", ".bin", ".ckpt")
_STATE = re.compile(r"step-(\d{9,18})(\.safetensors)?", re.ASCII)


def state_name(step: int) -> str:
    """The file in resume/ of the training state after ``step`` steps."""
    return f"{state_folder_name(step)}.safetensors"


def state_folder_name(step: int) -> str:
    """The folder in resume/ of one that several processes write (runs/state_folders.py)."""
    return f"step-{step:09d}"


def step_of_state(name: str) -> int | None:
    """The inverse of both; None for another name."""
    match = _STATE.fullmatch(name)
    return int(match[1]) if match else None


def is_model_file(path: Path) -> bool:
    """Whether its name is that of weights, or of a file that goes with them: no report replaces it."""
    name = path.name
    return (
        path.suffix in WEIGHTS_ENDINGS
        or name.endswith(".index.json")
        or name == "vocab.json"
        or (is_name_in_run(name) and name != REPORT)
    )


def is_name_in_run(name: str) -> bool:
    """Whether it is the name of a file that a run writes whole, in its folder or in resume/."""
    return name in _WRITTEN or step_of_state(name) is not None


@dataclass(frozen=True)
class RunRecord:
    """A config.json: the model, how it is trained, and the options that the run began with.

    ``transforms``: what was done to a trained model since, in order, each with the name of its ``tool``.
    ``quantization``: how its matrices are stored, as quantization_config of a Hugging Face model has it.
    ``base``: of an adapter, the ``path`` of the model that it is for and the ``sha256`` of its weights.
    ``start``: the ``sha256`` of the weights that training began with, as `parameters_sha256` has it; older
    runs, adapters and those of which a process has parts of the tensors have none.
    ``tuned``: how its steps compute, where that was measured.
    """

    model: ModelConfig
    train: TrainConfig
    began_with: Mapping[str, Any] = field(default_factory=dict)
    transforms: tuple[Mapping[str, Any], ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    tuned: Mapping[str, Any] = field(default_factory=dict)

    def transformed(self, *done: Mapping[str, Any], **changes: Any) -> RunRecord:
        """That of what tools made of the model, of which nothing is frozen; ``changes`` are other fields."""
        options = {name: value for name, value in self.began_with.items() if name != "freeze"}
        transforms = (*self.transforms, *done)
        return replace(self, began_with=options, transforms=transforms, **changes)


def refuse_transformed(where: object, record: RunRecord, instead_of_quantized: str) -> None:
    """Raise InputError for a model whose weights are not its parameters: quantized, or an adapter.

    ``instead_of_quantized`` is what to do with a quantized one.
    """
    if record.quantization:
        raise InputError(where, "a quantized model", "one in float", instead_of_quantized)
    if record.base:
        remedy = "`minilm finetune RUN --merge --out DIR` makes one model of it and its base"
        raise InputError(where, "an adapter", "a whole model", remedy)


# Where they are in config.json.
_OTHERS = {
    "began_with": "began_with",
    "transforms": "transforms",
    "quantization": "quantization_config",
    "base": "base",
    "start": "start",
    "tuned": "tuned",
}


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Write config.json: the family, every field of the model, how it is trained, and what else there is."""
    value: dict[str, Any] = {
        "family": FAMILY,
        "minilm": __version__,
        "model": to_dict(record.model),
        "train": to_dict(record.train),
    }
    for name, key in _OTHERS.items():
        if content := getattr(record, name):
            value[key] = content
    files.write_json(run_dir / CONFIG, value)


def read_record(path: Path) -> RunRecord:
    """All of a run's config.json. Raises FormatError, ConfigError, or OSError."""
    value = _read_own(path)
    return RunRecord(
        from_dict(ModelConfig, value.get("model"), path),
        from_dict(TrainConfig, value.get("train"), path),
        **{name: _recorded(value, name, path) for name in _OTHERS},
    )


def _recorded(value: Mapping[str, Any], name: str, path: Path) -> Any:
    """A field of `RunRecord` that not every config.json has."""
    content = value.get(_OTHERS[name], [] if name == "transforms" else {})
    objects = content if name == "transforms" else [content]
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise FormatError(path, f"{_OTHERS[name]} that is no object", "what the run recorded there")
    if name == "tuned" and not all(isinstance(way, str) for way in content.values()):
        raise FormatError(path, "tuned with what is no name", "what the run recorded there")
    return tuple(objects) if name == "transforms" else content


def read_config(path: Path) -> ModelConfig:
    """The model of a run's config.json. Raises FormatError, ConfigError, or OSError."""
    return from_dict(ModelConfig, _read_own(path).get("model"), path)


def read_quantization(path: Path) -> Mapping[str, Any]:
    """How its config.json says that the matrices of a run are stored. Raises as `read_config`."""
    quantization: Mapping[str, Any] = _recorded(_read_own(path), "quantization", path)
    return quantization


def _read_own(path: Path) -> dict[str, Any]:
    value = read_object(path)
    if value.get("family") != FAMILY:
        raise FormatError(
            path,
            f"family {value.get('family')!r}",
            f"{FAMILY!r}",
            "`minilm convert FOLDER --to minilm --out RUN` makes a run of another program's model",
        )
    return value


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary.json of a run; empty while there is none. Raises FormatError for another file."""
    path = run_dir / SUMMARY
    return read_object(path) if path.is_file() else {}


def last_summary(run_dir: Path) -> dict[str, Any]:
    """As `read_summary`, and empty for a damaged one: the training state says how far the run has come."""
    try:
        return read_summary(run_dir)
    except FormatError:
        return {}


def finished_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary.json of a run that reached its end; None for one that can be resumed."""
    summary = last_summary(run_dir)
    try:
        return summary if StopReason(summary.get("stopped_because")).is_final else None
    except ValueError:
        return None


def weights_path(run_dir: Path) -> Path:
    """The file of the weights that a run trains: of an adapter, its own."""
    adapter = run_dir / ADAPTER
    return adapter / ADAPTER_WEIGHTS if adapter.is_dir() else run_dir / WEIGHTS


def has_weights(run_dir: Path) -> bool:
    """Whether they are there, with a header that can be read."""
    try:
        read_header(weights_path(run_dir))
    except (FormatError, FileNotFoundError):
        return False
    return True


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nothing reads or removes it; returns its new path."""
    numbers = itertools.count(1)
    new = next(p for n in numbers if not os.path.lexists(p := Path(f"{path}.damaged-{n}")))
    path.rename(new)
    return new
