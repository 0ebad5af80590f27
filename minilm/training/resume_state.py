"""The exact training state: resume/step-N.safetensors, one file each, of which the newest are kept.

Of processes that share their tensors it is a folder, resume/step-N (state_folder.py), of the same content.

Tensors: ``model.NAME`` for every parameter, trained or frozen, in its own dtype (beside an adapter the base,
which is a run of its own, is left out); ``optimizer.NAME.KEY`` for those that are trained; ``rng.DEVICE``.
Metadata: ``progress`` and ``settings`` as JSON, and a SHA-256 over the whole file. Batches are a function of
seed, step and micro-step, so the step is the data cursor. One file holds all of it, so that one rename makes
a state, whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minilm.checkpoint import FLOATING
from minilm.errors import FormatError
from minilm.formats.safetensors import read_header
from minilm.formats.tensor_io import HASH, check_hash
from minilm.parallel.process_group import world
from minilm.parallel.sharded import fill
from minilm.parallel.tensor_parts import PartedTensors, tensor_kinds, write_tensors
from minilm.runs import files as run_files
from minilm.runs.state_folders import is_state_folder, remove_state
from minilm.safe_text import short_repr
from minilm.training.optimizer_base import Optimizer
from minilm.training.optimizers import allocate_state, optimizer_state_shapes, optimizer_tensors
from minilm.training.state_folder import read_folder
from minilm.transforms.lora import is_adapter

logger = logging.getLogger(__name__)

Optimizers = Sequence[Optimizer]
Value = TypeVar("Value")

# Old name -> new name of fields of Progress.
_RENAMED = {"usual_loss": "running_mean_loss"}


@dataclass
class Progress:
    """How far a run has come. ``seconds`` and ``joules`` add up over the processes that worked on it.

    ``loss_sum`` and ``loss_count`` are of the steps since the last line of metrics.jsonl,
    ``running_mean_loss`` the running mean of its lines.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    joules: float | None = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    running_mean_loss: float | None = None
    loss_spikes: int = 0
    best_val_loss: float | None = None
    best_val_bits_per_byte: float | None = None
    best_val_tokens: int = 0
    best_step: int = 0
    evaluations_since_best: int = 0
    evaluated_step: int = -1
    scaler: dict[str, Any] = field(default_factory=dict)

    def forget_best(self) -> None:
        """The best weights are lost: they are chosen anew, from this step's evaluation on."""
        self.best_val_loss = self.best_val_bits_per_byte = None
        self.best_step = self.evaluations_since_best = 0
        self.evaluated_step = -1


@dataclass(frozen=True)
class SavedState:
    """A state opened: where the run was, with which settings, and its tensors, each whole.

    ``damaged`` are the newer states, which could not be read.
    """

    path: Path
    progress: Progress
    settings: dict[str, Any]
    tensors: Mapping[str, Tensor]
    damaged: tuple[Path, ...] = ()


