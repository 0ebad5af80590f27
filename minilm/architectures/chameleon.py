"""Chameleon: Llama with norms of each head's queries and keys, over words and a VQGAN's of pictures.

Names, shapes and defaults: huggingface/transformers `models/chameleon`.
"""

from __future__ import annotations

from minilm.architectures import vqgan
from minilm.architectures.building_blocks import L, g, gated_feed_forward, h, k, separate_attention
from minilm.architectures.config_fields import Config, flag, layer_numbers, size, sub_config
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    pre_norms,
)
from minilm.architectures.joint_text import joined
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import Part
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_DEFAULTS = Defaults(65536, 32, (4096, 32, 32, None), 11008, 4096)


def layout(config: Config) -> Layout:
    """The tensors of ChameleonForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    heads, _ = heads_and_layers(config, _DEFAULTS, head_dim=None)
    bias = flag(config, "attention_bias", False)
    norms = (
        Tensor(f"{ATTENTION}.{n}_norm.{end}", (of, k), components.ATTENTION_QK_NORM, role, L)
        for n, of in (("q", h), ("k", g))
        for end, role in (("weight", Role.SCALED), ("bias", Role.ADDED))
    )
    text = decoder(
        config,
        _DEFAULTS,
        heads,
        *pre_norms(),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *norms,
        *gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False)),
    )
    return joined(text, "chameleon", Part(_pictures(sub_config(config, "vq_config"))))


def _pictures(config: Config) -> tuple[Tensor, ...]:
    """Levels attend whose pictures are of a listed size."""
    chosen = layer_numbers(config, "attn_resolutions")
    side = size(config, "resolution", 512)
    attends = config.get("attn_type", "vanilla") == "vanilla"
    return (
        *vqgan.encoder(
            config,
            "model.vqmodel.encoder",
            lambda level: attends and side >> level in chosen,
            attends_last=attends,
        ),
        *vqgan.codebook(config, "model.vqmodel", words=8192, width=256),
    )
