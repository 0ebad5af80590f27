"""A GGUF file says what it is: its metadata as a config.json, and the formula under GGUF's names.

Keys and names: ggml-org/llama.cpp `gguf-py/gguf/constants.py`. An architecture that is not in here is
counted by name, like any file without a config.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilm.architectures import layout_of
from minilm.errors import ConfigError
from minilm.formats.header import Header
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE

# general.architecture -> model_type; `llama` with experts is Mixtral.
_MODEL_TYPES = {
    "llama": "llama",
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
    "starcoder2": "starcoder2",
}

# The key of a GGUF file behind its architecture's name -> the field of a config.json.
_FIELDS = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
_REQUIRED = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")

_STEMS = {
    components.TOKEN_EMBEDDING: "token_embd",
    components.POSITION_EMBEDDING: "position_embd",
    components.FINAL_NORM: "output_norm",
    components.LM_HEAD: "output",
    components.ATTENTION_NORM: "blk.{i}.attn_norm",
    components.ATTENTION_QUERY: "blk.{i}.attn_q",
    components.ATTENTION_KEY: "blk.{i}.attn_k",
    components.ATTENTION_VALUE: "blk.{i}.attn_v",
    components.ATTENTION_QUERY_KEY_VALUE: "blk.{i}.attn_qkv",
    components.ATTENTION_OUTPUT: "blk.{i}.attn_output",
    components.ATTENTION_OUTPUT_NORM: "blk.{i}.post_attention_norm",
    components.FEED_FORWARD_NORM: "blk.{i}.ffn_norm",
    components.FEED_FORWARD_GATE: "blk.{i}.ffn_gate",
    components.FEED_FORWARD_UP: "blk.{i}.ffn_up",
    components.FEED_FORWARD_GATE_UP: "blk.{i}.ffn_up",
    components.FEED_FORWARD_DOWN: "blk.{i}.ffn_down",
    components.FEED_FORWARD_OUTPUT_NORM: "blk.{i}.post_ffw_norm",
    components.ROUTER: "blk.{i}.ffn_gate_inp",
    components.EXPERTS_GATE: "blk.{i}.ffn_gate_exps",
    components.EXPERTS_UP: "blk.{i}.ffn_up_exps",
    components.EXPERTS_DOWN: "blk.{i}.ffn_down_exps",
}


def gguf_layout(header: Header) -> Layout | None:
    """The formula of a GGUF file from its own metadata; None for an architecture we do not map.

    Raises ConfigError for sizes that cannot be.
    """
    config = _config(header)
    if config is None:
        return None
    layout = layout_of(config)
    return replace(
        layout,
        tensors=tuple(_renamed(tensor, layout.family) for tensor in layout.tensors),
        ties=(("output.weight", "token_embd.weight"),) if layout.ties else (),
        optional_prefix="",
        buffers=(),
        ignored=(),
    )


def _config(header: Header) -> dict[str, Any] | None:
    architecture = header.metadata.get("general.architecture", "")
    sizes = {
        key: int(text)
        for key in _FIELDS
        if (text := header.metadata.get(f"{architecture}.{key}", "")).isdecimal()
    }
    names = {tensor.name: tensor for tensor in header.tensors}
    if sizes.get("expert_count") == 0:  # a dense model that says so
        del sizes["expert_count"]
    # Layers of different sizes (a list where a number is usual), and experts in a file each.
    varied = any(f"{architecture}.{key}.length" in header.metadata for key in _FIELDS)
    apart = "blk.0.ffn_gate.0.weight" in names
    known = architecture in _MODEL_TYPES and all(key in sizes for key in _REQUIRED)
    if not known or varied or apart:
        return None
    if "vocab_size" not in sizes and "token_embd.weight" in names:
        sizes["vocab_size"] = names["token_embd.weight"].shape[0]
    config: dict[str, Any] = {
        field: value for key, value in sizes.items() for field in _FIELDS[key]
    }
    experts = architecture == "llama" and "expert_count" in sizes
    return config | {
        "model_type": "mixtral" if experts else _MODEL_TYPES[architecture],
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": any(f"blk.0.{matrix}.bias" in names for matrix in ("attn_q", "attn_qkv")),
        "use_bias": "blk.0.attn_q.bias" in names,
    }


def _renamed(tensor: Tensor, family: str) -> Tensor:
    """GGUF's name; all experts of a layer in one tensor; matrices as (out, in) in every family."""
    if tensor.component == components.ATTENTION_QK_NORM:
        query = "q_norm" in tensor.name or "q_layernorm" in tensor.name
        stem = "blk.{i}.attn_q_norm" if query else "blk.{i}.attn_k_norm"
    elif tensor.component in _STEMS:
        stem = _STEMS[tensor.component]
    else:
        raise ConfigError("general.architecture", tensor.component, "a part that GGUF has")
    shape = tensor.shape
    if (
        family == "gpt2"
        and tensor.role is Role.MULTIPLIED
        and tensor.component != components.LM_HEAD
    ):
        shape = shape[::-1]
    if tensor.experts != ONE:
        shape = (tensor.experts, *shape)
    suffix = tensor.name.rpartition(".")[2]
    suffix = suffix if suffix == "bias" else "weight"
    return replace(tensor, name=f"{stem}.{suffix}", shape=shape, experts=ONE)