def state_tensors(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    """All that a state holds, as it is now: not copies, but for the random generators'."""
    tensors = {f"rng.{device}": state for device, state in random_states().items()}
    for name, parameter in held_parameters(model).items():
        tensors[f"model.{name}"] = parameter.detach()
    for name, tensor in optimizer_tensors(model, optimizers).items():
        tensors[f"optimizer.{name}"] = tensor
    return tensors


def held_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a state holds: all, but of a base under an adapter."""
    parameters = dict(model.named_parameters())
    of_adapter = {name: each for name, each in parameters.items() if is_adapter(name)}
    return of_adapter or parameters


def write_state(
    run_dir: Path,
    tensors: dict[str, Tensor],
    progress: Progress,
    settings: dict[str, Any],
    *,
    keep: int,
) -> None:
    """Write the state of a step whole, then remove all older ones but the ``keep`` - 1 newest."""
    folder = run_dir / run_files.RESUME
    folder.mkdir(exist_ok=True)
    newest = folder / run_files.state_name(progress.step)
    fields = state_fields(progress, settings)
    write_tensors(newest, tensors, _as_metadata(fields), hashed=True)
    remove_older(run_dir, newest, keep)


def state_fields(progress: Progress, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a state has beside its tensors."""
    return {"progress": asdict(progress), "settings": dict(settings)}


def _as_metadata(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(fields[name]) for name in ("progress", "settings")}


def remove_older(run_dir: Path, newest: Path, keep: int) -> None:
    """Remove states before ``newest`` but the ``keep`` - 1 last of them, and the other kind of its step."""
    remove_state(newest.with_suffix("" if newest.suffix else ".safetensors"))
    states = state_files(run_dir)
    older = states[states.index(newest) + 1 :]
    older = [path for path in older if path.is_file() or is_state_folder(path)]
    for path in older[keep - 1 :]:
        remove_state(path)


def write_folders_as_files(run_dir: Path) -> None:
    """Of a run that ended, by the main process: its states as those of one process have it."""
    for path in state_files(run_dir):
        if is_state_folder(path):
            fields, tensors = read_folder(path, compared=False)  # its own, just written
            whole = path.with_suffix(".safetensors")
            write_tensors(whole, tensors, _as_metadata(fields), hashed=True)
            remove_state(path)


def state_files(run_dir: Path) -> list[Path]:
    """The states of a run, the newest first: files, and the folders that are whole."""
    paths = list((run_dir / run_files.RESUME).glob("step-*"))
    steps = {path: run_files.step_of_state(path.name) for path in paths}
    named = {
        path: (step, bool(path.suffix))
        for path, step in steps.items()
        if step is not None and (path.suffix or is_state_folder(path))
    }
    return sorted(named, key=named.__getitem__, reverse=True)


def read_state(run_dir: Path) -> SavedState:
    """The newest state of a run that is whole; a message says so where that is not the newest.

    Raises FormatError when there is none.
    """
    failures: dict[Path, FormatError] = {}
    for path in state_files(run_dir):
        try:
            saved = _read(path)
        except FormatError as error:
            failures[path] = error
            continue
        for failure in failures.values():
            logger.warning(f"{failure}: resuming from {path.name}")
        return replace(saved, damaged=tuple(failures))
    if failures:
        raise next(iter(failures.values()))
    where = run_dir / run_files.RESUME
    raise FormatError(where, "no training state", "step-N.safetensors", "start the run anew")


def _read(path: Path) -> SavedState:
    if is_state_folder(path):
        fields, tensors = read_folder(path)
        return SavedState(path, *_checked(path, fields), tensors)
    if not path.exists():
        raise FormatError(path, "a link to nothing", "a minilm training state")
    metadata = read_header(path).metadata
    is_hashed = HASH in metadata
    if is_hashed:
        check_hash(path)
    try:
        fields = {name: json.loads(metadata[name]) for name in ("progress", "settings")}
    except (KeyError, ValueError, RecursionError):
        fields = {}
    progress, settings = _checked(path, fields)
    try:
        with safe_open(path, framework="pt") as stream:
            stored = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(path, short_repr(str(error)), "a minilm training state") from None
    if not is_hashed and _digest(stored) != metadata.get("sha256"):
        raise FormatError(path, "not the bytes that were written", "those of its SHA-256")
    return SavedState(path, progress, settings, stored)


def _checked(path: Path, fields: Mapping[str, Any]) -> tuple[Progress, dict[str, Any]]:
    """The progress and the settings that a state at ``path`` says. Raises FormatError for other values."""
    try:
        named = fields["progress"].items()
        progress = Progress(**{_RENAMED.get(name, name): value for name, value in named})
        settings = fields["settings"]
        _check_values(progress, settings)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise FormatError(path, "no progress in its header", "a minilm training state") from None
    name = run_files.state_folder_name(progress.step) + path.suffix
    if path.name != name:
        raise FormatError(path, f"a state of step {progress.step}", f"the name {name}")
    return progress, settings


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names and the bytes of all tensors: what 0.1 wrote, instead of one of the file."""
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
    stored = tensor_kinds(saved.tensors)
    for device in ("cuda", "mps"):  # a run may be resumed on another device
        stored.pop(f"rng.{device}", None)
    if stored != expected:
        name = min(n for n in stored.keys() | expected.keys() if stored.get(n) != expected.get(n))
        raise FormatError(
            saved.path,
            f"{name} {_described(stored, name, 'absent')}",
            _described(expected, name, "no such tensor"),
            "the state is damaged: remove it to resume from an older one, or start a new run with "
            "--init-from this one to keep its weights",
        )
    allocate_state(model, optimizers, _under("optimizer.", expected).keys())
    tensors = state_tensors(model, optimizers)
    tensors = {name: tensor for name, tensor in tensors.items() if name in saved.tensors}
    if isinstance(saved.tensors, PartedTensors) and world().is_parallel:
        from minilm.parallel.sharded_save import fill_parts  # a second of importing

        fill_parts(saved.tensors.folder, tensors)
    else:
        for name, tensor in tensors.items():
            fill(tensor, saved.tensors[name])
    restore_random_states(_under("rng.", tensors))


def random_states() -> dict[str, Tensor]:
    """The state of each device's random generator: dropout draws from them."""
    return {device: read() for device, (read, _) in _random_generators().items()}


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Put back what `random_states` gave; the generator of a device that it lacks stays as it is."""
    for device, (_, restore) in _random_generators().items():
        if device in states:
            restore(states[device])


def _random_generators() -> dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], None]]]:
    """How the state of each device's generator is read and restored."""
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
    optional = (*best, progress.running_mean_loss, progress.joules)
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
        isinstance(text, str)
        for text in (settings["source"], settings["sha256"], settings.get("tokens", ""), *cleaning)
    ):
        raise ValueError("settings")
    if settings.get("weights_dtype", "float32") not in FLOATING:
        raise ValueError("weights_dtype")
    for name in ("text_field", "chat_template"):
        if not isinstance(settings.get(name), (str, type(None))):
            raise ValueError(name)


def _expected(
    model: nn.Module, optimizers: Optimizers, step: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every tensor of a state of this model after ``step`` updates."""
    shapes = {"rng.cpu": (torch.uint8, torch.get_rng_state().shape)}
    for name, parameter in held_parameters(model).items():
        shapes[f"model.{name}"] = (parameter.dtype, parameter.shape)
    for name, kind in optimizer_state_shapes(model, optimizers, step).items():
        shapes[f"optimizer.{name}"] = kind
    return {
        name: (str(dtype).removeprefix("torch."), tuple(shape))
        for name, (dtype, shape) in shapes.items()
    }


def _described(kinds: Mapping[str, tuple[str, tuple[int, ...]]], name: str, absent: str) -> str:
    if name not in kinds:
        return absent
    dtype, shape = kinds[name]
    return f"{(dtype, *shape)}"


def _under(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
