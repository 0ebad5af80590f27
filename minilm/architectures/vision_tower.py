"""SigLIP's and CLIP's vision towers as transformers stores them in larger models: used once an image.

They add no FLOPs to a token. Names and shapes: huggingface/transformers `models/siglip` and
`models/clip`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from minilm.architectures.config_fields import Config, layers, quotient, size
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

Width = Polynomial | int
W, Y, F, P = (symbol(letter) for letter in "WYFP")  # width, layers, feed-forward, patches


def vision_symbols(
    config: Config, *, width: int, depth: int, inner: int, image: int, patch: int
) -> dict[str, int]:
    """The letters' values for a `vision_config`, with the defaults of its type."""
    picture, square = size(config, "image_size", image), size(config, "patch_size", patch)
    side = quotient(picture, square, "image_size", "patch_size")
    return {**tower_symbols(config, width, depth, inner), "P": side**2}


def tower_symbols(
    config: Config, width: int, depth: int, inner: int, *, depth_field: str = "num_hidden_layers"
) -> dict[str, int]:
    """The same without patches."""
    return {
        "W": size(config, "hidden_size", width),
        "Y": layers(config, depth_field, depth),
        "F": size(config, "intermediate_size", inner),
    }


def siglip_tower(
    tower: str, *, channels: int, patch: int, has_pooling_head: bool, is_flat: bool = False
) -> tuple[Tensor, ...]:
    """All of it below the name ``tower``, for pictures of ``channels`` in squares of ``patch`` pixels.

    ``is_flat``: the squares' pixels are in a row, as SigLIP 2 has them.
    """
    pixels = (channels * patch**2,) if is_flat else (channels, patch, patch)
    return (
        *matrix(f"{tower}.embeddings.patch_embedding", (W, *pixels)),
        once(f"{tower}.embeddings.position_embedding.weight", (P, W)),
        *clip_layers(f"{tower}.encoder.layers.{{i}}"),
        *vector(f"{tower}.post_layernorm", W),
        *(_pooling_head(f"{tower}.head") if has_pooling_head else ()),
    )


def siglip_part(
    config: Config,
    name: str,
    *,
    patch: int,
    head: bool = False,
    width: int = 768,
    image: int = 224,
) -> Part:
    """SigLIP's tower for a `vision_config` with its defaults, and those that are given."""
    symbols = vision_symbols(config, width=width, depth=12, inner=3072, image=image, patch=patch)
    channels, pixels = size(config, "num_channels", 3), size(config, "patch_size", patch)
    return Part(siglip_tower(name, channels=channels, patch=pixels, has_pooling_head=head), symbols)


def clip_tower(tower: str, *, channels: int, patch: int) -> tuple[Tensor, ...]:
    """All of it below the name ``tower``: a class token before the patches, and a norm before the layers."""
    return (
        once(f"{tower}.embeddings.class_embedding", (W,)),
        once(f"{tower}.embeddings.patch_embedding.weight", (W, channels, patch, patch)),
        once(f"{tower}.embeddings.position_embedding.weight", (P + 1, W)),
        *vector(f"{tower}.pre_layrnorm", W),  # so in the files
        *clip_layers(f"{tower}.encoder.layers.{{i}}"),
        *vector(f"{tower}.post_layernorm", W),
    )


def clip_layers(layer: str) -> tuple[Tensor, ...]:
    """CLIP's, SigLIP's and others'."""
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    return (
        *vector(f"{layer}.layer_norm1", W, Y),
        *(t for name in attention for t in matrix(f"{layer}.self_attn.{name}", (W, W), Y)),
        *vector(f"{layer}.layer_norm2", W, Y),
        *matrix(f"{layer}.mlp.fc1", (F, W), Y),
        *matrix(f"{layer}.mlp.fc2", (W, F), Y),
    )


