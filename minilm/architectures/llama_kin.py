"""Dense types that differ from Llama by a norm, an activation or a few vectors.

Apertus' activation is xIELU, with parameters and buffers; the head of its release 1.5 may leave out the
tokens of pictures and sounds, which are the last ones;
BitNet normalises what the output projections read; nanochat's norms have no parameters; HyperCLOVA X
normalises outputs as well; DiffLlama subtracts two attentions with learned weights. Names, shapes and
defaults: huggingface/transformers `models/{apertus,apertus1p5,bitnet,nanochat,hyperclovax,diffllama}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import (
    L,
    d,
    f,
    feed_forward,
    gated_feed_forward,
    k,
    norm,
    separate_attention,
)
from minilm.architectures.config_fields import flag, optional_size
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
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, symbol

_OUTPUTS = symbol("o")
_DEFAULTS = {
    "apertus": Defaults(131072, 32, (4096, 32, None, None), 14336, 65536),
    "apertus1p5_text": Defaults(266752, 32, (4096, 32, None, None), 14336, 65536),
    "bitnet": Defaults(128256, 30, (2560, 20, 5, None), 6912, 2048),
    "nanochat": Defaults(50304, 12, (768, 6, None, None), 8192, 2048),
    "hyperclovax": Defaults(32000, 32, (4096, 32, None, None), 11008, 2048),
    "diffllama": Defaults(32000, 16, (2048, 32, None, None), 8192, 2048),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    heads, _ = heads_and_layers(config, defaults)
    bias = flag(config, "attention_bias", False)
    layout = decoder(
        config,
        defaults,
        heads,
        *separate_attention(ATTENTION, heads, qkv_bias=bias, output_bias=bias),
        *_BLOCKS[family](config),
        # Each of DiffLlama's heads weighs the values of two.
        attention=(AttentionSpec(L, 2 * heads.keys, heads.queries, 2 * heads.queries),)
        if family == "diffllama"
        else None,
        buffers=_XIELU_BUFFERS if family.startswith("apertus") else (),
        final_norm="" if family == "nanochat" else "model.norm",
    )
    rows = optional_size(config, "output_vocab_size") if family == "apertus1p5_text" else None
    if rows is None or rows == layout.symbols["V"]:
        return layout
    return _with_fewer_outputs(layout, rows)


def _with_fewer_outputs(layout: Layout, rows: int) -> Layout:
    """With the first ``rows`` of the head alone; a tied head has all."""
    pruned = (
        replace(each, shape=(_OUTPUTS, d)) if each.component == components.LM_HEAD else each
        for each in layout.tensors
    )
    return replace(layout, tensors=tuple(pruned), symbols={**layout.symbols, "o": rows})


def _scalar(name: str, shape: tuple[Any, ...] = ()) -> Tensor:
    return Tensor(f"{MLP}.act_fn.{name}", shape, components.FEED_FORWARD_UP, Role.SCALED, L)


_XIELU_BUFFERS = (_scalar("beta"), _scalar("eps"))


def _apertus(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return (
        *pre_norms(f"{BLOCK}.attention_layernorm", f"{BLOCK}.feedforward_layernorm"),
        *query_key_norms(),
        *feed_forward(f"{MLP}.up_proj", f"{MLP}.down_proj"),
        _scalar("alpha_p", (ONE,)),
        _scalar("alpha_n", (ONE,)),
    )


def _bitnet(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return (
        *pre_norms(),
        *norm(f"{ATTENTION}.attn_sub_norm", components.ATTENTION_OUTPUT_NORM),
        *gated_feed_forward(MLP),
        *norm(f"{MLP}.ffn_sub_norm", components.FEED_FORWARD_OUTPUT_NORM, width=f),
    )


def _nanochat(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return feed_forward(f"{MLP}.fc1", f"{MLP}.fc2")


def _hyperclovax(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    outputs = post_norms(f"{BLOCK}.post_norm1", f"{BLOCK}.post_norm2")
    return (
        *pre_norms(),
        *gated_feed_forward(MLP, bias=flag(config, "mlp_bias", False)),
        *(outputs if flag(config, "use_post_norm", True) else ()),
    )


def _diffllama(config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    names = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
    part = components.ATTENTION_QK_NORM
    return (
        *pre_norms(),
        *(Tensor(f"{ATTENTION}.{name}", (k,), part, Role.SCALED, L) for name in names),
        *gated_feed_forward(MLP),
    )


_BLOCKS: dict[str, Callable[[Mapping[str, Any]], tuple[Tensor, ...]]] = {
    "apertus": _apertus,
    "apertus1p5_text": _apertus,
    "bitnet": _bitnet,
    "nanochat": _nanochat,
    "hyperclovax": _hyperclovax,
    "diffllama": _diffllama,
}
