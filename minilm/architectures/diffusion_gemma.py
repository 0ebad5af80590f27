"""DiffusionGemma: Gemma 4 with experts as an encoder and a decoder that share all but biases and a scalar.

The decoder refines a block of tokens in several steps, each conditioned on what the last one put out. Names,
shapes and defaults: huggingface/transformers `models/diffusion_gemma`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import d, f, linear, norm
from minilm.architectures.config_fields import Config, flag, sub_config
from minilm.architectures.gemma3n import layout as gemma4
from minilm.architectures.gemma4_multimodal import vision_tower
from minilm.architectures.task_heads import class_name_of, undeclared_class
from minilm.architectures.vision_tower import tower_symbols
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import ONE

_DECODER, _ENCODER = "model.decoder.", "model.encoder.language_model."


def layout(config: Config) -> Layout:
    """The tensors of DiffusionGemmaForBlockDiffusion for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith("ForBlockDiffusion"):
        raise undeclared_class(config)
    vision = sub_config(config, "vision_config")
    tied = flag(config, "tie_word_embeddings", True)
    fields = {
        **sub_config(config, "text_config"),
        "model_type": "gemma4_text",
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "tie_word_embeddings": tied,
    }
    text = gemma4(fields)
    tower, limits = vision_tower(vision, "model.encoder")
    decoder, encoder = _below(text, _DECODER), _below(text, _ENCODER)
    body = tuple(t for t in encoder.tensors if t.component != components.LM_HEAD)
    own = tuple(t for t in body if t.name.endswith(".bias")) if tied else body
    shared = encoder.named_tensors([t for t in body if t not in own])
    pairs = tuple((named.name, named.name.replace(_ENCODER, _DECODER)) for named in shared)
    return replace(
        decoder,
        family="diffusion_gemma",
        tensors=(*decoder.tensors, *_conditioning(), *own, *tower),
        buffers=(*decoder.buffers, *encoder.buffers, *limits),
        symbols={
            **text.symbols,
            **tower_symbols(vision, 768, 16, 3072),
        },
        ties=(*decoder.ties, *pairs),
    )


def _below(text: Layout, prefix: str) -> Layout:
    def moved(name: str) -> str:
        return name.replace("model.", prefix, 1)

    return replace(
        text,
        tensors=tuple(replace(t, name=moved(t.name)) for t in text.tensors),
        buffers=tuple(replace(t, name=moved(t.name)) for t in text.buffers),
        ties=tuple((head, moved(table)) for head, table in text.ties),
    )


def _conditioning() -> Tensors:
    """A gated feed-forward over the embeddings that the last step's probabilities weigh."""
    name = f"{_DECODER}self_conditioning"
    return (
        *norm(f"{name}.pre_norm", components.EMBEDDING_NORM, repeat=ONE),
        *linear(f"{name}.gate_proj", f, d, components.EMBEDDING_PROJECTION, repeat=ONE),
        *linear(f"{name}.up_proj", f, d, components.EMBEDDING_PROJECTION, repeat=ONE),
        *linear(f"{name}.down_proj", d, f, components.EMBEDDING_PROJECTION, repeat=ONE),
    )
