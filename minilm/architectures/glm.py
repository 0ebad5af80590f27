"""GLM-4, GLM-4.5, Solar Open and Sarvam as their files store them: biases of queries, keys and values alone.

GLM-4 fuses gate and up; its 0414 release adds norms behind attention and feed-forward. GLM-4.5 has the
experts of DeepSeek-V3, and Solar Open is that without dense layers. The files of GLM-4.5 also hold a
module for multi-token prediction. Sarvam is GLM-4.5, and its files have the names of Ling's. Names, shapes
and defaults: huggingface/transformers `models/{glm,glm4,glm4_moe,sarvam_moe,solar_open}`, and
`conversion_mapping.py` for the names in Sarvam's files; the module, zai-org/GLM-4.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import Heads, d, f, linear, separate_attention
from minilm.architectures.config_fields import (
    field_name,
    flag,
    whole_number,
    with_fields_of,
)
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
from minilm.architectures.moe import routed_fields, sparse_feed_forward, split_layers
from minilm.architectures.mtp import with_mtp
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor

_GLM = Defaults(151552, 40, (4096, 32, 2, 128), 13696, 131072)
_SPARSE = {
    "glm4_moe": Defaults(151552, 46, (4096, 96, 8, None), 10944, 131072, experts=(128, 8, 1408)),
    "sarvam_moe": Defaults(262144, 19, (4096, 64, 4, 64), 8192, 131072, experts=(128, 6, 1024)),
    "solar_open": Defaults(196608, 48, (4096, 64, 8, 128), 0, 131072, experts=(128, 8, 1280)),
}
# Sarvam's own names of fields, beside those of GLM-4.5.
_SARVAM_FIELDS = {
    "num_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "use_qkv_bias": "attention_bias",
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Glm{,4,4Moe} and SolarOpenForCausalLM for a config.json."""
    if config["model_type"] == "sarvam_moe":
        config = with_fields_of(config, _SARVAM_FIELDS)
    if config["model_type"] in _SPARSE:
        return _with_experts(config)
    heads, _ = heads_and_layers(config, _GLM)
    outputs = post_norms(f"{BLOCK}.post_self_attn_layernorm", f"{BLOCK}.post_mlp_layernorm")
    return decoder(
        config,
        _GLM,
        heads,
        *pre_norms(),
        *_attention(config, heads, biased=True),
        *linear(f"{MLP}.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{MLP}.down_proj", d, f, components.FEED_FORWARD_DOWN),
        *(outputs if config["model_type"] == "glm4" else ()),
    )


def _attention(
    config: Mapping[str, Any], heads: Heads, *, biased: bool = False
) -> tuple[Tensor, ...]:
    return separate_attention(ATTENTION, heads, qkv_bias=flag(config, "attention_bias", biased))


def _sarvam_attention(config: Mapping[str, Any], heads: Heads) -> tuple[Tensor, ...]:
    name, width = f"{BLOCK}.attention", heads.queries + 2 * heads.keys
    part, bias = components.ATTENTION_QUERY_KEY_VALUE, flag(config, "attention_bias", False)
    norms = query_key_norms(f"{name}.query_layernorm", f"{name}.key_layernorm")
    return (
        *linear(f"{name}.query_key_value", width, d, part, bias=bias),
        *linear(f"{name}.dense", d, heads.queries, components.ATTENTION_OUTPUT),
        *(norms if flag(config, "use_qk_norm", True) else ()),
    )


def _with_experts(config: Mapping[str, Any]) -> Layout:
    family = config["model_type"]
    defaults = _SPARSE[family]
    is_sarvam, is_glm = family == "sarvam_moe", family == "glm4_moe"
    heads, num_layers = heads_and_layers(config, defaults, rounds=True)
    first = 0 if family == "solar_open" else whole_number(config, "first_k_dense_replace", 1)
    sparse = sparse_feed_forward(
        config,
        MLP,
        split_layers(num_layers, lambda i: i >= first),
        defaults.experts,
        fields=routed_fields(config),
        shared=("shared_experts", "n_shared_experts", 1),
        correction="gate.expert_bias" if is_sarvam else "gate.e_score_correction_bias",
    )
    layout = decoder(
        config,
        defaults,
        heads,
        *pre_norms(),
        *(_sarvam_attention(config, heads) if is_sarvam else _attention(config, heads)),
        *(query_key_norms() if is_glm and flag(config, "use_qk_norm", False) else ()),
        *sparse.tensors,
        symbols=sparse.symbols,
        buffers=sparse.buffers,
        table="model.word_embeddings" if is_sarvam else "model.embed_tokens",
    )
    field = field_name(config, "num_nextn_predict_layers", "num_mtp_layers")
    return with_mtp(layout, config, field, 1) if is_glm else layout
