"""What training any architecture keeps for the backward pass, estimated from its Layout.

Korthikanti et al. 2022 (arXiv:2205.05198), section 4: a layer keeps s*b*h*(34 + 5*a*s/h) bytes. The
34 is generalised here, tensor by tensor, to grouped heads, gates and experts; the term in s^2 falls
away, since attention is taken to run in one fused kernel. What a framework copies besides is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

FLOAT32 = 4

_FEED_FORWARD = (
    components.FEED_FORWARD_GATE,
    components.FEED_FORWARD_UP,
    components.FEED_FORWARD_GATE_UP,
    components.FEED_FORWARD_DOWN,
    components.EXPERTS_GATE,
    components.EXPERTS_UP,
    components.EXPERTS_GATE_UP,
    components.EXPERTS_DOWN,
    components.SHARED_EXPERT,
)
_GATES = (
    components.FEED_FORWARD_GATE,
    components.FEED_FORWARD_GATE_UP,
    components.EXPERTS_GATE,
    components.EXPERTS_GATE_UP,
)


@dataclass(frozen=True)
class Estimate:
    """Bytes a token: in all blocks together, outside of them, and of the input of one block."""

    blocks: int
    outside: int
    block_input: int
    num_layers: int

    def total(self, tokens: int) -> int:
        """Bytes kept for ``tokens`` tokens."""
        return tokens * (self.blocks + self.outside)

    def checkpointed(self, tokens: int) -> int:
        """The same when a block keeps its input only and is run again: one mean block is whole."""
        block = -(-self.blocks // self.num_layers)
        between = self.outside + self.num_layers * self.block_input
        return tokens * (between + max(block - self.block_input, 0))


def estimated_activation_bytes(
    layout: Layout, *, batch: int, context: int, dtype: str = "bfloat16", dropout: bool = False
) -> dict[str, Any] | None:
    """`estimate` for ``batch`` x ``context`` tokens under the names that a report has."""
    found = estimate(layout, dtype=dtype, dropout=dropout)
    if found is None:
        return None
    tokens = batch * context
    return {
        "basis": "estimate",
        "batch": batch,
        "context": context,
        "dtype": dtype,
        "saved": found.total(tokens),
        "checkpointed": found.checkpointed(tokens),
    }


def estimate(layout: Layout, *, dtype: str = "bfloat16", dropout: bool = False) -> Estimate | None:
    """Bytes a token with activations in ``dtype``; None for a layout without attention or width d."""
    symbols = layout.symbols
    d = symbols.get("d", 0)
    num_layers = sum(kind.layers.value(symbols) for kind in layout.attention)
    if not d or not num_layers:
        return None
    width = BITS[dtype] // 8
    elements = (
        _norm_inputs(layout)
        + _sublayer_inputs(layout, num_layers) * d
        + _attention(layout)
        + _feed_forward(layout, d)
    )
    blocks = width * elements + _routing(layout, d, width)
    if dropout:
        blocks += 2 * num_layers * d  # a byte for each output of attention and feed-forward
    # Beside the blocks: the head's input, and the log-softmax over the vocabulary in float32.
    outside = width * (_outside_norms(layout) + d) + FLOAT32 * symbols.get("V", 0)
    return Estimate(blocks, outside + (d if dropout else 0), width * d, num_layers)


def _norm_inputs(layout: Layout) -> int:
    """Elements that the norms in blocks take; a query and key norm takes all heads."""
    plain = sum(
        layout.value(tensor)
        for tensor in layout.tensors
        if _is_norm(tensor) and tensor.component != components.FINAL_NORM
    )
    if any(tensor.component == components.ATTENTION_QK_NORM for tensor in layout.tensors):
        plain += sum(
            (kind.layers * kind.scores).value(layout.symbols)
            + (kind.layers * kind.cache).value(layout.symbols) // 2
            for kind in layout.attention
        )
    return plain


def _outside_norms(layout: Layout) -> int:
    return layout.count(components=(components.FINAL_NORM,), role=Role.SCALED)


def _is_norm(tensor: Tensor) -> bool:
    apart = (components.ATTENTION_QK_NORM, components.ATTENTION_SINKS)
    return tensor.role is Role.SCALED and tensor.component not in apart


def _sublayer_inputs(layout: Layout, num_layers: int) -> int:
    """How many tensors of width d attention and feed-forward read, over all layers.

    Where the two stand side by side behind one norm, they share one.
    """
    present = {tensor.component for tensor in layout.tensors}
    shared = components.ATTENTION_NORM in present and components.FEED_FORWARD_NORM not in present
    return num_layers if shared else 2 * num_layers


def _attention(layout: Layout) -> int:
    """Queries, keys, values and the output, which the output projection reads, over all layers.

    Latent keys and values are kept compressed and unfolded to every head.
    """
    unfolded = any(
        tensor.component == components.ATTENTION_KEY_VALUE_LATENT for tensor in layout.tensors
    )
    total = 0
    for kind in layout.attention:
        keys_values = kind.scores + kind.values + kind.cache if unfolded else kind.cache
        total += (kind.layers * (kind.scores + keys_values + kind.values)).value(layout.symbols)
    return total


def _feed_forward(layout: Layout, d: int) -> int:
    """What goes into activations, gates and the projections down, over all layers.

    Each matrix has d on one side, and its other side is kept: the output of gate and up, the input of
    down. A gate's activation is kept besides.
    """
    matrices = [
        tensor
        for tensor in layout.tensors
        if tensor.component in _FEED_FORWARD and tensor.role is Role.MULTIPLIED
    ]
    sides = sum(layout.value(tensor, active=True) for tensor in matrices) // d
    gated = any(tensor.component in _GATES for tensor in matrices)
    return sides + sides // 3 if gated else sides


def _routing(layout: Layout, d: int, width: int) -> int:
    """Bytes for experts: every token's router scores, and its copies on the way in and out of experts."""
    routers = [
        tensor
        for tensor in layout.tensors
        if tensor.component == components.ROUTER and tensor.role is Role.MULTIPLIED
    ]
    symbols: Mapping[str, int] = layout.symbols
    layers = sum(router.repeat.value(symbols) for router in routers)
    scores = sum(layout.value(router) for router in routers) // d
    return FLOAT32 * scores + 2 * width * layers * symbols.get("e", 0) * d
