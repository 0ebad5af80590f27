"""GPT-2 as transformers stores it: fused query-key-value, matrices as (in, out), a tied head.

Names and shapes: huggingface/transformers `models/gpt2/modeling_gpt2.py` (Conv1D keeps its weight as
(in, out)). The published files leave out the `transformer.` prefix and hold each layer's causal mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    L,
    T,
    d,
    embedding,
    equal_heads,
    feed_forward_width,
    lm_head,
    norm,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    number,
    require,
    size,
    size_or_null,
)
from minilm.architectures.conversion import (
    ALL_BIASES,
    GELU_GRAPH,
    LAYERNORM,
    STANDARD_BLOCK,
    Architecture,
    GgufGraph,
    all_of,
    heads_fill_width,
    requires,
    ungrouped_heads,
)
from minilm.architectures.shared_fields import HF_ACTIVATIONS, Fields, read_activation
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial

BLOCK = "transformer.h.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPT2LMHeadModel for a config.json."""
    if flag(config, "add_cross_attention", False):
        raise ConfigError(
            "config.json: add_cross_attention",
            "true",
            "false",
            "the decoder half of an encoder-decoder is not a language model on its own",
        )
    return layout_around("gpt2", config, gpt_heads(config), gpt_block)


def layout_around(
    family: str,
    config: Mapping[str, Any],
    heads: Heads,
    block: Callable[[Polynomial], tuple[Tensor, ...]],
) -> Layout:
    """What models of GPT-2's kind have around their layers; ``block`` takes the feed-forward's width."""
    inner = size_or_null(config, "n_inner", 4 * heads.symbols["d"])
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 50257),
        "T": size(config, field_name(config, "n_positions", "max_position_embeddings"), 1024),
        "L": layers(config, field_name(config, "n_layer", "num_hidden_layers"), 12),
        "f": inner,
        **heads.symbols,
    }
    tensors = (
        embedding("transformer.wte"),
        Tensor("transformer.wpe.weight", (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP),
        *block(feed_forward_width(inner, heads.symbols["d"])),
        *norm("transformer.ln_f", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        family,
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        optional_prefix="transformer.",
        ignored=(f"{BLOCK}.attn.bias", f"{BLOCK}.attn.masked_bias"),
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )


def gpt_heads(config: Mapping[str, Any]) -> Heads:
    """The heads of GPT and GPT-2: width/heads wide, each with a key and a value of its own."""
    return equal_heads(
        config,
        (768, 12, None, None),
        width=field_name(config, "n_embd", "hidden_size"),
        heads=field_name(config, "n_head", "num_attention_heads"),
    )


def gpt_block(hidden: Polynomial) -> tuple[Tensor, ...]:
    """One layer's tensors in both."""
    return (
        *norm(f"{BLOCK}.ln_1", components.ATTENTION_NORM, bias=True),
        *transposed(f"{BLOCK}.attn.c_attn", d, 3 * d, components.ATTENTION_QUERY_KEY_VALUE),
        *transposed(f"{BLOCK}.attn.c_proj", d, d, components.ATTENTION_OUTPUT),
        *norm(f"{BLOCK}.ln_2", components.FEED_FORWARD_NORM, bias=True),
        *transposed(f"{BLOCK}.mlp.c_fc", d, hidden, components.FEED_FORWARD_UP),
        *transposed(f"{BLOCK}.mlp.c_proj", hidden, d, components.FEED_FORWARD_DOWN),
    )


def transposed(
    name: str, inputs: Polynomial, outputs: Polynomial, component: str
) -> tuple[Tensor, ...]:
    """``name.weight`` (inputs, outputs) as Conv1D keeps it, and ``name.bias``."""
    return (
        Tensor(f"{name}.weight", (inputs, outputs), component, Role.MULTIPLIED, L, transposed=True),
        Tensor(f"{name}.bias", (outputs,), component, Role.ADDED, L),
    )


def _hf_fields(config: ModelConfig) -> dict[str, Any]:
    is_tanh = config.feed_forward == "gelu_tanh"
    return {
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_feed_forward,
        "activation_function": "gelu_new" if is_tanh else HF_ACTIVATIONS[config.feed_forward],
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    require(fields, "scale_attn_by_inverse_layer_idx", False)
    require(fields, "scale_attn_weights", True)
    return {
        "feed_forward": read_activation(fields, "activation_function", "gelu_new"),
        "norm_epsilon": number(fields, "layer_norm_epsilon", 1e-5),
    }


ARCHITECTURES = (
    Architecture(
        model_type="gpt2",
        class_name="GPT2LMHeadModel",
        layout=layout,
        unsupported_fields=all_of(
            requires(position="learned"),
            STANDARD_BLOCK,
            LAYERNORM,
            requires(sliding_window=0, qk_norm=False),
            requires(qkv_bias=True, attention_output_bias=True, feed_forward_bias=True),
            ungrouped_heads,
            heads_fill_width,
        ),
        hf_fields=_hf_fields,
        minilm_fields=_minilm_fields,
        gguf=GgufGraph(GELU_GRAPH),
        zero_biases=(*ALL_BIASES, "norm_bias"),
    ),
)
