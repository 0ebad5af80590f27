"""CodeGen, CTRL, GPT-NeoX Japanese, Persimmon and Fuyu as transformers stores them.

CodeGen is GPT-J with fused queries, keys and values; CTRL has no positions in files; of GPT-NeoX
Japanese' layers the last has a bias behind attention; Persimmon normalises each query and key head, and
Fuyu puts patches of pictures in front of it through one matrix. Names, shapes and defaults:
huggingface/transformers `models/{codegen,ctrl,gpt_neox_japanese,persimmon,fuyu}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    d,
    equal_heads,
    f,
    feed_forward,
    fused_attention,
    linear,
    norm,
)
from minilm.architectures.config_fields import flag, layers, size, size_or_null, sub_config
from minilm.architectures.decoder import (
    ATTENTION,
    MLP,
    Defaults,
    decoder,
    gpt_fields,
    pre_norms,
    query_key_norms,
)
from minilm.architectures.task_heads import whole_or_body
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, as_polynomial

_CODEGEN = Defaults(50400, 28, (4096, 16, None, None), context=2048)
_CTRL = Defaults(246534, 48, (1280, 16, None, None), 8192, context=256, tied=True)
_JAPANESE = Defaults(32000, 32, (2560, 32, None, None), context=2048, tied=True)
_PERSIMMON = Defaults(262144, 36, (4096, 64, None, None), 16384, context=16384)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' language models for a config.json."""
    return _LAYOUTS[config["model_type"]](config)


def _codegen(config: Mapping[str, Any]) -> Layout:
    fields = gpt_fields(config)
    heads = equal_heads(
        config, _CODEGEN.heads, width=fields["hidden_size"], heads=fields["num_attention_heads"]
    )
    block = "transformer.h.{i}"
    return decoder(
        config,
        _CODEGEN,
        heads,
        *norm(f"{block}.ln_1", components.ATTENTION_NORM, bias=True),
        *fused_attention(f"{block}.attn.qkv_proj", f"{block}.attn.out_proj", heads),
        *feed_forward(f"{block}.mlp.fc_in", f"{block}.mlp.fc_out", f, bias=True),
        symbols={"f": size_or_null(config, "n_inner", 4 * heads.symbols["d"])},
        table="transformer.wte",
        final_norm="transformer.ln_f",
        norm_bias=True,
        head_bias=True,
        fields=fields,
    )


def _ctrl(config: Mapping[str, Any]) -> Layout:
    fields = gpt_fields(config)
    heads = equal_heads(
        config, _CTRL.heads, width=fields["hidden_size"], heads=fields["num_attention_heads"]
    )
    block = "transformer.h.{i}"
    attention = f"{block}.multi_head_attention"
    matrices = {
        "Wq": components.ATTENTION_QUERY,
        "Wk": components.ATTENTION_KEY,
        "Wv": components.ATTENTION_VALUE,
        "dense": components.ATTENTION_OUTPUT,
    }
    return decoder(
        config,
        _CTRL,
        heads,
        *(
            tensor
            for name, part in matrices.items()
            for tensor in linear(f"{attention}.{name}", d, d, part, bias=True)
        ),
        *feed_forward(f"{block}.ffn.0", f"{block}.ffn.2", f, bias=True),
        *pre_norms(f"{block}.layernorm1", f"{block}.layernorm2", bias=True),
        table="transformer.w",
        final_norm="transformer.layernorm",
        norm_bias=True,
        head_bias=True,
        fields={**fields, "intermediate_size": "dff"},
    )


def _gpt_neox_japanese(config: Mapping[str, Any]) -> Layout:
    heads = equal_heads(config, _JAPANESE.heads)
    block = "gpt_neox_japanese.layers.{i}"
    attention, mlp = f"{block}.attention", f"{block}.mlp"
    last = layers(config, "num_hidden_layers", _JAPANESE.layers) - 1
    hidden = size(config, "intermediate_multiple_size", 4) * d
    part = components.ATTENTION_OUTPUT
    return decoder(
        config,
        _JAPANESE,
        heads,
        *pre_norms(f"{block}.input_layernorm", f"{block}.post_attention_layernorm", bias=True),
        *fused_attention(f"{attention}.query_key_value", f"{attention}.dense", heads),
        Tensor(f"{attention}.dense_bias", (d,), part, Role.ADDED, ONE, [last]),
        *feed_forward(f"{mlp}.dense_h_to_4h", f"{mlp}.dense_4h_to_h", hidden),
        table="gpt_neox_japanese.embed_in",
        final_norm="gpt_neox_japanese.final_layer_norm",
        norm_bias=True,
        head="embed_out",
    )


def _persimmon(config: Mapping[str, Any]) -> Layout:
    heads = equal_heads(config, _PERSIMMON.heads)
    norms = query_key_norms(f"{ATTENTION}.q_layernorm", f"{ATTENTION}.k_layernorm", bias=True)
    return decoder(
        config,
        _PERSIMMON,
        heads,
        *pre_norms(bias=True),
        *fused_attention(f"{ATTENTION}.query_key_value", f"{ATTENTION}.dense", heads, bias=True),
        *(norms if flag(config, "qk_layernorm", True) else ()),
        *feed_forward(f"{MLP}.dense_h_to_4h", f"{MLP}.dense_4h_to_h", f, bias=True),
        final_norm="model.final_layernorm",
        norm_bias=True,
    )


def _fuyu(config: Mapping[str, Any]) -> Layout:
    # Whether the head is tied says the whole, and not its text part.
    fields = {"model_type": "persimmon", "tie_word_embeddings": False}
    text = _persimmon({**sub_config(config, "text_config"), **fields})
    tied = flag(config, "tie_word_embeddings", False)
    pixels = size(config, "num_channels", 3) * size(config, "patch_size", 30) ** 2
    patches = linear(
        "vision_embed_tokens", d, as_polynomial(pixels), components.VISION, bias=True, repeat=ONE
    )
    body = [replace(each, name=f"language_model.{each.name}") for each in text.tensors]
    head, table = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    if tied:
        body = [each for each in body if each.name != head]
    whole = replace(
        text,
        family="fuyu",
        tensors=(*body, replace(patches[0], role=Role.ONCE), patches[1]),
        ties=((head, table),) if tied else (),
    )
    return whole_or_body(whole, config, "ForCausalLM")


_LAYOUTS = {
    "codegen": _codegen,
    "ctrl": _ctrl,
    "gpt_neox_japanese": _gpt_neox_japanese,
    "persimmon": _persimmon,
    "fuyu": _fuyu,
}
