"""DETR and Table Transformer, which find objects: a ResNet, and an encoder and decoder over its last map.

The ResNet is that of transformers or under timm's names; its batch norms are not trained. What a query costs
depends on the size of the picture: no FLOPs are told. Names, shapes and defaults: huggingface/transformers
`models/{detr,table_transformer}` and huggingface/pytorch-image-models `timm/models/resnet.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from reprlib import repr as shortened

from minilm.architectures.building_blocks import L, d, f
from minilm.architectures.config_fields import (
    Config,
    choice,
    flag,
    layers,
    size,
    sizes,
    sub_config,
)
from minilm.architectures.convolutions import Block, frozen, stage
from minilm.architectures.resnet import resnet
from minilm.architectures.task_heads import (
    C,
    UndeclaredClassError,
    class_name_of,
    number_of_classes,
)
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
    under,
)
from minilm.architectures.vision_tower import F, Part, Width, Y, once
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import Polynomial, symbol

_QUERIES = symbol("q")
_STAGES = (3, 4, 6, 3)


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    network, maps = _network(config)
    body = _body(config, network, maps[-1])
    found = joined(under("model.", body), _boxes(config))
    classes = {"Model": body, "ForObjectDetection": found}
    ending = "ForSegmentation"
    if config["model_type"] == "detr" and class_name_of(config).endswith(ending):
        classes[ending] = joined(under("detr.", found), _masks(config, maps))
    return as_class(config, classes)


def _network(config: Config) -> tuple[Part, list[int]]:
    """The network under the picture, and the widths of the maps that it gives out."""
    inner = sub_config(config, "backbone_config")
    if not inner:
        inner = _named_network(config)
    kind = inner.get("model_type")
    if kind == "resnet":
        network, _ = resnet(inner)
        widths = [size(inner, "embedding_size", 64)]
        widths += sizes(inner, "hidden_sizes", (256, 512, 1024, 2048))
        return frozen(network), [width for _, width in output_maps(inner, widths, _STAGES)]
    if kind == "timm_backbone":
        return _timm_network(inner)
    raise UndeclaredClassError("config.json: backbone_config", shortened(kind), "a ResNet")


def _named_network(config: Config) -> Config:
    """The `backbone_config` that older fields stand for."""
    more, name = sub_config(config, "backbone_kwargs"), config.get("backbone")
    if flag(config, "use_timm_backbone", True) and not more:
        more = {"out_indices": [1, 2, 3, 4], "num_channels": size(config, "num_channels", 3)}
    elif name is None:
        return {"model_type": "resnet", "out_features": ["stage4"]}
    return {**more, "model_type": "timm_backbone", "backbone": name}


_TIMM: Mapping[str, tuple[tuple[int, ...], bool]] = {  # layers, and whether they narrow
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


def _timm_network(config: Config) -> tuple[Part, list[int]]:
    name = config.get("backbone") or "resnet50"
    if not isinstance(name, str) or name not in _TIMM:
        raise UndeclaredClassError("config.json: backbone", shortened(name), "a ResNet of timm")
    listed = config.get("out_indices") or [-1]
    if not isinstance(listed, list) or any(
        type(each) is not int or not -5 <= each <= 4 for each in listed
    ):
        raise ConfigError("config.json: out_indices", shortened(listed), "a list of maps")
    last = max(each % 5 for each in listed)  # what is behind it is not built
    depths, narrows = _TIMM[name]
    channels, stem = size(config, "num_channels", 3), components.STEM
    parts = [convolution("conv1", 64, channels, 7, component=stem), batch_norm("bn1", 64)]
    inputs, widths = 64, [64]
    for number, depth in enumerate(depths[:last], 1):
        outputs = 2 ** (number - 1) * (256 if narrows else 64)
        down, shortcut = f"layer{number}.0.downsample", components.SHORTCUT
        if inputs != outputs:
            parts.append(convolution(f"{down}.0", outputs, inputs, component=shortcut))
            parts.append(batch_norm(f"{down}.1", outputs))
        block: Block = _timm_bottleneck if narrows else _timm_basic
        parts.append(stage(f"layer{number}", number, depth, (inputs, outputs), block))
        inputs = outputs
        widths.append(outputs)
    return frozen(joined(*parts)), [widths[each % 5] for each in listed]


def _timm_basic(name: str, inputs: int, outputs: int) -> Part:
    return joined(
        convolution(f"{name}.conv1", outputs, inputs, 3),
        batch_norm(f"{name}.bn1", outputs),
        convolution(f"{name}.conv2", outputs, outputs, 3),
        batch_norm(f"{name}.bn2", outputs),
    )


def _timm_bottleneck(name: str, inputs: int, outputs: int) -> Part:
    inner = outputs // 4
    return joined(
        convolution(f"{name}.conv1", inner, inputs),
        batch_norm(f"{name}.bn1", inner),
        convolution(f"{name}.conv2", inner, inner, 3),
        batch_norm(f"{name}.bn2", inner),
        convolution(f"{name}.conv3", outputs, inner),
        batch_norm(f"{name}.bn3", outputs),
    )


def _body(config: Config, network: Part, last: int) -> Part:
    width = size(config, "d_model", 256)
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        if width % size(config, name, 8):
            raise ConfigError("config.json: d_model", f"{width}", f"a multiple of {name}")
    is_table = config["model_type"] == "table-transformer"
    positions = "backbone.position_embedding" if is_table else "position_embedding"
    table = components.POSITION_EMBEDDING
    learned = NOTHING
    if choice(config, "position_embedding_type", "sine", ("sine", "learned")) == "learned":
        axes = (f"{positions}.{axis}_embeddings.weight" for axis in ("row", "column"))
        learned = Part(tuple(once(axis, (50, width // 2), component=table) for axis in axes))
    queries = once("query_position_embeddings.weight", (_QUERIES, d), component=table)
    depth = layers(config, "encoder_layers", 6)
    symbols = {
        "d": width,
        "q": size(config, "num_queries", 100),
        "Y": depth,
        "F": size(config, "encoder_ffn_dim", 2048),
        "L": layers(config, "decoder_layers", 6),
        "f": size(config, "decoder_ffn_dim", 2048),
    }
    projection = components.PROJECTOR
    return joined(
        under("backbone.conv_encoder.model.", network),
        learned,
        Part((queries,), symbols),
        convolution("input_projection", d, last, bias=True, component=projection),
        _layer("encoder.layers.{i}", Y, F, crosses=False),
        norm("encoder.layernorm", d, components.FINAL_NORM) if is_table else NOTHING,
        _layer("decoder.layers.{i}", L, f, crosses=True),
        norm("decoder.layernorm", d, components.FINAL_NORM),
    )


def _layer(name: str, repeat: Polynomial, inner: Polynomial, *, crosses: bool) -> Part:
    """A layer of BART's, ``repeat`` times."""
    crossing, after = components.CROSS_ATTENTION, components.ATTENTION_OUTPUT_NORM
    kinds, other = ("q_proj", "k_proj", "v_proj", "out_proj"), f"{name}.encoder_attn"
    parts = [
        attention(" ".join(f"{name}.self_attn.{kind}" for kind in kinds), d),
        norm(f"{name}.self_attn_layer_norm", d, after),
    ]
    if crosses:
        parts += [linear(f"{other}.{kind}", d, d, crossing) for kind in kinds]
        parts.append(norm(f"{other}_layer_norm", d, crossing))
    parts += [
        feed_forward(f"{name}.fc1 {name}.fc2", d, inner),
        norm(f"{name}.final_layer_norm", d, components.FEED_FORWARD_OUTPUT_NORM),
    ]
    return in_layers(joined(*parts), repeat)


