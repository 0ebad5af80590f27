"""BERT and its kin as language models (BertLMHeadModel and so on), as transformers stores them.

Embeddings of tokens, positions and token types, norms behind each half of a layer or before it, and a
head with a matrix, a norm and a bias in front of the tied table. RoFormer, ELECTRA and RemBERT have
narrower embeddings; RoCBert adds those of sound and shape; X-MOD has adapters for languages. Other
heads and encoders are not declared here. Names, shapes and defaults: huggingface/transformers
`models/TYPE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    T,
    V,
    d,
    equal_heads,
    f,
    feed_forward,
    k,
    linear,
    norm,
)
from minilm.architectures.config_fields import (
    choice,
    flag,
    layers,
    quotient,
    require,
    size,
    size_or_null,
    whole_number,
)
from minilm.architectures.decoder import Defaults
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

p, o = symbol("p"), symbol("o")

LARGEST_LANGUAGE_COUNT = 1000
# transformers 5 has the first alone, and reads version 4's relative ones as that.
_POSITIONS = ("absolute", "relative_key", "relative_key_query")


@dataclass(frozen=True, kw_only=True)
class _Variant(Defaults):
    """``norms`` are those of attention and feed-forward in a layer, and one behind all layers, or empty."""

    prefix: str
    token_types: int = 2  # by default; 0 for none
    head: str = "cls.predictions"
    norms: tuple[str, str, str] = ("attention.output.LayerNorm", "output.LayerNorm", "")
    has_embedding_norm: bool = True
    has_positions: bool = True
    width_field: str = ""  # of embeddings, where they may be narrower than the model
    width: int = 0
    projection: str = ""  # from that to the model's width
    always_projects: bool = False
    tied: bool = True


_BERT = _Variant(
    prefix="bert",
    vocabulary=30522,
    layers=12,
    heads=(768, 12, None, None),
    feed_forward=3072,
    context=512,
)
_ROBERTA = replace(_BERT, prefix="roberta", head="lm_head")
VARIANTS = {
    "bert": _BERT,
    "bert-generation": replace(
        _BERT,
        vocabulary=50358,
        layers=24,
        heads=(1024, 16, None, None),
        feed_forward=4096,
        token_types=0,
        head="lm_head",
    ),
    "big_bird": replace(_BERT, vocabulary=50358, context=4096),
    "camembert": _ROBERTA,
    "data2vec-text": replace(_ROBERTA, prefix="data2vec_text"),
    "electra": replace(
        _BERT,
        prefix="electra",
        heads=(256, 4, None, None),
        feed_forward=1024,
        head="generator",
        width_field="embedding_size",
        width=128,
        projection="embeddings_project",
    ),
    "ernie": replace(_BERT, prefix="ernie"),
    "megatron-bert": replace(
        _BERT,
        vocabulary=29056,
        layers=24,
        heads=(1024, 16, None, None),
        feed_forward=4096,
        norms=("attention.ln", "ln", "encoder.ln"),
        has_embedding_norm=False,
    ),
    "rembert": replace(
        _BERT,
        prefix="rembert",
        vocabulary=250300,
        layers=32,
        heads=(1152, 18, None, None),
        feed_forward=4608,
        width_field="input_embedding_size",
        width=256,
        projection="encoder.embedding_hidden_mapping_in",
        always_projects=True,
        tied=False,
    ),
    "roberta": replace(_ROBERTA, vocabulary=50265),
    "roberta-prelayernorm": replace(
        _ROBERTA,
        prefix="roberta_prelayernorm",
        vocabulary=50265,
        norms=("attention.LayerNorm", "intermediate.LayerNorm", "LayerNorm"),
    ),
    "roc_bert": replace(_BERT, prefix="roc_bert"),
    "roformer": replace(
        _BERT,
        prefix="roformer",
        vocabulary=50000,
        context=1536,
        has_positions=False,
        width_field="embedding_size",
        projection="embeddings_project",
    ),
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": replace(
        _ROBERTA,
        vocabulary=250880,
        layers=36,
        heads=(2560, 32, None, None),
        feed_forward=10240,
        context=514,
        token_types=1,
        norms=("attention.self_attn_layer_norm", "LayerNorm", "encoder.LayerNorm"),
        has_embedding_norm=False,
    ),
    "xmod": _ROBERTA,
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' language models for a config.json."""
    require(config, "add_cross_attention", False)  # an encoder's decoder is no language model alone
    variant = VARIANTS[config["model_type"]]
    if variant.has_positions:
        choice(config, "position_embedding_type", "absolute", _POSITIONS)
    heads = equal_heads(config, variant.heads)
    d_model = heads.symbols["d"]
    embedding_width = (
        size_or_null(config, variant.width_field, variant.width or d_model)
        if variant.width_field
        else d_model
    )
    is_narrow = variant.always_projects or embedding_width != d_model
    width = p if is_narrow else d
    symbols = {
        "V": size(config, "vocab_size", variant.vocabulary),
        "T": size(config, "max_position_embeddings", variant.context),
        "L": layers(config, "num_hidden_layers", variant.layers),
        "f": size(config, "intermediate_size", variant.feed_forward),
        **({"p": embedding_width} if is_narrow else {}),
        **heads.symbols,
    }
    if config["model_type"] == "rembert":
        symbols["o"] = size(config, "output_embedding_size", 1664)
    tied = flag(config, "tie_word_embeddings", variant.tied)
    table = f"{variant.prefix}.embeddings.word_embeddings.weight"
    head, ties = _head(config, variant, width, table, tied=tied)
    return Layout(
        config["model_type"],
        (*_embeddings(config, variant, width), *_layers(config, variant), *head),
        symbols,
        ties=ties,
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )


