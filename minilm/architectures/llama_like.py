"""Types whose tensors are Llama's by name and shape, with biases, windows and defaults of their own.

Fields and defaults: huggingface/transformers `models/TYPE/configuration_TYPE.py`; which biases there
are, `modeling_TYPE.py`. InternLM3 and IQuest-Coder run Llama's own implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minilm.architectures.building_blocks import (
    attention_kinds,
    gated_feed_forward,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag, require
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.ledger.layout import Layout


@dataclass(frozen=True, kw_only=True)
class _Variant(Defaults):
    """The fields that say whether there are biases, empty for never; and which layers slide, if any.

    ``second_names`` are those that Hugging Face gives some of these fields as well.
    """

    qkv_bias: str = "attention_bias"
    output_bias: str = "attention_bias"
    feed_forward_bias: str = "mlp_bias"
    has_qkv_bias: bool = False  # by default
    slides: Callable[[int], bool] | None = None
    second_names: Mapping[str, str] = field(default_factory=dict)


def _every(layer: int) -> bool:
    return True


_VARIANTS = {
    "cwm": _Variant(
        vocabulary=128256,
        layers=64,
        heads=(6144, 48, 8, 128),
        feed_forward=21504,
        context=131072,
        window=8192,
        slides=lambda i: i % 4 != 0,
        qkv_bias="",
        output_bias="",
    ),
    "emu3_text_model": _Variant(
        vocabulary=184622,
        layers=32,
        heads=(4096, 32, 8, None),
        feed_forward=14336,
        context=9216,
    ),
    "ernie4_5": _Variant(
        vocabulary=103424,
        layers=18,
        heads=(1024, 16, 2, 128),
        feed_forward=3072,
        context=131072,
        tied=True,
        qkv_bias="use_bias",
        output_bias="use_bias",
        feed_forward_bias="use_bias",
    ),
    "helium": _Variant(
        vocabulary=48000,
        layers=24,
        heads=(2560, 20, 20, 128),
        feed_forward=7040,
        context=4096,
        output_bias="",
    ),
    "internlm3": _Variant(
        vocabulary=128512,
        layers=48,
        heads=(4096, 32, 2, 128),
        feed_forward=10240,
        context=32768,
        second_names={"attention_bias": "qkv_bias", "mlp_bias": "bias"},
    ),
    "iquestcoder": _Variant(
        vocabulary=76800,
        layers=80,
        heads=(5120, 40, 8, 128),
        feed_forward=27648,
        context=131072,
    ),
    "ministral": _Variant(
        vocabulary=32000,
        layers=32,
        heads=(4096, 32, 8, None),
        feed_forward=14336,
        context=131072,
        window=4096,
        slides=_every,
        qkv_bias="",
        output_bias="",
        feed_forward_bias="",
    ),
    "ministral3": _Variant(
        vocabulary=131072,
        layers=34,
        heads=(4096, 32, 8, 128),
        feed_forward=14336,
        context=262144,
        slides=_every,
        qkv_bias="",
        output_bias="",
        feed_forward_bias="",
    ),
    "seed_oss": _Variant(
        vocabulary=155136,
        layers=64,
        heads=(4096, 80, 8, 128),
        feed_forward=27648,
        context=524288,
        output_bias="attention_out_bias",
        has_qkv_bias=True,
    ),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    variant = _VARIANTS[config["model_type"]]
    heads, num_layers = heads_and_layers(config, variant)
    if config["model_type"] == "helium":  # its output's matrix is a square, whatever its heads are
        width, number = heads.symbols["d"], heads.symbols["h"]
        require({"head_dim": heads.symbols["k"]}, "head_dim", width // number)

    def has(bias: str, default: bool = False) -> bool:
        name = field_name(config, bias, variant.second_names.get(bias, bias))
        return bool(bias) and flag(config, name, default)

    window = window_size(config, variant.window) if variant.slides else 0
    sliding = sliding_layers(config, num_layers, variant.slides or _every) if window else 0
    return decoder(
        config,
        variant,
        heads,
        *pre_norms(),
        *separate_attention(
            ATTENTION,
            heads,
            qkv_bias=has(variant.qkv_bias, variant.has_qkv_bias),
            output_bias=has(variant.output_bias),
        ),
        *gated_feed_forward(MLP, bias=has(variant.feed_forward_bias)),
        attention=attention_kinds(heads, num_layers, sliding, window),
    )
