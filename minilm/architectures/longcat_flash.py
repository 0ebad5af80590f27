"""LongCat-Flash as transformers stores it: a layer has two attentions, two feed-forwards, and experts.

The router also knows Z experts that do nothing, whose numbers the e of a token include. transformers 5
has gates and ups of those too, the published files (of an earlier version, or for their own code) have not.
Names, shapes and defaults: huggingface/transformers `models/longcat_flash`; files:
meituan-longcat/LongCat-Flash-Chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    E,
    Heads,
    L,
    d,
    gated_feed_forward,
    h,
    linear,
    m,
    norm,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    require,
    size,
    whole_number,
)
from minilm.architectures.decoder import BLOCK, Defaults, decoder
from minilm.architectures.deepseek import c, latent_attention, n, r, v
from minilm.architectures.moe import read_experts
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import Polynomial, symbol

Z = symbol("Z")

_DEFAULTS = Defaults(131072, 28, (6144, 64, None, 64), 12288, 131072, experts=(512, 12, 2048))


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of LongcatFlashForCausalLM for a config.json."""
    # Counts the two attentions of a layer, and wins.
    if config.get("num_hidden_layers") is not None:
        config = {**config, "num_layers": layers(config, "num_hidden_layers") // 2}
    fields = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": field_name(config, "ffn_hidden_size", "intermediate_size"),
    }
    symbols = {
        "d": size(config, "hidden_size", 6144),
        "h": size(config, "num_attention_heads", 64),
        "q": size(config, "q_lora_rank", 1536),
        "c": size(config, "kv_lora_rank", 512),
        "r": size(config, "qk_rope_head_dim", 64),
        "n": size(config, "qk_nope_head_dim", 128),
        "v": size(config, "v_head_dim", 128),
        **read_experts(
            config,
            layers=layers(config, fields["num_hidden_layers"], _DEFAULTS.layers),
            total=field_name(config, "n_routed_experts", "num_local_experts"),
            active=field_name(config, "moe_topk", "num_experts_per_tok"),
            width=field_name(config, "expert_ffn_hidden_size", "moe_intermediate_size"),
            defaults=_DEFAULTS.experts,
        ),
        "Z": whole_number(config, "zero_expert_num", 256),
    }
    require(config, "qk_head_dim", symbols["n"] + symbols["r"])  # else transformers cannot run it
    version = config.get("transformers_version")
    is_published = "auto_map" in config  # for its own code
    if version is not None:
        is_published = not str(version).startswith("5.")
    bias = flag(config, "attention_bias", False)
    halves = (tensor for half in (0, 1) for tensor in _half(half, bias))
    correction = f"{BLOCK}.mlp.router.e_score_correction_bias"
    return decoder(
        config,
        _DEFAULTS,
        Heads({}, h * n, h * n),
        *halves,
        *linear(f"{BLOCK}.mlp.router.classifier", E + Z, d, components.ROUTER),
        *_experts(E if is_published else E + Z),
        symbols=symbols,
        attention=(AttentionSpec(2 * L, c + r, h * (n + r), h * v),),
        buffers=(Tensor(correction, (E + Z,), components.ROUTER, Role.ADDED, L),),
        fields=fields,
    )


def _half(half: int, bias: bool) -> tuple[Tensor, ...]:
    return (
        *norm(f"{BLOCK}.input_layernorm.{half}", components.ATTENTION_NORM),
        *latent_attention(f"{BLOCK}.self_attn.{half}", has_query_latent=True, bias=bias),
        *norm(f"{BLOCK}.post_attention_layernorm.{half}", components.FEED_FORWARD_NORM),
        *gated_feed_forward(f"{BLOCK}.mlps.{half}"),
    )


def _experts(stored: Polynomial) -> tuple[Tensor, ...]:
    def matrix(
        name: str, rows: Polynomial, columns: Polynomial, component: str, experts: Polynomial
    ) -> Tensor:
        return Tensor(
            f"{BLOCK}.mlp.experts.{{e}}.{name}.weight",
            (rows, columns),
            component,
            Role.MULTIPLIED,
            L,
            experts=experts,
            routed=True,
        )

    return (
        matrix("gate_proj", m, d, components.EXPERTS_GATE, stored),
        matrix("up_proj", m, d, components.EXPERTS_UP, stored),
        matrix("down_proj", d, m, components.EXPERTS_DOWN, E),
    )
