"""XLM, XLNet, CPM-Ant and ProphetNet's decoder as transformers stores them.

XLM numbers its attentions, norms and feed-forwards each by themselves; XLNet's matrices have heads and
head width as dimensions, and it caches hidden states; CPM-Ant's table has prompts behind the
vocabulary, and positions and segments are a bias of attention; ProphetNet predicts several tokens, each in
a residual stream of its own beside the main one. Names, shapes and defaults: huggingface/transformers
`models/{xlm,xlnet,cpmant,prophetnet}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    L,
    T,
    V,
    d,
    equal_heads,
    f,
    feed_forward,
    h,
    k,
    linear,
    norm,
    read_heads,
)
from minilm.architectures.config_fields import field_name, flag, is_version_4, require, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

_XLM = Defaults(30145, 12, (2048, 16, None, None), context=512, tied=True)
_XLNET = Defaults(32000, 24, (1024, 16, None, None), 4096, tied=True)
_CPMANT = Defaults(30720, 48, (4096, 32, None, 128), 10240)
_PROPHETNET = Defaults(30522, 12, (1024, 16, None, None), 4096, 512, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' language models for a config.json."""
    return _LAYOUTS[config["model_type"]](config)


def _table(name: str, rows: Polynomial, component: str, columns: Polynomial = d) -> Tensor:
    return Tensor(name, (rows, columns), component, Role.LOOKED_UP)


def _heads(config: Mapping[str, Any], fields: Mapping[str, str], defaults: Defaults) -> Heads:
    return equal_heads(
        config, defaults.heads, width=fields["hidden_size"], heads=fields["num_attention_heads"]
    )


