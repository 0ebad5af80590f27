"""LUKE: RoBERTa over words and entities, whose queries differ by which of both asks which.

Its masked language model predicts both, and words by a matrix of its own since transformers 5. Names, shapes
and defaults: huggingface/transformers `models/luke`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures import text_encoders
from minilm.architectures.building_blocks import T, d, linear, norm
from minilm.architectures.config_fields import Config, flag, is_version_4, size, whole_number
from minilm.architectures.encoder_layers import lookup
from minilm.architectures.task_heads import TaskHeads, with_class
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, symbol

p, o = symbol("p"), symbol("o")  # an entity's width, and entities
_BIASES = ("lm_head.bias", "lm_head.decoder.bias")


def layout(config: Config) -> Layout:
    """The tensors of a class of LUKE for a config.json."""
    whole = _masked({**config, "architectures": None})
    return with_class(whole, config, TaskHeads("luke."))


def _masked(config: Config) -> Layout:
    tied = flag(config, "tie_word_embeddings", True)
    words_are_tied = tied and is_version_4(config)
    text = text_encoders.layout({**config, "tie_word_embeddings": words_are_tied})
    width = size(config, "entity_emb_size", 256)
    table = "luke.entity_embeddings.entity_embeddings.weight"
    part, head = components.LM_HEAD, "entity_predictions"
    out = Tensor(f"{head}.decoder.weight", (o, p), part, Role.MULTIPLIED)
    tensors = (
        *(t for t in text.tensors if not tied or words_are_tied or t.name != _BIASES[0]),
        Tensor(table, (o, p), components.TOKEN_EMBEDDING, Role.LOOKED_UP),
        *_entities(config, is_narrow=width != text.symbols["d"]),
        *linear(f"{head}.transform.dense", p, d, part, bias=True, repeat=ONE),
        *norm(f"{head}.transform.LayerNorm", part, width=p, bias=True, repeat=ONE),
        Tensor(f"{head}.bias", (o,), part, Role.ADDED),
        *(() if tied else (out,)),
    )
    symbols = {**text.symbols, "p": width, "o": size(config, "entity_vocab_size", 500000)}
    ties = (*(text.ties if words_are_tied else (_BIASES,)), (out.name, table))
    return replace(text, tensors=tensors, symbols=symbols, ties=ties if tied else ())


def _entities(config: Config, *, is_narrow: bool) -> tuple[Tensor, ...]:
    name, part = "luke.entity_embeddings", components.EMBEDDING_PROJECTION
    return (
        *(linear(f"{name}.entity_embedding_dense", d, p, part, repeat=ONE) if is_narrow else ()),
        lookup(f"{name}.position_embeddings", T, components.POSITION_EMBEDDING),
        lookup(f"{name}.token_type_embeddings", whole_number(config, "type_vocab_size", 2)),
        *norm(f"{name}.LayerNorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
    )
