"""Encoders of text with rotary positions: ModernBERT, EuroBERT, UltraBERT, Nomic's, GTE and Jina's third.

Fused queries, keys and values in all but EuroBERT and UltraBERT, which are Llama but for their heads; gated
feed-forward in all but Jina's. Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    d,
    equal_heads,
    f,
    fused_attention,
    gated_feed_forward,
    linear,
    norm,
    read_heads,
    separate_attention,
    sliding_layers,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    require,
    size,
    whole_number,
)
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.encoder_layers import lookup, masked_head
from minilm.architectures.moe import group_of
from minilm.architectures.task_heads import (
    ROBERTA_CLASSES,
    TaskHeads,
    UndeclaredClassError,
    with_class,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, symbol

_MODERNBERT = Defaults(50368, 22, (768, 12, None, None), 1152, 8192, tied=True)
_EUROBERT = Defaults(128256, 12, (768, 12, None, None), 3072, 8192)
_ESMC = Defaults(64, 80, (2560, 40, None, None), 6912, 2048)
_ULTRABERT = Defaults(32000, 32, (4096, 32, None, None), 11008, 32768, window=128)
_NOMIC = Defaults(30528, 12, (768, 12, None, None), 3072, 2048, tied=True)
_GTE = Defaults(250048, 12, (768, 12, None, None), 3072, 8192, tied=True)
_JINA = Defaults(250002, 24, (1024, 16, None, None), 4096, 8194, tied=True)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of a class of these types for a config.json."""
    return _LAYOUTS[config["model_type"]](config)


def _modernbert(config: Mapping[str, Any]) -> Layout:
    result, head = modernbert(config)
    tensors = (*result.tensors, *head)
    # Each of its classifiers has the masked language model's dense map and norm in front.
    classes = TaskHeads("model.", pooler="", answers="classifier", before=head)
    return with_class(replace(result, tensors=tensors), config, classes)


def modernbert(config: Mapping[str, Any]) -> tuple[Layout, tuple[Tensor, ...]]:
    """The body with the tied matrix, and the dense map and norm in front of that."""
    heads = equal_heads(config, _MODERNBERT.heads)
    num_layers = layers(config, "num_hidden_layers", _MODERNBERT.layers)
    gain = flag(config, "norm_bias", False)
    bias, mlp_bias = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    period = size(config, "global_attn_every_n_layers", 3)
    sliding = sliding_layers(config, num_layers, lambda i: i % period != 0)
    window = whole_number(config, "local_attention", 128)
    later = group_of(range(1, num_layers), num_layers)  # the first has no norm
    part = components.ATTENTION_NORM
    norms = (
        norm(f"{BLOCK}.attn_norm", part, bias=gain, repeat=later.repeat, layers=later.layers)
        if later
        else ()
    )
    result = decoder(
        config,
        _MODERNBERT,
        heads,
        *norms,
        *fused_attention(f"{BLOCK}.attn.Wqkv", f"{BLOCK}.attn.Wo", heads, bias=bias),
        *norm(f"{BLOCK}.mlp_norm", components.FEED_FORWARD_NORM, bias=gain),
        *linear(f"{BLOCK}.mlp.Wi", 2 * f, d, components.FEED_FORWARD_GATE_UP, bias=mlp_bias),
        *linear(f"{BLOCK}.mlp.Wo", d, f, components.FEED_FORWARD_DOWN, bias=mlp_bias),
        table="model.embeddings.tok_embeddings",
        before=norm("model.embeddings.norm", components.EMBEDDING_NORM, bias=gain, repeat=ONE),
        final_norm="model.final_norm",
        norm_bias=gain,
        head="decoder",
        head_bias=flag(config, "decoder_bias", True),
        attention=attention_kinds(heads, num_layers, sliding, window),
    )
    dense_bias = flag(config, "classifier_bias", False)
    return result, (
        *linear("head.dense", d, d, components.LM_HEAD, bias=dense_bias, repeat=ONE),
        *norm("head.norm", components.LM_HEAD, bias=gain, repeat=ONE),
    )


