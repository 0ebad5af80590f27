"""VibeVoice ASR: two tokenizers over a waveform, of its sound and of its meaning, and a declared text model.

Each is a stack of convolutions whose stages double the channels. They are used once a sound, not once a
token. Names, shapes and defaults: huggingface/transformers
`models/{vibevoice_asr,vibevoice_acoustic_tokenizer}`.
"""

from __future__ import annotations

from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, size, sizes, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import UndeclaredClassError, whole_or_body
from minilm.architectures.vision_tower import Part, gain, heard, matrix, once, projector
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import as_polynomial

_MODEL = Model(
    "qwen2",
    "",
    lambda config, vision, name: (),
    inside="language_model.",
    never_tied=True,
)
_TYPE = "vibevoice_acoustic_tokenizer_encoder"


def layout(config: Config) -> Layout:
    """The tensors of this type's ForConditionalGeneration, and of its body, for a config.json."""
    text = text_layout(config, _MODEL)
    towers: list[Part] = []
    between: list[Tensor] = []
    for kind in ("acoustic", "semantic"):
        tower = f"{kind}_tokenizer_encoder"
        bare = {"hidden_size": 128} if kind == "semantic" else {}
        fields = sub_config(config, f"{tower}_config", bare=bare)
        towers.append(_tokenizer(fields, tower))
        heard, maps = size(fields, "hidden_size", 64), f"multi_modal_projector.{kind}"
        between += matrix(f"{maps}_linear_1", (d, heard))
        between.append(gain(f"{maps}_norm", d))
        between += matrix(f"{maps}_linear_2", (d, d))
    whole = joined(text, config["model_type"], *towers, Part(projector(between)))
    return whole_or_body(whole, config)


def _tokenizer(config: Config, name: str) -> Part:
    kind = config.get("model_type") or _TYPE
    if kind != _TYPE:
        raise UndeclaredClassError(f"config.json: {name}_config", shortened(kind), _TYPE)
    ratios = sizes(config, "downsampling_ratios", (2, 2, 4, 5, 5, 8))
    depths = sizes(config, "depths", (3, 3, 3, 3, 3, 3, 8))
    if len(depths) <= len(ratios):
        expected = f"{len(ratios) + 1} sizes"
        raise ConfigError("config.json: depths", f"{len(depths)} sizes", expected)
    width, taps = size(config, "num_filters", 32), size(config, "kernel_size", 7)
    inputs = size(config, "channels", 1)
    tensors = [
        *matrix(f"{name}.stem.conv.conv", (width, inputs, taps)),
        *_stage(config, f"{name}.stem.stage", width, depths[0]),
    ]
    for i, ratio in enumerate(ratios):
        layer = f"{name}.conv_layers.{i}"
        tensors += matrix(f"{layer}.conv.conv", (2 * width, width, 2 * ratio))
        width *= 2
        tensors += _stage(config, f"{layer}.stage", width, depths[i + 1])
    tensors += matrix(f"{name}.head.conv", (size(config, "hidden_size", 64), width, taps))
    return heard(Part(tuple(tensors)))


def _stage(config: Config, name: str, width: int, depth: int) -> Tensors:
    """Blocks of a convolution of each channel and a feed-forward, both scaled."""
    block, many, wide = f"{name}.{{i}}", as_polynomial(depth), as_polynomial(width)
    inner = width * size(config, "ffn_expansion", 4)
    return (
        *(once(f"{block}.{n}", (width,), Role.SCALED, many) for n in ("gamma", "ffn_gamma")),
        gain(f"{block}.norm", wide, many),
        gain(f"{block}.ffn_norm", wide, many),
        *matrix(f"{block}.ffn.linear1", (inner, width), many),
        *matrix(f"{block}.ffn.linear2", (width, inner), many),
        *matrix(f"{block}.mixer.conv", (width, 1, size(config, "kernel_size", 7)), many),
    )
