"""Encoders, and T5: how llama.cpp converts them."""

from __future__ import annotations

from typing import Any

from tests.architectures.gguf_conversions import Config, Conversion, dropped

T5_OPTIONS = {
    "d_kv": range(2, 9),
    "num_decoder_layers": range(1, 3),
    "relative_attention_num_buckets": range(2, 9),
    "num_layers": range(2, 4),
}

T5_KEYS: dict[str, Any] = {
    "block_count": "num_layers",
    "feed_forward_length": "d_ff",
    "decoder_block_count": "num_decoder_layers",
    "head_count": "num_heads",
    "head_count_kv": None,
    "key_length": "d_kv",
    "value_length": "d_kv",
    "relative_attn_buckets_count": "relative_attention_num_buckets",
}


def t5_names(config: Config) -> Config:
    """The widths under T5's names."""
    return {
        "d_model": config["hidden_size"],
        "d_ff": config["intermediate_size"],
        "num_heads": config["num_attention_heads"],
        "feed_forward_proj": "relu" if config["model_type"] == "t5" else "gated-gelu",
        # The second name of the field wins in transformers.
        "num_hidden_layers": config["num_layers"],
    }


def t5(**more: Any) -> Conversion:
    """t5.py"""
    return Conversion("t5", T5_OPTIONS, T5_KEYS, derived=t5_names, **more)


CONVERSIONS: dict[str, Conversion] = {
    "bert": Conversion(
        "bert",
        {"type_vocab_size": range(1, 3), "hidden_act": "gelu"},
        {"head_count_kv": None},
        {f"pooler.dense.{name}": dropped for name in ("weight", "bias")},
        classes=("BertModel",),
    ),
    "eurobert": Conversion("eurobert", classes=("EuroBertModel",)),
    "jina_embeddings_v3": Conversion(
        "jina-bert-v3",
        {"type_vocab_size": range(1, 3)},
        {"head_count_kv": None},
        {f"pooler.dense.{name}": dropped for name in ("weight", "bias")},
        classes=("JinaEmbeddingsV3Model",),
    ),
    "modernbert": Conversion(
        "modern-bert",
        {},
        {"head_count_kv": None, "vocab_size": "vocab_size"},
        classes=("ModernBertModel",),
    ),
    "mt5": t5(),
    "nomic_bert": Conversion(
        "nomic-bert",
        {"type_vocab_size": range(1, 3)},
        {"head_count_kv": None},
        classes=("NomicBertModel",),
        derived=lambda config: {
            "n_embd": config["hidden_size"],
            "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"],
            "n_inner": config["intermediate_size"],
            "n_positions": config["max_position_embeddings"],
        },
    ),
    "t5": t5(),
    "t5 without a decoder": Conversion(
        "t5encoder",
        T5_OPTIONS,
        {**T5_KEYS, "decoder_block_count": None},
        derived=lambda config: t5_names(config) | {"feed_forward_proj": "relu"},
        model_type="t5",
        classes=("T5EncoderModel",),
    ),
    "umt5": t5(),
}
