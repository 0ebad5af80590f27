"""BLIP-2 and InstructBLIP: a tower, a BERT that asks it with learned queries, and a language model behind.

The language model is OPT, T5 or any that is declared, by its text_config. All but it is used once a
picture. Names, shapes and defaults: huggingface/transformers `models/{blip_2,instructblip}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import Config, flag, layers, size, sub_config
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import WITH_ENCODERS, class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    matrix,
    once,
    projector,
    vector,
    vision_symbols,
)
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import Polynomial, as_polynomial, symbol

a, z = symbol("a"), symbol("z")

_MODEL = Model(
    "opt",
    "",
    lambda config, vision, name: (),
    inside="language_model.",
    own_ties=True,
    with_encoder=("t5", "mt5"),
)


def layout(config: Config) -> Layout:
    """The tensors of Blip2ForConditionalGeneration and InstructBlip's for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    vision = sub_config(config, "vision_config")
    width = size(vision, "hidden_size", 1408)
    own = {**sub_config(config, "qformer_config"), "encoder_hidden_size": width}
    has_words = config["model_type"] != "blip-2"
    reads_text = has_words or flag(own, "use_qformer_text_input", False)
    symbols = {
        **vision_symbols(vision, width=1408, depth=39, inner=6144, image=224, patch=14),
        "a": size(own, "hidden_size", 768),
        "z": layers(own, "num_hidden_layers", 12),
    }
    queries = once("query_tokens", (1, size(config, "num_query_tokens", 32), a))
    # T5 has encoder layers by the same letter.
    depth = as_polynomial(symbols.pop("Y"))
    tower = (replace(t, repeat=depth) if t.repeat == Y else t for t in vision_tower(vision))
    questions = asking(own, symbols["z"], "qformer", has_words=has_words, reads_text=reads_text)
    tensors = (
        *tower,
        *projector([queries, *questions]),
        *projector(matrix("language_projection", (d, a))),
    )
    text = text_layout(config, _MODEL)
    return joined(text, config["model_type"], Part(tensors, symbols))


def vision_tower(config: Config) -> Tensors:
    """BLIP's, below `vision_model`."""
    name, patch = "vision_model", size(config, "patch_size", 14)
    block = f"{name}.encoder.layers.{{i}}"
    fused = matrix(f"{block}.self_attn.qkv", (3 * W, W), Y)
    return (
        once(f"{name}.embeddings.class_embedding", (1, 1, W)),
        *matrix(f"{name}.embeddings.patch_embedding", (W, 3, patch, patch)),
        once(f"{name}.embeddings.position_embedding", (1, P + 1, W)),
        *(fused if flag(config, "qkv_bias", True) else fused[:1]),
        *matrix(f"{block}.self_attn.projection", (W, W), Y),
        *vector(f"{block}.layer_norm1", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *vector(f"{block}.layer_norm2", W, Y),
        *vector(f"{name}.post_layernorm", W),
    )


def asking(
    config: Config, depth: int, name: str, *, has_words: bool = False, reads_text: bool = False
) -> Tensors:
    """The querying transformer below ``name``; ``has_words`` where it has tables for a text too."""
    inner, seen = size(config, "intermediate_size", 3072), size(config, "encoder_hidden_size", 1408)
    block, embeddings = f"{name}.encoder.layer.{{i}}", f"{name}.embeddings"
    step = size(config, "cross_attention_frequency", 2)
    crossing = tuple(range(0, depth, step))

    def attention(kind: str, keys: Polynomial | int) -> Tensors:
        own = f"{block}.{kind}"
        return (
            *matrix(f"{own}.attention.query", (a, a), z),
            *matrix(f"{own}.attention.key", (a, keys), z),
            *matrix(f"{own}.attention.value", (a, keys), z),
            *matrix(f"{own}.output.dense", (a, a), z),
            *vector(f"{own}.output.LayerNorm", a, z),
        )

    def forward(ending: str) -> Tensors:
        return (
            *matrix(f"{block}.intermediate{ending}.dense", (inner, a), z),
            *matrix(f"{block}.output{ending}.dense", (a, inner), z),
            *vector(f"{block}.output{ending}.LayerNorm", a, z),
        )

    some = as_polynomial(len(crossing))
    tables: Tensors = vector(f"{name}.layernorm", a)
    if has_words:
        rows, context = (
            size(config, "vocab_size", 30522),
            size(config, "max_position_embeddings", 512),
        )
        tables = (
            once(f"{embeddings}.word_embeddings.weight", (rows, a)),
            once(f"{embeddings}.position_embeddings.weight", (context, a)),
            *vector(f"{embeddings}.layernorm", a),
        )
    return (
        *tables,
        *attention("attention", a),
        *(
            replace(tensor, repeat=some, layers=crossing)
            for tensor in attention("crossattention", seen)
        ),
        *forward("_query"),
        *(forward("") if reads_text else ()),
    )
