"""The first GPT (2018) as transformers stores it: GPT-2's blocks, no final norm, 4d, a tied head.

Names and shapes: huggingface/transformers `models/openai/modeling_openai.py`. Its norms come after the
residual sums. Published files may leave out the `transformer.` prefix and hold each causal mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import T, d, embedding, lm_head
from minilm.architectures.config_fields import field_name, flag, layers, size
from minilm.architectures.gpt2 import BLOCK, gpt_block, gpt_heads
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of OpenAIGPTLMHeadModel for a config.json."""
    heads = gpt_heads(config)
    tied = flag(config, "tie_word_embeddings", True)
    symbols = {
        "V": size(config, "vocab_size", 40478),
        "T": size(config, field_name(config, "n_positions", "max_position_embeddings"), 512),
        "L": layers(config, field_name(config, "n_layer", "num_hidden_layers"), 12),
        **heads.symbols,
    }
    positions = "transformer.positions_embed.weight"
    tensors = (
        embedding("transformer.tokens_embed"),
        Tensor(positions, (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP),
        *gpt_block(4 * d),
        *lm_head("lm_head", tied=tied),
    )
    return Layout(
        "openai-gpt",
        tensors,
        symbols,
        ties=(("lm_head.weight", "transformer.tokens_embed.weight"),) if tied else (),
        optional_prefix="transformer.",
        ignored=(f"{BLOCK}.attn.bias",),
        attention=(heads.attention(),),
        context_length=symbols["T"],
    )
