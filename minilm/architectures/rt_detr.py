"""RT-DETR, which finds objects: a ResNet of its own, maps of three sizes joined, and a decoder of queries.

What a query costs depends on the size of the picture: no FLOPs are told. Names, shapes and defaults:
huggingface/transformers `models/rt_detr`.
"""

from __future__ import annotations

from itertools import pairwise
from reprlib import repr as shortened

from minilm.architectures.building_blocks import L, d, f
from minilm.architectures.config_fields import (
    Config,
    choice,
    depths,
    few,
    flag,
    head_width,
    layers,
    listed,
    scaled_size,
    size,
    sizes,
    sub_config,
    whole_number,
)
from minilm.architectures.convolutions import frozen, normed_convolution, stage
from minilm.architectures.resnet import basic_block, bottleneck_block
from minilm.architectures.task_heads import C, UndeclaredClassError, number_of_classes
from minilm.architectures.vision_parts import (
    NOTHING,
    as_class,
    attention,
    batch_norm,
    convolution,
    feed_forward,
    in_layers,
    joined,
    linear,
    norm,
    output_maps,
    parameter,
    under,
)
from minilm.architectures.vision_tower import F, Part, W, Width, Y
from minilm.ledger import components
from minilm.ledger.layout import Layout

_HEADS = "q_proj k_proj v_proj out_proj"
_WIDTHS, _DEPTHS = (256, 512, 1024, 2048), (3, 4, 6, 3)
_HEAD, _CROSSES = components.CLASSIFIER, components.CROSS_ATTENTION


def layout(config: Config) -> Layout:
    """The tensors of a class of RT-DETR for a config.json."""
    body = joined(_network(config), _encoder(config), _queries(config), _decoder(config))
    found = [
        joined(
            linear(f"decoder.class_embed.{i}", C, d, _HEAD),
            _perceptron(f"decoder.bbox_embed.{i}", d, d, d, 4),
        )
        for i in range(layers(config, "decoder_layers", 6))
    ]
    whole = under("model.", body, *found)
    return as_class(config, {"Model": body, "ForObjectDetection": whole})


