"""Files of tensors in parts, made without processes: as each of several would write its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from minilm.parallel.tensor_parts import OFFSET, OFFSETS, write_tensors


def write_part_file(
    folder: Path, process: int, parts: Mapping[str, tuple[list[int], Tensor]]
) -> Path:
    """The file of a process, whose parts each have an offset."""
    offsets = {name: {OFFSET: offset} for name, (offset, _) in parts.items()}
    path = folder / f"shard-{process:05d}-model-00001-of-00001.safetensors"
    tensors = {name: tensor for name, (_, tensor) in parts.items()}
    write_tensors(path, tensors, {OFFSETS: json.dumps(offsets), "format": "pt"})
    return path


def write_in_rows(folder: Path, tensors: Mapping[str, Tensor], processes: int = 2) -> None:
    """Each process has some rows of every tensor, as with fsdp, and the first what has none."""
    for process in range(processes):
        parts: dict[str, tuple[list[int], Tensor]] = {}
        for name, tensor in tensors.items():
            if not tensor.ndim or name.startswith("rng."):
                if process == 0:
                    parts[name] = ([0] * tensor.ndim, tensor)
                continue
            each = -(-len(tensor) // processes)
            rows = tensor[process * each : (process + 1) * each]
            if len(rows):
                parts[name] = ([process * each] + [0] * (tensor.ndim - 1), rows)
        write_part_file(folder, process + 1, parts)
