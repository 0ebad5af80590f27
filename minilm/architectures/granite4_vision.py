"""Granite 4 Vision: CLIP's tower, and a querying transformer for each layer of the text that sees it.

Names, shapes and defaults: huggingface/transformers `models/granite4_vision`.
"""

from __future__ import annotations

from reprlib import repr as shortened

from minilm.architectures.blip2 import asking
from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, is_whole_number, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import whole_or_body
from minilm.architectures.towers import tower
from minilm.architectures.vision_tower import Part, W, in_numbers, matrix, once, projector, vector
from minilm.config.validation import LARGEST_LAYER_COUNT
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Tensors

_MODEL = Model(
    "granite4_vision_text",
    "clip_vision_model",
    lambda config, vision, name: (),
    below="model.language_model.",
    tied=False,
    texts={"granite4_vision_text": "granite"},
)


def layout(config: Config) -> Layout:
    """The tensors of Granite4VisionForConditionalGeneration, and of its body, for a config.json."""
    vision = sub_config(config, "vision_config")
    seeing = tower(vision, _MODEL.tower, _MODEL.vision)
    width = size(vision, "hidden_size", 768)
    pairs = config.get("deepstack_layer_map") or ()
    if not isinstance(pairs, (list, tuple)) or len(pairs) > LARGEST_LAYER_COUNT:
        raise ConfigError("config.json: deepstack_layer_map", shortened(pairs), "a list of pairs")
    names = (
        *(f"model.layerwise_projectors.{i}" for i in range(len(pairs))),
        *(f"model.spatial_projectors.{i}" for i in range(4)),  # one for each quarter
    )
    between = (
        once("model.image_newline", (d,)),
        *(t for name in names for t in _projector(config, width, name)),
    )
    text = text_layout(config, _MODEL)
    whole = joined(text, "granite4_vision", seeing, Part(projector(between)))
    return whole_or_body(whole, config)


def _projector(config: Config, width: int, name: str) -> Tensors:
    given = sub_config(config, "qformer_config")
    if config.get("qformer_config") is None:
        given = {"num_hidden_layers": 1, "cross_attention_frequency": 1}
    fields = {**given, "encoder_hidden_size": width}
    depth = layers(fields, "num_hidden_layers", 12)
    queries, window = _sides(config)
    reading = asking(fields, depth, f"{name}.qformer")
    return (
        once(f"{name}.query", (1, queries**2, W)),
        once(f"{name}.image_positions", (1, window**2, W)),
        *in_numbers(Part(reading, {"a": width, "z": depth})).tensors,
        *vector(f"{name}.norm", W),
        *matrix(f"{name}.out_linear", (d, W)),
    )


def _sides(config: Config) -> tuple[int, int]:
    """Of the queries' square and of the window's, written as a fraction."""
    rate = config.get("downsample_rate")
    parts = rate.split("/") if isinstance(rate, str) else []
    if len(parts) != 2 or not all(map(is_whole_number, parts)):
        raise ConfigError("config.json: downsample_rate", shortened(rate), "two numbers as in 4/8")
    queries, window = (size({"downsample_rate": int(part)}, "downsample_rate") for part in parts)
    return queries, window
