"""A quantized run on disk: its files, and their bytes, which follow from the formula of the model."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minilm import files, formats
from minilm.architectures.minilm import layout as minilm_layout
from minilm.checkpoint import load_model
from minilm.dtypes import storage_bytes
from minilm.errors import InputError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.inspection.inspector import inspect_with_sources
from minilm.ledger.layout import Layout
from minilm.model.device import release_free_memory
from minilm.quantization.packing import Packing, Rounded, quantized_matrices
from minilm.runs import files as run_files
from minilm.training.base_model import companions
from minilm.transforms.quantize import round_layers

METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Storage:
    """Bytes of the quantized matrices, and of the rest: all of the file but its header.

    ``bits_per_weight`` has codes and scales of the ``quantized`` parameters in it.
    """

    quantized: int
    code_bytes: int
    scale_bytes: int
    left_bytes: int
    file_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * (self.code_bytes + self.scale_bytes) / self.quantized

    def to_dict(self) -> dict[str, Any]:
        """As summary.json has it."""
        return asdict(self) | {"bits_per_weight": self.bits_per_weight}


def write_run(
    folder: Path,
    source: Path,
    record: run_files.RunRecord,
    packing: Packing,
    rounded: Mapping[str, Rounded],
) -> Storage:
    """Write a run, summary.json left out; return its bytes by the formula, which are those of the file.

    ``source`` is the run in float, ``record`` that of the quantized one.
    """
    declared = minilm_layout(record.model)
    matrices = quantized_matrices(declared)
    header = formats.read(source / run_files.WEIGHTS)
    floats = [tensor for tensor in header.tensors if tensor.name not in matrices]
    plan = {tensor: partial(tensor_io.read, tensor) for tensor in floats}
    for name, shape in matrices.items():
        arrays = packing.pack(name, rounded[name.removesuffix(".weight")])
        for tensor in packing.tensors(name, shape):
            plan[tensor] = partial(arrays.__getitem__, tensor.name)
    tensor_io.write(folder / run_files.WEIGHTS, plan, METADATA)
    files.write_bytes(folder / run_files.TOKENIZER, (source / run_files.TOKENIZER).read_bytes())
    for name, content in companions(source).items():
        files.write_bytes(folder / name, content)
    run_files.write_record(folder, record)
    return predicted_storage(declared, packing, {tensor.name: tensor.dtype for tensor in floats})


@contextlib.contextmanager
def quantized_base(run: Path, packing: Packing | None) -> Iterator[Path]:
    """``run`` itself, or a temporary one with its matrices stored by ``packing``, rounded to nearest.

    Raises InputError for a run that is quantized already.
    """
    if packing is None:
        yield run
        return
    record = run_files.read_record(run / run_files.CONFIG)
    if record.quantization:
        raise InputError(
            run, "a model that is quantized already", "one in float", "leave the format out"
        )
    packing.check(quantized_matrices(minilm_layout(record.model)))
    transform = {"tool": "quantize", "format": packing.format}
    record = record.transformed(transform, quantization=packing.config(["lm_head"]))
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(run / run_files.WEIGHTS, record.model)
        write_run(Path(folder), run, record, packing, round_layers(model, packing))
        del model
        release_free_memory()
        yield Path(folder)


def predicted_storage(declared: Layout, packing: Packing, dtypes: Mapping[str, str]) -> Storage:
    """The bytes of a quantized model by its formula; ``dtypes`` are those of what is not quantized."""
    matrices = quantized_matrices(declared)
    sizes = [packing.predicted(name, shape) for name, shape in matrices.items()]
    floats = [
        StoredTensor(t.name, dtypes[t.name], t.shape)
        for t in declared.named_tensors()
        if t.name not in matrices
    ]
    packed = [tensor for name, shape in matrices.items() for tensor in packing.tensors(name, shape)]
    return Storage(
        quantized=sum(math.prod(shape) for shape in matrices.values()),
        code_bytes=sum(codes for codes, _ in sizes),
        scale_bytes=sum(scales for _, scales in sizes),
        left_bytes=sum(storage_bytes(tensor.count, tensor.dtype) for tensor in floats),
        file_bytes=tensor_io.file_bytes([*floats, *packed], METADATA),
    )


def written_storage(path: Path) -> Storage:
    """That of a Hugging Face folder or a GGUF file, as its header has it.

    Raises InputError where nothing is quantized: no row of a GGUF file is filled by blocks.
    """
    inspection = inspect_with_sources(path, live=False)
    quantization, header = inspection.report.quantization, inspection.header
    if quantization is None:
        raise InputError(
            "--layout gguf",
            "no matrix whose rows blocks of 32 fill",
            "a wider model",
            "--format int8 without --layout fits every width",
        )
    assert header is not None
    codes, scales = quantization.value_bytes, quantization.scale_bytes
    return Storage(
        quantized=quantization.parameters,
        code_bytes=codes,
        scale_bytes=scales,
        left_bytes=header.data_bytes - codes - scales,
        file_bytes=weights_file(path).stat().st_size,
    )


def weights_file(path: Path) -> Path:
    """The file of weights of a run or model folder; a GGUF file itself."""
    return path / run_files.WEIGHTS if path.is_dir() else path
