"""OPT as transformers stores it: learned positions, every bias, a tied head.

Names, shapes and defaults: huggingface/transformers `models/opt/configuration_opt.py` and
`modeling_opt.py`. The position table has two rows that no position uses. The embedding may be narrower
than the model (350M: projected in and out); some published files leave out the `model.` prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import (
    Heads,
    T,
    V,
    d,
    equal_heads,
    feed_forward,
    feed_forward_width,
    linear,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import flag, layers, require, size, size_or_null
from minilm.architectures.conversion import Importable
from minilm.architectures.shared_fields import Fields, read_activation
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

_UNUSED_POSITIONS = 2


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of OPTForCausalLM for a config.json."""
    heads = equal_heads(config, (768, 12, None, None))
    d_model = heads.symbols["d"]
    embedding_width = size_or_null(config, "word_embed_proj_dim", d_model)
    width = d if embedding_width == d_model else symbol("p")
    inner = size(config, "ffn_dim", 3072)
    tied = flag(config, "tie_word_embeddings", True)
    # Norms without gain and bias have no tensors at all.
    affine = flag(config, "layer_norm_elementwise_affine", True)
    ends_in_norm = flag(config, "do_layer_norm_before", True) and not flag(
        config, "_remove_final_layer_norm", False
    )
    symbols = {
        "V": size(config, "vocab_size", 50272),
        "T": size(config, "max_position_embeddings", 2048),
        "L": layers(config, "num_hidden_layers", 12),
        "f": inner,
        "p": embedding_width,
        **heads.symbols,
    }
    body = "model.decoder"
    tokens, positions = f"{body}.embed_tokens.weight", f"{body}.embed_positions.weight"
    final_norm = norm(f"{body}.final_layer_norm", components.FINAL_NORM, bias=True, repeat=ONE)
    tensors = (
        Tensor(tokens, (V, width), components.TOKEN_EMBEDDING, Role.LOOKED_UP),
        Tensor(
            positions, (T + _UNUSED_POSITIONS, d), components.POSITION_EMBEDDING, Role.LOOKED_UP
        ),
        *(_projection(f"{body}.project_in", d, width) if width != d else ()),
        *(_projection(f"{body}.project_out", width, d) if width != d else ()),
        *_block(
            heads,
            feed_forward_width(inner, d_model),
            bias=flag(config, "enable_bias", True),
            affine=affine,
        ),
        *(final_norm if affine and ends_in_norm else ()),
        *(() if tied else linear("lm_head", V, width, components.LM_HEAD, repeat=ONE)),
    )
    return Layout(
        "opt",
        tensors,
        symbols,
        ties=(("lm_head.weight", tokens),) if tied else (),
        optional_prefix="model.",
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )


def _block(heads: Heads, hidden: Polynomial, *, bias: bool, affine: bool) -> tuple[Tensor, ...]:
    block = "model.decoder.layers.{i}"
    attention = separate_attention(
        f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias, output="out_proj"
    )
    attention_norm = norm(f"{block}.self_attn_layer_norm", components.ATTENTION_NORM, bias=True)
    feed_forward_norm = norm(f"{block}.final_layer_norm", components.FEED_FORWARD_NORM, bias=True)
    return (
        *(attention_norm if affine else ()),
        *attention,
        *(feed_forward_norm if affine else ()),
        *feed_forward(f"{block}.fc1", f"{block}.fc2", hidden, bias=bias),
    )


def _projection(name: str, outputs: Polynomial, inputs: Polynomial) -> tuple[Tensor, ...]:
    return linear(name, outputs, inputs, components.EMBEDDING_PROJECTION, repeat=ONE)


def _minilm_fields(fields: Fields) -> dict[str, Any]:
    require(fields, "do_layer_norm_before", True)
    require(fields, "_remove_final_layer_norm", False)
    width = size(fields, "hidden_size", 768)
    require(fields, "word_embed_proj_dim", width)
    return {
        "feed_forward": read_activation(fields, "activation_function", "relu"),
        "norm_bias": flag(fields, "layer_norm_elementwise_affine", True),
        "norm_epsilon": 1e-5,
    }


IMPORTABLE = (Importable("opt", layout, _minilm_fields),)
