"""Whether a model is exactly what its config builds: else `FastDecoder` would bypass what was put into it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from minilm.errors import InputError
from minilm.model.transformer import Transformer
from minilm.transforms.activations import linear_layers
from minilm.transforms.quantize import QuantizedLinear, quantize_layer

# Of all modules; torch has no public way to ask.
GLOBAL_HOOKS = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)


class ModifiedModelError(InputError):
    """A model computes something else than the weights of an unmodified `Transformer` would."""


def check_unmodified(model: nn.Module, *, packed: bool = False) -> None:
    """Raise ModifiedModelError where ``model`` is not, module by module, what its config builds.

    With ``packed``, linear layers of the blocks may be quantized.

    Compared with a new model of the same config: names and exact types of the modules, their attributes (a
    replaced `forward` is one), names and shapes of parameters and buffers. Besides, there must be no forward
    hook, on a module or on all, no `forward` or `__call__` replaced in a class, no parameter that is a tensor
    subclass, one dtype and one device, and no dropout in training mode. No other replaced function is seen.
    """
    if type(model) is not Transformer:
        raise ModifiedModelError("model", type(model).__name__, "Transformer, no subclass of it")
    if any(GLOBAL_HOOKS):
        raise ModifiedModelError("model", "a forward hook on all modules", "none")
    with torch.device("meta"):
        reference = Transformer(model.config)
        if packed:
            _quantize_as(reference, model)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, (module, expected) in _pairs(
        modules, dict(reference.named_modules(remove_duplicate=False))
    ):
        if type(module) is not type(expected):
            raise ModifiedModelError(name, _type_name(module), _type_name(expected))
        if module._forward_hooks or module._forward_pre_hooks:
            raise ModifiedModelError(name or "model", "a forward hook", "none")
        if method := _patched_method(type(module)):
            raise ModifiedModelError(
                name or "model", f"{type(module).__name__}.{method} replaced", "the class's own"
            )
        _check_attributes(name, module, expected)
    for name, (shape, expected_shape) in _pairs(_shapes(model), _shapes(reference)):
        if shape != expected_shape:
            raise ModifiedModelError(name, f"shape {shape}", f"{expected_shape}")
    for name, parameter in model.named_parameters():
        if type(parameter) is not nn.Parameter:
            raise ModifiedModelError(name, type(parameter).__name__, "Parameter")
    if len({(each.dtype, each.device) for each in model.parameters()}) > 1:
        raise ModifiedModelError("parameters", "several dtypes or devices", "one of each")
    if model.config.dropout and any(module.training for module in modules.values()):
        raise ModifiedModelError("model", "training mode with dropout", "evaluation mode")


def _quantize_as(reference: Transformer, model: Transformer) -> None:
    """Quantize the linear layers of ``reference`` that are quantized in ``model``."""
    modules = dict(model.named_modules())
    for name in linear_layers(reference):
        layer = modules.get(name)
        if type(layer) is QuantizedLinear:
            quantize_layer(reference, name, layer.packing)


def _patched_method(cls: type[nn.Module]) -> str | None:
    """The method of a forward pass for which ``cls`` or its base has a function of another file."""
    for method in ("forward", "__call__"):
        owner = next(base for base in cls.__mro__ if method in vars(base))
        namespace = getattr(vars(owner)[method], "__globals__", None)
        if namespace is not vars(sys.modules[owner.__module__]):
            return method
    return None


_MODULE_INTERNALS = vars(nn.Module()).keys()
# Of training alone, what a run sets, and generation does not read; and what a quantized layer made of itself.
_OWN_ATTRIBUTES = ("longest_explicit", "_kernel_operands")


def _check_attributes(name: str, module: nn.Module, expected: nn.Module) -> None:
    """Raise ModifiedModelError for an attribute that the class does not set, or sets to another value."""
    attributes, expected_attributes = _attributes(module), _attributes(expected)
    for key in {**expected_attributes, **attributes}:
        if key in _OWN_ATTRIBUTES:
            continue
        where = f"{name}.{key}" if name else key
        if key not in expected_attributes:
            own = "the class's own" if hasattr(type(module), key) else "no such attribute"
            raise ModifiedModelError(
                where, f"set on the module, to a {type(attributes[key]).__name__}", own
            )
        value, expected_value = attributes.get(key), expected_attributes[key]
        # Only values of one type are compared: the result for an array would be no bool.
        if type(value) is not type(expected_value) or value != expected_value:
            raise ModifiedModelError(where, _described(value), _described(expected_value))


def _described(value: object) -> str:
    """A plain value itself, of any other one its type."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else f"a {type(value).__name__}"


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a class and its users have set on a module, besides what every module has."""
    return {key: value for key, value in vars(module).items() if key not in _MODULE_INTERNALS}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of every parameter and buffer."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {
        name: tuple(tensor.shape)
        for name, tensor in (*parameters, *model.named_buffers(remove_duplicate=False))
    }


def _pairs(
    values: dict[str, Any], expected: dict[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Name -> value and expected value, with None for an absent one."""
    for name in {**expected, **values}:
        yield name, (values.get(name), expected.get(name))


def _type_name(module: nn.Module | None) -> str:
    return "no module" if module is None else type(module).__name__
