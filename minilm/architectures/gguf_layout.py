"""A GGUF file says what it is: its metadata as a config.json, and the formula under GGUF's names.

An architecture that the table of model types has no GGUF name for is counted by name, like any file
without a config.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from minilm.architectures import layout_of, layout_of_class
from minilm.architectures.field_aliases import FIELD_ALIASES
from minilm.architectures.gguf_architecture import GgufArchitecture
from minilm.architectures.gguf_architectures import GGUF_ARCHITECTURES
from minilm.architectures.gguf_names import KEYS
from minilm.architectures.gguf_parts import in_all_layers, in_gguf_names, without_outer_ones
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import without_cache
from minilm.errors import ConfigError
from minilm.formats.header import Header, whole_number, whole_numbers
from minilm.ledger.layout import Layout

# general.architecture -> the first model_type of that name: of `llama`, which is Mixtral with experts.
GGUF_MODEL_TYPES = {
    entry.gguf: name for name, entry in reversed(MODEL_TYPES.items()) if entry.gguf
} | {name: table.model_type for name, table in GGUF_ARCHITECTURES.items() if table.model_type}
REQUIRED = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
_USUAL = GgufArchitecture()
_LAYER = re.compile(r"(?:blk\.\d+\.)?(.+)")


def gguf_layout(header: Header) -> Layout | None:
    """The formula of a GGUF file from its own metadata; None for an architecture we do not map.

    Of the biases of a `llama`, each may be there or not, as for llama.cpp's loader. Raises ConfigError
    for sizes that cannot be.
    """
    config = config_fields(header)
    declared = _declared(config) if config else None
    if config is None or declared is None:
        return None
    architecture = header.metadata["general.architecture"]
    names = {tensor.name for tensor in header.tensors}
    table, stems = GGUF_ARCHITECTURES.get(architecture, _USUAL), _stems(header)
    others = next((parts for tensor, parts in table.parts_with if tensor in stems), {})
    layout = in_gguf_names(_without(declared, table.left_out), {**table.parts, **others}, names)
    layout = in_all_layers(layout, table.everywhere, names, config.get("layer_types", ()))
    layout = without_outer_ones(layout, {each.name: each.shape for each in header.tensors})
    if header.metadata.get(f"{architecture}.attention.causal") == "False":
        layout = without_cache(layout)
    if architecture != "llama":
        return layout
    return replace(
        layout,
        tensors=tuple(
            tensor
            for tensor in layout.tensors
            if not tensor.name.endswith(".bias") or tensor.name.replace("{i}", "0") in names
        ),
    )


def config_fields(header: Header) -> dict[str, Any] | None:
    """The metadata as the fields of a config.json; None for an architecture that we do not map."""
    architecture = header.metadata.get("general.architecture", "")
    if architecture not in GGUF_MODEL_TYPES:
        return None
    table = GGUF_ARCHITECTURES.get(architecture, _USUAL)
    sizes, stems = _sizes(header, architecture, table), _stems(header)
    # Experts in a tensor each: files of 2023.
    unlike = stems & {*table.unlike, "ffn_gate.0.weight"}
    if sizes is None or unlike or _missing(sizes, table):
        return None
    config: dict[str, Any] = {"model_type": _model_type(architecture, table, sizes, stems)}
    config |= table.fixed | _flags(header, table, stems)
    usual = {key: fields for key, (_, fields) in KEYS.items() if key not in table.without}
    fields = usual | table.may_have | table.sizes
    for key, value in sizes.items():
        for name in fields.get(key, ()):
            _set(config, name, value)
    _set_head_width(config, sizes)
    return _with_derived(config, header, table, sizes)


def reason_without(header: Header) -> str:
    """Why there is no formula of a file; empty for an architecture that we do not map."""
    architecture = header.metadata.get("general.architecture", "")
    if architecture not in GGUF_MODEL_TYPES:
        return ""
    table = GGUF_ARCHITECTURES.get(architecture, _USUAL)
    sizes = _sizes(header, architecture, table)
    missing = [] if sizes is None else _missing(sizes, table)
    if missing:
        keys = ", ".join(f"{architecture}.{key}" for key in missing)
        return f"no formula without a whole number as {keys}"
    return "no formula for what its metadata says"


def _missing(sizes: Container[str], table: GgufArchitecture) -> list[str]:
    required = (*(key for key in REQUIRED if key not in table.without), *table.sizes)
    return [key for key in required if key not in sizes]


def _declared(config: Mapping[str, Any]) -> Layout | None:
    return layout_of_class(config) if "architectures" in config else layout_of(config)


def _without(layout: Layout, prefixes: tuple[str, ...]) -> Layout:
    kept, buffers = (
        tuple(each for each in tensors if not each.name.startswith(prefixes))
        for tensors in (layout.tensors, layout.buffers)
    )
    return replace(layout, tensors=kept, buffers=buffers) if prefixes else layout


def _stems(header: Header) -> set[str]:
    """The names of all tensors without the numbers of layers."""
    return {match[1] for each in header.tensors if (match := _LAYER.fullmatch(each.name))}


def _sizes(header: Header, architecture: str, table: GgufArchitecture) -> dict[str, int] | None:
    """The whole numbers that the table has a use for; None where layers are of different sizes.

    A list with a number for each layer is that number, whatever other layers have none of it.
    """
    pairs = (*table.ratios.values(), *table.differences.values())
    keys = {*KEYS, *table.sizes, *table.may_have, *(key for pair in pairs for key in pair)}
    listed = {key for _, kinds in table.kinds.values() for key, _ in kinds}
    listed |= {"attention.head_count_kv"} if table.periods else set()
    listed |= {*table.listed}
    sizes = {}
    for key in (name for each in sorted(keys) for name in each.split("|")):
        number = whole_number(header.metadata, f"{architecture}.{key}")
        if f"{architecture}.{key}.length" in header.metadata:
            numbers = set(whole_numbers(header.metadata, f"{architecture}.{key}") or ())
            numbers -= {0} if key in listed else set()
            if not (numbers or key in listed) or not _is_one_size(numbers, key, table):
                return None
            number = min(numbers, default=0)
        if number is not None:
            sizes[key] = number
    name = f"{architecture}.nextn_predict_layers"
    next_token_layers = whole_number(header.metadata, name)
    if next_token_layers and "block_count" in sizes:
        if next_token_layers >= sizes["block_count"]:
            expected = f"fewer than the {sizes['block_count']} blocks"
            raise ConfigError(name, f"{next_token_layers}", expected)
        sizes["block_count"] -= next_token_layers
    if sizes.get("expert_count") == 0:  # a dense model that says so
        del sizes["expert_count"]
    tokens = next((each for each in header.tensors if each.name == "token_embd.weight"), None)
    if "vocab_size" not in sizes and tokens is not None and tokens.shape:
        sizes["vocab_size"] = tokens.shape[0]
    return sizes


def _is_one_size(numbers: Collection[int], key: str, table: GgufArchitecture) -> bool:
    is_double = key in table.doubled.values() and max(numbers) == 2 * min(numbers)
    if len(numbers) < 2 or key in table.listed:
        return True
    return len(numbers) == 2 and (key in table.by_kind or is_double)


def _model_type(
    architecture: str, table: GgufArchitecture, sizes: Container[str], stems: Container[str]
) -> str:
    of_variants = (name for what, name in table.variants if what in sizes or what in stems)
    return next(of_variants, GGUF_MODEL_TYPES[architecture])


def _flags(header: Header, table: GgufArchitecture, stems: Container[str]) -> dict[str, bool]:
    """What is true of a model by the tensors that its layers have."""
    architecture = header.metadata["general.architecture"]
    output_bias = ("attn_output",) if architecture == "llama" else ()
    biased = ("attn_q", "attn_k", "attn_v", "attn_qkv", *output_bias)
    return {
        "tie_word_embeddings": "output.weight" not in stems
        or "output.weight" in dict(header.shared),
        "attention_bias": any(f"{matrix}.bias" in stems for matrix in biased),
        "mlp_bias": any(f"ffn_{matrix}.bias" in stems for matrix in ("gate", "up", "down")),
        "use_bias": "attn_q.bias" in stems,
        **{name: tensor in stems for name, tensor in table.present.items()},
        **{name: tensor not in stems for name, tensor in table.absent.items()},
    }


def _with_derived(
    config: dict[str, Any], header: Header, table: GgufArchitecture, sizes: Mapping[str, int]
) -> dict[str, Any] | None:
    """With the fields that follow from several keys, from lists and from shapes; None where one does not."""
    for name, pair in table.ratios.items():
        whole, divisor = (_first_of(sizes, key) for key in pair)
        if not whole or not divisor or whole % divisor:
            return None
        config.setdefault(name, whole // divisor)
    for name, pair in table.differences.items():
        larger, smaller = (_first_of(sizes, key) for key in pair)
        if larger is None or smaller is None or larger <= smaller:
            return None
        config[name] = larger - smaller
    stored = {tensor.name: tensor.shape for tensor in header.tensors}
    optional = {k: v for k, v in table.shapes_if_stored.items() if v[0] in stored}
    for name, (tensor, axis) in (table.shapes | optional).items():
        if axis >= len(stored.get(tensor, ())):
            return None
        config[name] = stored[tensor][axis]
    for (period, offset), what in table.periods.items():
        regular = _period(_layers_with(header, what), sizes["block_count"])
        if regular is None:
            return None
        config[period], config[offset] = regular
    config |= _kinds(header, table, sizes["block_count"])
    if table.of_layers is not None:
        lists = {key: _of_layers(header, key, sizes["block_count"]) for key in table.listed}
        fields = table.of_layers(lists, sizes["embedding_length"]) if all(lists.values()) else None
        if fields is None:
            return None
        config |= fields
    return config | _from_lists(header, table, sizes["block_count"])


def _of_layers(header: Header, key: str, num_layers: int) -> tuple[int, ...]:
    """A number for each layer, where there is one for all or a list; nothing for a shorter list."""
    name = f"{header.metadata['general.architecture']}.{key}"
    number = whole_number(header.metadata, name)
    listed = whole_numbers(header.metadata, name) or ()
    if number is not None and num_layers <= len(header.tensors):
        return (number,) * num_layers
    return listed[:num_layers] if len(listed) >= num_layers else ()


def _kinds(header: Header, table: GgufArchitecture, num_layers: int) -> dict[str, list[str]]:
    """Each layer's kind, where the file lists something for every layer."""
    architecture, found = header.metadata["general.architecture"], {}
    for field, (otherwise, kinds) in table.kinds.items():
        lists = [
            (whole_numbers(header.metadata, f"{architecture}.{key}"), kind) for key, kind in kinds
        ]
        if all(numbers is not None and len(numbers) >= num_layers for numbers, _ in lists):
            found[field] = [
                next((kind for numbers, kind in lists if numbers and numbers[i]), otherwise)
                for i in range(num_layers)
            ]
    return found


