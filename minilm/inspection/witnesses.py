"""The witnesses that a source has, heard one after the other: its file, and a module built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from minilm.architectures.task_heads import architecture_of
from minilm.errors import FormatError
from minilm.inspection.comparison import (
    Contents,
    compare,
    compare_totals,
    expected_shapes,
    sort_out,
)
from minilm.inspection.report import Comparison, WitnessName
from minilm.inspection.target import Source
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import Storage, decode

if TYPE_CHECKING:
    from minilm.inspection.module_reader import ModuleContents


@dataclass
class Hearing:
    """What the witnesses said, collected while they are heard."""

    totals: dict[WitnessName, int] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def shapes(
        self,
        layout: Layout | None,
        shapes: Mapping[str, tuple[int, ...]],
        total: int,
        witness: WitnessName,
    ) -> None:
        """Hear a witness that names its tensors."""
        if layout is not None:
            self.mismatches += compare(expected_shapes(layout), shapes, witness)
        self.total(layout, total, witness, by="names" if layout is not None else "totals")

    def total(
        self,
        layout: Layout | None,
        total: int,
        witness: WitnessName,
        by: Literal["names", "totals"] = "totals",
    ) -> None:
        """Hear a witness that has the total alone."""
        for other, said in self.totals.items():
            # With a formula, each is held against the formula; without one, against each other.
            if other == "formula" or layout is None:
                self.mismatches += compare_totals(said, total, witness, other)
                self.comparisons.append(Comparison(witness, other, by))
        self.totals[witness] = total


def hear_file(source: Source, heard: Hearing) -> tuple[Storage | None, Contents | None]:
    """The file: what its stored tensors stand for, sorted out and compared name by name."""
    if source.header is None:
        if source.is_run:
            heard.mismatches.append("file: model.safetensors is missing")
        return None, None
    expected = expected_shapes(source.layout) if source.layout else {}
    storage = decode(source.header, _quantization(source.hugging_face), expected)
    heard.notes += storage.notes
    if "minilm.left_out" in source.header.metadata:
        heard.notes.append(source.header.metadata["minilm.left_out"])
    contents = sort_out(
        source.layout,
        storage.tensors,
        copies_allowed=source.config is None,
        shared=source.header.shared,
    )
    shapes = {name: tensor.shape for name, tensor in contents.parameters.items()}
    total = sum(tensor.count for tensor in contents.parameters.values())
    heard.shapes(source.layout, shapes, total, "file")
    return storage, contents


def hear_module(source: Source, heard: Hearing) -> ModuleContents | None:
    """The live witness: minilm's module by names, transformers' by its total."""
    from minilm.inspection import module_reader

    if source.config is not None:
        module = module_reader.read_module(module_reader.meta_model(source.config))
        shapes = {row.name: row.shape for row in module.rows}
        heard.shapes(source.layout, shapes, sum(row.count for row in module.rows), "module")
        return module
    if not source.hugging_face:
        heard.notes.append("no config.json to build a module from")
        return None
    try:
        built = module_reader.hugging_face_model(
            source.hugging_face, architecture_of(source.hugging_face)
        )
    except FormatError as error:
        if not heard.totals:
            raise
        heard.notes.append(f"no module: {error}")  # what the other witnesses said stays
        return None
    # Its modules are named otherwise than its files since transformers 5: the total is compared.
    module = module_reader.read_module(built)
    heard.total(source.layout, sum(row.count for row in module.rows), "module")
    heard.notes.append("the module is transformers' own, compared by its total")
    return module


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config.json says of its quantization, wherever it says it; empty where it does not."""
    for part in (config, config.get("text_config")):
        for key in ("quantization_config", "compression_config", "quantization"):  # the last: MLX
            if isinstance(part, Mapping) and isinstance(part.get(key), dict):
                found: dict[str, Any] = part[key]
                return found
    return {}