def _llama(config: Mapping[str, Any], defaults: Defaults, prefix: str, **others: Any) -> Layout:
    heads, num_layers = heads_and_layers(config, defaults)
    bias, mlp_bias = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    sliding = 0
    if defaults.window:
        sliding = sliding_layers(config, num_layers, lambda i: (i + 1) % 3 != 0)
    window = whole_number(config, "sliding_window", defaults.window)
    result = decoder(
        config,
        defaults,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *gated_feed_forward(MLP, bias=mlp_bias),
        attention=attention_kinds(heads, num_layers, sliding, window),
        **others,
    )
    renamed = (
        replace(
            t, name=t.name.replace("model.", prefix, 1) if t.name.startswith("model.") else t.name
        )
        for t in result.tensors
    )
    ties = tuple((head, table.replace("model.", prefix, 1)) for head, table in result.ties)
    return replace(result, tensors=tuple(renamed), ties=ties)


def _eurobert(config: Mapping[str, Any]) -> Layout:
    classes = TaskHeads("model.", pooler="", dense="dense")
    return with_class(
        _llama(config, _EUROBERT, "model.", head_bias=flag(config, "mlp_bias", False)),
        config,
        classes,
    )


def _ultrabert(config: Mapping[str, Any]) -> Layout:
    result = _llama(config, _ULTRABERT, "ultrabert.", head="cls")
    inner, part = symbol("p"), components.LM_HEAD
    head = (
        *linear("head.linear1", inner, d, part, repeat=ONE),
        *linear("head.linear2", d, inner, part, repeat=ONE),
    )
    symbols = {**result.symbols, "p": size(config, "prediction_head_size", 768)}
    result = replace(result, tensors=(*result.tensors, *head), symbols=symbols)
    return with_class(result, config, TaskHeads("ultrabert.", pooler="", answers_are_two=True))


def _esmc(config: Mapping[str, Any]) -> Layout:
    """Its head is never tied."""
    result = _llama({**config, "tie_word_embeddings": True}, _ESMC, "esmc.")
    gains = ("layernorm.weight",)
    biases = tuple(
        replace(t, name=t.name.replace(".weight", ".bias"), role=Role.ADDED)
        for t in result.tensors
        if t.name.endswith(gains)
    )
    norms = query_key_norms(
        "esmc.layers.{i}.self_attn.q_norm", "esmc.layers.{i}.self_attn.k_norm", widths=(d, d)
    )
    out = "lm_head.decoder"
    head = masked_head(("lm_head.dense", "lm_head.layer_norm"), out, f"{out}.bias", tied=False)
    result = replace(result, tensors=(*result.tensors, *biases, *norms, *head), ties=())
    heads = TaskHeads("esmc.", pooler="", tokens="score", **ROBERTA_CLASSES)
    return with_class(result, config, heads)


_FIELDS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}


