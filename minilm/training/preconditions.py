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
from minilm.text.corpora import absolute_source, sources_in
from minilm.units import counted, format_bytes

TOKEN_BYTES = 8  # int64, as embeddings and losses take them


def refuse_folder(folder: Path, data: str) -> None:
    """Before any work: a run or other files there, no permission, or a place inside the data."""
    refuse_other_encodings("data", absolute_source(data))
    refuse_other_encodings("run_dir", str(folder))
    check_free(folder)
    folders = [Path(os.path.expanduser(source)) for source in sources_in(data)]
    if any(each.is_dir() and folder.resolve().is_relative_to(each.resolve()) for each in folders):
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
    # Weights are drawn on the CPU whatever the device; there training keeps four times as much.
    sizes = training_bytes(trained, frozen=storage_bytes(count - trained, "float32"))
    needed = sizes["total" if _on_cpu(config) else "weights"]
    present = physical_memory()
    if present is not None and needed > present:
        raise ConfigError(
            "model",
            f"{count:,} parameters, which take {format_bytes(needed)} before activations",
            f"at most the {format_bytes(present)} of this machine",
            "choose a smaller --preset or fewer --model.num-layers",
        )


def refuse_large_batch(model: ModelConfig, config: TrainConfig, rows: int) -> None:
    """Before a batch is drawn of which a process cannot hold its ``rows``: a system would kill it.

    Counted are the tokens and, on a CPU, what is kept of each block at the least: its input, in 2 bytes an
    element. Raises ConfigError.
    """
    kept = 2 * model.num_layers * model.d_model if _on_cpu(config) else 0
    needed = rows * model.context_length * (TOKEN_BYTES + kept)
    present = physical_memory()
    if present is not None and needed > present:
        raise ConfigError(
            "batch_size",
            f"{counted(rows, 'row')} of {model.context_length:,} tokens, of which at least "
            f"{format_bytes(needed)} are kept",
            f"at most the {format_bytes(present)} of this machine",
            "lower it and raise --train.gradient-accumulation as much, for the same step",
        )


def _on_cpu(config: TrainConfig) -> bool:
    no_other = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return config.device == "cpu" or (config.device == "auto" and no_other)
