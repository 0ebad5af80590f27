"""GPT-2 as transformers stores it: fused query-key-value, matrices as (in, out), a tied head.

Names and shapes: huggingface/transformers `models/gpt2/modeling_gpt2.py` (Conv1D keeps its weight as
(in, out)). The published files leave out the `transformer.` prefix and hold each layer's causal mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.ledger import components
from minilm.ledger.families.fields import flag, layers, size
from minilm.ledger.layout import Attention, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

V, T, L, d, f = (symbol(letter) for letter in "VTLdf")


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of GPT2LMHeadModel for a config.json."""
    d_model = size(config, "n_embd", 768)
    inner = size(config, "n_inner", 4 * d_model)
    tied = flag(config, "tie_word_embeddings", True)
    hidden = 4 * d if inner == 4 * d_model else f
    symbols = {
        "V": size(config, "vocab_size", 50257),
        "T": size(config, "n_positions", 1024),
        "L": layers(config, "n_layer", 12),
        "d": d_model,
        "f": inner,
    }

    def linear(name: str, inputs: Polynomial, outputs: Polynomial, part: str) -> tuple[Tensor, ...]:
        return (
            Tensor(f"{name}.weight", (inputs, outputs), part, Role.MULTIPLIED, L),
            Tensor(f"{name}.bias", (outputs,), part, Role.ADDED, L),
        )

    def norm(name: str, part: str, repeat: Polynomial = L) -> tuple[Tensor, ...]:
        return (
            Tensor(f"{name}.weight", (d,), part, Role.SCALED, repeat),
            Tensor(f"{name}.bias", (d,), part, Role.ADDED, repeat),
        )

    tensors = (
        Tensor("transformer.wte.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP),
        Tensor("transformer.wpe.weight", (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP),
        *norm("transformer.h.{i}.ln_1", components.ATTENTION_NORM),
        *linear("transformer.h.{i}.attn.c_attn", d, 3 * d, components.ATTENTION_QUERY_KEY_VALUE),
        *linear("transformer.h.{i}.attn.c_proj", d, d, components.ATTENTION_OUTPUT),
        *norm("transformer.h.{i}.ln_2", components.FEED_FORWARD_NORM),
        *linear("transformer.h.{i}.mlp.c_fc", d, hidden, components.FEED_FORWARD_UP),
        *linear("transformer.h.{i}.mlp.c_proj", hidden, d, components.FEED_FORWARD_DOWN),
        *norm("transformer.ln_f", components.FINAL_NORM, repeat=ONE),
        *(() if tied else (Tensor("lm_head.weight", (V, d), components.LM_HEAD, Role.MULTIPLIED),)),
    )
    return Layout(
        "gpt2",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        optional_prefix="transformer.",
        ignored=("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"),
        attention=(Attention(L, 2 * d, d, d),),
        context_length=symbols["T"],
    )
