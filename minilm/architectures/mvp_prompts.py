"""MVP's prompts: keys and values that each attention sees before its own.

Names, shapes and defaults: huggingface/transformers `models/mvp`; version 5 forgets the encoder's, which
files of version 4 have.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import L, d, linear
from minilm.architectures.config_fields import Config, flag, size
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, as_polynomial, symbol

Y = symbol("Y")


def prompts(config: Config, prefix: str) -> Tensors:
    """A small table and a network over it for each kind of attention; none without ``use_prompt``."""
    if config["model_type"] != "mvp" or not flag(config, "use_prompt", False):
        return ()
    rows = as_polynomial(size(config, "prompt_length", 100))
    inner = as_polynomial(size(config, "prompt_mid_dim", 800))
    tensors: list[Tensor] = []
    for name, depth, part in (
        ("encoder.self_attn_prompt", Y, components.ENCODER),
        ("decoder.self_attn_prompt", L, components.ATTENTION_KEY_VALUE),
        ("decoder.cross_attn_prompt", L, components.CROSS_ATTENTION),
    ):
        own = f"{prefix}{name}"
        tensors += [
            Tensor(f"{own}.prompt_embedding.weight", (rows, d), part, Role.ONCE),
            *linear(f"{own}.prompt_trans.0", inner, d, part, bias=True, repeat=ONE),
            *linear(f"{own}.prompt_trans.2", 2 * depth * d, inner, part, bias=True, repeat=ONE),
        ]
    return tuple(
        replace(tensor, role=Role.ONCE) if tensor.role is Role.MULTIPLIED else tensor
        for tensor in tensors
    )