def _embeddings(
    config: Mapping[str, Any], variant: _Variant, width: Polynomial
) -> tuple[Tensor, ...]:
    prefix = f"{variant.prefix}.embeddings"

    def table(
        name: str,
        rows: Polynomial,
        component: str = components.TOKEN_TYPE_EMBEDDING,
        columns: Polynomial = width,
    ) -> Tensor:
        return Tensor(f"{prefix}.{name}.weight", (rows, columns), component, Role.LOOKED_UP)

    def rows(field: str, default: int) -> Polynomial:
        return as_polynomial(size(config, field, default))

    tensors = [table("word_embeddings", V, components.TOKEN_EMBEDDING)]
    if variant.has_positions:
        tensors.append(table("position_embeddings", T, components.POSITION_EMBEDDING))
    if variant.token_types:
        types = whole_number(config, "type_vocab_size", variant.token_types)
        tensors.append(table("token_type_embeddings", as_polynomial(types)))
    if config["model_type"] == "ernie" and flag(config, "use_task_id", False):
        tensors.append(table("task_type_embeddings", rows("task_type_vocab_size", 3)))
    if config["model_type"] == "roc_bert":
        tensors += _sound_and_shape(config, prefix)
    part = components.EMBEDDING_NORM
    if variant.has_embedding_norm:
        tensors += norm(f"{prefix}.LayerNorm", part, width=width, bias=True, repeat=ONE)
    if width != d:
        name = f"{variant.prefix}.{variant.projection}"
        projection = components.EMBEDDING_PROJECTION
        tensors += linear(name, d, width, projection, bias=True, repeat=ONE)
    if not variant.has_positions:
        positions = f"{variant.prefix}.encoder.embed_positions.weight"
        tensors.append(Tensor(positions, (T, k), components.POSITION_EMBEDDING, Role.LOOKED_UP))
    return tuple(tensors)


def _sound_and_shape(config: Mapping[str, Any], prefix: str) -> tuple[Tensor, ...]:
    """RoCBert's: tables of their own widths, and a matrix from all of them side by side."""
    part, role = components.TOKEN_TYPE_EMBEDDING, Role.LOOKED_UP
    tensors: list[Tensor] = []
    inputs = d
    for name, on, vocabulary, dimension in (
        ("pronunciation", "enable_pronunciation", 910, 768),
        ("shape", "enable_shape", 24858, 512),
    ):
        columns = as_polynomial(size(config, f"{name}_embed_dim", dimension))
        rows = as_polynomial(size(config, f"{name}_vocab_size", vocabulary))
        tensors.append(Tensor(f"{prefix}.{name}_embed.weight", (rows, columns), part, role))
        if flag(config, on, True):
            inputs += columns
    if flag(config, "concat_input", True):
        name, projection = f"{prefix}.map_inputs_layer", components.EMBEDDING_PROJECTION
        tensors += linear(name, d, inputs, projection, bias=True, repeat=ONE)
    return tuple(tensors)


