"""The live witness: named_parameters() of a real module."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import nn

from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.errors import FormatError, InputError, MissingExtraError
from minilm.inspection.names import component_by_name
from minilm.inspection.report import TensorRow
from minilm.ledger.layout_changes import FACTORS, MAGNITUDE, numbered
from minilm.model.transformer import Transformer
from minilm.quantization.packings import packing_of
from minilm.transforms.lora import adapters, apply, base_name, configs_of
from minilm.transforms.quantize import QuantizedLinear, quantize_layers

# T5's configurations, though transformers loads a file with a head of its own untied.
_TIED_WHATEVER_IT_SAYS = ("longt5", "mt5", "t5", "umt5")
_QUANTIZED_MODULES = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")


@dataclass(frozen=True)
class ModuleContents:
    """A module's parameters, one row each: shared ones under their first name.

    ``tied`` are further names, each with that first name, and ``tied_elements`` their elements.
    ``embedding`` are elements of Embedding and EmbeddingBag; ``state_elements`` all of state_dict().
    """

    rows: tuple[TensorRow, ...]
    trainable: int
    embedding: int
    state_elements: int
    buffers: int
    tied: tuple[tuple[str, str], ...]
    tied_elements: int


def meta_model(
    config: ModelConfig,
    quantization: Mapping[str, Any] | None = None,
    lora: LoraConfig | None = None,
) -> Transformer:
    """The model on the meta device, its matrices stored as ``quantization`` says: shapes without values.

    With adapters if ``lora`` is given.
    """
    with torch.device("meta"):
        model = Transformer(config)
        if quantization:
            quantize_layers(model, packing_of(quantization))
    return model if lora is None else apply(model, lora)


def hugging_face_model(config: Mapping[str, Any], architecture: str) -> nn.Module:
    """transformers' own model of a config.json, on the meta device; no code of a repository is run.

    ``architecture`` names its class; one that transformers does not have becomes AutoModelForCausalLM.
    Raises MissingExtraError without transformers, FormatError where it does not know the config.
    """
    try:
        transformers = import_module("transformers")
    except ImportError:
        raise MissingExtraError("transformers", "transformers", "--live") from None
    fields = {
        key: _decode_floats(value)
        for key, value in config.items()
        if key not in ("model_type", "quantization_config")
    }
    model_type = str(config.get("model_type"))
    model_class = getattr(transformers, architecture, None) if architecture.isidentifier() else None
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            model_config = transformers.AutoConfig.for_model(model_type, **fields)
            if isinstance(model_class, type) and issubclass(
                model_class, transformers.PreTrainedModel
            ):
                model = model_class(model_config)
            else:
                model = transformers.AutoModelForCausalLM.from_config(
                    model_config, trust_remote_code=False
                )
    except Exception as error:  # whatever a model's code raises for fields that it does not expect
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "Unrecognized configuration class" in reason:  # then it lists all that there are
            reason = "it is no causal language model there, and config.json names no class of its"
        raise FormatError(
            "config.json", f"transformers cannot build {model_type!r} ({reason})", "a known model"
        ) from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    assert isinstance(model, nn.Module)
    if config.get("tie_word_embeddings") is False and model_type in _TIED_WHATEVER_IT_SAYS:
        _give_own_head(model)
    return model


def _give_own_head(model: Any) -> None:
    """Untie the head from the embedding."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(torch.empty_like(table.weight))


def hugging_face_config(module: nn.Module) -> dict[str, Any]:
    """The config.json of one of transformers' own models, with its class; empty for any other module."""
    transformers = sys.modules.get("transformers")  # else it cannot be one
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return {}
    fields: dict[str, Any] = json.loads(module.config.to_json_string(use_diff=False))
    return fields | {"architectures": [type(module).__name__]}


def _decode_floats(value: Any) -> Any:
    """``value`` with {"__float__": "Infinity"}, as transformers 5 writes what JSON cannot, as a float."""
    if isinstance(value, dict):
        number = value.get("__float__")
        if len(value) == 1 and number in ("Infinity", "-Infinity", "NaN"):
            return float(number)
        return {key: _decode_floats(inner) for key, inner in value.items()}
    return [_decode_floats(inner) for inner in value] if isinstance(value, list) else value


