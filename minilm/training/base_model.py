"""What fine-tuning takes over from its base beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minilm import formats
from minilm.formats.text_file import read_text
from minilm.runs import files as run_files


def companions(folder: Path) -> Mapping[str, bytes]:
    """The files that go with the tokenizer, by name."""
    paths = (folder / name for name in run_files.COMPANIONS)
    return {path.name: read_text(path).encode() for path in paths if path.is_file()}


def weights_dtype(folder: Path) -> str:
    """The dtype of the weights of a run, float32 where they have several."""
    dtypes = {tensor.dtype for tensor in formats.read(folder / run_files.WEIGHTS).tensors}
    return dtypes.pop() if len(dtypes) == 1 else "float32"