def _layers(config: Mapping[str, Any], variant: _Variant) -> tuple[Tensor, ...]:
    block = f"{variant.prefix}.encoder.layer.{{i}}"
    bias = flag(config, "use_bias", True) if config["model_type"] == "big_bird" else True
    names = {
        "query": components.ATTENTION_QUERY,
        "key": components.ATTENTION_KEY,
        "value": components.ATTENTION_VALUE,
    }
    first, second, last = variant.norms
    if config["model_type"] == "xmod" and flag(config, "pre_norm", False):
        last = "encoder.LayerNorm"
    before = bool(last)
    attention_norm = components.ATTENTION_NORM if before else components.ATTENTION_OUTPUT_NORM
    second_part = components.FEED_FORWARD_NORM if before else components.FEED_FORWARD_OUTPUT_NORM
    output = f"{block}.attention.output.dense"
    final = f"{variant.prefix}.{last}"
    return (
        *(
            tensor
            for name, part in names.items()
            for tensor in linear(f"{block}.attention.self.{name}", d, d, part, bias=bias)
        ),
        *linear(output, d, d, components.ATTENTION_OUTPUT, bias=True),
        *norm(f"{block}.{first}", attention_norm, bias=True),
        *feed_forward(f"{block}.intermediate.dense", f"{block}.output.dense", f, bias=True),
        *norm(f"{block}.{second}", second_part, bias=True),
        *(_adapters(config, f"{block}.output") if config["model_type"] == "xmod" else ()),
        *(norm(final, components.FINAL_NORM, bias=True, repeat=ONE) if last else ()),
    )


def _adapters(config: Mapping[str, Any], prefix: str) -> tuple[Tensor, ...]:
    """X-MOD's: two matrices a language, of which a text uses one's."""
    listed = config.get("languages", ["en_XX"])
    is_list = isinstance(listed, (list, tuple)) and 0 < len(listed) <= LARGEST_LANGUAGE_COUNT
    if not is_list or not all(
        isinstance(n, str) and re.fullmatch(r"[\w-]{1,40}", n) for n in listed
    ):
        raise ConfigError("config.json: languages", shortened(listed), "a list of languages")
    d_model = size(config, "hidden_size", 768)
    name = "adapter_reduction_factor"
    inner = as_polynomial(quotient(d_model, size(config, name, 2), "hidden_size", name))
    part = components.ADAPTER
    tensors: list[Tensor] = []
    if flag(config, "adapter_layer_norm", False):
        tensors += norm(f"{prefix}.adapter_layer_norm", part, bias=True)
    for number, language in enumerate(dict.fromkeys(listed)):
        name = f"{prefix}.adapter_modules.{language}"
        own = (
            *linear(f"{name}.dense1", inner, d, part, bias=True),
            *linear(f"{name}.dense2", d, inner, part, bias=True),
        )
        tensors += own if not number else (replace(each, runs=0) for each in own)
    return tuple(tensors)


def _head(
    config: Mapping[str, Any], variant: _Variant, width: Polynomial, table: str, *, tied: bool
) -> tuple[tuple[Tensor, ...], tuple[tuple[str, str], ...]]:
    """The head's tensors, and what it shares with the embedding, and with its own bias."""
    part, name = components.LM_HEAD, variant.head
    family = config["model_type"]

    def matrix(name: str, outputs: Polynomial, inputs: Polynomial = d) -> tuple[Tensor, ...]:
        return linear(name, outputs, inputs, part, bias=True, repeat=ONE)

    def gain(name: str, width: Polynomial = d) -> tuple[Tensor, ...]:
        return norm(name, part, width=width, bias=True, repeat=ONE)

    def bias(name: str) -> Tensor:
        return Tensor(f"{name}.bias", (V,), part, Role.ADDED)

    if family == "electra":
        own = linear("generator_lm_head", V, width, part, repeat=ONE)
        return (
            *gain("generator_predictions.LayerNorm", width),
            *matrix("generator_predictions.dense", width),
            *(() if tied else own),
            bias("generator_lm_head"),
        ), ((("generator_lm_head.weight", table),) if tied else ())
    if family == "rembert":
        require(config, "tie_word_embeddings", False)
        return (
            *matrix(f"{name}.dense", o),
            *gain(f"{name}.LayerNorm", o),
            *matrix(f"{name}.decoder", V, o),
        ), ()
    transform = f"{name}.transform" if name == "cls.predictions" else name
    layer_norm = "LayerNorm" if name == "cls.predictions" else "layer_norm"
    inner: tuple[Tensor, ...] = ()
    if family != "bert-generation":
        inner = (*matrix(f"{transform}.dense", width), *gain(f"{transform}.{layer_norm}", width))
    pooler: tuple[Tensor, ...] = ()
    if family == "big_bird":
        # Of the whole text's first token, which a language model does not read.
        weight, added = linear(
            f"{variant.prefix}.pooler", d, d, components.POOLER, bias=True, repeat=ONE
        )
        pooler = (replace(weight, role=Role.ONCE), added)
    ties = ((f"{name}.decoder.weight", table), (f"{name}.decoder.bias", f"{name}.bias"))
    own = matrix(f"{name}.decoder", V, width)
    return (*pooler, bias(name), *inner, *(() if tied else own)), ties if tied else ()
