"""Saving and loading weights: safetensors and JSON only, written atomically.

A file holds every parameter once, under its name in `named_parameters()`; a tied head is not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minilm.architectures.adapter_map import AdapterMap, adapter_map
from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.errors import FormatError, InputError, naming_file
from minilm.formats import tensor_io
from minilm.formats.checks import check_same_tensors
from minilm.formats.header import StoredTensor
from minilm.formats.safetensors import read_header
from minilm.model.transformer import Transformer
from minilm.parallel.sharded import fill
from minilm.parallel.tensor_parts import write_tensors
from minilm.quantization.packing import Packing, read_rounded
from minilm.quantization.packings import packing_of
from minilm.runs import base_run
from minilm.runs import files as run_files
from minilm.runs.files import RunRecord
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer
from minilm.transforms import adapter_files, lora
from minilm.transforms.activations import linear_layers
from minilm.transforms.quantize import has_kernel, quantize_layer
from minilm.units import counted

# What weights are stored in; they are computed with in float32.
FLOATING = ("float32", "float16", "bfloat16", "float64")
# By width in bytes: bits that numpy has no type for go to a file as these.


class Loaded(NamedTuple):
    """A trained model and the tokenizer it was trained with."""

    model: Transformer
    tokenizer: Tokenizer


def load(
    run_dir: str | Path,
    *,
    adapters: Sequence[str | Path] = (),
    trainable: bool = False,
    device: str = "cpu",
) -> Loaded:
    """The model of a run in eval mode with frozen parameters, and its tokenizer.

    ``adapters``: runs that are adapters of the same base, which is in memory once. The products of all are
    added; `set_adapter` chooses among them, and that of ``run_dir`` if it is one, by their folders' names.

    ``trainable=True`` thaws the parameters, of an adapter those of the adapter alone, and sets train mode.
    Of a quantized run, the layers that ``device`` multiplies faster as they are stored stay packed
    (`has_kernel`), or all if ``trainable``: an adapter is trained in little memory. The others are
    dequantized. Raises InputError for a folder that is not a run, for weights that are not those of its
    config.json, and for adapters whose bases differ.
    """
    if isinstance(adapters, (str, Path)):
        raise InputError("adapters", repr(adapters), "a list of runs")
    folder = Path(run_dir)
    record = read_run_record(folder)
    tokenizer = load_tokenizer(folder / run_files.TOKENIZER, record.model.vocab_size)
    model = load_record(folder, record, torch.device(device), keep_packed=trainable)
    for each in adapters:
        _add_adapter(model, Path(each), folder, record)
    model.to(device).train(trainable)
    for name, parameter in model.named_parameters():
        is_trained = lora.is_adapter(name) or not (record.base or adapters)
        parameter.requires_grad_(trainable and is_trained)
    return Loaded(model, tokenizer)


CPU = torch.device("cpu")


def load_record(
    folder: Path, record: RunRecord, device: torch.device = CPU, *, keep_packed: bool = False
) -> Transformer:
    """The model of a run with its weights, on the CPU; ``device`` is where it is to run, as `load` has it."""
    if record.base:
        return _load_adapted(folder, record, device, keep_packed=keep_packed)
    path = folder / run_files.WEIGHTS
    if not record.quantization:
        return load_model(path, record.model)
    with naming_file(folder / run_files.CONFIG):
        packing = packing_of(record.quantization)
    return load_quantized(path, record.model, packing, device, keep_packed=keep_packed)


def _load_adapted(
    folder: Path, record: RunRecord, device: torch.device, *, keep_packed: bool
) -> Transformer:
    """The base with the adapter of ``folder``."""
    model = load_base(folder, record, device, keep_packed=keep_packed)
    return _with_adapter(model, folder, record)


def _with_adapter(model: Transformer, folder: Path, record: RunRecord) -> Transformer:
    config = base_run.lora_of(folder, record)
    lora.apply(model, config, name=folder.absolute().name, beside=True)
    load_adapter(folder / run_files.ADAPTER, model, config)
    return model


def _add_adapter(model: Transformer, folder: Path, other: Path, of_other: RunRecord) -> None:
    """That of ``folder`` beside what ``model``, loaded from the run ``other``, has."""
    record = read_run_record(folder)
    if not record.base:
        raise InputError(folder, "a whole model", "a run that is an adapter")
    base = of_other.base or base_run.reference(other)
    if record.base.get("sha256") != base.get("sha256"):
        raise InputError(
            folder,
            f"an adapter of {record.base.get('path')}",
            f"one of the base of {other}, {base.get('path')}",
            "adapters are for one base, whose weights are the same to the byte",
        )
    _with_adapter(model, folder, record)


def load_base(
    folder: Path, record: RunRecord, device: torch.device = CPU, *, keep_packed: bool = False
) -> Transformer:
    """The base of the adapter that ``folder`` is, without it."""
    base = base_run.find_base(folder, record)
    base_record = run_files.read_record(base / run_files.CONFIG)
    base_record = replace(base_record, model=record.model)
    return load_record(base, base_record, device, keep_packed=keep_packed)


@torch.no_grad()
def load_adapter(folder: Path, model: Transformer, config: LoraConfig) -> None:
    """Put the values of an adapter's files into ``model``, which has such an adapter."""
    tensors = adapter_files.read(folder, config, adapter_map(model.config, config))
    parameters = dict(model.named_parameters())
    for name, array in tensors.items():
        fill(parameters[name], torch.from_numpy(array))


