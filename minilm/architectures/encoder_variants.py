"""Encoders of text with a layer of their own: ALBERT, ConvBERT, FNet, MobileBERT, SqueezeBERT.

ALBERT's layers are shared; FNet mixes tokens by a Fourier transform without parameters; MobileBERT is
narrow inside; SqueezeBERT's matrices are grouped convolutions. Names, shapes and defaults:
huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from minilm.architectures.building_blocks import L, T, V, d, equal_heads, f, h, k, linear, norm
from minilm.architectures.config_fields import (
    Config,
    few,
    flag,
    head_width,
    layers,
    size,
    whole_number,
    within,
)
from minilm.architectures.encoder_layers import BERT_LAYER, encoder_layer, lookup, masked_head
from minilm.architectures.task_heads import ROBERTA_CLASSES, TaskHeads, with_class
from minilm.ledger import components
from minilm.ledger.layout import SHARED, AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

p, w = symbol("p"), symbol("w")
_BERT_HEAD = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm")
_BERT_OUT = ("cls.predictions.decoder", "cls.predictions.bias")


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    return _LAYOUTS[config["model_type"]](config)


def _whole(
    config: Config,
    symbols: Mapping[str, int],
    body: Tensors,
    head: Tensors,
    attention: tuple[AttentionSpec, ...],
    classes: TaskHeads,
    *,
    out: tuple[str, str] = _BERT_OUT,
) -> Layout:
    tied = flag(config, "tie_word_embeddings", True)
    own = f"{classes.prefix}embeddings.word_embeddings.weight"
    ties = ((f"{out[0]}.weight", own), (f"{out[0]}.bias", out[1]))
    result = Layout(
        config["model_type"],
        (*body, *head),
        symbols,
        ties=tuple(pair for pair in ties if pair[0] != pair[1]) if tied else (),
        attention=attention,
        context_length=symbols.get("T", 0),
    )
    return with_class(result, config, classes)


def _sizes(
    config: Config, vocabulary: int, heads: tuple[int, int, None, None], inner: int, depth: int = 12
) -> tuple[dict[str, int], AttentionSpec]:
    read = equal_heads(config, heads)
    symbols = {
        "V": size(config, "vocab_size", vocabulary),
        "T": size(config, "max_position_embeddings", 512),
        "L": layers(config, "num_hidden_layers", depth),
        "f": size(config, "intermediate_size", inner),
        **read.symbols,
    }
    return symbols, read.attention()


def _tables(config: Config, prefix: str, width: Polynomial = d, types: int = 2) -> Tensors:
    part = components.POSITION_EMBEDDING
    return (
        lookup(f"{prefix}.word_embeddings", V, components.TOKEN_EMBEDDING, width),
        lookup(f"{prefix}.position_embeddings", T, part, width),
        lookup(
            f"{prefix}.token_type_embeddings",
            whole_number(config, "type_vocab_size", types),
            width=width,
        ),
        *norm(f"{prefix}.LayerNorm", components.EMBEDDING_NORM, width=width, bias=True, repeat=ONE),
    )


def _albert(config: Config) -> Layout:
    symbols, attention = _sizes(config, 30000, (4096, 64, None, None), 16384)
    symbols |= {
        "S": layers(config, "num_hidden_groups", 1),
        "p": size(config, "embedding_size", 128),
    }
    inner = few("inner_group_num", size(config, "inner_group_num", 1))
    names = (
        "attention.query attention.key attention.value attention.dense attention.LayerNorm "
        "ffn ffn_output full_layer_layer_norm"
    )
    groups = "albert.encoder.albert_layer_groups.{i}.albert_layers"
    mapping = "albert.encoder.embedding_hidden_mapping_in"
    tied = flag(config, "tie_word_embeddings", True)
    out = ("predictions.decoder", "predictions.bias")
    return _whole(
        config,
        symbols,
        (
            *_tables(config, "albert.embeddings", p),
            *linear(mapping, d, p, components.EMBEDDING_PROJECTION, bias=True, repeat=ONE),
            *(
                t
                for n in range(inner)
                for t in encoder_layer(f"{groups}.{n}", names, repeat=SHARED)
            ),
        ),
        masked_head(("predictions.dense", "predictions.LayerNorm"), *out, tied=tied, width=p),
        (replace(attention, layers=inner * L),),
        TaskHeads(
            "albert.", pooler="pooler", order="sop_classifier.classifier", order_by_labels=True
        ),
        out=out,
    )


def _convbert(config: Config) -> Layout:
    """Half of each layer's heads are replaced by a convolution whose taps follow the text."""
    symbols, _ = _sizes(config, 30522, (768, 12, None, None), 3072)
    own_heads = max(1, symbols["h"] // size(config, "head_ratio", 2))
    embedding = size(config, "embedding_size", 768)
    taps, groups = size(config, "conv_kernel_size", 9), size(config, "num_groups", 1)
    symbols |= {"h": own_heads, "g": own_heads, "k": symbols["d"] // own_heads // 2, "z": taps}
    symbols |= {"p": embedding}
    block, part = "convbert.encoder.layer.{i}", components.CONVOLUTION
    attention, width, z = f"{block}.attention.self", h * k, symbol("z")
    convolution = f"{attention}.key_conv_attn_layer"
    names = f"- - - - attention.output.LayerNorm {BERT_LAYER.split(maxsplit=5)[5]}"
    wide = embedding != symbols["d"]
    mapping = linear(
        "convbert.embeddings_project", d, p, components.EMBEDDING_PROJECTION, bias=True, repeat=ONE
    )
    tied = flag(config, "tie_word_embeddings", True)
    out = ("generator_lm_head", "generator_lm_head.bias")
    return _whole(
        config,
        symbols,
        (
            *_tables(config, "convbert.embeddings", p),
            *(mapping if wide else ()),
            *linear(f"{attention}.query", width, d, components.ATTENTION_QUERY, bias=True),
            *linear(f"{attention}.key", width, d, components.ATTENTION_KEY, bias=True),
            *linear(f"{attention}.value", width, d, components.ATTENTION_VALUE, bias=True),
            Tensor(f"{convolution}.depthwise.weight", (d, ONE, z), part, Role.MULTIPLIED, L),
            Tensor(f"{convolution}.pointwise.weight", (width, d, ONE), part, Role.MULTIPLIED, L),
            Tensor(f"{convolution}.bias", (width, ONE), part, Role.ADDED, L),
            *linear(f"{attention}.conv_kernel_layer", h * z, width, part, bias=True),
            *linear(f"{attention}.conv_out_layer", width, d, part, bias=True),
            *linear(
                f"{block}.attention.output.dense",
                d,
                2 * width,
                components.ATTENTION_OUTPUT,
                bias=True,
            ),
            *(_grouped(tensor, groups, symbols) for tensor in encoder_layer(block, names)),
        ),
        masked_head(
            ("generator_predictions.dense", "generator_predictions.LayerNorm"),
            *out,
            tied=tied,
            width=p,
        ),
        (AttentionSpec(L, 2 * width, width, width),),
        TaskHeads("convbert.", **{**ROBERTA_CLASSES, "pooler": ""}),
        out=out,
    )


def _grouped(tensor: Tensor, groups: int, symbols: Mapping[str, int]) -> Tensor:
    """A matrix of the feed-forward as several, (groups, in, out) each."""
    if groups == 1 or len(tensor.shape) != 2:
        return tensor
    rows, columns = (as_polynomial(each.value(symbols) // groups) for each in tensor.shape)
    return replace(tensor, shape=(as_polynomial(groups), columns, rows))


def _fnet(config: Config) -> Layout:
    symbols, _ = _sizes({**config, "num_attention_heads": 1}, 32000, (768, 1, None, None), 3072)
    block, tied = "fnet.encoder.layer.{i}", flag(config, "tie_word_embeddings", True)
    names = f"- - - - fourier.output.LayerNorm {BERT_LAYER.split(maxsplit=5)[5]}"
    part = components.EMBEDDING_PROJECTION
    return _whole(
        config,
        {name: symbols[name] for name in "VTLfd"},
        (
            *_tables(config, "fnet.embeddings", types=4),
            *linear("fnet.embeddings.projection", d, d, part, bias=True, repeat=ONE),
            *encoder_layer(block, names),
            *_pooler("fnet.pooler.dense"),
        ),
        masked_head(_BERT_HEAD, *_BERT_OUT, tied=tied),
        (),
        TaskHeads("fnet.", order="cls.seq_relationship", keeps_pooler=True),
    )


def _pooler(name: str) -> Tensors:
    weight, bias = linear(name, d, d, components.POOLER, bias=True, repeat=ONE)
    return replace(weight, role=Role.ONCE), bias


def _squeezebert(config: Config) -> Layout:
    symbols, attention = _sizes(config, 30522, (768, 12, None, None), 3072)
    block = "transformer.encoder.layers.{i}"

    def grouped(
        name: str, groups: str, default: int, rows: Polynomial, inputs: str, part: str
    ) -> Tensors:
        number = size(config, groups, default)
        shape = (rows, as_polynomial(symbols[inputs] // number), ONE)
        return (
            Tensor(f"{block}.{name}.weight", shape, part, Role.MULTIPLIED, L),
            Tensor(f"{block}.{name}.bias", (rows,), part, Role.ADDED, L),
        )

    output_norm, last = components.ATTENTION_OUTPUT_NORM, components.FEED_FORWARD_OUTPUT_NORM
    tied = flag(config, "tie_word_embeddings", True)
    return _whole(
        config,
        symbols,
        (
            *_tables(config, "transformer.embeddings"),
            *grouped("attention.query", "q_groups", 4, d, "d", components.ATTENTION_QUERY),
            *grouped("attention.key", "k_groups", 4, d, "d", components.ATTENTION_KEY),
            *grouped("attention.value", "v_groups", 4, d, "d", components.ATTENTION_VALUE),
            *grouped(
                "post_attention.conv1d",
                "post_attention_groups",
                1,
                d,
                "d",
                components.ATTENTION_OUTPUT,
            ),
            *norm(f"{block}.post_attention.layernorm", output_norm, bias=True),
            *grouped(
                "intermediate.conv1d", "intermediate_groups", 4, f, "d", components.FEED_FORWARD_UP
            ),
            *grouped("output.conv1d", "output_groups", 4, d, "f", components.FEED_FORWARD_DOWN),
            *norm(f"{block}.output.layernorm", last, bias=True),
            *_pooler("transformer.pooler.dense"),
        ),
        masked_head(_BERT_HEAD, *_BERT_OUT, tied=tied),
        (attention,),
        TaskHeads("transformer.", keeps_pooler=True),
    )


def _mobilebert(config: Config) -> Layout:
    symbols, _ = _sizes(config, 30522, (512, 4, None, None), 512, 24)
    narrow = flag(config, "use_bottleneck", True)
    inside = size(config, "intra_bottleneck_size", 128) if narrow else symbols["d"]
    head_width(inside, symbols["h"], "intra_bottleneck_size")
    embedding = size(config, "embedding_size", 128)
    symbols |= {"p": embedding, "w": inside}
    width = w if narrow else d
    times = 3 if flag(config, "trigram_input", True) else 1
    embeddings, projection = "mobilebert.embeddings", components.EMBEDDING_PROJECTION
    table = f"{embeddings}.embedding_transformation"
    return _whole(
        config,
        symbols,
        (
            lookup(f"{embeddings}.word_embeddings", V, components.TOKEN_EMBEDDING, p),
            lookup(f"{embeddings}.position_embeddings", T, components.POSITION_EMBEDDING),
            lookup(
                f"{embeddings}.token_type_embeddings", whole_number(config, "type_vocab_size", 2)
            ),
            *linear(table, d, times * p, projection, bias=True, repeat=ONE),
            *norm(f"{embeddings}.LayerNorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
            *_mobilebert_layer(config, width),
            *(_bottlenecks(config, width) if narrow else ()),
        ),
        _mobilebert_head(
            config, symbols["d"] - within(embedding, symbols["d"], "hidden_size", "embedding_size")
        ),
        (AttentionSpec(L, 2 * width, width, width),),
        TaskHeads(
            "mobilebert.",
            pooler="pooler.dense" if flag(config, "classifier_activation", True) else "",
            order="cls.seq_relationship",
        ),
    )


def _mobile_map(name: str, rows: Polynomial, columns: Polynomial, part: str) -> Tensors:
    return linear(f"mobilebert.encoder.layer.{{i}}.{name}", rows, columns, part, bias=True)


def _mobile_norm(name: str, width: Polynomial, part: str) -> Tensors:
    return norm(f"mobilebert.encoder.layer.{{i}}.{name}", part, width=width, bias=True)


def _mobilebert_layer(config: Config, width: Polynomial) -> Tensors:
    """Attention, then several feed-forwards in a row."""
    narrow, wide = (
        flag(config, "use_bottleneck", True),
        flag(config, "use_bottleneck_attention", False),
    )
    inputs = d if narrow and not wide else width
    name = "num_feedforward_networks"
    number = few(name, size(config, name, 4)) - 1
    up, down = components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN
    return (
        *_mobile_map("attention.self.query", width, width, components.ATTENTION_QUERY),
        *_mobile_map("attention.self.key", width, width, components.ATTENTION_KEY),
        *_mobile_map("attention.self.value", width, inputs, components.ATTENTION_VALUE),
        *_mobile_map("attention.output.dense", width, width, components.ATTENTION_OUTPUT),
        *_mobile_norm("attention.output.LayerNorm", width, components.ATTENTION_OUTPUT_NORM),
        *(
            tensor
            for prefix in (*(f"ffn.{n}." for n in range(number)), "")
            for tensor in (
                *_mobile_map(f"{prefix}intermediate.dense", f, width, up),
                *_mobile_map(f"{prefix}output.dense", width, f, down),
                *_mobile_norm(
                    f"{prefix}output.LayerNorm", width, components.FEED_FORWARD_OUTPUT_NORM
                ),
            )
        ),
    )


def _bottlenecks(config: Config, width: Polynomial) -> Tensors:
    """Into the narrow width and out of it."""
    names = ["bottleneck.input"]
    if flag(config, "key_query_shared_bottleneck", True):
        names.append("bottleneck.attention")
    sizes = (("output.bottleneck", d, width), *((name, width, d) for name in names))
    return tuple(
        tensor
        for name, rows, columns in sizes
        for tensor in (
            *_mobile_map(f"{name}.dense", rows, columns, components.ADAPTER),
            *_mobile_norm(f"{name}.LayerNorm", rows, components.ADAPTER),
        )
    )


def _mobilebert_head(config: Config, more: int) -> Tensors:
    """BERT's, with ``more`` columns than the token table has."""
    part, tied = components.LM_HEAD, flag(config, "tie_word_embeddings", True)
    rows = as_polynomial(more)
    own = linear("cls.predictions.decoder", V, p, part, bias=True, repeat=ONE)
    return (
        *linear(_BERT_HEAD[0], d, d, part, bias=True, repeat=ONE),
        *norm(_BERT_HEAD[1], part, bias=True, repeat=ONE),
        Tensor("cls.predictions.bias", (V,), part, Role.ADDED),
        Tensor("cls.predictions.dense.weight", (rows, V), part, Role.MULTIPLIED),
        *(() if tied else own),
    )


_LAYOUTS = {
    "albert": _albert,
    "convbert": _convbert,
    "fnet": _fnet,
    "mobilebert": _mobilebert,
    "squeezebert": _squeezebert,
}
