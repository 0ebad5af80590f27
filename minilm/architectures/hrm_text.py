"""HRM-Text as transformers stores it: two stacks of layers, each run several times for a token.

The low stack runs L_cycles times before the high one runs once, H_cycles times in all; each run of a layer
has a cache of its own. Attention is gated, and norms have no gains. Names, shapes and defaults:
huggingface/transformers `models/hrm_text`, and `conversion_mapping.py` for the joined matrices of its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import Heads, L, d, f, linear, read_heads
from minilm.architectures.config_fields import field_name, flag, size
from minilm.architectures.decoder import Defaults, decoder
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors

_DEFAULTS = Defaults(151808, 16, (1536, 12, None, 128), 4096, 2048)


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of HrmTextForCausalLM for a config.json."""
    heads = read_heads(config, kv_heads=None, defaults=_DEFAULTS.heads)
    high, low = size(config, "H_cycles", 2), size(config, "L_cycles", 3)
    biases = flag(config, "attention_bias", False), flag(config, "mlp_bias", False)
    return decoder(
        config,
        _DEFAULTS,
        heads,
        *_stack("L_module", heads, *biases, runs=high * low),
        *_stack("H_module", heads, *biases, runs=high),
        before=(
            Tensor("model.z_L_init", (d,), components.RESIDUAL_STREAMS, Role.ADDED, frozen=True),
        ),
        attention=(heads.attention(layers=L * (high * (low + 1))),),
        final_norm="",
        # Written, num_hidden_layers is that of all runs.
        fields={
            "num_hidden_layers": field_name(config, "num_hidden_layers", "num_layers_per_stack")
        },
    )


def _stack(name: str, heads: Heads, bias: bool, mlp_bias: bool, *, runs: int) -> Tensors:
    block, width, joined = f"model.{name}.layers.{{i}}", heads.queries, components.ATTENTION_GATE
    # The biases are not joined.
    added = [(f"self_attn.{each}_proj", width) for each in ("gate", "q", "k", "v") if bias]
    added += [(f"mlp.{each}_proj", f) for each in ("gate", "up") if mlp_bias]
    tensors = (
        *linear(f"{block}.attn.gqkv_proj", 4 * width, d, components.ATTENTION_QUERY_KEY_VALUE),
        *linear(f"{block}.attn.o_proj", d, width, components.ATTENTION_OUTPUT, bias=bias),
        *linear(f"{block}.mlp.gate_up_proj", 2 * f, d, components.FEED_FORWARD_GATE_UP),
        *linear(f"{block}.mlp.down_proj", d, f, components.FEED_FORWARD_DOWN, bias=mlp_bias),
        *(Tensor(f"{block}.{each}.bias", (of,), joined, Role.ADDED, L) for each, of in added),
    )
    return tuple(replace(each, runs=runs) for each in tensors)
