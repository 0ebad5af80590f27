"""minilm's own family, with every option of ModelConfig.

Written from the names in docs/architecture.md and not from the module: `minilm.model` is the other
witness.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import (
    L,
    T,
    d,
    embedding,
    f,
    feed_forward,
    feed_forward_width,
    g,
    h,
    k,
    linear,
    lm_head,
    norm,
)
from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import SHARED, AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

R, c = symbol("R"), symbol("c")  # rows of an n-gram table; tokens of the convolution


def layout(config: ModelConfig, *, free: bool = False) -> Layout:
    """The tensors of `minilm.Transformer(config)`.

    Where ``free``, g and f are letters of their own also where they are h and 4d.
    """
    shared = config.num_blocks < config.num_layers
    symbols = {
        "V": config.vocab_size,
        "T": config.context_length,
        "L": config.num_layers,
        **({"S": config.num_blocks} if shared else {}),
        "d": config.d_model,
        "f": config.d_feed_forward,
        "h": config.num_heads,
        "g": config.num_kv_heads,
        "k": config.head_dim,
    }
    if config.ngram > 1:
        symbols["R"] = config.ngram_rows
    if config.convolution:
        symbols["c"] = config.convolution
    tied = config.tied_embeddings
    block = (
        *_attention(config, "blocks.{i}.attention", free),
        *_feed_forward(config, "blocks.{i}.feed_forward", free),
    )
    if shared:
        block = tuple(replace(tensor, repeat=SHARED) for tensor in block)
    return Layout(
        "minilm",
        (
            *_embeddings(config),
            *block,
            *norm("final_norm", components.FINAL_NORM, bias=config.norm_bias, repeat=ONE),
            *lm_head("lm_head", tied=tied),
        ),
        symbols,
        ties=(("lm_head.weight", "embedding.token.weight"),) if tied else (),
        attention=(AttentionSpec(L, 2 * g * k, h * k, h * k, config.sliding_window),),
        context_length=config.context_length,
    )


def _embeddings(config: ModelConfig) -> tuple[Tensor, ...]:
    """Of tokens, positions and n-grams."""
    tensors = [embedding("embedding.token")]

    def table(name: str, rows: Polynomial, component: str) -> None:
        tensors.append(Tensor(f"embedding.{name}.weight", (rows, d), component, Role.LOOKED_UP))

    if config.position == "learned":
        table("position", T, components.POSITION_EMBEDDING)
    if config.ngram > 1:
        table("ngram", (config.ngram - 1) * R, components.NGRAM_EMBEDDING)
    return tuple(tensors)


def _attention(config: ModelConfig, prefix: str, free: bool) -> tuple[Tensor, ...]:
    """The convolution of a block, its first norm and its attention."""
    # Usual shapes collapse, so that the closed form is the well-known one: h*k is d.
    queries = d if config.num_heads * config.head_dim == config.d_model else h * k
    keys = queries if config.num_kv_heads == config.num_heads and not free else g * k
    bias, norm_bias = config.qkv_bias, config.norm_bias
    tensors: list[Tensor] = []
    if config.convolution:
        name = "blocks.{i}.convolution.weight"
        tensors.append(Tensor(name, (c, d), components.CONVOLUTION, Role.SCALED, L))
    tensors += norm("blocks.{i}.attention_norm", components.ATTENTION_NORM, bias=norm_bias)
    tensors += linear(f"{prefix}.query", queries, d, components.ATTENTION_QUERY, bias=bias)
    tensors += linear(f"{prefix}.key", keys, d, components.ATTENTION_KEY, bias=bias)
    tensors += linear(f"{prefix}.value", keys, d, components.ATTENTION_VALUE, bias=bias)
    if config.qk_norm:
        for name in ("query_norm", "key_norm"):
            component = components.ATTENTION_QK_NORM
            tensors += norm(f"{prefix}.{name}", component, width=k, bias=norm_bias)
    bias = config.attention_output_bias
    tensors += linear(f"{prefix}.output", d, queries, components.ATTENTION_OUTPUT, bias=bias)
    return tuple(tensors)


def _feed_forward(config: ModelConfig, prefix: str, free: bool) -> tuple[Tensor, ...]:
    """The second norm of a block and its feed-forward."""
    width = f if free else feed_forward_width(config.d_feed_forward, config.d_model)
    bias = config.feed_forward_bias
    gate = linear(f"{prefix}.gate", width, d, components.FEED_FORWARD_GATE, bias=bias)
    return (
        *norm("blocks.{i}.feed_forward_norm", components.FEED_FORWARD_NORM, bias=config.norm_bias),
        *(gate if config.gated else ()),
        *feed_forward(f"{prefix}.up", f"{prefix}.down", width, bias=bias),
    )