def _from_lists(header: Header, table: GgufArchitecture, num_layers: int) -> dict[str, Any]:
    """What follows from lists of two numbers, and from which layers have a tensor."""
    architecture = header.metadata["general.architecture"]

    def listed(key: str) -> tuple[int, ...]:
        return (whole_numbers(header.metadata, f"{architecture}.{key}") or ())[:num_layers]

    found: dict[str, Any] = {}
    for key, (teller, field_at_zero, field) in table.by_kind.items():
        for number, kind in zip(listed(key), listed(teller), strict=False):
            found[field if kind else field_at_zero] = number
    for name, key in table.doubled.items():
        found[name] = len(set(listed(key))) > 1
    for name, (fewer, more) in table.fewer.items():
        found[name] = len(_layers_with(header, fewer)) < len(_layers_with(header, more))
    return found


def _layers_with(header: Header, tensor: str) -> list[int]:
    """Those that have it, or a number in the list of that name."""
    architecture = header.metadata["general.architecture"]
    numbers = whole_numbers(header.metadata, f"{architecture}.{tensor}")
    if numbers is not None:
        return [i for i, number in enumerate(numbers) if number]
    found = (
        re.fullmatch(rf"blk\.(\d{{1,9}})\.{re.escape(tensor)}", each.name)
        for each in header.tensors
    )
    return sorted(int(match[1]) for match in found if match)


