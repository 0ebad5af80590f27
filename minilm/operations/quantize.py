"""quantize(): a model whose matrices are stored in few bits, and what that changed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from minilm import files
from minilm.architectures.minilm import layout as minilm_layout
from minilm.checkpoint import load
from minilm.data.cache import default_cache
from minilm.errors import ConfigError
from minilm.interop.convert import (
    GgufFormat,
    as_run,
    check_new,
    convert,
    name_of,
    weights_files,
)
from minilm.model.transformer import Transformer
from minilm.operations.calibration import calibration_windows
from minilm.operations.comparison import Comparison, measure
from minilm.operations.folders import write_summary
from minilm.quantization.gptq_packing import GptqPacking
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.nf4_packing import Nf4Packing
from minilm.quantization.packing import Format, Packing, Rounded, quantized_matrices
from minilm.quantization.packings import make_packing
from minilm.quantization.torchao_packing import TorchaoPacking
from minilm.runs import files as run_files
from minilm.training.evaluation_text import evaluation_text
from minilm.training.quantized_run import (
    Storage,
    weights_file,
    write_run,
    written_storage,
)
from minilm.training.runtime import resolve_for_use
from minilm.transforms.activations import linear_layers
from minilm.transforms.quantize import round_layers

FileLayout = Literal["compressed-tensors", "gptq", "torchao", "gguf"]
GGUF_FORMATS: dict[str, GgufFormat] = {"int8": "q8_0", "int4": "q4_0"}


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
    double_quantization: bool = False,
    calibrate: str | None = None,
    data: str | None = None,
    layout: FileLayout | None = None,
    text_field: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Quantized:
    """Write the model of ``checkpoint``, a run or what convert imports, quantized, to the new folder ``out``.

    The matrices of its layers become ``format``: int8 with a scale a row, int4 with one for ``group_size``
    inputs (32 by default), or NF4, whose scales ``double_quantization`` rounds to 8 bits. Embeddings, head
    and norms stay as they are. ``calibrate``: a text on which the rounding of int8 and int4 keeps the
    outputs of each layer (GPTQ), other than the evaluated one.
    ``data``: the text to evaluate; by default the validation split of the run. ``out`` is a run; with
    the ``layout`` compressed-tensors, gptq or torchao a Hugging Face folder, with gguf a file for llama.cpp,
    in whose q8_0 and q4_0 embeddings and head are stored too. Raises InputError, with nothing written, for
    what cannot be done.
    """
    out = Path(out)
    packing = make_packing(format, group_size, double_quantization=double_quantization)
    _check_options(packing, calibrate, layout)
    check_new(out)
    with as_run(Path(checkpoint)) as run:
        record = run_files.read_record(run / run_files.CONFIG)
        run_files.refuse_transformed(
            checkpoint,
            record,
            "quantize what it was made of, or `minilm convert --to minilm` dequantizes it",
        )
        _check_shapes(run, record, packing, calibrate, layout)
        runtime = resolve_for_use("quantize", device)
        model, tokenizer = load(run, device=str(runtime.device))
        text = evaluation_text(run, tokenizer, data, text_field=text_field, cache=cache)
        windows, calibrated_on = None, None
        if calibrate is not None:
            windows, calibrated_on = calibration_windows(
                calibrate,
                tokenizer,
                record.model.context_length,
                text,
                text_field=text_field,
                cleaning=tuple(record.began_with.get("cleaning") or ()),
                cache=cache or default_cache(),
            )
        transform = _transform(packing, calibrated_on)
        before = measure(model, weights_files(Path(checkpoint)), text, runtime)
        with files.staged(out) as staging:
            if layout == "gguf":
                written = _write_gguf(staging, name_of(out), run, model, GGUF_FORMATS[format])
            else:
                rounded = round_layers(model.cpu(), packing, windows)
                quantized = _quantized(record, transform, packing)
                written = _write(
                    staging, name_of(out), run, quantized, packing, rounded, layout, runtime.device
                )
            comparison = Comparison(
                before, measure(written.model, [weights_file(staging)], text, runtime)
            )
            if layout is None:
                write_summary(staging, run, comparison, storage=written.storage.to_dict())
        return Quantized(out, transform, written.storage, written.left, comparison, written.what)


def _transform(packing: Packing, calibrated_on: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is done, for config.json."""
    transform: dict[str, Any] = {"tool": "quantize", "format": packing.format}
    if packing.group_size:
        transform["group_size"] = packing.group_size
    if isinstance(packing, Nf4Packing) and packing.double:
        transform["double_quantization"] = True
    return transform | ({"calibrated_on": calibrated_on} if calibrated_on else {})