def _xlm(config: Mapping[str, Any]) -> Layout:
    require(config, "asm", False)  # an adaptive softmax has no head of that shape
    fields = {
        "hidden_size": field_name(config, "emb_dim", "hidden_size"),
        "num_attention_heads": field_name(config, "n_heads", "num_attention_heads"),
        "num_hidden_layers": field_name(config, "n_layers", "num_hidden_layers"),
        "vocab_size": field_name(config, "vocab_size", "n_words"),
    }
    heads = _heads(config, fields, _XLM)
    matrices = {
        "q_lin": components.ATTENTION_QUERY,
        "k_lin": components.ATTENTION_KEY,
        "v_lin": components.ATTENTION_VALUE,
        "out_lin": components.ATTENTION_OUTPUT,
    }
    languages = size(config, "n_langs", 1)
    has_languages = languages > 1 and flag(config, "use_lang_emb", True)
    positions, part = "transformer.position_embeddings.weight", components.POSITION_EMBEDDING
    table = _table(
        "transformer.lang_embeddings.weight",
        as_polynomial(languages),
        components.TOKEN_TYPE_EMBEDDING,
    )
    first, second = "transformer.layer_norm1.{i}", "transformer.layer_norm2.{i}"
    return decoder(
        config,
        _XLM,
        heads,
        *(
            tensor
            for name, matrix in matrices.items()
            for tensor in linear(f"transformer.attentions.{{i}}.{name}", d, d, matrix, bias=True)
        ),
        *norm(first, components.ATTENTION_OUTPUT_NORM, bias=True),
        *feed_forward("transformer.ffns.{i}.lin1", "transformer.ffns.{i}.lin2", 4 * d, bias=True),
        *norm(second, components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        table="transformer.embeddings",
        before=(
            _table(positions, T, part),
            *((table,) if has_languages else ()),
            *norm("transformer.layer_norm_emb", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        ),
        symbols={"T": size(config, "max_position_embeddings", 512)},
        final_norm="",
        head="pred_layer.proj",
        head_bias=True,
        fields=fields,
    )


def _xlnet(config: Mapping[str, Any]) -> Layout:
    fields = {
        "hidden_size": field_name(config, "d_model", "hidden_size"),
        "num_attention_heads": field_name(config, "n_head", "num_attention_heads"),
        "num_hidden_layers": field_name(config, "n_layer", "num_hidden_layers"),
        "vocab_size": field_name(config, "vocab_size", "n_token"),
        "intermediate_size": "d_inner",
    }
    heads = _heads(config, fields, _XLNET)
    attention, inner = "transformer.layer.{i}.rel_attn", "transformer.layer.{i}.ff"
    matrices = {
        "q": components.ATTENTION_QUERY,
        "k": components.ATTENTION_KEY,
        "v": components.ATTENTION_VALUE,
        "o": components.ATTENTION_OUTPUT,
        "r": components.POSITION_EMBEDDING,  # of the distance between two tokens
    }
    added = components.ATTENTION_QUERY
    biases = ("r_r_bias", "r_s_bias", "r_w_bias")
    segments = Tensor(
        f"{attention}.seg_embed",
        (as_polynomial(2), h, k),
        components.TOKEN_TYPE_EMBEDDING,
        Role.LOOKED_UP,
        L,
    )
    mask = Tensor("transformer.mask_emb", (ONE, ONE, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP)
    result = decoder(
        config,
        _XLNET,
        heads,
        *(
            Tensor(f"{attention}.{name}", (d, h, k), part, Role.MULTIPLIED, L)
            for name, part in matrices.items()
        ),
        *(Tensor(f"{attention}.{name}", (h, k), added, Role.ADDED, L) for name in biases),
        segments,
        *norm(f"{attention}.layer_norm", components.ATTENTION_OUTPUT_NORM, bias=True),
        *feed_forward(f"{inner}.layer_1", f"{inner}.layer_2", f, bias=True),
        *norm(f"{inner}.layer_norm", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        table="transformer.word_embedding",
        before=(mask,),
        attention=(AttentionSpec(L, d, 2 * d, d),),  # scores of contents, and of distances
        final_norm="",
        head="lm_loss",
        head_bias=True,
        fields=fields,
    )
    return replace(result, context_length=0)  # positions are relative


def _cpmant(config: Mapping[str, Any]) -> Layout:
    heads = read_heads(config, kv_heads=None, head_dim="dim_head", defaults=_CPMANT.heads)
    block = "cpmant.encoder.layers.{i}"
    attention, inner = f"{block}.self_att.self_attention", f"{block}.ffn.ffn"
    matrices = {
        "project_q": components.ATTENTION_QUERY,
        "project_k": components.ATTENTION_KEY,
        "project_v": components.ATTENTION_VALUE,
    }
    segments = size(config, "segment_types", 32)
    prompts = size(config, "prompt_types", 32) * size(config, "prompt_length", 32)
    buckets = size(config, "position_bias_num_buckets", 512) + segments**2
    bias = "cpmant.position_bias.relative_attention_bias"
    tied = is_version_4(config) and flag(config, "tie_word_embeddings", True)
    result = decoder(
        {**config, "tie_word_embeddings": tied},
        _CPMANT,
        heads,
        *pre_norms(
            f"{block}.self_att.layernorm_before_attention", f"{block}.ffn.layernorm_before_ffn"
        ),
        *(
            tensor
            for name, part in matrices.items()
            for tensor in linear(f"{attention}.{name}", heads.queries, d, part)
        ),
        *linear(f"{attention}.attention_out", d, heads.queries, components.ATTENTION_OUTPUT),
        *linear(f"{inner}.w_in.w_0", f, d, components.FEED_FORWARD_GATE),
        *linear(f"{inner}.w_in.w_1", f, d, components.FEED_FORWARD_UP),
        *linear(f"{inner}.w_out", d, f, components.FEED_FORWARD_DOWN),
        table="cpmant.input_embedding",
        before=(
            _table(
                "cpmant.segment_embedding.weight",
                as_polynomial(segments),
                components.TOKEN_TYPE_EMBEDDING,
            ),
            Tensor(bias, (as_polynomial(buckets), h), components.POSITION_EMBEDDING, Role.ADDED),
        ),
        final_norm="cpmant.encoder.output_layernorm",
        fields={"intermediate_size": "dim_ff"},
    )
    first, *others = result.tensors
    table = replace(first, shape=(V + prompts, d))
    return replace(result, tensors=(table, *others), context_length=0)


def _prophetnet(config: Mapping[str, Any]) -> Layout:
    fields = {
        "hidden_size": "hidden_size",
        "num_attention_heads": "num_decoder_attention_heads",
        "num_hidden_layers": "num_decoder_layers",
        "intermediate_size": "decoder_ffn_dim",
    }
    heads = _heads(config, fields, _PROPHETNET)
    tied = flag(config, "tie_word_embeddings", True)
    body = "prophetnet.decoder"
    block = f"{body}.layers.{{i}}"
    buckets = size(config, "num_buckets", 32) * h
    relative, part = f"{block}.self_attn.relative_pos_embeddings", components.POSITION_EMBEDDING
    inner = f"{block}.feed_forward"
    predicted = size(config, "ngram", 2)
    streams = as_polynomial(predicted)
    table = f"{body}.word_embeddings.weight"
    result = decoder(
        config,
        _PROPHETNET,
        heads,
        *_runs(1 + predicted, *_prophetnet_attention(f"{block}.self_attn")),
        *_runs(1 + predicted, *linear(relative, buckets, d, part, bias=True)),
        *norm(f"{block}.self_attn_layer_norm", components.ATTENTION_OUTPUT_NORM, bias=True),
        *(
            _runs(1 + predicted, *_prophetnet_cross(block))
            if flag(config, "add_cross_attention", True)
            else ()
        ),
        *_runs(
            1 + predicted,
            *feed_forward(f"{inner}.intermediate", f"{inner}.output", f, bias=True),
        ),
        *norm(f"{block}.feed_forward_layer_norm", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        table="prophetnet.word_embeddings",
        before=(
            *(() if tied else (_table(table, V, components.TOKEN_EMBEDDING),)),
            _table(f"{body}.position_embeddings.weight", T, components.POSITION_EMBEDDING),
            _table(f"{body}.ngram_embeddings.weight", streams, components.POSITION_EMBEDDING),
            *norm(
                f"{body}.embeddings_layer_norm", components.EMBEDDING_NORM, bias=True, repeat=ONE
            ),
        ),
        symbols={"T": size(config, "max_position_embeddings", 512)},
        attention=(AttentionSpec(L, 2 * d, (1 + streams) * d, (1 + streams) * d),),
        final_norm="",
        fields=fields,
    )
    own = "prophetnet.word_embeddings.weight"
    matrix = own if tied else "lm_head.weight"
    result = replace(
        result,
        tensors=tuple(_runs(predicted, t)[0] if t.name == matrix else t for t in result.tensors),
    )
    return replace(result, ties=(*result.ties, (table, own))) if tied else result


def _runs(number: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(replace(each, runs=number) for each in tensors)


def _prophetnet_attention(prefix: str) -> tuple[Tensor, ...]:
    matrices = {
        "key_proj": components.ATTENTION_KEY,
        "value_proj": components.ATTENTION_VALUE,
        "query_proj": components.ATTENTION_QUERY,
        "out_proj": components.ATTENTION_OUTPUT,
    }
    return tuple(
        tensor
        for name, part in matrices.items()
        for tensor in linear(f"{prefix}.{name}", d, d, part, bias=True)
    )


def _prophetnet_cross(block: str) -> tuple[Tensor, ...]:
    part = components.CROSS_ATTENTION
    tensors = (
        *_prophetnet_attention(f"{block}.cross_attn"),
        *norm(f"{block}.cross_attn_layer_norm", part, bias=True),
    )
    once = {Role.MULTIPLIED: Role.ONCE}
    return tuple(
        replace(each, component=part, role=once.get(each.role, each.role)) for each in tensors
    )


_LAYOUTS = {
    "xlm": _xlm,
    "flaubert": _xlm,
    "xlnet": _xlnet,
    "cpmant": _cpmant,
    "prophetnet": _prophetnet,
}
