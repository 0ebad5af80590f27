"""The weights of an archive of torch.export.save (.pt2, torch 2.8 and later), from its JSON.

Format (torch/export/pt2_archive, `_package_weights.py` and `constants.py`; dtypes and tensors as in
torch/_export/serde/schema.py): NAME/data/weights/MODEL_weights_config.json maps each parameter and
buffer to a description and to the entry of its raw values in the same folder. The program and its
constants are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.checks import check_name
from minilm.formats.json_file import parse_object
from minilm.formats.torch_objects import PickledTensor, Storage
from minilm.safe_text import short_repr

FOLDER = "data/weights"
CONFIG_ENDING = "_weights_config.json"

# `ScalarType` of the schema.
DTYPES: dict[int, str] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}


def weights_config(path: Path, root: str, entries: Iterable[str]) -> str | None:
    """The entry that describes the weights; None in a zip that is no archive of torch.export."""
    prefix = f"{root}/{FOLDER}/"
    configs = [name for name in entries if name.startswith(prefix) and name.endswith(CONFIG_ENDING)]
    if len(configs) > 1:
        listed = ", ".join(short_repr(name.removeprefix(prefix)) for name in configs[:4])
        raise FormatError(path, f"several models ({listed})", "one", "export each to its own file")
    return configs[0] if configs else None


def read_weights(path: Path, raw: bytes) -> tuple[dict[str, PickledTensor], frozenset[str]]:
    """The tensors that the weights' description lists, and the names of the buffers among them.

    Raises FormatError.
    """
    config = parse_object(path, raw, strict=True).get("config")
    if not isinstance(config, dict):
        raise FormatError(path, "weights without a description", "an archive of torch.export")
    tensors: dict[str, PickledTensor] = {}
    buffers = set()
    for name, entry in config.items():
        meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
        key = entry.get("path_name") if isinstance(entry, dict) else None
        if not isinstance(meta, dict) or not isinstance(key, str):
            raise FormatError(path, f"tensor {short_repr(name)} without a description", "its sizes")
        if entry.get("use_pickle"):
            remedy = "save its state_dict()"
            raise FormatError(path, f"tensor {short_repr(name)} as a pickle", "raw values", remedy)
        tensors[check_name(path, name)] = _tensor(key, meta)
        if entry.get("is_param") is False:
            buffers.add(name)
    return tensors, frozenset(buffers)


def _tensor(key: str, meta: Mapping[str, Any]) -> PickledTensor:
    """A description, whose sizes are checked where those of every tensor are."""
    code = meta.get("dtype")
    dtype = DTYPES.get(code, "unknown") if isinstance(code, int) else "unknown"
    offset = _whole_numbers([meta.get("storage_offset")])[0]
    sizes, strides = _whole_numbers(meta.get("sizes")), _whole_numbers(meta.get("strides"))
    return PickledTensor(Storage(key, ""), dtype, offset, sizes, strides)


def _whole_numbers(values: object) -> list[object]:
    """The schema's [{"as_int": 3}, ...] as [3, ...]; None for a size that is a symbol."""
    if not isinstance(values, list):
        return []
    return [value.get("as_int") if isinstance(value, dict) else None for value in values]
