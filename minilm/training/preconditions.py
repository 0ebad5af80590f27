"""What is refused before any work is done: a folder, a name or a model that would end a run later."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, TrainConfig
from minilm.config.lora import LoraConfig
from minilm.costs.hardware import physical_memory
from minilm.costs.memory import training_bytes
from minilm.dtypes import storage_bytes
from minilm.errors import ConfigError, InputError
from minilm.ledger.layout_changes import with_adapters
from minilm.runs.new_folder import check_free
from minilm.training.resume_options import absolute_source
from minilm.units import format_bytes


def refuse_folder(folder: Path, data: str) -> None:
    """Before any work: a run or other files there, no permission, or a place inside the data."""
    refuse_other_encodings("data", absolute_source(data))
    refuse_other_encodings("run_dir", str(folder))
    check_free(folder)
    source = Path(os.path.expanduser(data))
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(
            folder,
            "a run inside the data folder would become data",
            "another place",
            "name one with --run-dir",
        )


def refuse_other_encodings(option: str, name: str) -> None:
    """Before any work: a name that cannot be written into the run's JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            option, repr(name), "a path in UTF-8", "rename the file or folder"
        ) from None


def refuse_too_large(
    model: ModelConfig, config: TrainConfig, lora: LoraConfig | None = None
) -> None:
    """Before a model is built that this machine cannot hold: its size is computed first.

    Under an adapter, ``lora``, it is frozen. Raises ConfigError.
    """
    whole = layout(model)
    if lora is not None:
        whole = with_adapters(whole, lora.targets, lora.rank, dora=lora.dora)
    count, trained = whole.count(), whole.trainable()
    on_cpu = config.device == "cpu" or (
        config.device == "auto"
        and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    # Weights are drawn on the CPU whatever the device; there training keeps four times as much.
    sizes = training_bytes(trained, frozen=storage_bytes(count - trained, "float32"))
    needed = sizes["total" if on_cpu else "weights"]
    present = physical_memory()
    if present is not None and needed > present:
        raise ConfigError(
            "model",
            f"{count:,} parameters, which take {format_bytes(needed)} before activations",
            f"at most the {format_bytes(present)} of this machine",
            "choose a smaller --preset or fewer --model.num-layers",
        )
