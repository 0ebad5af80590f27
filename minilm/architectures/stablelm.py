"""StableLM (3B, 2) as transformers stores it: LayerNorm with bias, RoPE, a gated feed-forward.

Names, shapes and defaults: huggingface/transformers `models/stablelm/configuration_stablelm.py` and
`modeling_stablelm.py`. With `qk_layernorm` every single head has a norm of its own (2-12B).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    Heads,
    L,
    embedding,
    g,
    gated_feed_forward,
    h,
    k,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, number, require, size
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_activation, read_rope, read_rotary_dim
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial

_BLOCK = "model.layers.{i}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of StableLmForCausalLM for a config.json."""
    heads = read_heads(config, head_dim=None, defaults=(2560, 32, 32, None))
    tied = flag(config, "tie_word_embeddings", False)
    symbols = {
        "V": size(config, "vocab_size", 50304),
        "L": layers(config, "num_hidden_layers", 32),
        "f": size(config, "intermediate_size", 6912),
        **heads.symbols,
    }
    tensors = (
        embedding("model.embed_tokens"),
        *norm(f"{_BLOCK}.input_layernorm", components.ATTENTION_NORM, bias=True),
        *_attention(config, heads),
        *_feed_forward_norm(config),
        *gated_feed_forward(f"{_BLOCK}.mlp"),
        *norm("model.norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "stablelm",
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        ignored=(f"{_BLOCK}.self_attn.rotary_emb.inv_freq",),
        attention=(heads.attention(),),
        context_length=size(config, "max_position_embeddings", 4096),
    )


def _attention(config: Mapping[str, Any], heads: Heads) -> tuple[Tensor, ...]:
    prefix = f"{_BLOCK}.self_attn"
    projections = separate_attention(prefix, heads, qkv_bias=flag(config, "use_qkv_bias", False))
    if not flag(config, "qk_layernorm", False):
        return projections
    return (
        *projections,
        _norm_per_head(f"{prefix}.q_layernorm", h),
        _norm_per_head(f"{prefix}.k_layernorm", g),
    )


def _norm_per_head(name: str, heads: Polynomial) -> Tensor:
    part = components.ATTENTION_QK_NORM
    return Tensor(f"{name}.norms.{{e}}.weight", (k,), part, Role.SCALED, L, experts=heads)


def _feed_forward_norm(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Of its own only where the feed-forward comes after attention, not beside it."""
    if flag(config, "use_parallel_residual", False):
        return ()
    return norm(f"{_BLOCK}.post_attention_layernorm", components.FEED_FORWARD_NORM, bias=True)


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    require(fields, "qk_layernorm", False)
    return {
        "feed_forward": read_activation(fields, "hidden_act", "silu", gated=True),
        "norm_epsilon": number(fields, "layer_norm_eps", 1e-5),
        "rotary_dim": read_rotary_dim(fields, layout(fields), 0.25),
        "parallel_residual": flag(fields, "use_parallel_residual", False),
        **read_rope(fields, "rope_theta"),
    }


IMPORTABLE = (Importable("stablelm", layout, _minilm_fields),)
