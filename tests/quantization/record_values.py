"""python -m tests.quantization.record_values [METHOD ...]: what libraries store, and how they read it.

Random matrices, each a few kB, into recorded_values.json. The libraries are needed for this alone:
hqq 0.2.8.post1, optimum-quanto 0.2.7, aqlm 1.1.7, amd-quark 0.13, gptqmodel 7.6.0, bitsandbytes 0.50.2,
compressed-tensors 0.20.0, torchao 0.18.0, mlx 0.32.4, nvidia-modelopt 0.47.0, transformers 5.24.0, marlin of
April 2024 (all with torch 2.13, on a CPU).
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.quantization import library_examples as libraries
from tests.quantization.library_examples import Example

PATH = Path(__file__).parent / "recorded_values.json"

# quant_method -> what its library stores; the module that is imported of it.
LIBRARIES: dict[str, tuple[str, Callable[[], Iterator[Example]]]] = {
    "awq": ("gptqmodel.quantization.awq.utils.packing_utils", libraries.awq),
    "bitsandbytes": ("bitsandbytes.functional", libraries.bitsandbytes),
    "compressed-tensors": ("compressed_tensors.compressors", libraries.compressed_tensors),
    "fp8": ("transformers.integrations.finegrained_fp8", libraries.fp8),
    "marlin": ("marlin", libraries.marlin),
    "mlx": ("mlx.core", libraries.mlx),
    "modelopt": ("modelopt.torch.quantization.qtensor.nvfp4_tensor", libraries.modelopt),
    "mxfp4": ("transformers.integrations.mxfp4", libraries.mxfp4),
    "gptq": ("gptqmodel.nn_modules.qlinear.torch", libraries.gptq),
    "hqq": ("hqq", libraries.hqq),
    "torchao": ("torchao.quantization", libraries.torchao),
    "quanto": ("optimum.quanto", libraries.quanto),
    "aqlm": ("aqlm", libraries.aqlm),
    "quark": ("quark.torch", libraries.quark),
}


def examples(method: str) -> list[Example]:
    """Those of a library that is installed."""
    torch.manual_seed(0)
    return list(LIBRARIES[method][1]())


def _encoded(tensor: Tensor) -> list[Any]:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return [dtype, list(tensor.shape), base64.b64encode(data).decode()]


def _decoded(entry: list[Any]) -> Tensor:
    dtype, shape, data = entry
    raw = torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)
    return raw.view(getattr(torch, dtype)).reshape(shape)


def recorded() -> dict[str, list[Example]]:
    """The examples of every method as they were recorded."""
    return {
        method: [
            Example(
                name,
                {key: _decoded(entry) for key, entry in stored.items()},
                _decoded(values),
                *others,
            )
            for name, (stored, values, *others) in entries.items()
        ]
        for method, entries in json.loads(PATH.read_text()).items()
    }


if __name__ == "__main__":
    entries = json.loads(PATH.read_text())
    for method in sys.argv[1:] or LIBRARIES:
        entries[method] = {
            each.name: (
                {key: _encoded(tensor) for key, tensor in each.tensors.items()},
                _encoded(each.values),
                each.config,
                each.metadata,
            )
            for each in examples(method)
        }
    PATH.write_text(json.dumps(entries, indent=0) + "\n")
