"""int8 as torchao 0.18 stores it (`Int8Tensor`), for the safetensors files that transformers 5 reads.

    X._weight_qdata int8 (o, i)  X._weight_scale float32 (o, 1)  X._weight_zero_point int8 (o, 1), zeros

The file's metadata describes every tensor (`prototype/safetensors/safetensors_support.py`). torchao's int4 is
in the order of one GPU kernel or another, and is not written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minilm.errors import FormatError
from minilm.formats.header import StoredTensor
from minilm.formats.tensor_io import Array
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.packing import Rounded, stored_tensor


class TorchaoPacking(IntegerPacking):
    """int8 with a scale a row as `quant_method` torchao."""

    def __init__(self) -> None:
        super().__init__(8)

    def tensors(self, weight: str, shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        o, i = shape
        return (
            stored_tensor(_part(weight, "qdata"), "int8", (o, i)),
            stored_tensor(_part(weight, "scale"), "float32", (o, 1)),
            stored_tensor(_part(weight, "zero_point"), "int8", (o, 1)),
        )

    def pack(self, weight: str, rounded: Rounded) -> dict[str, Array]:
        return {
            _part(weight, "qdata"): rounded.codes,
            _part(weight, "scale"): rounded.scales,
            _part(weight, "zero_point"): np.zeros(rounded.scales.shape, np.int8),
        }

    def unpack(self, weight: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Rounded:
        if arrays[_part(weight, "zero_point")].any():
            raise FormatError(weight, "zero points", "symmetric values")
        return Rounded(arrays[_part(weight, "qdata")], arrays[_part(weight, "scale")])

    def config(self, ignored: Iterable[str]) -> dict[str, Any]:
        granularity = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
        data = {"group_size": None, "granularity": granularity, "set_inductor_config": True}
        quant_type = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": data}
        return {
            "quant_method": "torchao",
            "quant_type": {"default": quant_type},
            "modules_to_not_convert": list(ignored),
            "include_input_output_embeddings": False,
            "untie_embedding_weights": False,
        }

    def metadata(
        self, matrices: Mapping[str, tuple[int, ...]], others: Iterable[str]
    ) -> dict[str, str]:
        """Every tensor by its class; ``matrices`` are the quantized ones."""
        described: dict[str, Any] = {name: {"_type": "Tensor"} for name in others}
        for name, shape in matrices.items():
            dtype = {"_type": "torch.dtype", "_data": "float32"}
            data = {"act_quant_kwargs": None, "reduce_range": False, "block_size": [1, shape[1]]}
            parts = ["qdata", "scale", "zero_point"]
            described[name] = {
                "_type": "Int8Tensor",
                "_data": data | {"dtype": dtype},
                "_tensor_data_names": parts,
            }
        texts = {name: json.dumps(value) for name, value in described.items()}
        return texts | {"tensor_names": json.dumps(list(texts))}


def _part(weight: str, part: str) -> str:
    return f"{weight.removesuffix('weight')}_weight_{part}"
