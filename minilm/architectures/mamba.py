"""Mamba, Falcon Mamba and Mamba-2 as transformers stores them: a norm and a mixer in every layer, no more.

Names, shapes and defaults: huggingface/transformers `models/{mamba,falcon_mamba,mamba2}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import Heads, L, norm
from minilm.architectures.config_fields import flag, size
from minilm.architectures.decoder import Defaults, decoder
from minilm.architectures.recurrent import Mamba2Sizes, mamba, mamba2
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ZERO

_DEFAULTS = {
    "mamba": Defaults(50280, 32, (768, 1, None, None), context=0, tied=True),
    "falcon_mamba": Defaults(50280, 32, (768, 1, None, None), context=0, tied=True),
    "mamba2": Defaults(32768, 64, (4096, 128, None, 64), context=0),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Mamba, FalconMamba and Mamba2ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    d_model = size(config, "hidden_size", defaults.heads[0])
    block = "backbone.layers.{i}"
    mixer = (
        mamba2(
            f"{block}.mixer",
            _mamba2_sizes(config, d_model),
            d_model,
            bias=flag(config, "use_bias", False),
            conv_bias=flag(config, "use_conv_bias", True),
        )
        if family == "mamba2"
        else mamba(f"{block}.mixer", config, d_model)
    )
    return decoder(
        config,
        defaults,
        Heads({"d": d_model}, ZERO, ZERO),
        *norm(f"{block}.norm", components.MIXER_NORM),
        *mixer.tensors,
        symbols=mixer.symbols,
        attention=(),
        state=L * mixer.state,
        table="backbone.embeddings",
        final_norm="backbone.norm_f",
    )


def _mamba2_sizes(config: Mapping[str, Any], d_model: int) -> Mamba2Sizes:
    heads, width = size(config, "num_heads", 128), size(config, "head_dim", 64)
    expanded = size(config, "expand", 2) * d_model
    if heads * width != expanded:
        got = f"{heads} heads of {width}"
        raise ConfigError("config.json: num_heads", got, f"{expanded} = expand x hidden_size")
    return Mamba2Sizes(
        expanded,
        heads,
        size(config, "n_groups", 8),
        size(config, "state_size", 128),
        size(config, "conv_kernel", 4),
    )
