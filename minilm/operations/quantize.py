"""quantize(): a run whose matrices are stored in few bits, and what that changed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from minilm import files, formats
from minilm.architectures.minilm import layout as minilm_layout
from minilm.checkpoint import load
from minilm.config import TrainConfig, from_dict
from minilm.data.batches import Tokens, window_starts
from minilm.data.cache import default_cache
from minilm.data.corpus_stats import identify
from minilm.data.shards import prepare
from minilm.dtypes import storage_bytes
from minilm.errors import InputError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.inspection.inspector import inspect
from minilm.interop.convert import as_run, convert
from minilm.ledger.layout import Layout
from minilm.model.transformer import Transformer
from minilm.operations.comparison import Comparison, measure
from minilm.operations.evaluate import ALL, EvaluationText, evaluation_text
from minilm.operations.folders import check_new, write_summary
from minilm.quantization.packing import Format, Packing, Rounded, make_packing, quantized_matrices
from minilm.runs import files as run_files
from minilm.text.corpora import open_corpus
from minilm.text.tokenizers import Tokenizer
from minilm.training.base_model import companions
from minilm.training.runtime import resolve
from minilm.transforms.quantize import linear_layers, round_layers

FileLayout = Literal["compressed-tensors"]

CALIBRATION_TOKENS = 32_768
METADATA = {"format": "pt"}
_PROBE = 32  # tokens in the middle of a window, by which it is looked for in the evaluated text


@dataclass(frozen=True)
class Storage:
    """Bytes of the quantized matrices, and of the rest: all of the file but its header.

    ``bits_per_weight`` has codes and scales of the ``quantized`` parameters in it. ``file_bytes`` follow from
    the formula of the model; the file that was written has as many.
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


@dataclass(frozen=True)
class Quantized:
    """Where the quantized model is, and the model before and after.

    ``left`` are the tensors that were left as they were; ``what`` says what is in ``out``.
    """

    out: Path
    transform: Mapping[str, Any]
    storage: Storage
    left: tuple[str, ...]
    comparison: Comparison
    what: str


