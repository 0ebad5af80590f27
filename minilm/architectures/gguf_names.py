"""What GGUF files call tensors and sizes, in both directions: the one table of names.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`. The names are the same in all architectures.
"""

from __future__ import annotations

from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Tensor

# Component -> the name of its tensor without `.weight` or `.bias`; in a layer, behind `blk.{i}.`.
STEMS = {
    components.TOKEN_EMBEDDING: "token_embd",
    components.POSITION_EMBEDDING: "position_embd",
    components.EMBEDDING_NORM: "token_embd_norm",
    components.ATTENTION_NORM: "attn_norm",
    components.ATTENTION_QUERY: "attn_q",
    components.ATTENTION_KEY: "attn_k",
    components.ATTENTION_VALUE: "attn_v",
    components.ATTENTION_QUERY_KEY_VALUE: "attn_qkv",
    components.ATTENTION_QUERY_LATENT: "attn_q_a",
    components.ATTENTION_KEY_VALUE_LATENT: "attn_kv_a_mqa",
    components.ATTENTION_KEY_VALUE: "attn_kv_b",
    components.ATTENTION_SINKS: "attn_sinks",
    components.ATTENTION_OUTPUT: "attn_output",
    components.ATTENTION_OUTPUT_NORM: "post_attention_norm",
    components.FEED_FORWARD_NORM: "ffn_norm",
    components.FEED_FORWARD_GATE: "ffn_gate",
    components.FEED_FORWARD_GATE_UP: "ffn_up",
    components.FEED_FORWARD_UP: "ffn_up",  # behind gate+up: back from the name, it is up
    components.FEED_FORWARD_DOWN: "ffn_down",
    components.FEED_FORWARD_OUTPUT_NORM: "post_ffw_norm",
    components.ROUTER: "ffn_gate_inp",
    components.EXPERTS_GATE: "ffn_gate_exps",
    components.EXPERTS_UP: "ffn_up_exps",
    components.EXPERTS_GATE_UP: "ffn_gate_up_exps",
    components.EXPERTS_DOWN: "ffn_down_exps",
    components.SHARED_EXPERT_GATE: "ffn_gate_inp_shexp",
    components.FINAL_NORM: "output_norm",
    components.LM_HEAD: "output",
}
_QUERY_NORM, _KEY_NORM = "attn_q_norm", "attn_k_norm"

# The inverse, with the components that have several names.
COMPONENTS = {stem: component for component, stem in STEMS.items()} | {
    _QUERY_NORM: components.ATTENTION_QK_NORM,
    _KEY_NORM: components.ATTENTION_QK_NORM,
    "attn_q_b": components.ATTENTION_QUERY,
    "attn_k_b": components.ATTENTION_KEY,
    "attn_v_b": components.ATTENTION_VALUE,
    "attn_q_a_norm": components.ATTENTION_LATENT_NORM,
    "attn_kv_a_norm": components.ATTENTION_LATENT_NORM,
    "ffn_gate_shexp": components.SHARED_EXPERT,
    "ffn_up_shexp": components.SHARED_EXPERT,
    "ffn_down_shexp": components.SHARED_EXPERT,
}

# Key behind the architecture's name -> the field of ModelConfig that is written under it (empty: none,
# or only on a condition), and the fields of a config.json that it is read as.
KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "context_length": ("context_length", ("max_position_embeddings", "n_positions")),
    "embedding_length": ("d_model", ("hidden_size", "n_embd")),
    "block_count": ("num_layers", ("num_hidden_layers", "n_layer")),
    "feed_forward_length": ("d_feed_forward", ("intermediate_size", "n_inner")),
    "attention.head_count": ("num_heads", ("num_attention_heads", "n_head")),
    "attention.head_count_kv": ("num_kv_heads", ("num_key_value_heads",)),
    "vocab_size": ("vocab_size", ("vocab_size",)),
    "attention.key_length": ("", ("head_dim",)),
    "attention.sliding_window": ("", ("sliding_window",)),
    "expert_count": ("", ("num_local_experts", "num_experts")),
    "expert_used_count": ("", ("num_experts_per_tok",)),
    "expert_feed_forward_length": ("", ("moe_intermediate_size",)),
}

ACTIVATION = "hidden_activation"  # a text, as Hugging Face names activations


def gguf_name(tensor: Tensor) -> str:
    """GGUF's name of a declared tensor, with ``{i}`` for the layer. Raises ConfigError where it has none."""
    if tensor.component == components.ATTENTION_QK_NORM:
        is_query = any(each in tensor.name for each in ("q_norm", "q_layernorm", "query_layernorm"))
        stem = _QUERY_NORM if is_query else _KEY_NORM
    elif tensor.component in STEMS:
        stem = STEMS[tensor.component]
    else:
        raise ConfigError("general.architecture", tensor.component, "a part that GGUF has")
    layer = "blk.{i}." if "{i}" in tensor.name else ""
    suffix = "bias" if tensor.name.endswith(".bias") else "weight"
    return f"{layer}{stem}.{suffix}"
