"""Reformer as transformers stores it: two residual streams, and attention by hash or within chunks.

Hashed attention has one matrix for queries and keys. What a token costs follows from its text's chunks,
and is not told. Names, shapes and defaults: huggingface/transformers `models/reformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    T,
    V,
    d,
    embedding,
    feed_forward,
    h,
    k,
    layer_kinds,
    linear,
    norm,
)
from minilm.architectures.config_fields import flag, listed, size, sizes
from minilm.architectures.decoder import pre_norms
from minilm.architectures.recurrent import layers_of, within
from minilm.architectures.task_heads import C, class_ending, head, number_of_classes, without_prefix
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, as_polynomial

Config = Mapping[str, Any]
_KINDS = ("local", "lsh")
_MOST_AXES = 8  # each has a dimension in the table of every other
_BLOCK = "reformer.encoder.layers.{i}"
_OUTPUT = linear("lm_head.decoder", V, 2 * d, components.LM_HEAD, bias=False, repeat=ONE)
_CLASSIFIER = head("classifier.dense", d, inputs=2 * d), head("classifier.out_proj", C)
_LANGUAGE = (*_OUTPUT, Tensor("lm_head.bias", (V,), components.LM_HEAD, Role.ADDED))
_HEADS: dict[str, Tensors] = {
    "ModelWithLMHead": _LANGUAGE,
    "ForMaskedLM": _LANGUAGE,
    "ForSequenceClassification": (*_CLASSIFIER[0], *_CLASSIFIER[1]),
    "ForQuestionAnswering": head("qa_outputs", C, inputs=2 * d),
    "Model": (),
}
_CLASSIFIED = ("ForSequenceClassification", "ForQuestionAnswering")


def layout(config: Config) -> Layout:
    """The tensors of a class of Reformer for a config.json."""
    ending = class_ending(config, _HEADS)
    named = listed(config, "attn_layers", _KINDS * 3)
    kinds = layer_kinds({"attn_layers": named}, "attn_layers", len(named), _KINDS, str)
    positions, symbols = _positions(config, size(config, "hidden_size", 256))
    tensors: Tensors = (
        embedding("reformer.embeddings.word_embeddings"),
        *positions,
        *pre_norms(
            f"{_BLOCK}.attention.layer_norm", f"{_BLOCK}.feed_forward.layer_norm", bias=True
        ),
        *_attention(kinds),
        *feed_forward(
            f"{_BLOCK}.feed_forward.dense.dense", f"{_BLOCK}.feed_forward.output.dense", bias=True
        ),
        *norm(
            "reformer.encoder.layer_norm",
            components.FINAL_NORM,
            width=2 * d,
            bias=True,
            repeat=ONE,
        ),
        *_HEADS[ending],
    )
    tensors = tuple(
        replace(each, role=Role.ONCE) if each.role is Role.MULTIPLIED else each for each in tensors
    )
    return Layout(
        "reformer",
        tensors if _HEADS[ending] else without_prefix(tensors, "reformer."),
        {
            "V": size(config, "vocab_size", 320),
            "L": len(kinds),
            "h": size(config, "num_attention_heads", 12),
            "k": size(config, "attention_head_size", 64),
            "f": size(config, "feed_forward_size", 512),
            **symbols,
            **({"C": number_of_classes(config)} if ending in _CLASSIFIED else {}),
        },
        context_length=size(config, "max_position_embeddings", 4096),
    )


def _positions(config: Config, d_model: int) -> tuple[Tensors, dict[str, int]]:
    """A table, or one for each axis of a rectangle of positions, side by side as wide as the model."""
    name, part = "reformer.embeddings.position_embeddings", components.POSITION_EMBEDDING
    if not flag(config, "axial_pos_embds", True):
        table = Tensor(f"{name}.embedding.weight", (T, d), part, Role.LOOKED_UP)
        return (table,), {"d": d_model, "T": size(config, "max_position_embeddings", 4096)}
    shape = sizes(config, "axial_pos_shape", (64, 64))
    widths = sizes(config, "axial_pos_embds_dim", (64, 192), len(shape))
    if len(shape) > _MOST_AXES:
        problem = f"a list of at most {_MOST_AXES}"
        raise ConfigError("config.json: axial_pos_shape", f"{len(shape)} numbers", problem)
    if sum(widths) != d_model:
        raise ConfigError("config.json: axial_pos_embds_dim", f"{widths}", f"a sum of {d_model}")
    tables = (
        Tensor(
            f"{name}.weights.{axis}",
            tuple(
                map(
                    as_polynomial,
                    (*(shape[axis] if i == axis else 1 for i in range(len(shape))), width),
                )
            ),
            part,
            Role.LOOKED_UP,
        )
        for axis, width in enumerate(widths)
    )
    return tuple(tables), {"d": d_model}


def _attention(kinds: list[str]) -> Tensors:
    own, width = f"{_BLOCK}.attention.self_attention", h * k
    query, key, value = (
        components.ATTENTION_QUERY,
        components.ATTENTION_KEY,
        components.ATTENTION_VALUE,
    )
    return (
        *within(
            layers_of(kinds, "local"),
            *linear(f"{own}.query", width, d, query),
            *linear(f"{own}.key", width, d, key),
        ),
        *within(layers_of(kinds, "lsh"), *linear(f"{own}.query_key", width, d, query)),
        *linear(f"{own}.value", width, d, value),
        *linear(f"{_BLOCK}.attention.output.dense", d, width, components.ATTENTION_OUTPUT),
    )