def save_adapter(
    path: Path, tensors: Mapping[str, Tensor], adapters: AdapterMap, metadata: Mapping[str, str]
) -> None:
    """Write adapter_model.safetensors from those of ``tensors`` that are of the adapter."""
    factors = {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in tensors.items()
        if lora.is_adapter(name)
    }
    adapter_files.write_weights(path, factors, adapters, metadata)


def read_run_config(folder: Path, *, with_weights: bool = True) -> ModelConfig:
    """The model of a run folder; InputError when the folder holds no run, or ``with_weights`` none."""
    return read_run_record(folder, with_weights=with_weights).model


def read_run_record(folder: Path, *, with_weights: bool = True) -> RunRecord:
    """As `read_run_config`, all of config.json."""
    _require(folder, run_files.CONFIG, run_files.TOKENIZER)
    try:
        str(folder).encode()
    except UnicodeEncodeError:  # the safetensors library opens no such file
        raise InputError(folder, "a path that is not UTF-8", "one that is", "rename it") from None
    record = run_files.read_record(folder / run_files.CONFIG)
    if with_weights and record.base:
        _require(folder / run_files.ADAPTER, run_files.ADAPTER_CONFIG, run_files.ADAPTER_WEIGHTS)
    elif with_weights:
        _require(folder, run_files.WEIGHTS)
    return record


def _require(folder: Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            remedy = (
                "see checkpoints/; of another model `minilm convert SOURCE --to minilm` makes one"
            )
            raise InputError(folder, f"no {name}", "the folder of a run", remedy)


def load_model(path: Path, config: ModelConfig) -> Transformer:
    """The model of ``config`` with the weights of ``path``, on the CPU, parameters trainable."""
    model = _meta_model(path, config)
    return _with_parameters(model, read_tensors(path, parameter_shapes(model)))


def load_quantized(
    path: Path,
    config: ModelConfig,
    packing: Packing,
    device: torch.device,
    *,
    keep_packed: bool = False,
) -> Transformer:
    """As `load_model`, of matrices that are stored by ``packing``; those without a kernel are dequantized."""
    model = _meta_model(path, config)
    shapes = parameter_shapes(model)
    matrices = {name: shapes.pop(f"{name}.weight") for name in linear_layers(model)}
    packed = {
        tensor.name: tensor
        for name, shape in matrices.items()
        for tensor in packing.tensors(f"{name}.weight", shape)
    }
    parameters = read_tensors(path, shapes, packed)
    stored = {tensor.name: tensor for tensor in read_header(path).tensors}
    for name, shape in matrices.items():
        rounded = read_rounded(packing, f"{name}.weight", shape, stored)
        if keep_packed or has_kernel(packing.format, shape, device):
            quantize_layer(model, name, packing).set_rounded(rounded)
        else:
            parameters[f"{name}.weight"] = torch.from_numpy(packing.values(rounded))
    return _with_parameters(model, parameters)


def _meta_model(path: Path, config: ModelConfig) -> Transformer:
    """The model of ``config`` without values, if the file has tensors enough for its layers."""
    num_tensors = len(read_header(path).tensors)
    if num_tensors < config.num_blocks:  # before modules are built for all of them
        raise FormatError(
            path,
            counted(num_tensors, "tensor"),
            f"those of {config.num_blocks} layers",
            "the weights are not those of this config.json",
        )
    with torch.device("meta"):
        return Transformer(config)


def _with_parameters(model: Transformer, tensors: dict[str, Tensor]) -> Transformer:
    """``model`` with these as its parameters, which are all that it has."""
    if model.config.tied_embeddings:
        tensors["lm_head.weight"] = tensors["embedding.token.weight"]
    # The buffers of quantized layers have their values already.
    missing, unexpected = model.load_state_dict(tensors, assign=True, strict=False)
    assert not unexpected
    assert not set(missing) & parameter_shapes(model).keys()
    if model.config.tied_embeddings:  # assigned apart; one parameter again
        model.lm_head.weight = model.embedding.token.weight
    return model


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write the parameters of ``model`` to ``path`` atomically, each once."""
    write_tensors(path, dict(model.named_parameters()), metadata)


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, shared ones once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def replace_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file of weights again, atomically, with other metadata."""
    plan = {tensor: partial(tensor_io.read, tensor) for tensor in read_header(path).tensors}
    tensor_io.write(path, plan, metadata)


def read_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    packed: Mapping[str, StoredTensor] | None = None,
) -> dict[str, Tensor]:
    """All that `read_one_by_one` reads."""
    return dict(read_one_by_one(path, shapes, packed))


def read_one_by_one(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    packed: Mapping[str, StoredTensor] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Exactly the tensors ``shapes`` names in float32, from a file that holds these and no others.

    But for ``packed`` ones, of given dtypes and shapes, which are not read. Raises FormatError naming the
    first difference; nothing is read before the header is checked.
    """
    tensors, packed = read_header(path).tensors, packed or {}
    for tensor in tensors:
        declared = packed.get(tensor.name)
        dtypes = FLOATING if declared is None else (declared.dtype,)
        if tensor.dtype not in dtypes:
            raise FormatError(
                path,
                f"{tensor.name} in {tensor.dtype}",
                f"weights in {', '.join(dtypes)}",
                "`minilm convert --to minilm` dequantizes a quantized run",
            )
    stored = {tensor.name: tensor.shape for tensor in tensors}
    check_same_tensors(
        path, stored, {**shapes, **{name: tensor.shape for name, tensor in packed.items()}}
    )
    with safe_open(path, framework="pt") as stream:
        # Copied: in the file a tensor is not aligned, and unaligned matrices multiply to other last
        # bits than the aligned ones that were saved.
        for name in shapes:
            yield name, stream.get_tensor(name).to(torch.float32, copy=True)
