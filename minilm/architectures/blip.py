"""BLIP: a vision transformer, and BERT as a decoder that attends to what it left, of a picture or a question.

A question, or a text to hold against the picture, is read by a BERT as an encoder.

Names, shapes and defaults: huggingface/transformers `models/blip`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bert_decoder import layout as bert_layout
from minilm.architectures.blip2 import vision_tower
from minilm.architectures.building_blocks import d, linear, norm
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.joint_text import joined
from minilm.architectures.task_heads import WITH_ENCODERS, class_ending
from minilm.architectures.vision_tower import Part, matrix, projector, vision_symbols
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ZERO, as_polynomial

_ANSWERS, _FINDS = "ForQuestionAnswering", "ForImageTextRetrieval"
_TEXT = {"vocab_size": 30524, "num_attention_heads": 8}


def layout(config: Config) -> Layout:
    """The tensors of a class of BLIP, by default BlipForConditionalGeneration, for a config.json."""
    ending = class_ending(config, (WITH_ENCODERS, _ANSWERS, _FINDS))
    text, vision = sub_config(config, "text_config"), sub_config(config, "vision_config")
    tied = any(flag(part, "tie_word_embeddings", True) for part in (config, text))
    fields = {**_TEXT, **text, "model_type": "bert", "tie_word_embeddings": tied}
    body = bert_layout({**fields, "architectures": None})
    seen = size(vision, "hidden_size", 768)  # whatever the text's encoder_hidden_size says
    own = tuple(t for t in body.tensors if "token_type" not in t.name)
    sees = flag(text, "is_decoder", True)
    tensors = (*own, *_cross_attention(seen)) if sees else own
    decoder = replace(
        body,
        tensors=tuple(map(_inside, tensors)),
        buffers=(),
        ties=tuple((f"text_decoder.{a}", f"text_decoder.{b}") for a, b in body.ties),
        attention=(1 + sees) * body.attention,
        optional_prefix="",
    )
    if ending == _ANSWERS:
        decoder = replace(decoder, tensors=(*_once(_reader(tensors)), *decoder.tensors))
    elif ending == _FINDS:
        spans = tuple(replace(kind, cache=ZERO) for kind in decoder.attention)
        both = (*_reader(tensors), *_heads(size(config, "image_text_hidden_size", 256), seen))
        decoder = replace(decoder, tensors=both, ties=(), attention=spans)
    symbols = vision_symbols(vision, width=768, depth=12, inner=3072, image=384, patch=16)
    tower = vision_tower({"patch_size": 16, **vision, "qkv_bias": True})
    return joined(decoder, config["model_type"], Part(tower, symbols))


def _inside(tensor: Tensor) -> Tensor:
    return replace(tensor, name=f"text_decoder.{tensor.name}")


def _reader(tensors: Tensors) -> Tensors:
    """The same as an encoder, without its head."""
    body = (tensor for tensor in tensors if tensor.name.startswith("bert."))
    return tuple(replace(t, name=t.name.replace("bert.", "text_encoder.", 1)) for t in body)


def _once(tensors: Tensors) -> Tensors:
    """For a question, not for a token of the answer."""
    part = components.ENCODER
    roles = ((t, Role.ADDED if t.role is Role.ADDED else Role.ONCE) for t in tensors)
    return tuple(replace(tensor, component=part, role=role) for tensor, role in roles)


def _heads(width: int, seen: int) -> Tensors:
    """What makes a picture and a text comparable, and a classifier of whether they match."""
    matches = matrix("itm_head", (2, d), component=components.CLASSIFIER)
    projections = (*matrix("vision_proj", (width, seen)), *matrix("text_proj", (width, d)))
    return (*projector(projections), *matches)


def _cross_attention(seen: int) -> tuple[Tensor, ...]:
    """Keys and values are made once a picture, of the tower's width."""
    block, part = "bert.encoder.layer.{i}.crossattention", components.CROSS_ATTENTION
    made = tuple(
        tensor
        for name in ("key", "value")
        for tensor in linear(f"{block}.self.{name}", d, as_polynomial(seen), part, bias=True)
    )
    return (
        *linear(f"{block}.self.query", d, d, part, bias=True),
        *(replace(t, role=Role.ONCE) if t.role is Role.MULTIPLIED else t for t in made),
        *linear(f"{block}.output.dense", d, d, part, bias=True),
        *norm(f"{block}.output.LayerNorm", part, bias=True),
    )