def _period(layers: Sequence[int], num_layers: int) -> tuple[int, int] | None:
    """The period and offset of some layers; None for layers without."""
    if len(layers) < 2:
        return max(1, num_layers), layers[0] if layers else num_layers
    period = layers[1] - layers[0]
    steps = {after - before for before, after in pairwise(layers)}
    is_whole = layers[0] < period and layers[-1] < num_layers <= layers[-1] + period
    return (period, layers[0]) if is_whole and steps == {period} else None


def _first_of(sizes: Mapping[str, int], keys: str) -> int | None:
    return next((sizes[key] for key in keys.split("|") if key in sizes), None)


def _set(config: dict[str, Any], name: str, value: int) -> None:
    """A field, behind a dot one of an object inside."""
    owner, _, inside = name.rpartition(".")
    (config.setdefault(owner, {}) if owner else config)[inside] = value


def _set_head_width(config: dict[str, Any], sizes: Mapping[str, int]) -> None:
    """llama.cpp's default where no key says it, whatever that of the model_type is."""
    width, heads = sizes["embedding_length"], sizes.get("attention.head_count", 0)
    own = FIELD_ALIASES.get(config["model_type"], {}).get("head_dim")
    if own not in config and heads and width % heads == 0:
        config.setdefault("head_dim", width // heads)