def _nomic(config: Mapping[str, Any]) -> Layout:
    if config.get("moe_every_n_layers"):
        what = "Nomic's encoder without experts"
        raise UndeclaredClassError("config.json: moe_every_n_layers", "experts", what)
    block = "nomic_bert.encoder.layers.{i}"
    fields = {name: field_name(config, name, other) for name, other in _FIELDS.items()}
    heads = read_heads(
        config,
        width=fields["hidden_size"],
        heads=fields["num_attention_heads"],
        kv_heads=None,
        defaults=_NOMIC.heads,
    )
    return _encoder(
        config,
        _NOMIC,
        heads,
        (
            *fused_attention(f"{block}.attn.Wqkv", f"{block}.attn.out_proj", heads),
            *norm(f"{block}.norm1", components.ATTENTION_OUTPUT_NORM, bias=True),
            *linear(f"{block}.mlp.fc11", f, d, components.FEED_FORWARD_UP),
            *linear(f"{block}.mlp.fc12", f, d, components.FEED_FORWARD_GATE),
            *linear(f"{block}.mlp.fc2", d, f, components.FEED_FORWARD_DOWN),
            *norm(f"{block}.norm2", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        ),
        prefix="nomic_bert.",
        gain="emb_ln",
        head=("cls.predictions.transform.dense", "cls.predictions.transform.layer_norm"),
        out=("cls.predictions.decoder", "cls.predictions.bias"),
        fields=fields,
    )


def _gte(config: Mapping[str, Any]) -> Layout:
    """Its own code calls the type `new`, and may have three matrices of queries, keys and values."""
    if config["model_type"] == "new":
        require(config, "pack_qkv", True)
    heads, prefix = equal_heads(config, _GTE.heads), f"{config['model_type']}."
    block = prefix + "encoder.layer.{i}"
    attention = f"{block}.attention"
    return _encoder(
        config,
        _GTE,
        heads,
        (
            *fused_attention(f"{attention}.qkv_proj", f"{attention}.o_proj", heads, bias=True),
            *norm(f"{block}.attn_ln", components.ATTENTION_OUTPUT_NORM, bias=True),
            *linear(f"{block}.mlp.up_gate_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
            *linear(f"{block}.mlp.down_proj", d, f, components.FEED_FORWARD_DOWN, bias=True),
            *norm(f"{block}.mlp_ln", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        ),
        prefix=prefix,
        gain="embeddings.LayerNorm",
        head=("lm_head.dense", "lm_head.norm"),
        out=("lm_head.decoder", "lm_head.decoder.bias"),
    )


def _jina(config: Mapping[str, Any]) -> Layout:
    heads = equal_heads(config, _JINA.heads)
    block = "roberta.encoder.layers.{i}"
    return _encoder(
        config,
        _JINA,
        heads,
        (
            *fused_attention(f"{block}.mixer.Wqkv", f"{block}.mixer.out_proj", heads, bias=True),
            *norm(f"{block}.norm1", components.ATTENTION_OUTPUT_NORM, bias=True),
            *linear(f"{block}.mlp.fc1", f, d, components.FEED_FORWARD_UP, bias=True),
            *linear(f"{block}.mlp.fc2", d, f, components.FEED_FORWARD_DOWN, bias=True),
            *norm(f"{block}.norm2", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
        ),
        prefix="roberta.",
        gain="emb_ln",
        head=("lm_head.dense", "lm_head.layer_norm"),
        out=("lm_head.decoder", "lm_head.bias"),
        classes={
            "pooler": "pooler.dense",
            "dense": "classifier.dense",
            "classifier": "classifier.out_proj",
        },
    )


def _encoder(
    config: Mapping[str, Any],
    defaults: Defaults,
    heads: Any,
    block: tuple[Tensor, ...],
    *,
    prefix: str,
    gain: str,
    head: tuple[str, str],
    out: tuple[str, str],
    fields: Mapping[str, str] | None = None,
    classes: Mapping[str, Any] | None = None,
) -> Layout:
    """BERT's tables without positions, ``block``, and a masked language model's head."""
    tied = flag(config, "tie_word_embeddings", True)
    table = f"{prefix}embeddings.word_embeddings"
    types = whole_number(config, "type_vocab_size", 2 if prefix == "nomic_bert." else 1)
    has_types = types or config["model_type"] not in ("gte", "new")
    type_table = (lookup(f"{prefix}embeddings.token_type_embeddings", types),)
    body = decoder(
        config,
        defaults,
        heads,
        *block,
        table=table,
        before=(
            *(type_table if has_types else ()),
            *norm(f"{prefix}{gain}", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        ),
        final_norm="",
        fields=fields,
    )
    tensors = tuple(t for t in body.tensors if t.component != components.LM_HEAD)
    ties = ((f"{out[0]}.weight", f"{table}.weight"), (f"{out[0]}.bias", out[1]))
    result = replace(
        body,
        tensors=(*tensors, *masked_head(head, *out, tied=tied)),
        ties=tuple(pair for pair in ties if pair[0] != pair[1]) if tied else (),
    )
    return with_class(result, config, TaskHeads(prefix, **(classes or {"pooler_of_body": False})))


_LAYOUTS = {
    "esmc": _esmc,
    "eurobert": _eurobert,
    "gte": _gte,
    "new": _gte,
    "jina_embeddings_v3": _jina,
    "modernbert": _modernbert,
    "nomic_bert": _nomic,
    "ultrabert": _ultrabert,
}
