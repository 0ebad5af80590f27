"""T5Gemma 2: Gemma 3 in T5's shape, whose encoder sees pictures too.

A layer of the decoder attends to the text so far and to what the encoder left by the same matrices. All
tables are one. The encoder runs once a text. Names, shapes and defaults: huggingface/transformers
`models/t5gemma2`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import d, read_heads
from minilm.architectures.config_fields import Config, flag, sub_config
from minilm.architectures.gemma import layout as gemma
from minilm.architectures.joint_text import joined
from minilm.architectures.seq2seq_kin import CLASSIFIED, with_score
from minilm.architectures.task_heads import (
    class_name_of,
    is_body,
    whole_or_body,
    without_prefix,
)
from minilm.architectures.towers import tower
from minilm.architectures.vision_tower import Part, W, gain, in_numbers, once, projector
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_NAMES = {
    "model.": "model.{}.",
    ".input_layernorm": ".pre_self_attn_layernorm",
    ".post_attention_layernorm": ".post_self_attn_layernorm",
    "lm_head.": "lm_head.out_proj.",
}
_HEAD, _END = "lm_head.out_proj.weight", "embed_tokens.eoi_embedding"


def layout(config: Config) -> Layout:
    """The tensors of T5Gemma2ForConditionalGeneration, its classifiers or its body for a config.json."""
    name = class_name_of(config)
    if name.endswith(CLASSIFIED):
        return with_score(_whole(config), config)
    whole = whole_or_body(_whole(config), config)
    return _bare(whole) if is_body(name) else whole


def _bare(body: Layout) -> Layout:
    """The body under its own names."""
    tensors, buffers = (without_prefix(each, "model.") for each in (body.tensors, body.buffers))
    ties = tuple((a.removeprefix("model."), b.removeprefix("model.")) for a, b in body.ties)
    return replace(body, tensors=tensors, buffers=buffers, ties=ties)


def _whole(config: Config) -> Layout:
    tied = flag(config, "tie_word_embeddings", True)
    fields = sub_config(config, "encoder")
    encoder = _stack(sub_config(fields, "text_config"), "encoder", tied)
    decoder = _stack(sub_config(config, "decoder"), "decoder", tied)
    own = tuple(
        t
        for t in encoder.tensors
        if t.component not in (components.LM_HEAD, components.TOKEN_EMBEDDING)
    )
    shared, *block = decoder.tensors
    tables = ("model.encoder.", "model.decoder.")
    stored = tables[:1] if tied else tables
    between = projector(
        [
            once("model.encoder.multi_modal_projector.mm_input_projection_weight", (W, d)),
            gain("model.encoder.multi_modal_projector.mm_soft_emb_norm", W),
        ]
    )
    copies = ("embed_tokens.weight", _END)
    pairs = (
        (_HEAD, "model.encoder.embed_tokens.weight"),
        *((tables[1] + copy, tables[0] + copy) for copy in copies),
    )
    part = components.TOKEN_EMBEDDING
    text = replace(
        decoder,
        tensors=(
            *(replace(shared, name=f"{each}embed_tokens.weight") for each in stored),
            *(Tensor(each + _END, (d,), part, Role.LOOKED_UP) for each in stored),
            *block,
            *as_encoder(in_numbers(Part(own, dict(encoder.symbols))).tensors),
        ),
        ties=pairs if tied else (),
        attention=(
            *decoder.attention,
            read_heads(sub_config(config, "decoder"), defaults=(2304, 8, 4, 256)).attention(),
        ),
    )
    vision = sub_config(fields, "vision_config")
    seeing = tower(vision, "model.encoder.vision_tower", "siglip_vision_model")
    return joined(text, "t5gemma2", seeing, Part(between))


def _stack(config: Config, name: str, tied: bool) -> Layout:
    text = gemma({**config, "model_type": "gemma3_text", "tie_word_embeddings": tied})

    def moved(own: str) -> str:
        for old, new in _NAMES.items():
            own = own.replace(old, new.format(name), 1)
        return own

    return replace(text, tensors=tuple(replace(t, name=moved(t.name)) for t in text.tensors))
