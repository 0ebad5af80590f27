"""A GGUF file says what it is: its metadata as a config.json, and the formula under GGUF's names.

An architecture that the table of model types has no GGUF name for is counted by name, like any file
without a config.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilm.architectures import layout_of
from minilm.architectures.gguf_names import KEYS, gguf_name
from minilm.architectures.model_types import MODEL_TYPES
from minilm.formats.header import Header, whole_number
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import ONE

# general.architecture -> the first model_type of that name: of `llama`, which is Mixtral with experts.
GGUF_MODEL_TYPES = {entry.gguf: name for name, entry in reversed(MODEL_TYPES.items()) if entry.gguf}
REQUIRED = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")


def gguf_layout(header: Header) -> Layout | None:
    """The formula of a GGUF file from its own metadata; None for an architecture we do not map.

    Of the biases of a `llama`, each may be there or not, as for llama.cpp's loader. Raises ConfigError
    for sizes that cannot be.
    """
    config = config_fields(header)
    if config is None:
        return None
    layout = in_gguf_names(layout_of(config))
    if header.metadata.get("general.architecture") != "llama":
        return layout
    names = {tensor.name for tensor in header.tensors}
    return replace(
        layout,
        tensors=tuple(
            tensor
            for tensor in layout.tensors
            if not tensor.name.endswith(".bias") or tensor.name.replace("{i}", "0") in names
        ),
    )


def in_gguf_names(layout: Layout) -> Layout:
    """The same tensors, in the same order, as a GGUF file has them."""
    return replace(
        layout,
        tensors=tuple(_renamed(tensor) for tensor in layout.tensors),
        ties=(("output.weight", "token_embd.weight"),) if layout.ties else (),
        optional_prefix="",
        buffers=(),
        ignored=(),
    )


def config_fields(header: Header) -> dict[str, Any] | None:
    """The metadata as the fields of a config.json; None for an architecture that we do not map."""
    architecture = header.metadata.get("general.architecture", "")
    sizes = {
        key: number
        for key in KEYS
        if (number := whole_number(header.metadata, f"{architecture}.{key}")) is not None
    }
    names = {tensor.name: tensor for tensor in header.tensors}
    next_token_layers = whole_number(header.metadata, f"{architecture}.nextn_predict_layers")
    if next_token_layers is not None and "block_count" in sizes:
        sizes["block_count"] = max(0, sizes["block_count"] - next_token_layers)
    if sizes.get("expert_count") == 0:  # a dense model that says so
        del sizes["expert_count"]
    # Layers of different sizes (a list where a number is usual), and experts in a file each.
    varied = any(f"{architecture}.{key}.length" in header.metadata for key in KEYS)
    apart = "blk.0.ffn_gate.0.weight" in names
    known = architecture in GGUF_MODEL_TYPES and all(key in sizes for key in REQUIRED)
    if not known or varied or apart:
        return None
    table = names.get("token_embd.weight")
    if "vocab_size" not in sizes and table is not None and table.shape:
        sizes["vocab_size"] = table.shape[0]
    config: dict[str, Any] = {
        field: value for key, value in sizes.items() for field in KEYS[key][1]
    }
    experts = architecture == "llama" and "expert_count" in sizes
    output_bias = ("attn_output",) if architecture == "llama" else ()
    return config | {
        "model_type": "mixtral" if experts else GGUF_MODEL_TYPES[architecture],
        "tie_word_embeddings": "output.weight" not in names
        or "output.weight" in dict(header.shared),
        "attention_bias": any(
            f"blk.0.{matrix}.bias" in names
            for matrix in ("attn_q", "attn_k", "attn_v", "attn_qkv", *output_bias)
        ),
        "mlp_bias": any(f"blk.0.ffn_{matrix}.bias" in names for matrix in ("gate", "up", "down")),
        "use_bias": "blk.0.attn_q.bias" in names,
    }


def _renamed(tensor: Tensor) -> Tensor:
    """GGUF's name; all experts of a layer in one tensor; matrices as (out, in) in every architecture."""
    shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
    if tensor.experts != ONE:
        shape = (tensor.experts, *shape)
    return replace(tensor, name=gguf_name(tensor), shape=shape, experts=ONE, transposed=False)