def quantize(
    checkpoint: str | Path,
    out: str | Path,
    *,
    format: Format,
    group_size: int | None = None,
    calibrate: str | None = None,
    data: str | None = None,
    layout: FileLayout | None = None,
    text_field: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Quantized:
    """Write the model of ``checkpoint``, a run or what convert imports, quantized, to the new folder ``out``.

    The matrices of its layers become ``format``: int8 with a scale a row, int4 with one for ``group_size``
    inputs (32 by default), or NF4; embeddings, head and norms stay as they are. ``calibrate``: a text on
    which the rounding of int8 and int4 keeps the outputs of each layer (GPTQ), other than the evaluated one.
    ``data``: the text to evaluate; by default the validation split of the run. ``out`` is a run, or with a
    ``layout`` a Hugging Face folder. Raises InputError, with nothing written, for what cannot be done.
    """
    out, packing = Path(out), make_packing(format, group_size)
    if calibrate is not None and format == "nf4":
        raise InputError("--calibrate", "given for nf4", "int8 or int4, whose rounding it is for")
    check_new(out)
    with as_run(Path(checkpoint)) as run:
        record = run_files.read_record(run / run_files.CONFIG)
        _check_quantizable(checkpoint, record)
        declared = minilm_layout(record.model)
        for name, shape in quantized_matrices(declared).items():
            packing.check(name, shape)
        settings = {"device": device, "compile": "off"}
        runtime = resolve(from_dict(TrainConfig, settings, "quantize"), 0.0)
        model, tokenizer = load(run, device=str(runtime.device))
        text = evaluation_text(run, tokenizer, data, text_field=text_field, cache=cache)
        transform: dict[str, Any] = {"tool": "quantize", "format": format}
        if packing.group_size:
            transform["group_size"] = packing.group_size
        windows = None
        if calibrate is not None:
            windows, transform["calibrated_on"] = _calibration(
                run, tokenizer, calibrate, text, record, text_field, cache or default_cache()
            )
        before = measure(model, [run / run_files.WEIGHTS], text, runtime)
        rounded = round_layers(model.cpu(), packing, windows)
        with files.staged(out) as staging, tempfile.TemporaryDirectory() as temporary:
            folder = staging if layout is None else Path(temporary) / "run"
            folder.mkdir()
            changed = replace(
                record,
                transforms=(*record.transforms, transform),
                quantization=packing.config(["lm_head"]),
            )
            storage = _write_run(folder, run, changed, packing, rounded)
            what = "a run, which inspect, evaluate, generate and convert take"
            if layout is not None:
                what = f"{convert(folder, 'huggingface', staging)} of transformers"
                storage = _storage_of(staging, storage)
            quantized, _ = load(folder, device=str(runtime.device))
            if layout is None and linear_layers(quantized):
                what += f"; on {runtime.device} the matrices are made float32 when it is loaded"
            after = measure(
                quantized,
                [staging / run_files.WEIGHTS],
                text,
                runtime,
                parameters=before.parameters,
                nonzero=_nonzero(quantized, rounded, packing.zero),
            )
            comparison = Comparison(before, after)
            if layout is None:
                fields = comparison.to_dict() | {"parameters": after.parameters}
                write_summary(folder, run, fields | {"storage": storage.to_dict()})
        matrices = quantized_matrices(declared)
        left = tuple(t.name for t in declared.named_tensors() if t.name not in matrices)
        return Quantized(out, transform, storage, left, comparison, what)


def _check_quantizable(checkpoint: str | Path, record: run_files.RunRecord) -> None:
    if record.quantization:
        raise InputError(
            checkpoint,
            "a model that is quantized already",
            "one in float",
            "quantize what it was made of, or `minilm convert --to minilm` dequantizes it",
        )
    if record.base:
        raise InputError(
            checkpoint,
            "an adapter",
            "a whole model",
            "merge it into its base: minilm finetune --merge",
        )


def _calibration(
    run: Path,
    tokenizer: Tokenizer,
    source: str,
    text: EvaluationText | None,
    record: run_files.RunRecord,
    text_field: str | None,
    cache: Path,
) -> tuple[Tensor, dict[str, Any]]:
    """Windows (n, t) of a text, none of which is in the evaluated one, and what they are.

    Of the text of the run itself, whose validation split is evaluated, they are from the training part.
    """
    corpus = open_corpus(source, cache=cache, text_field=text_field)
    sha256, part = identify(corpus).sha256, "all"
    if text is not None and text.dataset.sha256 == sha256:
        tokens, part = text.dataset.train, "the training part"
        if len(tokens) == 0:
            raise InputError("--calibrate", "the text that is evaluated", "another text")
    else:
        tokens = prepare(
            corpus,
            tokenizer=tokenizer,
            vocab_size=None,
            val_fraction=ALL,
            cache=cache,
            context_length=1,
        ).val
    t = min(record.model.context_length, len(tokens) - 1)
    starts = window_starts(len(tokens), context_length=t, at_most=CALIBRATION_TOKENS)
    windows = [np.asarray(tokens[start : start + t]) for start in starts.tolist()]
    windows = [each for each in windows if len(each) == t]
    if text is not None:
        windows = [each for each in windows if not _occurs(each, text.dataset.val)]
    if not windows:
        raise InputError("--calibrate", "a text that is in the evaluated one", "another text")
    ids = torch.from_numpy(np.stack(windows).astype(np.int64))
    what = {"source": source, "sha256": sha256, "part": part, "tokens": ids.numel()}
    return ids, what


def _occurs(window: Tokens, tokens: Tokens) -> bool:
    """Whether the middle of ``window`` is somewhere in ``tokens``."""
    middle = max(0, (len(window) - _PROBE) // 2)
    probe = np.asarray(window[middle : middle + _PROBE]).astype(tokens.dtype).tobytes()
    content, position = np.asarray(tokens).tobytes(), -1
    while (position := content.find(probe, position + 1)) >= 0:
        if position % tokens.dtype.itemsize == 0:
            return True
    return False


def _write_run(
    folder: Path,
    source: Path,
    record: run_files.RunRecord,
    packing: Packing,
    rounded: Mapping[str, Rounded],
) -> Storage:
    """The files of a run, summary.json left out; ``record`` is that of the quantized model."""
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


def _storage_of(folder: Path, storage: Storage) -> Storage:
    """That of the run in ``folder``, where matrices are joined, with one description for several."""
    quantization = inspect(folder).quantization
    assert quantization is not None
    return replace(
        storage,
        scale_bytes=quantization.scale_bytes,
        file_bytes=(folder / run_files.WEIGHTS).stat().st_size,
    )


def _nonzero(model: Transformer, rounded: Mapping[str, Rounded], zero: int) -> int:
    """Parameters that are not 0: codes other than ``zero``, and what is not quantized."""
    left = (
        p for name, p in model.named_parameters() if name.removesuffix(".weight") not in rounded
    )
    codes = sum(int(np.count_nonzero(matrix.codes != zero)) for matrix in rounded.values())
    return codes + sum(int(p.count_nonzero()) for p in left)