def _pooling_head(head: str) -> tuple[Tensor, ...]:
    """SigLIP's attention pooling, which Gemma does not use and its configuration may keep."""
    return (
        once(f"{head}.probe", (1, 1, W)),
        once(f"{head}.attention.in_proj_weight", (3 * W, W)),
        once(f"{head}.attention.in_proj_bias", (3 * W,), Role.ADDED),
        *matrix(f"{head}.attention.out_proj", (W, W)),
        *vector(f"{head}.layernorm", W),
        *matrix(f"{head}.mlp.fc1", (F, W)),
        *matrix(f"{head}.mlp.fc2", (W, F)),
    )


def matrix(
    name: str,
    shape: tuple[Width, ...],
    repeat: Polynomial = ONE,
    component: str = components.VISION,
    *,
    bias: bool = True,
) -> Tensors:
    """``name.weight`` and ``name.bias``, of a linear map or a convolution."""
    weight = once(f"{name}.weight", shape, repeat=repeat, component=component)
    if not bias:
        return (weight,)
    return (weight, once(f"{name}.bias", shape[:1], Role.ADDED, repeat, component))


def vector(name: str, width: Width, repeat: Polynomial = ONE) -> tuple[Tensor, ...]:
    """``name.weight`` and ``name.bias`` of a LayerNorm."""
    return matrix(name, (width,), repeat)


def once(
    name: str,
    shape: tuple[Width, ...],
    role: Role = Role.ONCE,
    repeat: Polynomial = ONE,
    component: str = components.VISION,
) -> Tensor:
    """A tensor that is used once an image, or once a sound."""
    return Tensor(name, tuple(map(as_polynomial, shape)), component, role, repeat)


class Part(NamedTuple):
    """The tensors of a part of a larger model, its letters' values, and its buffers."""

    tensors: Tensors
    symbols: Mapping[str, int] = MappingProxyType({})
    buffers: Tensors = ()


def changed(part: Part, change: Callable[[Tensor], dict[str, Any]]) -> Part:
    """With the fields that ``change`` gives of each of its tensors and buffers."""
    tensors, buffers = (
        tuple(replace(tensor, **change(tensor)) for tensor in each)
        for each in (part.tensors, part.buffers)
    )
    return Part(tensors, part.symbols, buffers)


def heard(part: Part) -> Part:
    """Of an encoder of sound, which runs once for it."""
    return used_once(part, components.AUDIO)


def used_once(part: Part, component: str) -> Part:
    """Of the component, and without FLOPs of a token."""

    def once_a_sound(tensor: Tensor) -> dict[str, Any]:
        role = Role.ADDED if tensor.role is Role.ADDED else Role.ONCE
        return {"component": component, "role": role}

    return changed(part, once_a_sound)


def in_numbers(part: Part) -> Part:
    """With the values of its letters in their place, for a part beside another that has the same."""

    def fixed(size: Polynomial) -> Polynomial:
        return as_polynomial(size.value(part.symbols))

    def in_their_place(tensor: Tensor) -> dict[str, Any]:
        shape = tuple(map(fixed, tensor.shape))
        return {"shape": shape, "repeat": fixed(tensor.repeat), "experts": fixed(tensor.experts)}

    numbers = changed(part, in_their_place)
    return numbers._replace(symbols={})


def running_statistics(
    name: str, width: Width, component: str = components.VISION, repeat: Polynomial = ONE
) -> Tensors:
    """What a batch norm keeps of the batches that it saw."""
    shapes: dict[str, tuple[Width, ...]]
    shapes = {"running_mean": (width,), "running_var": (width,), "num_batches_tracked": ()}
    return tuple(
        once(f"{name}.{own}", shape, repeat=repeat, component=component)
        for own, shape in shapes.items()
    )


def without_bias(name: str, *shape: Width, repeat: Polynomial = ONE) -> Tensor:
    """``name.weight`` alone."""
    return once(f"{name}.weight", shape, repeat=repeat)


def gain(name: str, width: Width, repeat: Polynomial = ONE) -> Tensor:
    """``name.weight`` of a norm without a bias."""
    return once(f"{name}.weight", (width,), repeat=repeat)


def projector(tensors: Tensors | list[Tensor]) -> Tensors:
    """Tensors between a tower and the text."""
    return tuple(replace(tensor, component=components.PROJECTOR) for tensor in tensors)
