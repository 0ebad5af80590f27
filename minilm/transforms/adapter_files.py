"""An adapter on disk in PEFT's layout: adapter_config.json and adapter_model.safetensors.

Fields: huggingface/peft `tuners/lora/config.py`. The names are those of `adapter_map`; every tensor is
float32. A tensor that is missing or left over is an error: else the base would run under the adapter's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minilm import files
from minilm.architectures.adapter_map import AdaptedModule, AdapterMap, Factors, current_name
from minilm.config.lora import LoraConfig
from minilm.errors import FormatError
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import Header, StoredTensor
from minilm.formats.json_file import read_object
from minilm.formats.safetensors import read_header
from minilm.formats.tensor_io import Array
from minilm.ledger.layout_changes import FACTORS, MAGNITUDE, own_names
from minilm.runs import files as run_files


def write_config(folder: Path, lora: LoraConfig, adapters: AdapterMap, base: str) -> None:
    """Write adapter_config.json; ``base`` is the name or folder of the base model."""
    files.write_json(
        folder / run_files.ADAPTER_CONFIG,
        peft_fields(lora, adapters) | {"base_model_name_or_path": base},
    )


def peft_fields(lora: LoraConfig, adapters: AdapterMap) -> dict[str, Any]:
    """The content of adapter_config.json, but for the name of the base.

    Joined adapters are of several times the rank, and so of another alpha, for the same scale.
    """
    ranks = {name: number * lora.rank for name, number in adapters.joined.items()}
    alphas = {
        name: _number(lora.scale * (math.sqrt(rank) if lora.rank_stabilised else rank))
        for name, rank in ranks.items()
    }
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": _number(lora.alpha),
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilised,
        "use_dora": lora.dora,
        "bias": "none",
        "target_modules": list(adapters.target_modules),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "fan_in_fan_out": adapters.transposed,
        "modules_to_save": None,
        "inference_mode": True,
    }


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def write_weights(
    path: Path, factors: Mapping[str, Array], adapters: AdapterMap, metadata: Mapping[str, str]
) -> None:
    """Write adapter_model.safetensors from what is trained, under minilm's names, in float32."""
    rank = next(array.shape[0] for name, array in factors.items() if name.endswith(FACTORS[0]))
    plan = {}
    for module in adapters.modules:
        for side, (name, shape) in enumerate(zip(module.names, module.shapes(rank), strict=True)):
            stored = StoredTensor(name, "float32", shape)
            plan[stored] = partial(_joined, module, side, factors, adapters)
    tensor_io.write(path, plan, {"format": "pt", **metadata})


def _joined(
    module: AdaptedModule, side: int, factors: Mapping[str, Array], adapters: AdapterMap
) -> Array:
    own = [
        tuple(factors[f"{name}.{each}"] for each in own_names(module.dora))
        for name in module.adapted
    ]
    return module.join(own, adapters.config)[side]


def read(folder: Path, lora: LoraConfig, adapters: AdapterMap) -> dict[str, Array]:
    """A and B of every adapted matrix, and its lengths, under minilm's names.

    Raises FormatError where the files are not those of ``lora``.
    """
    stored = _checked(folder, lora, adapters)
    tensors: dict[str, Array] = {}
    for module in adapters.modules:
        for name, pair in zip(
            module.adapted, _split(folder, module, stored, adapters), strict=True
        ):
            sides = own_names(module.dora)
            tensors |= {f"{name}.{side}": array for side, array in zip(sides, pair, strict=True)}
    return tensors


def _split(
    folder: Path, module: AdaptedModule, stored: Mapping[str, StoredTensor], adapters: AdapterMap
) -> list[Factors]:
    own = (tensor_io.read(stored[name]) for name in module.names)
    try:
        return module.split(*own, config=adapters.config)
    except ValueError as error:
        expected = f"the adapters of {', '.join(module.adapted)}"
        raise FormatError(
            folder / run_files.ADAPTER_WEIGHTS, f"{module.names[1]}: {error}", expected
        ) from None


def read_logical_header(folder: Path, lora: LoraConfig, adapters: AdapterMap) -> Header:
    """The header of the file with every A and B apart, under minilm's names; raises as `read`.

    The zeros beside joined B's are no tensor of it.
    """
    path = folder / run_files.ADAPTER_WEIGHTS
    stored = _checked(folder, lora, adapters)
    tensors = []
    for module in adapters.modules:
        a, b, *lengths = (stored[name] for name in module.names)
        for number, name in enumerate(module.adapted):
            is_alone = len(module.adapted) == 1
            nbytes = a.nbytes // len(module.adapted)
            offset = None if a.offset is None else a.offset + number * nbytes
            shape = (lora.rank, module.inputs)
            tensors.append(
                StoredTensor(f"{name}.{FACTORS[0]}", a.dtype, shape, nbytes, offset, a.file)
            )
            outputs = module.outputs[module.matrices.index(name)]
            nbytes = 4 * outputs * lora.rank
            offset = b.offset if is_alone and len(module.matrices) == 1 else None
            shape = (outputs, lora.rank)
            tensors.append(
                StoredTensor(f"{name}.{FACTORS[1]}", b.dtype, shape, nbytes, offset, b.file)
            )
            for each in lengths:
                offset = each.offset if len(module.matrices) == 1 else None
                own, nbytes = f"{name}.{MAGNITUDE}", 4 * outputs
                tensors.append(StoredTensor(own, each.dtype, (outputs,), nbytes, offset, each.file))
    header = read_header(path)
    return Header(tuple(tensors), header.metadata, header.data_bytes)


def _checked(folder: Path, lora: LoraConfig, adapters: AdapterMap) -> dict[str, StoredTensor]:
    """The tensors of the file, by their names there."""
    fields = read_object(folder / run_files.ADAPTER_CONFIG)
    for name, value in peft_fields(lora, adapters).items():
        if name not in ("lora_dropout", "inference_mode", "target_modules") and (
            fields.get(name) or None
        ) != (value or None):
            raise FormatError(
                folder / run_files.ADAPTER_CONFIG, f"{name} {fields.get(name)!r}", f"{value!r}"
            )
    tensors = read_header(folder / run_files.ADAPTER_WEIGHTS).tensors
    stored = {current_name(tensor.name): tensor for tensor in tensors}
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    check_same_tensors(folder / run_files.ADAPTER_WEIGHTS, shapes, adapters.shapes(lora.rank))
    for tensor in stored.values():
        if tensor.dtype != "float32":
            raise FormatError(
                folder / run_files.ADAPTER_WEIGHTS, f"{tensor.name} in {tensor.dtype}", "float32"
            )
    return stored
