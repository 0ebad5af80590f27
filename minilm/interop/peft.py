"""PEFT's adapter as a run: its matrices under minilm's names, and the base, which is imported if it must be.

Names: huggingface/peft `utils/save_and_load.py`. Where the base joins several matrices in one module, its
adapter becomes one of each, with the same A.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm import files
from minilm.architectures.adapter_map import (
    HEAD,
    PREFIX,
    Factors,
    adapted_shapes,
    adapter_map,
    current_name,
    module_path,
)
from minilm.architectures.conversion import exportable, importable_for
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, tensor_mappings
from minilm.config.lora import LoraConfig
from minilm.errors import FormatError, InputError
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.json_file import read_object
from minilm.formats.safetensors import read_header
from minilm.formats.tensor_io import as_float32
from minilm.inspection.folders import base_of_adapter
from minilm.interop.huggingface import import_run
from minilm.interop.model_source import TABLE, ModelSource, open_source
from minilm.ledger.layout_changes import ADAPTER_TARGETS, FACTORS, MAGNITUDE, own_names
from minilm.runs import base_run
from minilm.runs import files as run_files
from minilm.transforms import adapter_files

# Of adapter_config.json: what changes the result in a way that minilm's LoRA has not.
_PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "lora_bias": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "use_qalora": False,
}
# Other initialisations also change the weights of the base.
_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT and no model."""
    return (folder / run_files.ADAPTER_CONFIG).is_file() and not (
        folder / run_files.CONFIG
    ).exists()


def import_adapter(folder: Path, out: Path) -> None:
    """Write the run of an adapter to the new folder ``out``.

    Raises InputError where the base is not at hand, FormatError for tensors and settings that are not those
    of a LoRA adapter on whole components of it.
    """
    fields = read_object(folder / run_files.ADAPTER_CONFIG)
    _check_settings(folder, fields)
    base = base_of_adapter(folder, fields)
    if base is None:
        raise InputError(
            folder / run_files.ADAPTER_CONFIG,
            f"base_model_name_or_path {fields.get('base_model_name_or_path')!r}, which is not here",
            "the folder of its base",
        )
    source = open_source(base)
    adapter = _read(folder, fields, source)
    lora, adapters = adapter.lora, adapter_map(source.config, adapter.lora)
    base_dir = base
    if not source.is_run:
        base_dir = out / run_files.BASE
        base_dir.mkdir()
        import_run(source, base_dir)
    for name in (run_files.TOKENIZER, *run_files.COMPANIONS):
        if (base_dir / name).is_file():
            files.write_bytes(out / name, (base_dir / name).read_bytes())
    (out / run_files.ADAPTER).mkdir()
    adapter_files.write_config(out / run_files.ADAPTER, lora, adapters, str(base.absolute()))
    adapter_files.write_weights(
        out / run_files.ADAPTER / run_files.ADAPTER_WEIGHTS, adapter.factors, adapters, {}
    )
    record = run_files.read_record(base_dir / run_files.CONFIG)
    run_files.write_record(
        out,
        dataclasses.replace(
            record,
            transforms=(*record.transforms, base_run.transform(lora)),
            quantization={},  # that of the base is in the base's own config.json
            base=base_run.reference(base_dir, run_dir=out),
        ),
    )


@dataclass(frozen=True)
class _Adapter:
    """What it is, and its matrices under minilm's names."""

    lora: LoraConfig
    factors: Mapping[str, tensor_io.Array]


def _check_settings(folder: Path, fields: Mapping[str, Any]) -> None:
    path = folder / run_files.ADAPTER_CONFIG
    for name, expected in _PLAIN.items():
        if (fields.get(name, expected) or None) != (expected or None):
            raise FormatError(path, f"{name} {fields[name]!r}", f"{expected!r}, a plain LoRA")
    if fields.get("init_lora_weights", True) not in _INITIALISATIONS:
        got = f"init_lora_weights {fields['init_lora_weights']!r}"
        raise FormatError(path, got, "one that leaves the base as it is")