def _quantized(
    record: run_files.RunRecord, transform: Mapping[str, Any], packing: Packing
) -> run_files.RunRecord:
    """The record of the quantized run."""
    return record.transformed(transform, quantization=packing.config(["lm_head"]))


class _Written(NamedTuple):
    """What was written, and a model that computes what it holds."""

    model: Transformer
    storage: Storage
    left: tuple[str, ...]
    what: str


def _write(
    path: Path,
    name: str,
    source: Path,
    record: run_files.RunRecord,
    packing: Packing,
    rounded: Mapping[str, Rounded],
    layout: FileLayout | None,
    device: torch.device,
) -> _Written:
    """Write a run, or the Hugging Face folder that it is converted to."""
    what = "a run, which inspect, evaluate, generate and convert take"
    with tempfile.TemporaryDirectory() as temporary:
        run = path if layout is None else Path(temporary) / "run"
        run.mkdir()
        storage = write_run(run, source, record, packing, rounded)
        model, _ = load(run, device=str(device))
        if layout is not None:
            own: Packing | None = None
            if layout == "gptq":
                assert isinstance(packing, IntegerPacking)
                own = GptqPacking(packing.bits, packing.group_size)
            elif layout == "torchao":
                own = TorchaoPacking()
            graph, semicolon, copies = convert(
                run, "huggingface", path, packing=own, name=name
            ).partition(";")
            what = f"{graph} of transformers{semicolon}{copies}"
            storage = written_storage(path)
        elif linear_layers(model):
            what += f"; on {device} its matrices are made float32 when it is loaded"
    left = [
        name for name, _ in model.named_parameters() if name.removesuffix(".weight") not in rounded
    ]
    return _Written(model, storage, tuple(left), what)


def _write_gguf(
    path: Path, name: str, source: Path, model: Transformer, gguf_format: GgufFormat
) -> _Written:
    """Write a GGUF file; ``model`` gets the numbers that are in it."""
    graph, semicolon, copies = convert(
        source, "gguf", path, gguf_format=gguf_format, name=name
    ).partition(";")
    from minilm.interop.gguf import stored_values

    types = {}
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            values = parameter.float().cpu().numpy()
            stored, types[parameter_name] = stored_values(parameter_name, values, gguf_format)
            parameter.copy_(torch.from_numpy(stored))
    what = f"a GGUF file of llama.cpp's {graph}, in {gguf_format}{semicolon}{copies}"
    left = [each for each, type_name in types.items() if type_name != gguf_format]
    if narrow := [each for each in left if types[each] == "f16"]:
        what += f"; float16, as blocks of 32 do not fill their rows: {', '.join(narrow)}"
    return _Written(model, written_storage(path), tuple(left), what)


def _check_options(packing: Packing, calibrate: str | None, layout: str | None) -> None:
    """Raises ConfigError for a layout that is not there, and for options that contradict each other."""
    if layout not in (None, *get_args(FileLayout)):
        expected = f"one of {', '.join(get_args(FileLayout))}, or none for a run"
        raise ConfigError("layout", repr(layout), expected)
    if packing.format == "nf4":
        if calibrate is not None:
            raise ConfigError(
                "calibrate", "given for nf4", "int8 or int4, whose rounding it is for"
            )
        if layout is not None:
            raise ConfigError(
                "layout",
                f"{layout} for nf4, which is bitsandbytes'",
                "none",
                "`minilm convert --to huggingface` makes a folder for transformers of the run",
            )
    if layout == "torchao" and packing.format != "int8":
        raise ConfigError(
            "layout",
            f"torchao for {packing.format}, which it stores in the order of one GPU kernel",
            "int8",
            "compressed-tensors and gptq have int4",
        )
    if layout == "gguf":
        if calibrate is not None:
            raise ConfigError(
                "calibrate", "given for gguf, which rounds to nearest", "another layout or none"
            )
        if packing.format == "int4" and packing.group_size != 32:
            raise ConfigError("group_size", str(packing.group_size), "32, the blocks of q4_0")


def _check_shapes(
    run: Path,
    record: run_files.RunRecord,
    packing: Packing,
    calibrate: str | None,
    layout: FileLayout | None,
) -> None:
    """Raises ConfigError for layers that cannot be calibrated, and for widths that groups do not divide."""
    if calibrate is not None and record.model.num_blocks < record.model.num_layers:
        remedy = (
            f"unshare them first: minilm share {run} --layers {record.model.num_layers} --out DIR"
        )
        raise ConfigError(
            "calibrate", "given for layers that share blocks", "layers of their own", remedy
        )
    if layout != "gguf":
        packing.check(quantized_matrices(minilm_layout(record.model)))
