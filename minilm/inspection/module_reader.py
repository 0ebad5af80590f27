"""The live witness: named_parameters() of a real module. The only part of inspection with torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError, MissingExtraError
from minilm.inspection.names import component_by_name
from minilm.inspection.report import TensorRow
from minilm.model.transformer import Transformer


@dataclass(frozen=True)
class ModuleContents:
    """What a module holds. Shared parameters appear once, under their first name."""

    rows: tuple[TensorRow, ...]
    trainable: int
    embedding: int
    state_elements: int
    buffers: int
    tied: tuple[tuple[str, str], ...]
    tied_elements: int


def meta_model(config: ModelConfig) -> Transformer:
    """The model with shapes and no storage."""
    with torch.device("meta"):
        return Transformer(config)


def hugging_face_model(config: Mapping[str, Any], architecture: str) -> nn.Module:
    """transformers' own model of a config.json, on the meta device; no code of a repository is run.

    ``architecture`` names its class; a language model's is taken where that is none of transformers'.
    Raises MissingExtraError without transformers, FormatError where it does not know the config.
    """
    try:
        transformers = import_module("transformers")
    except ImportError:
        raise MissingExtraError("transformers", "transformers", "--live") from None
    fields = {k: v for k, v in config.items() if k not in ("model_type", "quantization_config")}
    model_type = str(config.get("model_type"))
    named = getattr(transformers, architecture, None) if architecture.isidentifier() else None
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            known = transformers.AutoConfig.for_model(model_type, **fields)
            if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
                model = named(known)
            else:
                automatic = transformers.AutoModelForCausalLM
                model = automatic.from_config(known, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:150]
        raise FormatError(
            "config.json", f"transformers cannot build {model_type!r} ({reason})", "a known model"
        ) from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    assert isinstance(model, nn.Module)
    return model


def read_module(module: nn.Module) -> ModuleContents:
    """Walk ``module.named_parameters()``; what is no module, or has no shape yet (lazy), is refused."""
    if not isinstance(module, nn.Module):
        raise InputError(
            "target", f"a {type(module).__name__}", "a path, a preset's name or a torch module"
        )
    embedding_tables = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag))
        for parameter in part.parameters(recurse=False)
    }
    rows, trainable, embedding = [], 0, 0
    first_names: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(
                name, "a lazy parameter", "one with a shape", "run the module once first"
            )
        shape, dtype = _logical(parameter)
        count = math.prod(shape)
        rows.append(TensorRow(name, shape, dtype, count, component_by_name(name)))
        first_names[id(parameter)] = name
        trainable += count if parameter.requires_grad else 0
        embedding += count if id(parameter) in embedding_tables else 0
    again = [
        (name, parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if first_names[id(parameter)] != name
    ]
    return ModuleContents(
        tuple(rows),
        trainable,
        embedding,
        sum(v.numel() for v in module.state_dict().values() if isinstance(v, torch.Tensor)),
        sum(buffer.numel() for buffer in module.buffers()),
        tuple((name, first_names[id(parameter)]) for name, parameter in again),
        sum(parameter.numel() for _, parameter in again),
    )


def _logical(parameter: nn.Parameter) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of what a parameter stands for: bitsandbytes packs 4-bit values into bytes."""
    state = getattr(parameter, "quant_state", None)
    if state is not None and isinstance(getattr(state, "shape", None), torch.Size):
        return tuple(state.shape), str(getattr(state, "quant_type", "4-bit"))
    return tuple(parameter.shape), str(parameter.dtype).removeprefix("torch.")