def _boxes(config: Config) -> Part:
    """Of each query a class, or none, and four numbers."""
    part = components.CLASSIFIER
    classes = linear("class_labels_classifier", C + 1, d, part)
    return joined(
        classes._replace(symbols={"C": number_of_classes(config)}), perceptron("bbox_predictor", 4)
    )


def perceptron(name: str, outputs: Width) -> Part:
    """Three maps."""
    return joined(
        *(
            linear(f"{name}.layers.{index}", rows, d, components.CLASSIFIER)
            for index, rows in enumerate((d, d, outputs))
        )
    )


def _masks(config: Config, maps: list[int]) -> Part:
    """Of each query a mask: its attention beside the map, and larger maps added on the way up."""
    width = size(config, "d_model", 256)
    heads = size(config, "encoder_attention_heads", 8)
    if len(maps) < 3:
        raise ConfigError("config.json: backbone_config", f"{len(maps)} maps", "3 or more")
    wide, part = width + heads, components.CLASSIFIER
    sides = (wide, wide, *(width // 2**power for power in (1, 2, 3, 4)))
    parts = [linear(f"bbox_attention.{kind}_linear", d, d, part) for kind in "qk"]
    for number, (inputs, outputs) in enumerate(pairwise(sides), 1):
        lay = f"mask_head.lay{number}"
        parts.append(convolution(lay, outputs, inputs, 3, bias=True, component=part))
        parts.append(norm(f"mask_head.gn{number}", outputs, part))
    for number, (each, outputs) in enumerate(zip(maps[::-1][-3:], sides[2:], strict=False), 1):
        name = f"mask_head.adapter{number}"
        parts.append(convolution(name, outputs, each, bias=True, component=part))
    parts.append(convolution("mask_head.out_lay", 1, sides[-1], 3, bias=True, component=part))
    return joined(*parts)
