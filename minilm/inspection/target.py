"""Target: what is inspected, opened, whatever it was: a preset, a folder, a file or a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import class_name_of
from minilm.config import ModelConfig
from minilm.formats.header import Header
from minilm.ledger.layout import Layout

if TYPE_CHECKING:
    from minilm.config.lora import LoraConfig
    from minilm.inspection.module_reader import ModuleContents

UNKNOWN = "unknown"
# Where transformers, compressed-tensors' older versions and MLX write their quantization.
_QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")


@dataclass(frozen=True)
class Target:
    """One target, opened: its configuration, what declares it, and what it stores.

    ``config`` is set for minilm's own models, with the ``quantization`` that their config.json states;
    ``hugging_face`` is the config.json of any other.
    ``layout`` is None where the architecture is not declared, ``header`` where there are no weights.
    ``lora`` is the adapter that a run has on its base, whose weights are in ``header`` too. ``module`` is set
    where the target is a live module. ``folder`` is the folder that the target is,
    or in which its config.json stands. ``is_run`` marks a folder that minilm wrote. ``undeclared``
    says why there is no layout, where that does not follow from the rest.
    """

    name: str
    architecture: str = UNKNOWN
    layout: Layout | None = None
    config: ModelConfig | None = None
    hugging_face: Mapping[str, Any] = field(default_factory=dict)
    header: Header | None = None
    lora: LoraConfig | None = None
    module: ModuleContents | None = None
    folder: Path | None = None
    is_run: bool = False
    parts: tuple[str, ...] = ()
    partial: str = ""
    undeclared: str = ""
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantization_config(self) -> Mapping[str, Any]:
        """The quantization that config.json states, for the whole or for its text model; else empty."""
        if self.quantization:
            return self.quantization
        for fields in (self.hugging_face, self.hugging_face.get("text_config")):
            for key in _QUANTIZATION_KEYS:
                if isinstance(fields, Mapping) and isinstance(fields.get(key), dict):
                    quantization: dict[str, Any] = fields[key]
                    return quantization
        return {}

    @property
    def weights_dtype(self) -> str:
        """The dtype that config.json gives its weights; float32 where it gives none."""
        return self.stated_dtype or "float32"

    @property
    def stated_dtype(self) -> str | None:
        """As `weights_dtype`; None where there is none. A run computes its packed matrices in float32."""
        if self.quantization:
            return "float32"
        for key in ("dtype", "torch_dtype"):
            dtype = self.hugging_face.get(key)
            if isinstance(dtype, str):
                return dtype
        return None

    @property
    def reason_undeclared(self) -> str:
        """Why there is no formula: for a target that is no module and has no layout."""
        if self.undeclared:
            return self.undeclared
        if self.header is not None and "general.architecture" in self.header.metadata:
            return f"no formula for GGUF files of {self.architecture!r}"
        if self.architecture in MODEL_TYPES:
            return f"no formula for the head of {class_name_of(self.hugging_face)}"
        if self.architecture != UNKNOWN:
            return f"no formula for model_type {self.architecture!r}"
        if self.hugging_face:
            return "its config.json has no model_type"
        return "no config.json beside it"
