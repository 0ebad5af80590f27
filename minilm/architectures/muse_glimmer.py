"""Muse Glimmer: a decoder with gated attention and norms around each part, and a tower over frames.

Every fourth layer, counted from the last, attends to all. Names, shapes and defaults:
huggingface/transformers `models/muse_glimmer`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import (
    attention_kinds,
    d,
    gated_feed_forward,
    linear,
    separate_attention,
    sliding_layers,
    window_size,
)
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.decoder import (
    ATTENTION,
    BLOCK,
    MLP,
    Defaults,
    decoder,
    heads_and_layers,
    post_norms,
    pre_norms,
)
from minilm.architectures.joint_text import joined
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    F,
    Part,
    W,
    Y,
    matrix,
    projector,
    tower_symbols,
    vector,
    without_bias,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout

_DEFAULTS = Defaults(202048, 52, (6656, 32, 2, 128), 19968, 131072, window=2048)
_TOWER = "model.vision_tower"


def layout(config: Config) -> Layout:
    """The tensors of MuseGlimmerForConditionalGeneration for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    inner, outputs = (
        size(config, "projector_hidden_size", 4096),
        size(config, "out_hidden_size", 6144),
    )
    between = projector(
        [
            without_bias("model.vision_adapter.fc1", inner, outputs),
            without_bias("model.vision_adapter.fc2", inner, inner),
            without_bias("model.vision_projection", d, inner),
        ]
    )
    tower = _tower(sub_config(config, "vision_config"))
    return joined(_text(config), "muse_glimmer", tower, Part(between))


def _text(config: Config) -> Layout:
    tied = flag(config, "tie_word_embeddings", False)
    fields = {**sub_config(config, "text_config"), "tie_word_embeddings": tied}
    fields["model_type"] = "muse_glimmer"
    heads, depth = heads_and_layers(fields, _DEFAULTS)
    bias = flag(fields, "attention_bias", False)
    sliding = sliding_layers(fields, depth, lambda i: (depth - 1 - i) % 4 != 0)
    text = decoder(
        fields,
        _DEFAULTS,
        heads,
        *pre_norms(feed_forward=f"{BLOCK}.pre_feedforward_layernorm"),
        *post_norms(f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.post_feedforward_layernorm"),
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *linear(f"{ATTENTION}.gate_proj", heads.queries, d, components.ATTENTION_GATE),
        *gated_feed_forward(MLP),
        attention=attention_kinds(heads, depth, sliding, window_size(fields, _DEFAULTS.window)),
    )

    def moved(name: str) -> str:
        return name.replace("model.", "model.language_model.", 1)

    return replace(
        text,
        tensors=tuple(replace(t, name=moved(t.name)) for t in text.tensors),
        ties=tuple((head, moved(table)) for head, table in text.ties),
    )


def _tower(config: Config) -> Part:
    block, patch = f"{_TOWER}.layers.{{i}}", size(config, "patch_size", 14)
    pixels = 3 * size(config, "patch_temporal", 2) * patch**2
    rows = size(config, "pos_emb_height", 32) * size(config, "pos_emb_width", 32)
    maps = ("q_proj", "k_proj", "v_proj", "proj")
    tensors = (
        without_bias(f"{_TOWER}.patch_embedder.patch_embedding", W, pixels),
        without_bias(f"{_TOWER}.patch_embedder.position_embedding_table", rows, W),
        *vector(f"{_TOWER}.ln_pre", W),
        *vector(f"{block}.norm1", W, Y),
        *(t for name in maps for t in matrix(f"{block}.attn.{name}", (W, W), Y)),
        *vector(f"{block}.norm2", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *vector(f"{_TOWER}.ln_post", W),
    )
    symbols = tower_symbols(config, 1536, 50, 8960)
    return Part(tensors, symbols)
