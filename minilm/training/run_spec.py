"""RunSpec: a run, complete before its first step; the Trainer takes it whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minilm.architectures.adapter_map import AdapterMap
from minilm.config import TrainConfig, to_dict
from minilm.config.lora import LoraConfig
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError
from minilm.model.digest import parameters_sha256
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import world
from minilm.runs.base_run import transform
from minilm.runs.files import RunRecord
from minilm.training.data_source import DataSource
from minilm.training.preconditions import refuse_large_batch
from minilm.training.resume_state import SavedState
from minilm.training.runtime import Runtime


@dataclass(frozen=True)
class Adapter:
    """What is trained where that is an adapter, whose base stays where it is.

    ``base`` is what config.json says of the base, ``transforms`` what had been done to that. Where it was
    imported or quantized for this run, ``own_base`` is the folder that it is in until the run has it, and
    ``imported_from`` the model that it is, which others can open.
    """

    lora: LoraConfig
    map: AdapterMap
    base: Mapping[str, Any]
    transforms: tuple[Mapping[str, Any], ...] = ()
    own_base: Path | None = None
    imported_from: Path | None = None


@dataclass(frozen=True)
class RunSpec:
    """A run: all that the Trainer needs, and the options that it ``began_with``, for config.json.

    ``model`` is on the CPU. It has the weights that training begins with; where there is a ``saved``
    state, the Trainer puts the weights of that in. ``companions``: files beside tokenizer.json, of the
    model that fine-tuning began with, in whose ``weights_dtype`` model.safetensors is written. ``adapter`` is
    set where not the model is trained, but an adapter on it; ``transforms`` is what had been done to the
    model before, as config.json has it.
    """

    run_dir: Path
    model: Transformer
    config: TrainConfig
    dataset: Dataset
    source: DataSource
    runtime: Runtime
    saved: SavedState | None = None
    began_with: Mapping[str, Any] = field(default_factory=dict)
    is_fine_tuning: bool = False
    companions: Mapping[str, bytes] = field(default_factory=dict)
    weights_dtype: str = "float32"
    adapter: Adapter | None = None
    transforms: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError for a length that the model does not have, or a watch of parts of tensors.

        And where a batch has not a row for each process.
        """
        most = self.model.config.context_length
        if self.config.initial_context_length > most:
            raise ConfigError(
                "initial_context_length",
                f"{self.config.initial_context_length}",
                f"at most the model's context_length, {most}",
            )
        layout, tensor = self.config.parallel, self.config.tensor_parallel
        rows = self.config.initial_batch_size or self.config.batch_size
        parts = max(1, world().size // tensor)
        if rows < parts:
            name = "initial_batch_size" if self.config.initial_batch_size else "batch_size"
            got = f"{rows}, shared out by {parts} processes"
            raise ConfigError(name, got, "at least a row for each")
        refuse_large_batch(self.model.config, self.config, -(-self.config.batch_size // parts))
        if self.config.watch and self.is_in_parts:
            options = f"parallel {layout}" + (
                f" and tensor_parallel {tensor}" if tensor > 1 else ""
            )
            got = f"given with {options}, of which a process has parts only"
            raise ConfigError("watch", got, "parallel ddp, or one process")

    @property
    def is_in_parts(self) -> bool:
        """Whether a process has parts of the tensors only."""
        config = self.config
        return (config.parallel != "ddp" or config.tensor_parallel > 1) and world().is_parallel

    def record(self) -> RunRecord:
        """The config.json of a run that has not begun: its weights are those of the start."""
        tuned = self.runtime.tuned
        record = RunRecord(self.model.config, self.config, self.began_with, tuned=tuned)
        if self.adapter is None:
            start = {} if self.is_in_parts else {"sha256": parameters_sha256(self.model)}
            return replace(record, transforms=self.transforms, start=start)
        transforms = (*self.adapter.transforms, transform(self.adapter.lora))
        return replace(record, transforms=transforms, base=self.adapter.base)

    def state_settings(self) -> dict[str, Any]:
        """What a saved state has beside tensors and progress: what `resumed_run` reads."""
        return {
            "source": self.source.absolute_name(),
            **self.source.options(),
            "sha256": self.dataset.sha256,
            "tokens": self.dataset.key,
            "weights_dtype": self.weights_dtype,
            **({"base": dict(self.adapter.base)} if self.adapter else {}),
            # With the dtype that auto became: a resumed run computes with the same arithmetic.
            "train": to_dict(self.config) | {"dtype": self.runtime.dtype_name},
        }
