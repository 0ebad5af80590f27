"""llama.cpp's encoders and encoder-decoders: models of embeddings without pooler and head, and T5.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`, and `conversion/{bert,t5}.py`.
"""

from __future__ import annotations

from minilm.architectures.gguf_architecture import Fields, GgufArchitecture
from minilm.architectures.gguf_parts import Part, Parts

# What classes for ranking and late interaction have besides.
_OTHER_HEADS = ("cls.weight", "cls.output.weight", "dense_2.weight")
_TYPES: Parts = {"token_type_embeddings": (Part("token_types"),), "pooler.dense": ()}
_NOMIC: Parts = _TYPES | {
    "}.norm1": (Part("attn_output_norm"),),
    "}.norm2": (Part("layer_output_norm"),),
}
_NUMBER_OF_TYPES = {"type_vocab_size": ("token_types.weight", 0)}


def _stack(side: str, own: str, feed_forward: int) -> Parts:
    """The tensors of T5's encoder or decoder; ``feed_forward`` is the number of its part in a layer."""
    block = f"{side}.block.{{i}}.layer"
    attention = f"{block}.0.SelfAttention"
    dense = f"{block}.{feed_forward}.DenseReluDense"
    names = {
        **{f"{attention}.{name}": f"attn_{name}" for name in "qkvo"},
        f"{attention}.relative_attention_bias": "attn_rel_b",
        f"{block}.0.layer_norm": "attn_norm",
        f"{dense}.wi": "ffn_up",
        f"{dense}.wi_0": "ffn_gate",
        f"{dense}.wi_1": "ffn_up",
        f"{dense}.wo": "ffn_down",
        f"{block}.{feed_forward}.layer_norm": "ffn_norm",
    }
    parts: Parts = {name: (Part(f"{own}.blk.{{i}}.{stem}"),) for name, stem in names.items()}
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    return parts | {
        first: (Part(f"{own}.blk.0.attn_rel_b"),),
        f"{side}.final_layer_norm": (Part(f"{own}.output_norm"),),
    }


_CROSS = "decoder.block.{i}.layer.1"
_T5: Parts = {
    **_stack("encoder", "enc", 1),
    **_stack("decoder", "dec", 2),
    **{
        f"{_CROSS}.EncDecAttention.{name}": (Part(f"dec.blk.{{i}}.cross_attn_{name}"),)
        for name in "qkvo"
    },
    f"{_CROSS}.layer_norm": (Part("dec.blk.{i}.cross_attn_norm"),),
}
_T5_SIZES: Fields = {
    "embedding_length": ("d_model",),
    "feed_forward_length": ("d_ff",),
    "block_count": ("num_layers",),
    "attention.head_count": ("num_heads",),
    "attention.key_length": ("d_kv",),
    "attention.relative_buckets_count": ("relative_attention_num_buckets",),
}

ENCODERS: dict[str, GgufArchitecture] = {
    "bert": GgufArchitecture(
        model_type="bert",
        unlike=_OTHER_HEADS,
        shapes=_NUMBER_OF_TYPES,
        fixed={"architectures": ["BertModel"]},
        parts=_TYPES
        | {
            "attention.output.LayerNorm": (Part("attn_output_norm"),),
            "}.output.LayerNorm": (Part("layer_output_norm"),),
        },
    ),
    "eurobert": GgufArchitecture(fixed={"architectures": ["EuroBertModel"]}, unlike=_OTHER_HEADS),
    "jina-bert-v3": GgufArchitecture(
        unlike=_OTHER_HEADS,
        shapes=_NUMBER_OF_TYPES,
        fixed={"architectures": ["JinaEmbeddingsV3Model"]},
        parts=_NOMIC,
    ),
    "modern-bert": GgufArchitecture(
        unlike=_OTHER_HEADS, fixed={"architectures": ["ModernBertModel"]}
    ),
    "nomic-bert": GgufArchitecture(
        unlike=_OTHER_HEADS,
        shapes=_NUMBER_OF_TYPES,
        fixed={"architectures": ["NomicBertModel"]},
        parts=_NOMIC,
    ),
    "t5": GgufArchitecture(
        model_type="t5",
        # Relative positions of every layer; a gate.
        variants=(("enc.blk.1.attn_rel_b.weight", "umt5"), ("enc.blk.0.ffn_gate.weight", "mt5")),
        sizes=_T5_SIZES,
        may_have={"decoder_block_count": ("num_decoder_layers",)},
        parts=_T5,
    ),
    "t5encoder": GgufArchitecture(
        model_type="t5",
        variants=(("enc.blk.1.attn_rel_b.weight", "umt5"), ("enc.blk.0.ffn_gate.weight", "mt5")),
        sizes=_T5_SIZES,
        fixed={"architectures": ["T5EncoderModel"]},
        parts=_T5,
    ),
}
