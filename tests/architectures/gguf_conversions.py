"""What llama.cpp's converter makes of a small model of each type: keys, and tensors by gguf's map of names.

Source: ggml-org/llama.cpp, `conversion/base.py` (`TextModel.set_gguf_parameters`) and beside it the module
that a comment names; the map of names and the writer are those of the package gguf.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from random import Random
from typing import Any

from minilm.architectures import layout_of, layout_of_class

Config = dict[str, Any]
Shape = tuple[int, ...]
Tensors = dict[str, Shape]
Value = str | Callable[[Config], Any]
Edit = Callable[[Shape, Config], Mapping[str, Shape]]

FLAG = (False, True)
WIDTH = range(1, 20)
EVEN = range(2, 20, 2)

# What the base class writes: the writer's method -> the first of these fields.
USUAL: dict[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "context_length": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_hidden_size"),
    "head_count": ("num_attention_heads", "n_head", "n_heads"),
    "head_count_kv": ("num_key_value_heads",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "key_length": ("head_dim",),
    "value_length": ("head_dim",),
}


@dataclass(frozen=True)
class Conversion:
    """``options`` are fields with their values; ``keys`` what is written beside the usual, None for not.

    ``renames`` are patterns in the names of all experts of a layer and what stands there instead;
    ``model_type`` is that of the config where it has another name. Tensors whose names begin with one of
    ``left_out`` are in no file.

    ``edits`` are what a tensor becomes, by the end of its name: the ends and shapes of others.
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Value | None] = field(default_factory=dict)
    edits: Mapping[str, Edit] = field(default_factory=dict)
    head_dim: bool = False
    experts: str = ""
    grouped: bool = True
    prefix: str = ""
    classes: Sequence[str] = ()
    derived: Callable[[Config], Config] = lambda config: {}
    model_type: str = ""
    renames: Sequence[tuple[str, str]] = ()
    left_out: tuple[str, ...] = ()


def renamed(end: str, *, squeezed: bool = False, stacked: bool = False) -> Edit:
    """Another name; without a dimension of one, or as a column."""

    def edit(shape: Shape, config: Config) -> Mapping[str, Shape]:
        kept = tuple(size for size in shape if size != 1) if squeezed else shape
        return {end: (*kept, 1) if stacked else kept}

    return edit


