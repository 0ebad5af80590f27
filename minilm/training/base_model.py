"""What fine-tuning starts from: a run, or another program's model, which is imported on the way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from minilm import formats
from minilm.errors import FormatError
from minilm.formats.text_file import read_text
from minilm.interop.huggingface import import_run
from minilm.interop.model_source import open_source
from minilm.runs import files as run_files


@contextlib.contextmanager
def as_run(base: Path) -> Iterator[Path]:
    """The folder of a run, or a temporary one with what `convert --to minilm` makes of another model."""
    if _is_run(base):
        yield base
        return
    with tempfile.TemporaryDirectory() as folder:
        import_run(open_source(base), Path(folder))
        yield Path(folder)


def _is_run(base: Path) -> bool:
    try:
        run_files.read_record(base / run_files.CONFIG)
    except (FormatError, OSError):
        return False
    return True


def companions(folder: Path) -> Mapping[str, bytes]:
    """The files that go with the tokenizer, by name."""
    paths = (folder / name for name in run_files.COMPANIONS)
    return {path.name: read_text(path).encode() for path in paths if path.is_file()}


def weights_dtype(folder: Path) -> str:
    """The dtype of the weights of a run, float32 where they have several."""
    dtypes = {tensor.dtype for tensor in formats.read(folder / run_files.WEIGHTS).tensors}
    return dtypes.pop() if len(dtypes) == 1 else "float32"
