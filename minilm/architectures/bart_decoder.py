"""The decoders of BART and its kin as language models, XGLM and BioGPT, as transformers stores them.

A decoder keeps its cross-attention, which a text alone does not use. Learned positions may begin with
two that are not used; some have a norm behind the embedding, some one behind all layers. The whole
models with their encoders are not declared here. Names, shapes and defaults: huggingface/transformers
`models/TYPE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import T, d, equal_heads, f, feed_forward, linear, norm
from minilm.architectures.config_fields import (
    field_name,
    flag,
    is_version_4,
    optional_size,
    require,
    size,
)
from minilm.architectures.decoder import Defaults, decoder
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial


@dataclass(frozen=True, kw_only=True)
class Variant(Defaults):
    """``positions`` are rows beyond the context; None where they are computed."""

    positions: int | None = 2
    has_embedding_norm: bool = True
    has_final_norm: bool = False
    has_bias: bool = True  # of attention
    has_key_bias: bool = True
    has_cross_attention: bool = True
    body: str = "model.decoder"
    head: str = "lm_head"
    fields: tuple[str, str, str, str, str] = (
        "d_model",
        "decoder_attention_heads",
        "decoder_layers",
        "decoder_ffn_dim",
        "max_position_embeddings",
    )
    tied: bool = True


_BART = Variant(
    vocabulary=50265,
    layers=12,
    heads=(1024, 16, None, None),
    feed_forward=4096,
    context=1024,
)
_PEGASUS = replace(_BART, positions=0, has_embedding_norm=False, has_final_norm=True)
VARIANTS = {
    "bart": _BART,
    "bigbird_pegasus": replace(_BART, vocabulary=96103, layers=16, context=4096, positions=0),
    "biogpt": replace(
        _BART,
        vocabulary=42384,
        layers=24,
        has_embedding_norm=False,
        has_final_norm=True,
        has_cross_attention=False,
        body="biogpt",
        head="output_projection",
        fields=(
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
        ),
    ),
    "blenderbot": replace(
        _PEGASUS,
        vocabulary=8008,
        layers=24,
        heads=(2560, 32, None, None),
        feed_forward=10240,
        context=128,
    ),
    "blenderbot-small": replace(
        _BART,
        layers=8,
        heads=(512, 16, None, None),
        feed_forward=2048,
        context=512,
        positions=0,
    ),
    "marian": replace(_PEGASUS, vocabulary=58101, has_final_norm=False),
    "mbart": replace(_BART, has_final_norm=True),
    "mvp": replace(_BART, vocabulary=50267),
    "pegasus": _PEGASUS,
    "plbart": replace(
        _BART, vocabulary=50005, layers=6, heads=(768, 12, None, None), feed_forward=3072
    ),
    "trocr": replace(_BART, context=512, head="output_projection"),
    "whisper": replace(
        _PEGASUS,
        vocabulary=51865,
        layers=4,
        heads=(384, 6, None, None),
        feed_forward=1536,
        context=448,
        has_key_bias=False,
        head="proj_out",
        fields=(*_BART.fields[:4], "max_target_positions"),
    ),
    "xglm": replace(
        _PEGASUS,
        vocabulary=256008,
        layers=24,
        context=2048,
        positions=None,
        has_cross_attention=False,
        body="model",
        fields=("d_model", "attention_heads", "num_layers", "ffn_dim", "max_position_embeddings"),
    ),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    # Since transformers 5 it is not tied, whatever its field says.
    if config["model_type"] == "bigbird_pegasus" and not is_version_4(config):
        config = {**config, "tie_word_embeddings": False}
    return decoder_of(config, VARIANTS[config["model_type"]])


def decoder_of(config: Mapping[str, Any], variant: Variant) -> Layout:
    """The decoder that ``variant`` describes, with its head."""
    family = config["model_type"]
    width, number, depth, inner, context = variant.fields
    if not variant.has_cross_attention:
        require(config, "add_cross_attention", False)
    heads = equal_heads(config, variant.heads, width=width, heads=number)
    fields = {
        "num_hidden_layers": depth,
        "intermediate_size": inner,
        "max_position_embeddings": context,
    }
    if family == "marian":
        fields["vocab_size"] = field_name(config, "vocab_size", "decoder_vocab_size")
        rows = size(config, fields["vocab_size"], variant.vocabulary)
        is_other = rows != size(config, "vocab_size", variant.vocabulary)
        if is_other and not flag(config, "tie_word_embeddings", True):
            expected = "vocab_size, where the head is not tied"
            raise ConfigError("config.json: decoder_vocab_size", f"{rows}", expected)
    bias = flag(config, "use_bias", False) if family == "bigbird_pegasus" else variant.has_bias
    body, block = variant.body, f"{variant.body}.layers.{{i}}"
    has_positions = variant.positions is not None
    if family == "trocr":
        has_positions = flag(config, "use_learned_position_embeddings", True)
    has_norm = variant.has_embedding_norm
    if family == "trocr":
        has_norm = flag(config, "layernorm_embedding", True)
    given = optional_size(config, "cross_attention_hidden_size") if family == "trocr" else None
    seen = d if given in (None, heads.symbols["d"]) else as_polynomial(given)
    part = components.POSITION_EMBEDDING
    shape = (T + (variant.positions or 0), d)
    positions = Tensor(f"{body}.embed_positions.weight", shape, part, Role.LOOKED_UP)
    embedding_norm = components.EMBEDDING_NORM
    return decoder(
        config,
        variant,
        heads,
        *attention(f"{block}.self_attn", bias, bias and variant.has_key_bias),
        *norm(f"{block}.self_attn_layer_norm", components.ATTENTION_NORM, bias=True),
        *(_cross_attention(block, bias, variant, seen) if variant.has_cross_attention else ()),
        *feed_forward(f"{block}.fc1", f"{block}.fc2", f, bias=True),
        *norm(f"{block}.final_layer_norm", components.FEED_FORWARD_NORM, bias=True),
        table=f"{body}.embed_tokens",
        before=(
            *((positions,) if has_positions else ()),
            *(
                norm(f"{body}.layernorm_embedding", embedding_norm, bias=True, repeat=ONE)
                if has_norm
                else ()
            ),
        ),
        symbols={"T": size(config, context, variant.context)} if has_positions else {},
        final_norm=f"{body}.layer_norm" if variant.has_final_norm else "",
        norm_bias=True,
        head=variant.head,
        fields=fields,
    )


def attention(prefix: str, bias: bool, key_bias: bool, seen: Polynomial = d) -> tuple[Tensor, ...]:
    """``seen`` is the width of what keys and values are of."""
    return (
        *linear(f"{prefix}.k_proj", d, seen, components.ATTENTION_KEY, bias=key_bias),
        *linear(f"{prefix}.v_proj", d, seen, components.ATTENTION_VALUE, bias=bias),
        *linear(f"{prefix}.q_proj", d, d, components.ATTENTION_QUERY, bias=bias),
        *linear(f"{prefix}.out_proj", d, d, components.ATTENTION_OUTPUT, bias=bias),
    )


def _cross_attention(
    block: str, bias: bool, variant: Variant, seen: Polynomial
) -> tuple[Tensor, ...]:
    """Used where there is an encoder's text or picture, of width ``seen``: no FLOPs of a token."""
    tensors = (
        *attention(f"{block}.encoder_attn", bias, bias and variant.has_key_bias, seen),
        *norm(f"{block}.encoder_attn_layer_norm", components.CROSS_ATTENTION, bias=True),
    )
    return tuple(
        replace(
            tensor,
            component=components.CROSS_ATTENTION,
            role=Role.ONCE if tensor.role is Role.MULTIPLIED else tensor.role,
        )
        for tensor in tensors
    )
