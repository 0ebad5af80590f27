"""CLAP: Swin over spectrograms beside RoBERTa over text, whole, or one of them with its projection.

A sound and a text are compared once; FLOPs of a token are those of the text's. Each stage of Swin has a width
of its own. Names, shapes and defaults: huggingface/transformers `models/clap`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bert_heads import layout as bert_layout
from minilm.architectures.config_fields import (
    Config,
    depths,
    flag,
    sides,
    size,
    sub_config,
)
from minilm.architectures.staged_vision import heads_of, stages
from minilm.architectures.swin import swin_stages
from minilm.architectures.task_heads import class_name_of, undeclared_class
from minilm.architectures.vision_parts import joined, under
from minilm.architectures.vision_tower import (
    Part,
    heard,
    matrix,
    projector,
    running_statistics,
    vector,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, symbol

T = symbol("T")
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family, name = config["model_type"], class_name_of(config)
    if family == "clap":
        if name and not name.endswith("ClapModel"):
            raise undeclared_class(config)
        shared = {"projection_dim": size(config, "projection_dim", 512)}
        text = _text({**sub_config(config, "text_config"), **shared}, "text_model.")
        sound = _sound({**sub_config(config, "audio_config"), **shared}, "audio_model.")
        scales = (Tensor(f"logit_scale_{n}", (), components.CLASSIFIER, Role.SCALED) for n in "at")
        return replace(
            text,
            family=family,
            tensors=(*text.tensors, *sound.tensors, *scales),
            buffers=(*text.buffers, *sound.buffers),
        )
    if name and not name.endswith(("Model", "WithProjection")):
        raise undeclared_class(config)
    projected = name.endswith("WithProjection")
    if family == "clap_text_model":
        return replace(_text(config, "text_model." if projected else ""), family=family)
    part = _sound(config, "audio_model." if projected else "")
    return Layout(family, part.tensors, {}, buffers=part.buffers)


def _projection(config: Config, name: str) -> Tensors:
    """Two maps behind the body of a config."""
    inner, width = size(config, "projection_dim", 512), size(config, "hidden_size", 768)
    maps = (*matrix(f"{name}.linear1", (inner, width)), *matrix(f"{name}.linear2", (inner, inner)))
    return projector(maps)


def _text(config: Config, prefix: str) -> Layout:
    given = {name: value for name, value in config.items() if value is not None}
    fields = {**_ROBERTA, **given, "model_type": "roberta", "architectures": ["RobertaModel"]}
    body = bert_layout(fields)
    buffers = (
        Tensor(f"{prefix}embeddings.{name}_ids", (ONE, T), part, Role.ONCE)
        for name, part in (
            ("position", components.POSITION_EMBEDDING),
            ("token_type", components.TOKEN_TYPE_EMBEDDING),
        )
    )
    return replace(
        body,
        tensors=(
            *(replace(t, name=prefix + t.name) for t in body.tensors),
            *(_projection(config, "text_projection") if prefix else ()),
        ),
        buffers=tuple(buffers),
    )


def _sound(config: Config, prefix: str) -> Part:
    encoder = f"{prefix}audio_encoder"
    first, bands = size(config, "patch_embeds_hidden_size", 96), size(config, "num_mel_bins", 64)
    layers = depths(config, "depths", (2, 2, 6, 2))
    each = stages(layers, [first * 2**stage for stage in range(len(layers))])
    heads = heads_of(config, "num_attention_heads", (4, 8, 16, 32), [s.value for s in each])
    patches, norms = f"{encoder}.patch_embed", [(f"{encoder}.batch_norm", bands)]
    if flag(config, "enable_fusion", False):
        norms += _fusion_norms(config, f"{patches}.fusion_model", first)
    window = {"window_size": size(config, "window_size", 8)}
    sound = joined(
        Part(_patches(config, patches, first)),
        under(f"{encoder}.", swin_stages({**config, **window}, each, heads)),
        Part(vector(f"{encoder}.batch_norm", bands)),
        Part(vector(f"{encoder}.norm", each[-1].value)),
        *(Part((), buffers=running_statistics(name, width)) for name, width in norms),
    )
    projection = _projection(config, "audio_projection") if prefix else ()
    return joined(heard(sound), Part(projection))


def _patches(config: Config, name: str, width: int) -> Tensors:
    """Squares of the spectrogram; with fusion also wide ones, and how much of each is taken."""
    inputs, patch = size(config, "patch_embed_input_channels", 1), sides(config, "patch_size", 4)
    fused = flag(config, "enable_fusion", False)
    many = 4 if fused and config.get("fusion_type") == "channel_map" else 1
    tensors = [*matrix(f"{name}.proj", (width, many * inputs, *patch))]
    if flag(config, "enable_patch_layer_norm", True):
        tensors += vector(f"{name}.norm", width)
    if not fused:
        return tuple(tensors)
    inner = width // size(config, "aff_block_r", 4)
    for kind, start in _ATTENDED:
        block = f"{name}.fusion_model.{kind}"
        tensors += matrix(f"{block}.{start}", (inner, width, 1, 1))
        tensors += matrix(f"{block}.{start + 3}", (width, inner, 1, 1))
    for gain, wide in _fusion_norms(config, f"{name}.fusion_model", width):
        tensors += vector(gain, wide)
    height, breadth = patch
    return (*tensors, *matrix(f"{name}.mel_conv2d", (width, inputs, height, 3 * breadth)))


# Parts of the fusion, and the number of the first convolution in each.
_ATTENDED = (("local_att", 0), ("global_att", 1))


def _fusion_norms(config: Config, name: str, width: int) -> list[tuple[str, int]]:
    inner = width // size(config, "aff_block_r", 4)
    return [
        (f"{name}.{kind}.{start + after}", wide)
        for kind, start in _ATTENDED
        for after, wide in ((1, inner), (4, width))
    ]
