"""How the steps of a run compute on this CPU: in which dtype, by which attention; timed on one block.

Which is faster depends on the processor and on the shape. The dtype that `auto` becomes and the attention of
`longest_explicit` stay where nothing else is clearly faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from minilm.config import ModelConfig, TrainConfig
from minilm.generation.tuning import ROUNDS, choose
from minilm.model.attention import longest_explicit
from minilm.model.rope import rotation
from minilm.model.transformer import Block

MOST_TOKENS = 1024  # of the batch that is timed: a part of the run's is in proportion
ATTENTION = ("explicit", "fused")
# A shorter run ends before timing has paid for itself.
FROM_FLOPS = 1e12
LARGEST_SHARE = 0.02  # of the run's passes through a block
MOST_FLOPS = 5e11  # some seconds: a wider block is products, for which the rule is right


def measuring_pays(flops: float, tokens: float, layers: int) -> bool:
    """Whether timing is short beside a run of so many FLOPs, and ``tokens`` through so many layers."""
    share = 2 * len(ATTENTION) * ROUNDS * MOST_TOKENS / (tokens * layers)
    return flops >= FROM_FLOPS and share <= LARGEST_SHARE and share * flops <= MOST_FLOPS


def measured(
    config: TrainConfig, model: ModelConfig, length: int, dtype: torch.dtype
) -> dict[str, str]:
    """``dtype`` and ``attention`` of the fastest way, for rows of ``length`` tokens; one of `ATTENTION`.

    ``dtype`` is what `auto` becomes by rule; a dtype that ``config`` names is not measured.
    """
    dtypes = [dtype]
    if config.dtype == "auto":
        dtypes += [other for other in (torch.float32, torch.bfloat16) if other != dtype]
    rows = max(1, min(config.batch_size, MOST_TOKENS // length))
    with torch.random.fork_rng(devices=[]):
        block = _block(model)
        x = torch.randn(rows, length, model.d_model)
        ways: dict[str, tuple[torch.dtype, str]] = {}
        for each in dtypes:
            is_explicit = model.dropout > 0 or length <= longest_explicit(each)
            names = list(ATTENTION if is_explicit else reversed(ATTENTION))
            if model.dropout:
                names.remove("fused")  # which has none
            ways |= {f"{_name(each)}, {attention}": (each, attention) for attention in names}
        shape = (
            f"a block of {model.d_model} ({model.num_heads} heads of {model.head_dim}, "
            f"{model.num_kv_heads} of keys, {model.d_feed_forward} {model.feed_forward}, window "
            f"{model.sliding_window}, dropout {model.dropout:g}), {rows} x {length} tokens, trained"
        )
        runs = [(name, _pass(block, x, model, *way)) for name, way in ways.items()]
        chosen_dtype, chosen_attention = ways[choose(f"{shape}: {', '.join(ways)}", runs)]
    return {"dtype": _name(chosen_dtype), "attention": chosen_attention}


def longest_explicit_length(tuned: Mapping[str, str], length: int, dtype: torch.dtype) -> int:
    """Up to which length attention is explicit, after what was ``tuned`` for rows of ``length`` tokens."""
    by_rule = longest_explicit(dtype)
    if tuned.get("attention") == "explicit":
        return max(by_rule, length)
    if tuned.get("attention") == "fused":
        return min(by_rule, length - 1)
    return by_rule


def _block(model: ModelConfig) -> Block:
    block = Block(model)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)
    return block


def _pass(
    block: Block, x: torch.Tensor, model: ModelConfig, dtype: torch.dtype, attention: str
) -> Callable[[], None]:
    """Forward and backward pass over ``x``, (b, t, d)."""
    angles = rotation(x.shape[1], model, x.device) if model.position == "rope" else None

    def run() -> None:
        block.attention.longest_explicit = x.shape[1] if attention == "explicit" else 0
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            out = block(x, angles)
        out.float().sum().backward()
        block.zero_grad()

    return run


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