def _network(config: Config) -> Part:
    """The ResNet, whose stem has three convolutions, and what makes its maps equally wide."""
    bare = {"out_indices": [2, 3, 4]}
    inner = sub_config(config, "backbone_config", "rt_detr_resnet", bare=bare)
    kind = inner.get("model_type") or "rt_detr_resnet"
    if kind != "rt_detr_resnet":
        raise UndeclaredClassError(
            "config.json: backbone_config", shortened(kind), "rt_detr_resnet"
        )
    widths, numbers = sizes(inner, "hidden_sizes", _WIDTHS), depths(inner, "depths", _DEPTHS)
    names = ("basic", "bottleneck")
    is_basic = choice(inner, "layer_type", "bottleneck", names) == "basic"
    first, channels = size(inner, "embedding_size", 64), size(inner, "num_channels", 3)
    stem = (channels, first // 2, first // 2, first)
    parts = [
        normed_convolution(f"embedder.embedder.{i}", stem[i + 1], stem[i], 3, components.STEM)
        for i in range(3)
    ]
    inputs = first
    for index, (outputs, depth) in enumerate(zip(widths, numbers, strict=False)):
        name = f"encoder.stages.{index}.layers"
        narrows = index > 0 or flag(inner, "downsample_in_first_stage", False)
        if is_basic or narrows or inputs != outputs:
            pools = inputs != outputs if is_basic else narrows  # before the shortcut
            shortcut = f"{name}.0.shortcut" + (".1" if pools else "")
            parts.append(normed_convolution(shortcut, outputs, inputs, 1, components.SHORTCUT))
        block = basic_block if is_basic else bottleneck_block
        parts.append(stage(name, index + 1, depth, (inputs, outputs), block))
        inputs = outputs
    network = joined(*parts)
    if flag(config, "freeze_backbone_batch_norms", True):
        network = frozen(network)
    maps = [width for _, width in output_maps(inner, [first, *widths], _DEPTHS)]
    return joined(
        under("backbone.model.", network),
        *(_projection(f"encoder_input_proj.{i}", W, width) for i, width in enumerate(maps)),
    )


def _projection(name: str, outputs: Width, inputs: Width, kernel: int = 1) -> Part:
    part = components.PROJECTOR
    return joined(
        convolution(f"{name}.0", outputs, inputs, kernel, component=part),
        batch_norm(f"{name}.1", outputs),
    )


def _encoder(config: Config) -> Part:
    """Attention within the smallest map, and convolutions that join the maps, down and up."""
    width = size(config, "encoder_hidden_dim", 256)
    head_width(width, size(config, "encoder_attention_heads", 8), "encoder_hidden_dim")
    inner = scaled_size(config, "hidden_expansion", 1.0, width)
    maps = few("encode_proj_layers", len(listed(config, "encode_proj_layers", (2,))))
    joints = few("encoder_in_channels", len(listed(config, "encoder_in_channels", (0, 0, 0)))) - 1
    parts = [_encoder_layer(f"encoder.encoder.{i}.layers.{{i}}") for i in range(maps)]
    for i in range(joints):
        parts += [
            _convolved(f"encoder.lateral_convs.{i}", W, W),
            _joint(f"encoder.fpn_blocks.{i}", width, inner),
            _convolved(f"encoder.downsample_convs.{i}", W, W, 3),
            _joint(f"encoder.pan_blocks.{i}", width, inner),
        ]
    symbols = {
        "W": width,
        "Y": layers(config, "encoder_layers", 1),
        "F": size(config, "encoder_ffn_dim", 1024),
    }
    return joined(*parts)._replace(symbols=symbols)


def _encoder_layer(name: str) -> Part:
    layer = joined(
        attention(" ".join(f"{name}.self_attn.{each}" for each in _HEADS.split()), W),
        norm(f"{name}.self_attn_layer_norm", W, components.ATTENTION_OUTPUT_NORM),
        feed_forward(f"{name}.fc1 {name}.fc2", W, F),
        norm(f"{name}.final_layer_norm", W, components.FEED_FORWARD_OUTPUT_NORM),
    )
    return in_layers(layer, Y)


def _convolved(name: str, outputs: Width, inputs: Width, kernel: int = 1) -> Part:
    return joined(
        convolution(f"{name}.conv", outputs, inputs, kernel), batch_norm(f"{name}.norm", outputs)
    )


def _joint(name: str, width: int, inner: int) -> Part:
    """Two maps side by side become one: a way with three blocks, and a way past them."""
    blocks = [
        _convolved(f"{name}.bottlenecks.{i}.conv{number}", inner, inner, kernel)
        for i in range(3)
        for number, kernel in ((1, 3), (2, 1))
    ]
    return joined(
        *(_convolved(f"{name}.conv{number}", inner, 2 * W) for number in (1, 2)),
        *blocks,
        _convolved(f"{name}.conv3", W, inner) if inner != width else NOTHING,
    )


def _queries(config: Config) -> Part:
    """What chooses the places that queries begin with, and tables of them."""
    table, count = components.TOKEN_EMBEDDING, size(config, "num_queries", 300)
    noised = whole_number(config, "num_denoising", 100) > 0
    learned = flag(config, "learn_initial_query", False)
    return joined(
        parameter("denoising_class_embed.weight", (C + 1, d), table) if noised else NOTHING,
        parameter("weight_embedding.weight", (count, d), table) if learned else NOTHING,
        linear("enc_output.0", d, d, components.PROJECTOR),
        norm("enc_output.1", d, components.FINAL_NORM),
        linear("enc_score_head", C, d, _HEAD),
        _perceptron("enc_bbox_head", d, d, d, 4),
    )._replace(symbols={"C": number_of_classes(config)})


def _decoder(config: Config) -> Part:
    """Queries see each other, and some points of each map around them."""
    width, heads = size(config, "d_model", 256), size(config, "decoder_attention_heads", 8)
    head_width(width, heads, "d_model")
    levels = few("num_feature_levels", size(config, "num_feature_levels", 3))
    points = heads * levels * size(config, "decoder_n_points", 4)
    maps = sizes(config, "decoder_in_channels", (256, 256, 256))
    name = "decoder.layers.{i}"
    layer = joined(
        attention(" ".join(f"{name}.self_attn.{each}" for each in _HEADS.split()), d),
        norm(f"{name}.self_attn_layer_norm", d, components.ATTENTION_OUTPUT_NORM),
        linear(f"{name}.encoder_attn.sampling_offsets", 2 * points, d, _CROSSES),
        linear(f"{name}.encoder_attn.attention_weights", points, d, _CROSSES),
        linear(f"{name}.encoder_attn.value_proj", d, d, _CROSSES),
        linear(f"{name}.encoder_attn.output_proj", d, d, _CROSSES),
        norm(f"{name}.encoder_attn_layer_norm", d, _CROSSES),
        feed_forward(f"{name}.fc1 {name}.fc2", d, f),
        norm(f"{name}.final_layer_norm", d, components.FEED_FORWARD_OUTPUT_NORM),
    )
    # Further maps are made of the last one.
    further = [(maps[-1] if i == len(maps) else d, 3) for i in range(len(maps), levels)]
    inputs: list[tuple[Width, int]] = [*((each, 1) for each in maps), *further]
    symbols = {
        "d": width,
        "L": layers(config, "decoder_layers", 6),
        "f": size(config, "decoder_ffn_dim", 1024),
    }
    return joined(
        *(
            _projection(f"decoder_input_proj.{i}", d, each, kernel)
            for i, (each, kernel) in enumerate(inputs)
        ),
        in_layers(layer, L),
        _perceptron("decoder.query_pos_head", 4, 2 * d, d),
    )._replace(symbols=symbols)


def _perceptron(name: str, *widths: Width) -> Part:
    """As many maps as there are steps from width to width."""
    steps = enumerate(pairwise(widths))
    return joined(
        *(linear(f"{name}.layers.{i}", outputs, inputs, _HEAD) for i, (inputs, outputs) in steps)
    )
