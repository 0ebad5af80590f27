"""A tensor's component and kind by its name alone, for modules and files that are not declared."""

from __future__ import annotations

import re

from minilm.ledger import components

# Linear's and attention's, in_proj_bias; recurrent layers' bias_ih_l0 and bias_hh_l0_reverse.
_BIAS = re.compile(r"bias|.*_bias|bias_(ih|hh)_l\d+(_reverse)?")
_EMBEDDING = re.compile(
    r"(^|[._])(wte|wpe|embed\w*|(token|position)_embd)([._]|$)|^shared\.weight$"
)
_GGUF = re.compile(r"(?:blk\.\d+\.)?([a-z0-9_]+)\.(?:weight|bias)")

# GGUF has the same tensor names for all architectures (gguf-py/gguf/constants.py of ggml-org/llama.cpp).
_GGUF_COMPONENTS = {
    "token_embd": components.TOKEN_EMBEDDING,
    "position_embd": components.POSITION_EMBEDDING,
    "token_embd_norm": components.EMBEDDING_NORM,
    "output_norm": components.FINAL_NORM,
    "attn_norm": components.ATTENTION_NORM,
    "attn_q": components.ATTENTION_QUERY,
    "attn_k": components.ATTENTION_KEY,
    "attn_v": components.ATTENTION_VALUE,
    "attn_qkv": components.ATTENTION_QUERY_KEY_VALUE,
    "attn_q_norm": components.ATTENTION_QK_NORM,
    "attn_k_norm": components.ATTENTION_QK_NORM,
    "attn_q_a": components.ATTENTION_QUERY_LATENT,
    "attn_q_b": components.ATTENTION_QUERY,
    "attn_kv_a_mqa": components.ATTENTION_KEY_VALUE_LATENT,
    "attn_kv_b": components.ATTENTION_KEY_VALUE,
    "attn_k_b": components.ATTENTION_KEY,
    "attn_v_b": components.ATTENTION_VALUE,
    "attn_q_a_norm": components.ATTENTION_LATENT_NORM,
    "attn_kv_a_norm": components.ATTENTION_LATENT_NORM,
    "attn_sinks": components.ATTENTION_SINKS,
    "attn_output": components.ATTENTION_OUTPUT,
    "post_attention_norm": components.ATTENTION_OUTPUT_NORM,
    "ffn_norm": components.FEED_FORWARD_NORM,
    "ffn_gate": components.FEED_FORWARD_GATE,
    "ffn_up": components.FEED_FORWARD_UP,
    "ffn_down": components.FEED_FORWARD_DOWN,
    "post_ffw_norm": components.FEED_FORWARD_OUTPUT_NORM,
    "ffn_gate_inp": components.ROUTER,
    "ffn_gate_exps": components.EXPERTS_GATE,
    "ffn_up_exps": components.EXPERTS_UP,
    "ffn_down_exps": components.EXPERTS_DOWN,
    "ffn_gate_shexp": components.SHARED_EXPERT,
    "ffn_up_shexp": components.SHARED_EXPERT,
    "ffn_down_shexp": components.SHARED_EXPERT,
    "ffn_gate_inp_shexp": components.SHARED_EXPERT_GATE,
}

# What modules register as buffers, by the end of the name: rotary frequencies, BatchNorm's
# statistics, position ids, the bias correction of DeepSeek-V3's routers (in GGUF exp_probs_b).
_BUFFER = re.compile(
    r"(.*\.)?(rotary_emb\.inv_freq|running_(mean|var)|num_batches_tracked|(position|token_type)_ids"
    r"|masked_bias|e_score_correction_bias)|(.*\.)?exp_probs_b(\.bias)?"
    r"|rope_freqs\.weight|rope_factors_\w+\.weight"
)
_ROUTED = re.compile(r"(^|\.)experts\.|_exps\.|\.ffn_(gate|up|down)\.\d+\.")


def component_by_name(name: str) -> str:
    """The component of an undeclared tensor: by its GGUF name, else its module's path without indices."""
    gguf = _GGUF.fullmatch(name)
    if gguf is not None and gguf[1] in _GGUF_COMPONENTS:
        return _GGUF_COMPONENTS[gguf[1]]
    owner = name.rpartition(".")[0] or name
    return re.sub(r"(^|\.)\d+(?=\.|$)", "", owner).strip(".") or owner


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by the names that torch's own modules use."""
    return _BIAS.fullmatch(name.rpartition(".")[2]) is not None


def is_embedding(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a token or position table: wte, wpe, embed_tokens, token_embd, ..."""
    return len(shape) == 2 and _EMBEDDING.search(name) is not None


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a buffer: by its name, or a causal mask (1, 1, T, T) called bias."""
    is_mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return _BUFFER.fullmatch(name) is not None or (is_mask and name.endswith("bias"))


def is_routed(name: str) -> bool:
    """Whether a tensor belongs to routed experts, of which a token uses only some."""
    return _ROUTED.search(name) is not None