def grouped(field: str) -> Edit:
    """A row for each group."""

    def edit(shape: Shape, config: Config) -> Mapping[str, Shape]:
        return {"norm.weight": (config[field], shape[0] // config[field])}

    return edit


def dropped(shape: Shape, config: Config) -> Mapping[str, Shape]:
    """It is in no file."""
    return {}


def split(axis: int, *ends: str, swap: bool = False) -> Edit:
    """Equal parts; ``swap`` exchanges the last two dimensions before."""

    def edit(shape: Shape, config: Config) -> Mapping[str, Shape]:
        turned = (*shape[:-2], shape[-1], shape[-2]) if swap else shape
        part = [*turned]
        part[axis] //= len(ends)
        return {end: tuple(part) for end in ends}

    return edit


def queries_keys_values(*ends: str) -> Edit:
    """By the numbers of heads."""

    def edit(shape: Shape, config: Config) -> Mapping[str, Shape]:
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        width = shape[0] // (heads + 2 * groups)
        numbers = (heads, groups, groups)
        return {
            end: (number * width, *shape[1:]) for end, number in zip(ends, numbers, strict=True)
        }

    return edit


def latents(shape: Shape, config: Config) -> Mapping[str, Shape]:
    """deepseek.py: keys transposed, and values, each with a dimension of heads."""
    heads, latent = config["num_attention_heads"], shape[1]
    return {
        "k_b_proj.weight": (heads, latent, config["qk_nope_head_dim"]),
        "v_b_proj.weight": (heads, config["v_head_dim"], latent),
    }


def drawn(conversion: Conversion, model_type: str, random: Random) -> Config:
    """A small config.json that says every size."""
    groups = random.randint(1, 3) if conversion.grouped else random.randint(1, 4)
    heads = groups * random.randint(1, 3) if conversion.grouped else groups
    config: Config = {
        "model_type": conversion.model_type or model_type,
        "hidden_size": heads * 2 * random.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "num_hidden_layers": random.randint(2, 4),
        "intermediate_size": 2 * random.randint(1, 20),
        "vocab_size": random.randint(2, 60),
        "max_position_embeddings": random.randint(8, 64),
        "tie_word_embeddings": random.choice(FLAG),
    }
    if conversion.head_dim:
        config["head_dim"] = 2 * random.randint(1, 9)
    if conversion.experts:
        config[conversion.experts] = random.randint(2, 5)
        config["num_experts_per_tok"] = random.randint(1, config[conversion.experts])
    for name, values in conversion.options.items():
        fixed = not isinstance(values, (range, tuple))
        config[name] = values if fixed else random.choice(values)
    config |= conversion.derived(config)
    if conversion.classes:
        config["architectures"] = [random.choice(conversion.classes)]
    return config


def keys_of(conversion: Conversion, config: Config) -> dict[str, Any]:
    """The writer's methods and what they are called with."""
    keys: dict[str, Any] = {}
    for name, fields in USUAL.items():
        if (found := next((each for each in fields if each in config), None)) is not None:
            keys[name] = config[found]
    for name, value in conversion.keys.items():
        keys.pop(name, None)
        written = value(config) if callable(value) else config.get(value) if value else None
        if written is not None:
            keys[name] = written
    return keys


def tensors_of(conversion: Conversion, config: Config) -> Tensors:
    """The file's tensors: those that transformers saves, edited, and renamed by gguf's map."""
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import TensorNameMap

    arch = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}[conversion.architecture]
    layers = config.get("num_hidden_layers") or config["num_layers"]
    shared = dict(TensorNameMap.block_mappings_cfg)
    try:  # a map changes that of its class
        names = TensorNameMap(arch, layers)
    finally:
        TensorNameMap.block_mappings_cfg = shared
    tensors: Tensors = {}
    for saved, whole in _stacked(_saved(config)).items():
        if saved.startswith(conversion.left_out):
            continue
        for pattern, other in conversion.renames:
            saved = re.sub(pattern, other, saved)
        for name, shape in _edited(conversion, config, saved, whole).items():
            new = names.get_name(
                name.removeprefix(conversion.prefix), (".weight", ".bias", ".scale")
            )
            assert new is not None, f"{name} is no name of {conversion.architecture}"
            assert new not in tensors, f"{name} is {new} as well"
            tensors[new] = shape
    return tensors


def _saved(config: Config) -> Tensors:
    layout = layout_of_class(config) if "architectures" in config else layout_of(config)
    assert layout is not None
    tensors = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    return {tensor.name: tensor.shape for tensor in tensors}


def _stacked(tensors: Tensors) -> Tensors:
    """All experts of a layer in one tensor, and so the norms of heads."""
    counted: dict[str, list[Shape]] = {}
    for name, shape in tensors.items():
        counted.setdefault(re.sub(r"\.(experts|norms)\.\d+\.", r".\1.", name), []).append(shape)
    return {
        name: (len(shapes), *shapes[0]) if name not in tensors else shapes[0]
        for name, shapes in counted.items()
    }


def _edited(conversion: Conversion, config: Config, name: str, shape: Shape) -> Tensors:
    for end, edit in conversion.edits.items():
        if name.endswith(end):
            return {name.removesuffix(end) + new: s for new, s in edit(shape, config).items()}
    return {name: shape}


def is_buffer(name: str) -> bool:
    """Of those that conversions write: what is set by the load, and Gemma 4's scalar of a layer."""
    return "exp_probs_b" in name or "layer_output_scale" in name


def elements(tensors: Tensors) -> int:
    """In all of them."""
    return sum(prod(shape) for shape in tensors.values())
