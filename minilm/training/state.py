"""resume/state.safetensors: the exact training state in one file, so that one rename replaces it all.

Tensors: ``model.NAME``, ``optimizer.NAME.KEY``, ``rng.cpu``, ``rng.cuda``. Metadata: ``progress`` and
``settings`` as JSON. Batches are a function of seed and step, so the step is the data cursor.
"""

from __future__ import annotations

import json
import math
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
        _check_values(progress, settings)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise FormatError(path, "no progress in its header", "a minilm training state") from None
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    return SavedState(progress, settings, tensors)


def restore_state(
    saved: SavedState, model: nn.Module, optimizer: torch.optim.Optimizer, where: Path
) -> None:
    """Put weights, optimizer and random generators back as they were saved.

    Raises FormatError, with nothing changed, unless every tensor is there in its shape.
    """
    expected = _expected_shapes(model, saved.progress.step)
    stored = {name: tuple(tensor.shape) for name, tensor in saved.tensors.items()}
    stored.pop("rng.cuda", None)
    if stored != expected:
        name = min(n for n in stored.keys() | expected.keys() if stored.get(n) != expected.get(n))
        raise FormatError(
            where,
            f"{name} {stored.get(name, 'absent')}",
            f"{expected.get(name, 'no such tensor')}",
            "the state is damaged: start a new run, with --init-from this one to keep its weights",
        )
    weights = _under("model.", saved.tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    restore_optimizer(model, optimizer, _under("optimizer.", saved.tensors))
    torch.set_rng_state(saved.tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in saved.tensors:
        torch.cuda.set_rng_state(saved.tensors["rng.cuda"])


def _check_values(progress: Progress, settings: Any) -> None:
    """ValueError or TypeError unless the header's values are of the kinds that were saved."""
    counts = (progress.step, progress.tokens, progress.best_step, progress.evaluations_since_best)
    if not all(type(value) is int and value >= 0 for value in counts):
        raise ValueError("counts")
    if type(progress.evaluated_step) is not int or not isinstance(progress.scaler, dict):
        raise ValueError("progress")
    for number in (progress.seconds, progress.best_val_loss or 0.0):
        if not math.isfinite(number):
            raise ValueError("numbers")
    cleaning = settings["cleaning"]
    if not isinstance(cleaning, list) or not isinstance(settings["train"], dict):
        raise ValueError("settings")
    if not all(
        isinstance(text, str) for text in (settings["source"], settings["sha256"], *cleaning)
    ):
        raise ValueError("settings")


def _expected_shapes(model: nn.Module, step: int) -> dict[str, tuple[int, ...]]:
    shapes = {"rng.cpu": tuple(torch.get_rng_state().shape)}
    for name, shape in shapes_of(model).items():
        shapes[f"model.{name}"] = shape
        if step > 0:  # before its first update AdamW has no state
            shapes |= {f"optimizer.{name}.exp_avg": shape, f"optimizer.{name}.exp_avg_sq": shape}
            shapes[f"optimizer.{name}.step"] = ()
    return shapes


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