def read_module(module: nn.Module) -> ModuleContents:
    """Walk ``module.named_parameters()`` and what quantized modules pack instead of parameters.

    Raises InputError for no module, or a lazy parameter.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            "target", f"a {type(module).__name__}", "a path, a preset's name or a torch module"
        )
    embedding_tables = {
        id(parameter)
        for submodule in module.modules()
        if isinstance(submodule, (nn.Embedding, nn.EmbeddingBag))
        for parameter in submodule.parameters(recurse=False)
    }
    rows, trainable, embedding = [], 0, 0
    first_names: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(
                name, "a lazy parameter", "one with a shape", "run the module once first"
            )
        shape, dtype = _logical_shape(parameter)
        count = math.prod(shape)
        rows.append(TensorRow(name, shape, dtype, count, component_by_name(name)))
        first_names[id(parameter)] = name
        trainable += count if parameter.requires_grad else 0
        embedding += count if id(parameter) in embedding_tables else 0
    packed, state = list(_packed_tensors(module)), module.state_dict()
    own_layers = {n: each for n, each in module.named_modules() if type(each) is QuantizedLinear}
    for path, layer in own_layers.items():
        name, shape = f"{path}.weight", (layer.out_features, layer.in_features)
        count = math.prod(shape)
        rows.append(TensorRow(name, shape, layer.format, count, component_by_name(name)))
    for name, tensor, is_table in packed:
        shape, count = tuple(tensor.shape), tensor.numel()
        rows.append(TensorRow(name, shape, _dtype(tensor), count, component_by_name(name)))
        embedding += count if is_table else 0
    packed_names = {name for name, *_ in packed}
    duplicates = [
        (name, parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if first_names[id(parameter)] != name
    ]
    return ModuleContents(
        rows=tuple(rows),
        trainable=trainable,
        embedding=embedding,
        state_elements=sum(
            value.numel()
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
            and not value.is_quantized
            and name not in packed_names
        )
        + sum(tensor.numel() for _, tensor, _ in packed),
        buffers=sum(
            buffer.numel()
            for name, buffer in module.named_buffers()
            if name.rpartition(".")[0] not in own_layers
        ),
        tied=tuple((name, first_names[id(parameter)]) for name, parameter in duplicates),
        tied_elements=sum(parameter.numel() for _, parameter in duplicates),
    )


def read_adapted(model: Transformer) -> ModuleContents:
    """As `read_module`, with the parameters of a base under adapters named as in its file."""
    contents = read_module(model)
    names = {}
    numbers = {name: number for number, name in enumerate(configs_of(model), start=1)}
    for path, module in adapters(model):
        for each in (*FACTORS, MAGNITUDE):
            names[f"{path}.{each}"] = f"{base_name(path)}.{numbered(each, numbers[module.name])}"
    return replace(
        contents,
        rows=tuple(
            replace(row, name=names.get(row.name, base_name(row.name))) for row in contents.rows
        ),
        tied=tuple((base_name(name), base_name(first)) for name, first in contents.tied),
    )


def _packed_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Weights and biases that torch's quantized modules have methods for, and no parameters.

    The third value says whether it is a table of embeddings.
    """
    for path, submodule in module.named_modules():
        kind = type(submodule)
        if not kind.__module__.startswith(_QUANTIZED_MODULES):
            continue
        tensors: dict[str, Any] = {}
        for name in ("weight", "bias"):
            method, methods = (
                getattr(submodule, name, None),
                getattr(submodule, f"get_{name}", None),
            )
            if callable(methods):  # of a recurrent layer: one of each name a layer and direction
                tensors |= methods()
            elif callable(method):
                tensors[name] = method()
        for name, tensor in tensors.items():
            if isinstance(tensor, torch.Tensor):
                is_table = kind.__name__.startswith("Embedding")
                yield f"{path}.{name}" if path else name, tensor, is_table


def _logical_shape(parameter: nn.Parameter) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the logical tensor: bitsandbytes packs 4-bit values into bytes."""
    state = getattr(parameter, "quant_state", None)
    if state is not None and isinstance(getattr(state, "shape", None), torch.Size):
        return tuple(state.shape), str(getattr(state, "quant_type", "4-bit"))
    return tuple(parameter.shape), _dtype(parameter)


def _dtype(tensor: torch.Tensor) -> str:
    """torch's name of the dtype; of quantized values, that of the integers."""
    return str(tensor.dtype).removeprefix("torch.").removeprefix("q")
