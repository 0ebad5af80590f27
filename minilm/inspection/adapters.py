"""A run that is an adapter, opened: its tensors are those of its base and its own, under minilm's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minilm.architectures.adapter_map import adapter_map
from minilm.config.lora import LoraConfig
from minilm.formats.huggingface import join_headers
from minilm.formats.json_file import read_object
from minilm.formats.safetensors import read_header
from minilm.inspection.target import Target
from minilm.ledger.layout_changes import own_names
from minilm.runs import files as run_files
from minilm.runs.base_run import find_base
from minilm.transforms.adapter_files import read_logical_header
from minilm.units import counted


def with_adapter(target: Target, path: Path, lora: LoraConfig) -> Target:
    """``target``, the adapter of the run at ``path``, with the weights of both, and what is trained."""
    layout, config = target.layout, target.config
    assert layout is not None
    assert config is not None
    base = find_base(path, run_files.read_record(path / run_files.CONFIG))
    adapters = adapter_map(config, lora)
    own = read_logical_header(path / run_files.ADAPTER, lora, adapters)
    header = join_headers((read_header(base / run_files.WEIGHTS), own))
    total, trained = layout.count(), layout.trainable()
    stabilised = " (rank-stabilised)" if lora.rank_stabilised else ""
    notes = [
        f"{'DoRA' if lora.dora else 'LoRA'} adapter of {base}: rank {lora.rank}, alpha {lora.alpha:g}"
        f"{stabilised}, on {counted(len(own.tensors) // len(own_names(lora.dora)), 'matrix', 'matrices')} "
        f"({', '.join(lora.targets)})",
        f"trainable: {trained:,} of {total:,} parameters ({trained / total:.3%}) = "
        f"{layout.trainable_formula().symbolic}; base: {total - trained:,} "
        f"({1 - trained / total:.3%}), frozen",
    ]
    if adapters.class_name:
        note = f"its names are those of PEFT for {adapters.class_name}"
        if _is_run(path):
            note += f", on the folder that minilm convert {base} --to huggingface writes"
        notes.append(note)
    else:
        notes.append(f"its names are minilm's own: {adapters.reason}")
    if padding := own.data_bytes - sum(tensor.nbytes for tensor in own.tensors):
        names = (each.path.split(".")[-1] for each in adapters.modules if len(each.matrices) > 1)
        joined = ", ".join(dict.fromkeys(names))
        notes.append(f"{padding // 4:,} zeros beside the adapters of {joined} are not counted")
    return replace(
        target,
        header=header,
        quantization=run_files.read_quantization(base / run_files.CONFIG),
        notes=(*target.notes, *notes),
    )


def _is_run(path: Path) -> bool:
    """Whether adapter_config.json names a run as the base, which PEFT cannot open itself."""
    fields = read_object(path / run_files.ADAPTER / run_files.ADAPTER_CONFIG)
    base = Path(str(fields.get("base_model_name_or_path"))) / run_files.CONFIG
    return base.is_file() and read_object(base).get("family") == run_files.FAMILY
