"""llama.cpp's decoders whose layers differ in heads and widths: their files list both for every layer.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py` and `conversion/{openelm,deci}.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilm.architectures.gguf_architecture import GgufArchitecture, gate_and_up

_HEADS, _KV_HEADS = "attention.head_count", "attention.head_count_kv"
_WIDTH = "feed_forward_length"
_Lists = Mapping[str, Sequence[int]]


def _openelm(lists: _Lists, d_model: int) -> dict[str, Any]:
    """Widths are multiples of the model's, of any number of channels."""
    return {
        "num_query_heads": [*lists[_HEADS]],
        "num_kv_heads": [*lists[_KV_HEADS]],
        "ffn_multipliers": [width / max(1, d_model) for width in lists[_WIDTH]],
    }


def _deci(lists: _Lists, d_model: int) -> dict[str, Any] | None:
    """DeciLM, where only key/value heads differ, or what architecture search made of a Llama."""
    own, shared, widths = (lists[key] for key in (_HEADS, _KV_HEADS, _WIDTH))
    if all(shared) and len({*own}) == len({*widths}) == 1:
        return {"num_key_value_heads_per_layer": [*shared]}
    if len({*own} - {0}) > 1:
        return None
    blocks = [
        {"attention": _attention(*heads), "ffn": _feed_forward(width, d_model)}
        for *heads, width in zip(own, shared, widths, strict=True)
    ]
    return {"model_type": "nemotron-nas", "block_configs": blocks}


def _attention(heads: int, kv_heads: int) -> dict[str, Any]:
    """Heads without keys are one matrix."""
    if kv_heads:
        return {"n_heads_in_group": heads // kv_heads}
    return {"replace_with_linear": True} if heads else {"no_op": True}


def _feed_forward(width: int, d_model: int) -> dict[str, Any]:
    return {"ffn_mult": 3 * width / (2 * max(1, d_model))} if width else {"no_op": True}


LAYERED: dict[str, GgufArchitecture] = {
    "deci": GgufArchitecture(listed=(_HEADS, _KV_HEADS, _WIDTH), of_layers=_deci),
    "openelm": GgufArchitecture(
        sizes={
            "embedding_length": ("model_dim",),
            "block_count": ("num_transformer_layers",),
        },
        may_have={"context_length": ("max_context_length",)},
        present={"normalize_qk_projections": "attn_q_norm.weight"},
        fixed={
            "ffn_with_glu": True,
            "ffn_dim_divisor": 1,
            "share_input_output_layers": True,
        },
        listed=(_HEADS, _KV_HEADS, _WIDTH),
        of_layers=_openelm,
        parts=gate_and_up("ffn.proj_1", "ffn_{}"),
    ),
}
