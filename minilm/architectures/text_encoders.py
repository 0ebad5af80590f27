"""Encoders of text after BERT, with its masked language model's head, classifiers, or alone.

DistilBERT, MPNet, DeBERTa, ESM, Longformer and others differ in names, tables and a few matrices a
layer; ALBERT shares its layers; FNet mixes tokens without parameters; MobileBERT is narrow inside.
Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures import ibert
from minilm.architectures.building_blocks import L, T, V, d, equal_heads, h, linear, norm
from minilm.architectures.config_fields import Config, flag, layers, size, whole_number
from minilm.architectures.deberta import deberta, deberta_v2
from minilm.architectures.decoder import Defaults
from minilm.architectures.encoder_layers import (
    BERT_LAYER,
    SELF_ATTENTION,
    attention_maps,
    encoder_layer,
    lookup,
    masked_head,
)
from minilm.architectures.task_heads import (
    ROBERTA_CLASSES,
    TaskHeads,
    class_name_of,
    head,
    with_class,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

p = symbol("p")
_BERT_HEAD = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm")
_ROBERTA_HEAD = ("lm_head.dense", "lm_head.layer_norm")


@dataclass(frozen=True, kw_only=True)
class _Encoder(Defaults):
    """A type by what differs from BERT.

    ``layer`` names query, key, value, output, their norm, feed-forward up and down, and its norm.
    ``fields`` are the names for BERT's. ``more`` are the tensors beyond those. ``head`` are the dense map
    and the norm in front of the table, which has its bias under ``bias`` and, not tied, its name ``out``;
    with no such name it always multiplies by the table. ``table_width`` is the field of the tables' width
    where it may be another than the model's.
    """

    prefix: str
    block: str = "encoder.layer.{i}"
    layer: str = BERT_LAYER
    fields: Mapping[str, str] = field(default_factory=dict)
    more_positions: int | None = 0  # None for no table
    token_types: int | None = 2  # by default; None for no table
    norm: str = "embeddings.LayerNorm"
    more: Callable[[Config], Tensors] = lambda config: ()
    buffers: Callable[[Config], Tensors] = lambda config: ()
    head: tuple[str, str] = _BERT_HEAD
    out: str = "cls.predictions.decoder"
    bias: str = "cls.predictions.bias"
    adds_twice: bool = True  # whether ``out`` has a bias of its own, which is tied with the other
    classes: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = True
    table_width: str = ""


_BASE: dict[str, Any] = {
    "vocabulary": 30522,
    "layers": 12,
    "heads": (768, 12, None, None),
    "feed_forward": 3072,
    "context": 512,
}
_ROBERTA: dict[str, Any] = {
    "head": _ROBERTA_HEAD,
    "out": "lm_head.decoder",
    "bias": "lm_head.bias",
    "classes": ROBERTA_CLASSES,
}


def _encoder(prefix: str, **others: Any) -> _Encoder:
    return _Encoder(**{**_BASE, "prefix": prefix, **others})


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    encoder = _ENCODERS[config["model_type"]]
    if encoder.prefix == "deberta" and not flag(config, "legacy", True):
        encoder = replace(encoder, **_OWN_DEBERTA_HEAD)
    if encoder.prefix == "tapas" and class_name_of(config).endswith("ForQuestionAnswering"):
        return _tapas_answers(config, encoder)
    return _layout(config, encoder)


def _tapas_answers(config: Config, encoder: _Encoder) -> Layout:
    """Cells and columns are chosen by a vector each, and what is done with them by a classifier."""
    whole = _layout({**config, "architectures": ["ForSequenceClassification"]}, encoder)
    part, kinds = components.CLASSIFIER, whole_number(config, "num_aggregation_labels", 0)
    names = ("output", "column_output")
    return replace(
        whole,
        tensors=(
            *(t for t in whole.tensors if t.component != part),
            *(Tensor(f"{n}_weights", (d,), part, Role.MULTIPLIED) for n in names),
            *(Tensor(f"{n}_bias", (), part, Role.ADDED) for n in names),
            *(head("aggregation_classifier", as_polynomial(kinds)) if kinds else ()),
        ),
    )


def _layout(config: Config, encoder: _Encoder) -> Layout:
    def name(field: str) -> str:
        return encoder.fields.get(field, field)

    heads = equal_heads(
        config, encoder.heads, width=name("hidden_size"), heads=name("num_attention_heads")
    )
    context = size(config, name("max_position_embeddings"), encoder.context)
    symbols = {
        "V": size(config, name("vocab_size"), encoder.vocabulary),
        "T": context,
        "L": layers(config, name("num_hidden_layers"), encoder.layers),
        "f": size(config, name("intermediate_size"), encoder.feed_forward),
        **heads.symbols,
    }
    prefix, width = f"{encoder.prefix}.", d
    table_width = size(config, encoder.table_width, symbols["d"])
    if table_width != symbols["d"]:
        width, symbols["p"] = p, table_width
    table = f"{prefix}embeddings.word_embeddings.weight"
    tied = flag(config, "tie_word_embeddings", encoder.tied)
    ties = [(f"{encoder.out}.weight", table)] if encoder.out else []
    if encoder.adds_twice:
        ties.append((f"{encoder.out}.bias", encoder.bias))
    result = Layout(
        config["model_type"],
        (
            *_tables(config, encoder, table, width),
            *encoder_layer(f"{prefix}{encoder.block}", encoder.layer),
            *(replace(t, name=prefix + t.name) for t in encoder.more(config)),
            *_head(encoder, width, tied=tied),
        ),
        symbols,
        ties=tuple(pair for pair in ties if pair[0] != pair[1]) if tied else (),
        buffers=tuple(replace(t, name=prefix + t.name) for t in encoder.buffers(config)),
        attention=(heads.attention(),),
        context_length=context,
    )
    return with_class(result, config, TaskHeads(prefix, **encoder.classes))


def _tables(config: Config, encoder: _Encoder, table: str, width: Polynomial) -> Tensors:
    prefix = f"{encoder.prefix}.embeddings"
    tables = [Tensor(table, (V, width), components.TOKEN_EMBEDDING, Role.LOOKED_UP)]
    has_positions = encoder.more_positions is not None
    if encoder.prefix == "esm":
        kind = config.get("position_embedding_type", "absolute")
        if kind is not None and not isinstance(kind, str):
            expected = "absolute, rotary or null"
            raise ConfigError("config.json: position_embedding_type", shortened(kind), expected)
        has_positions = kind == "absolute"
    if has_positions and flag(config, "position_biased_input", True):
        rows = T + (encoder.more_positions or 0)
        part = components.POSITION_EMBEDDING
        tables.append(lookup(f"{prefix}.position_embeddings", rows, part, width))
    if encoder.token_types is not None:
        types = whole_number(config, "type_vocab_size", encoder.token_types)
        if types or encoder.prefix != "deberta":
            tables.append(lookup(f"{prefix}.token_type_embeddings", types, width=width))
    if width != d:
        part = components.EMBEDDING_PROJECTION
        tables += linear(f"{prefix}.embed_proj", d, width, part, repeat=ONE)
    if encoder.norm:
        name = f"{encoder.prefix}.{encoder.norm}"
        tables += norm(name, components.EMBEDDING_NORM, bias=True, repeat=ONE)
    return tuple(tables)


def _head(encoder: _Encoder, width: Polynomial, *, tied: bool) -> Tensors:
    names, has_own = (encoder.head, encoder.out, encoder.bias), bool(encoder.out)
    head = masked_head(*names, tied=tied or not has_own, width=width if has_own else d)
    return head if encoder.adds_twice else tuple(t for t in head if t.name != f"{encoder.out}.bias")


def _layout_lm(config: Config) -> Tensors:
    rows = size(config, "max_2d_position_embeddings", 1024)
    part = components.POSITION_EMBEDDING
    return (
        *(lookup(f"embeddings.{n}_position_embeddings", rows, part) for n in "xyhw"),
        *_pooler("pooler.dense"),
    )


def _luke(config: Config) -> Tensors:
    names = "w2e_query e2w_query e2e_query"
    asks = flag(config, "use_entity_aware_attention", True)
    maps = attention_maps(SELF_ATTENTION, names) if asks else ()
    return (*maps, *_pooler("pooler.dense"))


def _pooler(name: str) -> Tensors:
    weight, bias = linear(name, d, d, components.POOLER, bias=True, repeat=ONE)
    return replace(weight, role=Role.ONCE), bias


def _mpnet(config: Config) -> Tensors:
    buckets = size(config, "relative_attention_num_buckets", 32)
    part = components.POSITION_EMBEDDING
    return (lookup("encoder.relative_attention_bias", buckets, part, h),)


def _nystromformer(config: Config) -> Tensors:
    taps = config.get("conv_kernel_size", 65)
    return () if taps is None else _convolution(size(config, "conv_kernel_size", 65))


def _convolution(taps: int) -> Tensors:
    """Of each head over the tokens, beside its attention."""
    shape = (h, ONE, as_polynomial(taps), ONE)
    part = components.CONVOLUTION
    return (Tensor(f"{SELF_ATTENTION}.conv.weight", shape, part, Role.MULTIPLIED, L),)


def _yoso(config: Config) -> Tensors:
    return () if config.get("conv_window") is None else _convolution(size(config, "conv_window"))


def _esm(config: Config) -> Tensors:
    """Norms around all layers, and a prediction of contacts from all attention."""
    heads, depth = size(config, "num_attention_heads", 12), layers(config, "num_hidden_layers", 12)
    part, contacts = components.CLASSIFIER, "contact_head.regression"
    before = norm("embeddings.layer_norm", components.EMBEDDING_NORM, bias=True, repeat=ONE)
    return (
        *(before if flag(config, "emb_layer_norm_before", False) else ()),
        *norm("encoder.emb_layer_norm_after", components.FINAL_NORM, bias=True, repeat=ONE),
        Tensor(f"{contacts}.weight", (ONE, as_polynomial(heads * depth)), part, Role.ONCE),
        Tensor(f"{contacts}.bias", (ONE,), part, Role.ADDED),
    )


def _tapas(config: Config) -> Tensors:
    sizes = config.get("type_vocab_sizes", [3, 256, 256, 2, 256, 256, 10])
    if not isinstance(sizes, list) or len(sizes) > 64:
        raise ConfigError("config.json: type_vocab_sizes", shortened(sizes), "a list of sizes")
    return tuple(
        lookup(
            f"embeddings.token_type_embeddings_{n}",
            size({"type_vocab_sizes": rows}, "type_vocab_sizes"),
        )
        for n, rows in enumerate(sizes)
    )


_PRE_CLASSIFIED = {
    **ROBERTA_CLASSES,
    "pooler": "",
    "choice": "pre_classifier",
    "answers_are_two": True,
}
_DISTILBERT_LAYER = (
    "attention.q_lin attention.k_lin attention.v_lin attention.out_lin sa_layer_norm "
    "ffn.lin1 ffn.lin2 output_layer_norm"
)
_DEBERTA_CLASSES = {"pooler": "", "pooler_outside": True}
_DEBERTA: dict[str, Any] = {
    "token_types": 0,
    "classes": _DEBERTA_CLASSES,
    "table_width": "embedding_size",
}
# Of the model's own repository, which transformers has for ``legacy: false``.
_OWN_DEBERTA_HEAD: dict[str, Any] = {
    "head": ("lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm"),
    "out": "",
    "bias": "lm_predictions.lm_head.bias",
    "adds_twice": False,
}
_ENCODERS = {
    "deberta": _encoder(
        "deberta",
        **_DEBERTA,
        vocabulary=50265,
        layer="- - - " + BERT_LAYER.split(maxsplit=3)[3],
        more=deberta,
    ),
    "deberta-v2": _encoder(
        "deberta",
        **_DEBERTA,
        vocabulary=128100,
        layers=24,
        heads=(1536, 24, None, None),
        feed_forward=6144,
        layer=BERT_LAYER.replace("query", "query_proj")
        .replace("key", "key_proj")
        .replace("value", "value_proj"),
        more=deberta_v2,
    ),
    "distilbert": _encoder(
        "distilbert",
        layers=6,
        block="transformer.layer.{i}",
        layer=_DISTILBERT_LAYER,
        fields={
            "hidden_size": "dim",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "intermediate_size": "hidden_dim",
        },
        token_types=None,
        head=("vocab_transform", "vocab_layer_norm"),
        out="vocab_projector",
        bias="vocab_projector.bias",
        classes={"pooler": "", "dense": "pre_classifier", "choice": "pre_classifier"},
    ),
    "esm": _encoder(
        "esm",
        head=_ROBERTA_HEAD,
        out="lm_head.decoder",
        bias="lm_head.bias",
        adds_twice=False,
        vocabulary=33,
        context=1026,
        token_types=None,
        norm="",
        layer=BERT_LAYER.replace("attention.output.LayerNorm", "attention.LayerNorm").replace(
            " output.LayerNorm", " LayerNorm"
        ),
        more=_esm,
        classes=ROBERTA_CLASSES,
    ),
    "ibert": _encoder("ibert", **_ROBERTA, buffers=ibert.buffers),
    "layoutlm": _encoder("layoutlm", more=_layout_lm, classes={"keeps_pooler": True}),
    "longformer": _encoder(
        "longformer",
        **_ROBERTA,
        more=lambda config: attention_maps(SELF_ATTENTION, "query_global key_global value_global"),
    ),
    "luke": _encoder("luke", **_ROBERTA, vocabulary=50267, more=_luke),
    "mpnet": _encoder(
        "mpnet",
        **_ROBERTA,
        vocabulary=30527,
        layer="attention.attn.q attention.attn.k attention.attn.v attention.attn.o "
        "attention.LayerNorm intermediate.dense output.dense output.LayerNorm",
        token_types=None,
        more=_mpnet,
    ),
    "mra": _encoder(
        "mra",
        vocabulary=50265,
        more_positions=2,
        token_types=1,
        buffers=lambda config: (
            Tensor("embeddings.position_ids", (ONE, T), components.POSITION_EMBEDDING, Role.ONCE),
        ),
        classes=_PRE_CLASSIFIED,
    ),
    "nystromformer": _encoder(
        "nystromformer",
        vocabulary=30000,
        context=510,
        more_positions=2,
        more=_nystromformer,
        classes=_PRE_CLASSIFIED,
    ),
    "tapas": _encoder(
        "tapas", context=1024, token_types=None, more=_tapas, classes={"answers": ""}
    ),
    "yoso": _encoder(
        "yoso",
        vocabulary=50265,
        context=4096,
        more_positions=2,
        token_types=1,
        more=_yoso,
        classes=_PRE_CLASSIFIED,
    ),
}
