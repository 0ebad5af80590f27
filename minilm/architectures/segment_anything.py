"""SAM (Segment Anything): the tower of `sam.py`, tables for points, boxes and masks, and a decoder of masks.

What a prompt costs depends on its points: no FLOPs are told. Names, shapes and defaults:
huggingface/transformers `models/sam`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import L, d, f
from minilm.architectures.config_fields import (
    Config,
    flag,
    head_width,
    is_version_4,
    layers,
    quotient,
    size,
    sub_config,
)
from minilm.architectures.sam import sam_tower, with_ratio
from minilm.architectures.task_heads import class_ending
from minilm.architectures.vision_parts import (
    attention,
    convolution,
    feed_forward,
    in_layers,
    joined,
    linear,
    norm,
    parameter,
    under,
)
from minilm.architectures.vision_tower import Part, Width
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role

_POSITIONS, _POSITIONS_AGAIN = (
    f"{part}.positional_embedding"
    for part in ("shared_image_embedding", "prompt_encoder.shared_embedding")
)
_HEADS = "q_proj", "k_proj", "v_proj", "out_proj"
_RATE = 2  # of attention in the layers, whatever config.json says: that is for the last one
_PROMPTS, _MASKS = components.POSITION_EMBEDDING, components.CLASSIFIER


def layout(config: Config) -> Layout:
    """The tensors of SamModel for a config.json."""
    class_ending(config, ("Model",))
    vision = sub_config(config, "vision_config")
    are_buffers = is_version_4(
        config
    )  # in transformers 4 the random matrix of positions is no parameter
    tied = flag(config, "tie_word_embeddings", True) and not are_buffers
    names = (_POSITIONS,) if tied else (_POSITIONS, _POSITIONS_AGAIN)
    width = size(vision, "num_pos_feats", 128)
    positions = tuple(parameter(name, (2, width), _PROMPTS) for name in names)
    whole = joined(
        *(() if are_buffers else positions),
        sam_tower(with_ratio(vision), "vision_encoder"),
        under("prompt_encoder.", _prompts(sub_config(config, "prompt_encoder_config"))),
        under("mask_decoder.", _masks(sub_config(config, "mask_decoder_config"))),
    )
    ties = ((_POSITIONS_AGAIN, _POSITIONS),) if tied else ()
    buffers = joined(*positions).tensors if are_buffers else ()
    return Layout(config["model_type"], whole.tensors, whole.symbols, ties, buffers=buffers)


def _prompts(config: Config) -> Part:
    """A row for each kind of point, and convolutions over a mask that is given."""
    width, channels = size(config, "hidden_size", 256), size(config, "mask_input_channels", 16)
    few = quotient(channels, 4, "mask_input_channels", "4")
    points = (f"point_embed.{i}" for i in range(layers(config, "num_point_embeddings", 4)))
    rows = ("no_mask_embed", *points, "not_a_point_embed")
    part = components.CONVOLUTIONS
    return joined(
        convolution("mask_embed.conv1", few, 1, 2, part, bias=True),
        convolution("mask_embed.conv2", channels, few, 2, part, bias=True),
        convolution("mask_embed.conv3", width, channels, 1, part, bias=True),
        norm("mask_embed.layer_norm1", few),
        norm("mask_embed.layer_norm2", 4 * few),
        *(parameter(f"{row}.weight", (1, width), _PROMPTS) for row in rows),
    )


def _masks(config: Config) -> Part:
    """Tokens of the masks and the prompt see each other, then the picture, and the picture them."""
    width, heads = size(config, "hidden_size", 256), size(config, "num_attention_heads", 8)
    rate, field = size(config, "attention_downsample_rate", 2), "attention_downsample_rate"
    inner = quotient(width, rate, "hidden_size", field)
    half = quotient(width, _RATE, "hidden_size", field)
    for each in (width, half, inner):
        head_width(each, heads, "hidden_size")
    count = layers(config, "num_multimask_outputs", 3) + 1
    block = "transformer.layers.{i}"
    own = " ".join(f"{block}.self_attn.{name}" for name in _HEADS)
    layer = joined(
        attention(own, d),
        norm(f"{block}.layer_norm1", d, components.ATTENTION_OUTPUT_NORM),
        _crossing(f"{block}.cross_attn_token_to_image", half),
        norm(f"{block}.layer_norm2", d, components.CROSS_ATTENTION),
        feed_forward(f"{block}.mlp.lin1 {block}.mlp.lin2", d, f),
        norm(f"{block}.layer_norm3", d, components.FEED_FORWARD_OUTPUT_NORM),
        _crossing(f"{block}.cross_attn_image_to_token", half),
        norm(f"{block}.layer_norm4", d, components.CROSS_ATTENTION),
    )
    inside, depth = size(config, "iou_head_hidden_dim", 256), layers(config, "iou_head_depth", 3)
    symbols = {
        "d": width,
        "L": layers(config, "num_hidden_layers", 2),
        "f": size(config, "mlp_dim", 2048),
    }
    return joined(
        parameter("iou_token.weight", (1, d), components.TOKEN_EMBEDDING),
        parameter("mask_tokens.weight", (count, d), components.TOKEN_EMBEDDING),
        in_layers(layer, L),
        _crossing("transformer.final_attn_token_to_image", inner),
        norm("transformer.layer_norm_final_attn", d, components.FINAL_NORM),
        _wider("upscale_conv1", width, width // 4),
        _wider("upscale_conv2", width // 4, width // 8),
        norm("upscale_layer_norm", width // 4),
        *(
            _perceptron(f"output_hypernetworks_mlps.{i}", (width, width, width // 8), 3)
            for i in range(count)
        ),
        _perceptron("iou_prediction_head", (width, inside, count), depth),
    )._replace(symbols=symbols)


def _crossing(name: str, inner: int) -> Part:
    """Attention between tokens and picture, narrower than both."""
    part = components.CROSS_ATTENTION
    return joined(
        *(linear(f"{name}.{each}", inner, d, part) for each in _HEADS[:3]),
        linear(f"{name}.{_HEADS[3]}", d, inner, part),
    )


def _wider(name: str, inputs: int, outputs: int) -> Part:
    """A transposed convolution, whose inputs stand first: each place becomes four."""
    part = components.CONVOLUTIONS
    return joined(
        parameter(f"{name}.weight", (inputs, outputs, 2, 2), part),
        parameter(f"{name}.bias", (outputs,), part, Role.ADDED),
    )


def _perceptron(name: str, widths: tuple[Width, Width, Width], depth: int) -> Part:
    inputs, inner, outputs = widths
    return joined(
        linear(f"{name}.proj_in", inner, inputs, _MASKS),
        linear(f"{name}.proj_out", outputs, inner, _MASKS),
        *(linear(f"{name}.layers.{i}", inner, inner, _MASKS) for i in range(depth - 2)),
    )
