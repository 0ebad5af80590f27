"""What is known of each model_type, for `minilm architectures` and docs/architectures.md."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ZERO


class Overview(NamedTuple):
    """One model_type. All follows from its declaration, with the defaults of its configuration.

    ``counted`` is "yes" or what part of it; ``cache`` describes its KV cache and state, "no" for none;
    ``gguf`` is llama.cpp's name where its files are held against the declaration; ``runs`` is "yes" where
    minilm trains and exports it, "imports" where it loads it.
    """

    model_type: str
    counted: str
    cache: str
    gguf: str
    runs: str
    same_as: str


def overviews() -> tuple[Overview, ...]:
    """Every declared model_type, by name."""
    return tuple(_overview(model_type) for model_type in sorted(MODEL_TYPES))


def _overview(model_type: str) -> Overview:
    entry = MODEL_TYPES[model_type]
    module = import_module(f"minilm.architectures.{entry.module}")
    imported = {each.model_type for each in getattr(module, "IMPORTABLE", ())}
    return Overview(
        model_type,
        f"language model ({entry.text_of})" if entry.text_of and not entry.whole else "yes",
        _cache(_default_layout(model_type)),
        entry.gguf,
        "yes" if entry.runs else "imports" if model_type in imported else "",
        entry.same_as,
    )


# What some types have no default of: DeepSeek's, Gemma's, Granite's, Qwen-Omni's and MiniCPM-V's.
_REQUIRED: dict[str, Any] = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 8,
    "downsample_rate": "4/8",
    "shared_expert_intermediate_size": 8,
    "version": 2.6,
}


def _default_layout(model_type: str) -> Layout:
    config: dict[str, Any] = {"model_type": model_type}
    try:
        return layout_of(config)
    except ConfigError:
        parts = {"text_config": _REQUIRED, "talker_config": {"text_config": _REQUIRED}}
        return layout_of(config | _REQUIRED | parts)


def _cache(layout: Layout) -> str:
    kinds = tuple(kind for kind in layout.attention if kind.cache != ZERO)
    names = {letter for kind in kinds for monomial in kind.cache.terms for letter, _ in monomial}
    words = [
        *(["latent"] if "c" in names else []),
        *(["sparse"] if any(kind.selected for kind in kinds) else []),
        *(["window"] if any(kind.window for kind in kinds) else []),
        *(["state"] if layout.state != ZERO else []),
    ]
    return ", ".join(words) or ("yes" if kinds else "no")
