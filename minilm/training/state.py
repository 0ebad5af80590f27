"""resume/state.safetensors: the exact training state in one file, so that one rename replaces it all.

Tensors: ``model.NAME``, ``optimizer.NAME.KEY``, ``rng.cpu``, ``rng.cuda``. Metadata: ``progress`` and
``settings`` as JSON. Batches are a function of seed and step, so the step is the data cursor.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minilm import run
from minilm.checkpoint import shapes_of, write_tensors
from minilm.errors import FormatError
from minilm.formats.safetensors import read_header
from minilm.training.optimizer import optimizer_tensors, restore_optimizer

FILE = "state.safetensors"


@dataclass
class Progress:
    """How far a run has come. ``seconds`` adds up over the processes that worked on it."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_val_loss: float | None = None
    best_val_bits_per_byte: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    evaluated_step: int = -1
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedState:
    """A state file opened: where the run was, with which settings, and its tensors."""

    progress: Progress
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def save_state(
    run_dir: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Replace the state of ``run_dir`` atomically."""
    tensors: dict[str, Tensor] = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter
    for name, tensor in optimizer_tensors(model, optimizer).items():
        tensors[f"optimizer.{name}"] = tensor
    folder = run_dir / run.RESUME
    folder.mkdir(exist_ok=True)
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings)}
    write_tensors(folder / FILE, tensors, metadata)


def read_state(run_dir: Path) -> SavedState:
    """The state of a run. Raises FormatError when there is none or it is not whole."""
    path = run_dir / run.RESUME / FILE
    if not path.is_file():
        raise FormatError(path, "no such file", "the training state of a run", "start it anew")
    metadata = read_header(path).metadata
    try:
        progress = Progress(**json.loads(metadata["progress"]))
        settings = json.loads(metadata["settings"])
    except (KeyError, TypeError, json.JSONDecodeError):
        raise FormatError(path, "no progress in its header", "a minilm training state") from None
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    return SavedState(progress, settings, tensors)


def restore_state(
    saved: SavedState, model: nn.Module, optimizer: torch.optim.Optimizer, where: Path
) -> None:
    """Put weights, optimizer and random generators back as they were saved."""
    weights = _under("model.", saved.tensors)
    expected = shapes_of(model)
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != expected:
        raise FormatError(where, "weights of another model", "the model of its config.json")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    restore_optimizer(model, optimizer, _under("optimizer.", saved.tensors))
    torch.set_rng_state(saved.tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in saved.tensors:
        torch.cuda.set_rng_state(saved.tensors["rng.cuda"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
