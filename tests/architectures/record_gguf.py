"""python -m tests.architectures.record_gguf: keep one converted model a type in recorded_gguf.json.

`make test` holds the declarations against it without the package gguf; where that is installed the record is
what it still makes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from tests.architectures.gguf_conversions import (
    Conversion,
    Shape,
    Tensors,
    drawn,
    keys_of,
    tensors_of,
)
from tests.architectures.gguf_types import CONVERSIONS

PATH = Path(__file__).parent / "recorded_gguf.json"
SEED = 1


def converted(name: str, seed: int) -> tuple[Conversion, dict[str, Any], Tensors]:
    """What a draw becomes: the calls of the writer, and the tensors."""
    conversion = CONVERSIONS[name]
    config = drawn(conversion, name, Random(seed))
    return conversion, keys_of(conversion, config), tensors_of(conversion, config)


def record(name: str, path: Path) -> dict[str, Any]:
    """The keys as the writer calls them, and a tensor of all layers once; ``path`` is not written."""
    import gguf

    conversion, keys, tensors = converted(name, SEED)
    writer = gguf.GGUFWriter(path, conversion.architecture)
    for method, value in keys.items():
        getattr(writer, f"add_{method}")(value)
    written = {key: value.value for shard in writer.kv_data for key, value in shard.items()}
    of_layers: dict[str, list[int]] = {}
    for tensor, shape in tensors.items():
        layer = re.search(r"blk\.(\d+)\.", tensor)
        pattern = tensor.replace(f"blk.{layer[1]}.", "blk.{i}.") if layer else tensor
        at = of_layers.setdefault(f"{pattern} {json.dumps(shape)}", [])
        at += [int(layer[1])] if layer else []
    return {"keys": written, "tensors": of_layers}


def recorded_tensors(record: dict[str, Any]) -> Tensors:
    """Each with its name."""
    tensors: dict[str, Shape] = {}
    for key, layers in record["tensors"].items():
        name, _, shape = key.partition(" ")
        for layer in layers or (0,):
            tensors[name.replace("{i}", str(layer))] = tuple(json.loads(shape))
    return tensors


if __name__ == "__main__":
    lines = (
        f"{json.dumps(name)}: {json.dumps(record(name, Path('unwritten.gguf')))}"
        for name in CONVERSIONS
    )
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
