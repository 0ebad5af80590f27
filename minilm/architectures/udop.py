"""UDOP: T5 over the words of a page, their places and its picture.

Both stacks have a table of relative positions for each kind of distance; the first of them is the same
in all. Names, shapes and defaults: huggingface/transformers `models/udop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures import t5
from minilm.architectures.building_blocks import d, h
from minilm.architectures.config_fields import Config, is_version_4, sides, size
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import matrix, once
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial

_DEFAULTS = {
    "vocab_size": 33201,
    "d_model": 1024,
    "d_ff": 4096,
    "num_layers": 24,
    "num_heads": 16,
}
_LARGEST = 64  # kinds of distance


def layout(config: Config) -> Layout:
    """The tensors of UdopForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    given = {key: value for key, value in config.items() if value is not None}
    text = t5.layout({**_DEFAULTS, **given, "model_type": "t5", "tie_word_embeddings": True})
    patch = sides(config, "patch_size", 16)
    pixels = (d, size(config, "num_channels", 3), *patch)
    rows = size(config, "max_2d_position_embeddings", 1024)
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ties = [
        (f"encoder.embed_patches.proj.{n}", f"patch_embed.proj.{n}") for n in ("weight", "bias")
    ]
    distances = _distances(config)
    biases = [f"{stack}.relative_bias.biases" for stack in ("encoder", "decoder")]
    if distances:
        ties += [(f"{name}.0.relative_attention_bias.weight", first) for name in biases]
    position = components.POSITION_EMBEDDING
    return replace(
        text,
        family="udop",
        tensors=(
            *text.tensors,
            *matrix("patch_embed.proj", pixels),
            *(() if is_version_4(config) else matrix("decoder.embed_patches.proj", pixels)),
            *(
                once(f"encoder.cell_2d_embedding.{axis}_position_embeddings.weight", (rows, d))
                for axis in "xy"
            ),
            *(
                Tensor(
                    f"{name}.{number}.relative_attention_bias.weight",
                    (as_polynomial(buckets), h),
                    position,
                    Role.LOOKED_UP,
                )
                for name in biases
                for number, buckets in enumerate(distances)
                if number
            ),
        ),
        ties=(*text.ties, *ties),
    )


def _distances(config: Config) -> list[int]:
    """The rows of the tables of relative positions."""
    listed = config.get("relative_bias_args")
    if listed is None:
        return [32] * 3
    if not isinstance(listed, list) or len(listed) > _LARGEST:
        raise ConfigError("config.json: relative_bias_args", shortened(listed), "a list of objects")
    if not all(isinstance(each, Mapping) for each in listed):
        raise ConfigError("config.json: relative_bias_args", shortened(listed), "a list of objects")
    return [size(each, "relative_attention_num_buckets", 32) for each in listed]
