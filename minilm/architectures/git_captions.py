"""GIT as transformers stores it: BERT's layers over the text behind a picture that CLIP's tower encodes.

Of videos each frame has an embedding. Names, shapes and defaults: huggingface/transformers
`models/git`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    L,
    T,
    d,
    embedding,
    equal_heads,
    f,
    feed_forward,
    linear,
    lm_head,
    norm,
)
from minilm.architectures.config_fields import flag, layers, size, sub_config
from minilm.architectures.vision_tower import W, clip_tower, matrix, once, vector, vision_symbols
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GitForCausalLM for a config.json."""
    heads = equal_heads(config, (768, 12, None, None))
    vision = sub_config(config, "vision_config")
    patch = size(vision, "patch_size", 16)
    symbols = {
        "V": size(config, "vocab_size", 30522),
        "T": size(config, "max_position_embeddings", 1024),
        "L": layers(config, "num_hidden_layers", 6),
        "f": size(config, "intermediate_size", 3072),
        **heads.symbols,
        **vision_symbols(vision, width=768, depth=12, inner=3072, image=224, patch=16),
    }
    tied = flag(config, "tie_word_embeddings", False)
    table = "git.embeddings.word_embeddings"
    return Layout(
        "git",
        (
            *_text(table),
            *clip_tower(
                "git.image_encoder.vision_model",
                channels=size(vision, "num_channels", 3),
                patch=patch,
            ),
            *matrix("git.visual_projection.visual_projection.0", (d, W)),
            *vector("git.visual_projection.visual_projection.1", d),
            *_frames(config),
            *lm_head("output", tied=tied, bias=True),
        ),
        symbols,
        ties=(("output.weight", f"{table}.weight"),) if tied else (),
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )


def _text(table: str) -> tuple[Tensor, ...]:
    block, part = "git.encoder.layer.{i}", components.POSITION_EMBEDDING
    attention = f"{block}.attention"
    names = {
        "self.query": components.ATTENTION_QUERY,
        "self.key": components.ATTENTION_KEY,
        "self.value": components.ATTENTION_VALUE,
        "output.dense": components.ATTENTION_OUTPUT,
    }
    return (
        embedding(table),
        Tensor("git.embeddings.position_embeddings.weight", (T, d), part, Role.LOOKED_UP),
        *norm("git.embeddings.LayerNorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        *(
            tensor
            for name, component in names.items()
            for tensor in linear(f"{attention}.{name}", d, d, component, bias=True, repeat=L)
        ),
        *norm(f"{attention}.output.LayerNorm", components.ATTENTION_OUTPUT_NORM, bias=True),
        *feed_forward(f"{block}.intermediate.dense", f"{block}.output.dense", f, bias=True),
        *norm(f"{block}.output.LayerNorm", components.FEED_FORWARD_OUTPUT_NORM, bias=True),
    )


def _frames(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    if config.get("num_image_with_embedding") is None:
        return ()
    count = layers(config, "num_image_with_embedding")
    return tuple(once(f"git.img_temporal_embedding.{i}", (1, 1, W)) for i in range(count))