def _read(folder: Path, fields: Mapping[str, Any], source: ModelSource) -> _Adapter:
    path = folder / run_files.ADAPTER_WEIGHTS
    stored = {current_name(tensor.name): tensor for tensor in read_header(path).tensors}
    mappings, dora = _mappings(source), bool(fields.get("use_dora"))
    outputs = {name: shape[0] for name, shape in source.shapes.items()}
    outputs[f"{HEAD}.weight"] = source.config.vocab_size
    parts: dict[str, Factors] = {}
    scales = set()
    used = set()
    for name in stored:
        module = name.removeprefix(PREFIX).removesuffix(f".{FACTORS[0]}")
        other = f"{PREFIX}{module}.{FACTORS[1]}"
        mapping = mappings.get(module)
        if mapping is None or other not in stored or name == other:
            continue
        names = [f"{PREFIX}{module}.{each}" for each in own_names(dora)]
        used |= {*names}
        if names[-1] not in stored:
            raise FormatError(path, f"no {names[-1]}", "that of a DoRA adapter")
        a, b, *lengths = (as_float32(tensor_io.read(stored[each])) for each in names)
        rows = [outputs[each] for each in mapping.minilm_names]
        if lengths and lengths[0].shape != (sum(rows),):
            raise FormatError(path, f"{names[-1]} {list(lengths[0].shape)}", f"{[sum(rows)]}")
        if a.ndim != 2 or b.shape != (sum(rows), a.shape[0]):
            raise FormatError(path, f"{other} {list(b.shape)}", f"{[sum(rows), a.shape[0]]}")
        scales.add(_scale(folder, fields, module, a.shape[0]))
        of_rows = dataclasses.replace(mapping, transposed=False)
        split = of_rows.split(b, rows, source.config)
        columns = [of_rows.split(each[:, None], rows, source.config) for each in lengths]
        for number, (each, part, *column) in enumerate(
            zip(mapping.minilm_names, split, *columns, strict=True)
        ):
            factor = next((f for end, f in source.factors.items() if each.endswith(end)), 1.0)
            own_a, own_b = _own_block(a, part, fields.get("r"), number)
            own_lengths = [length[:, 0] * np.float32(abs(factor)) for length in column]
            own = own_a, own_b * np.float32(factor), *own_lengths
            parts[each.removesuffix(".weight")] = own
    for name in sorted(stored.keys() - used):
        if not _is_copy(name, stored[name], mappings, source):
            expected = f"A and B of a matrix of {source.folder}"
            raise FormatError(path, f"{name}, which has no place", expected)
    ranks = {each[0].shape[0] for each in parts.values()}
    if 0 in ranks:
        raise FormatError(path, "matrices of rank 0", "a rank of at least 1")
    if len(ranks) != 1 or len(scales) != 1:
        got = f"ranks {sorted(ranks)} and scales {sorted(scales)}"
        raise FormatError(path, got, "one rank and one scale for all matrices")
    lora = _lora(fields, parts, source, ranks.pop(), scales.pop())
    shapes = {
        f"{name}.{side}": array.shape
        for name, pair in parts.items()
        for side, array in zip(own_names(dora), pair, strict=True)
    }
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (rows_, inputs) in adapted_shapes(source.config, lora).items():
        wanted |= {
            f"{name}.{FACTORS[0]}": (lora.rank, inputs),
            f"{name}.{FACTORS[1]}": (rows_, lora.rank),
        }
        if dora:
            wanted[f"{name}.{MAGNITUDE}"] = (rows_,)
    check_same_tensors(path, shapes, wanted)
    factors = {
        f"{name}.{side}": array
        for name, pair in parts.items()
        for side, array in zip(own_names(dora), pair, strict=True)
    }
    return _Adapter(lora, factors)


def _is_copy(
    name: str, tensor: StoredTensor, mappings: Mapping[str, TensorMapping], source: ModelSource
) -> bool:
    """Whether it is a table of the base as it was: PEFT adds those where the head has an adapter."""
    module = name.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".base_layer")
    mapping = mappings.get(module)
    if mapping is None or not name.endswith(".weight") or len(mapping.minilm_names) > 1:
        return False
    if source.is_run:
        of_base = source.read(mapping.minilm_names[0])
    else:  # as it is stored: what is read for minilm may be scaled
        stored = source.stored.get(mapping.hf_name)
        of_base = tensor_io.read(stored or source.stored[source.origins[TABLE][0].hf_name])
    return np.array_equal(as_float32(tensor_io.read(tensor)), as_float32(of_base))


def _own_block(a: tensor_io.Array, b: tensor_io.Array, rank: Any, number: int) -> Factors:
    """Of joined adapters that are blocks beside zeros, the one of this matrix; else the whole."""
    if type(rank) is not int or not 0 < rank < a.shape[0] or a.shape[0] % rank:
        return a, b
    starts = range(0, a.shape[0], rank)
    nonzero = [start for start in starts if np.any(b[:, start : start + rank])]
    if len(nonzero) > 1:
        return a, b
    start = nonzero[0] if nonzero else starts[min(number, len(starts) - 1)]
    return a[start : start + rank], np.ascontiguousarray(b[:, start : start + rank])


def _mappings(source: ModelSource) -> dict[str, TensorMapping]:
    """The tensors of the base, by the paths of its modules in transformers."""
    config = source.config
    if source.is_run:
        architecture = exportable(config)[0]
        stored = architecture.stored_config(config)
        mappings = tensor_mappings(architecture, stored)
        layout = architecture.layout(architecture.config_json(stored))
    else:
        mappings = [mapping for mapping, _ in source.origins.values()]
        layout = importable_for(fields := read_object(source.folder / run_files.CONFIG)).layout(
            fields
        )
    by_path = {module_path(mapping): mapping for mapping in mappings}
    for tied, _ in layout.ties:
        by_path[HEAD] = TensorMapping(tied, (f"{HEAD}.weight",))
    return by_path


def _scale(folder: Path, fields: Mapping[str, Any], module: str, rank: int) -> float:
    """What B A is multiplied by in PEFT."""
    alpha = fields.get("lora_alpha")
    patterns = fields.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        ends = [each for each in patterns if f".{module}".endswith(f".{each}")]
        alpha = patterns[ends[0]] if ends else alpha
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise FormatError(folder / run_files.ADAPTER_CONFIG, f"lora_alpha {alpha!r}", "a number")
    return float(alpha) / (math.sqrt(rank) if fields.get("use_rslora") else rank)


def _lora(
    fields: Mapping[str, Any],
    parts: Mapping[str, Factors],
    source: ModelSource,
    rank: int,
    scale: float,
) -> LoraConfig:
    components = {
        tensor.name.removesuffix(".weight"): tensor.component
        for tensor in minilm_layout(source.config).named_tensors()
    }
    adapted = {components.get(name, ADAPTER_TARGETS["lm_head"]) for name in parts}
    is_stabilised = bool(fields.get("use_rslora"))
    dropout = fields.get("lora_dropout")
    return LoraConfig(
        rank=rank,
        alpha=scale * (math.sqrt(rank) if is_stabilised else rank),
        dropout=dropout if isinstance(dropout, float) else 0.0,
        targets=tuple(word for word, each in ADAPTER_TARGETS.items() if each in adapted),
        rank_stabilised=is_stabilised,
        dora=bool(fields.get("use_dora")),
    )
