"""BLIP's captioner: a vision transformer, and BERT as a decoder that attends to what it left.

Names, shapes and defaults: huggingface/transformers `models/blip`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bert_decoder import layout as bert_layout
from minilm.architectures.blip2 import vision_tower
from minilm.architectures.building_blocks import d, linear, norm
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.joint_text import joined
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import Part, vision_symbols
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import as_polynomial

_TEXT = {"vocab_size": 30524, "num_attention_heads": 8}


def layout(config: Config) -> Layout:
    """The tensors of BlipForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
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
    symbols = vision_symbols(vision, width=768, depth=12, inner=3072, image=384, patch=16)
    tower = vision_tower({"patch_size": 16, **vision, "qkv_bias": True})
    return joined(decoder, config["model_type"], Part(tower, symbols))


def _inside(tensor: Tensor) -> Tensor:
    return replace(tensor, name=f"text_decoder.{tensor.name}")


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
