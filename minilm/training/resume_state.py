"""The exact training state: resume/step-N.safetensors, one file each, of which the newest are kept.

Tensors: ``model.NAME`` for every parameter, trained or frozen, in its own dtype; ``optimizer.NAME.KEY`` for
those that are trained; ``rng.DEVICE``. Metadata: ``progress`` and ``settings`` as JSON. Batches are a
function of seed, step and micro-step, so the step is the data cursor. One file holds all of it, so that one
rename makes a state, whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minilm.checkpoint import write_tensors
from minilm.errors import FormatError
from minilm.formats.safetensors import read_header
from minilm.runs import files as run_files
from minilm.training.optimizers import (
    optimizer_state_shapes,
    optimizer_tensors,
    restore_optimizers,
)

logger = logging.getLogger(__name__)

Optimizers = Sequence[torch.optim.Optimizer]


@dataclass
class Progress:
    """How far a run has come. ``seconds`` and ``joules`` add up over the processes that worked on it.

    ``loss_sum`` and ``loss_count`` are of the steps since the last line of metrics.jsonl, ``usual_loss``
    the running mean of its lines.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    joules: float | None = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    usual_loss: float | None = None
    loss_spikes: int = 0
    best_val_loss: float | None = None
    best_val_bits_per_byte: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    evaluated_step: int = -1
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedState:
    """A state file opened: where the run was, with which settings, and its tensors."""

    path: Path
    progress: Progress
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def state_tensors(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    """All that a state holds, as it is now: not copies, but for the random generators'."""
    tensors = {f"rng.{device}": read() for device, (read, _) in _random_generators().items()}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
    for name, tensor in optimizer_tensors(model, optimizers).items():
        tensors[f"optimizer.{name}"] = tensor
    return tensors


def write_state(
    run_dir: Path,
    tensors: dict[str, Tensor],
    progress: Progress,
    settings: dict[str, Any],
    *,
    keep: int,
) -> None:
    """Write the state of a step whole, then remove all but the ``keep`` newest."""
    folder = run_dir / run_files.RESUME
    folder.mkdir(exist_ok=True)
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings)}
    metadata["sha256"] = _digest(tensors)
    write_tensors(folder / f"step-{progress.step:09d}.safetensors", tensors, metadata)
    for path in state_files(run_dir)[keep:]:
        path.unlink(missing_ok=True)


def state_files(run_dir: Path) -> list[Path]:
    """The states of a run, the newest first."""
    paths = (run_dir / run_files.RESUME).glob("step-*.safetensors")
    named = [path for path in paths if re.fullmatch(r"step-\d{9,18}", path.stem)]
    return sorted(named, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def read_state(run_dir: Path) -> SavedState:
    """The newest state of a run that is whole; a message says so where that is not the newest.

    Raises FormatError when there is none.
    """
    failures: list[FormatError] = []
    for path in state_files(run_dir):
        try:
            saved = _read(path)
        except FormatError as error:
            failures.append(error)
            continue
        for failure in failures:
            logger.warning(f"{failure}: resuming from {path.name}")
        return saved
    if failures:
        raise failures[0]
    where = run_dir / run_files.RESUME
    raise FormatError(where, "no training state", "step-N.safetensors", "start the run anew")


def _read(path: Path) -> SavedState:
    metadata = read_header(path).metadata
    try:
        progress = Progress(**json.loads(metadata["progress"]))
        settings = json.loads(metadata["settings"])
        _check_values(progress, settings)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise FormatError(path, "no progress in its header", "a minilm training state") from None
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    if _digest(tensors) != metadata.get("sha256"):
        raise FormatError(path, "not the bytes that were written", "those of its SHA-256")
    return SavedState(path, progress, settings, tensors)


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names and the bytes of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def restore_state(saved: SavedState, model: nn.Module, optimizers: Optimizers) -> None:
    """Put weights, optimizers and random generators back as they were saved.

    Raises FormatError, with nothing changed, unless every tensor is there in its dtype and shape.
    """
    expected = _expected(model, optimizers, saved.progress.step)
    stored = {
        name: _described(tensor.dtype, tensor.shape) for name, tensor in saved.tensors.items()
    }
    for device in ("cuda", "mps"):  # a run may be resumed on another device
        stored.pop(f"rng.{device}", None)
    if stored != expected:
        name = min(n for n in stored.keys() | expected.keys() if stored.get(n) != expected.get(n))
        raise FormatError(
            saved.path,
            f"{name} {stored.get(name, 'absent')}",
            f"{expected.get(name, 'no such tensor')}",
            "the state is damaged: remove it to resume from an older one, or start a new run with "
            "--init-from this one to keep its weights",
        )
    weights = _under("model.", saved.tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    restore_optimizers(model, optimizers, _under("optimizer.", saved.tensors))
    for device, (_, restore) in _random_generators().items():
        if f"rng.{device}" in saved.tensors:
            restore(saved.tensors[f"rng.{device}"])


def _random_generators() -> dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], None]]]:
    """How the state of each device's generator is read and restored: dropout draws from them."""
    generators: dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], None]]]
    generators = {"cpu": (torch.get_rng_state, torch.set_rng_state)}
    if torch.cuda.is_available():
        generators["cuda"] = (torch.cuda.get_rng_state, torch.cuda.set_rng_state)
    if torch.backends.mps.is_available():
        generators["mps"] = (torch.mps.get_rng_state, torch.mps.set_rng_state)
    return generators


def _check_values(progress: Progress, settings: Any) -> None:
    """ValueError or TypeError unless the header's values are of the kinds that were saved."""
    counts = (
        *(progress.step, progress.tokens, progress.best_step, progress.evaluations_since_best),
        *(progress.loss_count, progress.loss_spikes),
    )
    if not all(type(value) is int and value >= 0 for value in counts):
        raise ValueError("counts")
    if type(progress.evaluated_step) is not int or not isinstance(progress.scaler, dict):
        raise ValueError("progress")
    scaler = progress.scaler
    if scaler and scaler.keys() != torch.amp.GradScaler("cpu").state_dict().keys():
        raise ValueError("scaler")
    best = (progress.best_val_loss, progress.best_val_bits_per_byte)
    if (best[0] is None) != (best[1] is None):
        raise ValueError("best")
    optional = (*best, progress.usual_loss, progress.joules)
    for number in (
        *(progress.seconds, progress.loss_sum, *scaler.values()),
        *(value or 0.0 for value in optional),
    ):
        if not math.isfinite(number):
            raise ValueError("numbers")
    cleaning = settings["cleaning"]
    if not isinstance(cleaning, list) or not isinstance(settings["train"], dict):
        raise ValueError("settings")
    if not all(
        isinstance(text, str) for text in (settings["source"], settings["sha256"], *cleaning)
    ):
        raise ValueError("settings")


def _expected(
    model: nn.Module, optimizers: Optimizers, step: int
) -> dict[str, tuple[str | int, ...]]:
    """Dtype and shape of every tensor of a state of this model after ``step`` updates."""
    shapes = {"rng.cpu": (torch.uint8, torch.get_rng_state().shape)}
    for name, parameter in model.named_parameters():
        shapes[f"model.{name}"] = (parameter.dtype, parameter.shape)
    for name, kind in optimizer_state_shapes(model, optimizers, step).items():
        shapes[f"optimizer.{name}"] = kind
    return {name: _described(dtype, shape) for name, (dtype, shape) in shapes.items()}


def _described(dtype: torch.dtype, shape: torch.Size) -> tuple[str | int, ...]:
    return str(dtype).removeprefix("torch."), *shape


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
