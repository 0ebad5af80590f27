"""OLMo 1, 2 and 3, OLMoE and FlexOlmo as transformers stores them: Llama's matrices with other norms.

OLMo's LayerNorms have no parameters. OLMo 2 normalises what attention and feed-forward put out, not
what goes in, and all queries and all keys of a token at once; in OLMo 3 three layers in four slide.
OLMoE has norms in front and experts, FlexOlmo is OLMo 2 with experts. Names, shapes and defaults:
huggingface/transformers `models/{olmo,olmo2,olmo3,olmoe,flex_olmo}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    attention_kinds,
    gated_feed_forward,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import field_name, flag
from minilm.architectures.conversion import Importable
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.moe import LayerGroup, read_experts, routed_experts
from minilm.architectures.shared_fields import Fields, read_activation, read_rope
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Tensor

_DEFAULTS = {
    "olmo": Defaults(50304, 32, (4096, 32, None, None), 11008),
    "olmo2": Defaults(50304, 32, (4096, 32, None, None), 11008),
    "olmo3": Defaults(50304, 32, (4096, 32, None, None), 11008, window=4096),
    "olmoe": Defaults(50304, 16, (2048, 16, None, None), context=4096, experts=(64, 8, 2048)),
    "flex_olmo": Defaults(100352, 32, (4096, 32, None, None), context=4096, experts=(7, 5, 11008)),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Olmo{,2,3}, Olmoe and FlexOlmoForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads, num_layers = heads_and_layers(config, defaults)
    has_experts = defaults.experts[0] > 0
    experts = (
        read_experts(
            config,
            layers=num_layers,
            total=field_name(config, "num_experts", "num_local_experts"),
            width="intermediate_size",
            defaults=defaults.experts,
        )
        if has_experts
        else {}
    )
    window = window_size(config, defaults.window) if family == "olmo3" else 0
    sliding = sliding_layers(config, num_layers, lambda i: (i + 1) % 4 != 0) if window else 0
    bias = flag(config, "attention_bias", False)
    return decoder(
        config,
        defaults,
        heads,
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *(routed_experts(MLP, LayerGroup()) if has_experts else gated_feed_forward(MLP)),
        *(_norms(family, heads) if family != "olmo" else ()),
        symbols=experts,
        attention=attention_kinds(heads, num_layers, sliding, window),
        final_norm="" if family == "olmo" else "model.norm",
    )


def _norms(family: str, heads: Heads) -> tuple[Tensor, ...]:
    if family == "olmoe":
        around = pre_norms()
    else:
        around = post_norms(
            f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_feedforward_layernorm"
        )
    return (*query_key_norms(widths=(heads.queries, heads.keys)), *around)


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    if fields.get("clip_qkv") is not None:
        raise ConfigError("config.json: clip_qkv", shortened(fields["clip_qkv"]), "null")
    return {
        "feed_forward": read_activation(fields, "hidden_act", "silu", gated=True),
        "norm_bias": False,  # nor gains
        "norm_epsilon": 1e-5,
        **read_rope(fields, "rope_theta"),
    }


IMPORTABLE = (Importable("olmo", layout, _minilm_fields),)
