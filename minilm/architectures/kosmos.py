"""KOSMOS-2 and 2.5: a decoder with norms inside attention and feed-forward, and a picture that queries read.

The first sees by CLIP's tower, the second by Pix2Struct's. Names, shapes and defaults:
huggingface/transformers `models/{kosmos2,kosmos2_5}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bart_decoder import Variant, decoder_of
from minilm.architectures.building_blocks import d, f, norm
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.encoder_layers import lookup
from minilm.architectures.joint_text import joined
from minilm.architectures.pix2struct import patches
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    Part,
    W,
    clip_tower,
    matrix,
    once,
    projector,
    vision_symbols,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensors

_SECOND = Variant(
    vocabulary=65037,
    layers=24,
    heads=(2048, 32, None, None),
    feed_forward=8192,
    context=2048,
    positions=None,
    has_embedding_norm=False,
    has_final_norm=True,
    has_cross_attention=False,
    body="model",
    fields=("embed_dim", "attention_heads", "layers", "ffn_dim", "max_position_embeddings"),
)
_VARIANTS = {
    "kosmos-2": _SECOND,
    "kosmos-2.5": replace(
        _SECOND, vocabulary=108481, heads=(1536, 16, None, None), feed_forward=6144, context=4096
    ),
}
_TEXTS = {"kosmos-2": "kosmos_2_text_model", "kosmos-2.5": "kosmos_2_5_text_model"}


def layout(config: Config) -> Layout:
    """The tensors of Kosmos2 and Kosmos2_5ForConditionalGeneration for a config.json."""
    name, family = class_name_of(config), config["model_type"]
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    vision = sub_config(config, "vision_config")
    tower = _clip(vision) if family == "kosmos-2" else _patches(vision)
    queries = size(config, "latent_query_num", 64 if family == "kosmos-2" else 2048)
    return joined(_text(config, family), family, tower, Part(_reading(queries)))


def _text(config: Config, family: str) -> Layout:
    fields = {**sub_config(config, "text_config", _TEXTS[family]), "model_type": family}
    own = flag(fields, "tie_word_embeddings", True)
    whole = family == "kosmos-2" and flag(config, "tie_word_embeddings", True)
    fields["tie_word_embeddings"] = own or whole
    text, block = decoder_of(fields, _VARIANTS[family]), "model.layers.{i}"
    inside = components.ATTENTION_OUTPUT_NORM
    segments = lookup("model.segment_emb", 2, components.TOKEN_TYPE_EMBEDDING)
    more = (
        *norm(f"{block}.ffn.ffn_layernorm", components.FEED_FORWARD_NORM, width=f, bias=True),
        *(
            norm(f"{block}.self_attn.inner_attn_ln", inside, bias=True)
            if family == "kosmos-2"
            else (segments,)
        ),
    )

    def moved(name: str) -> str:
        return "text_model." + name.replace(".fc", ".ffn.fc")

    return replace(
        text,
        tensors=tuple(replace(t, name=moved(t.name)) for t in (*text.tensors, *more)),
        ties=tuple((moved(head), moved(table)) for head, table in text.ties),
    )


def _clip(config: Config) -> Part:
    symbols = vision_symbols(config, width=1024, depth=24, inner=4096, image=224, patch=14)
    channels, patch = size(config, "num_channels", 3), size(config, "patch_size", 14)
    return Part(clip_tower("vision_model.model", channels=channels, patch=patch), symbols)


def _patches(config: Config) -> Part:
    return patches(
        config,
        "vision_model",
        inside="vision_model.encoder",
        fields=("head_dim", "intermediate_size", "max_num_patches"),
        defaults=(1536, 18, 24, 3968),
    )


def _reading(queries: int) -> Tensors:
    name = "image_to_text_projection"
    maps = (f"{name}.x_attn.{n}" for n in ("k_proj", "v_proj", "q_proj", "out_proj"))
    return projector(
        [
            once(f"{name}.latent_query", (queries, d)),
            *matrix(f"{name}.dense", (d, W)),
            *(t for each in maps for t in matrix(each, (d, d))),
        ]
    )
