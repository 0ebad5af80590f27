"""Activations saved for the backward pass by any architecture, estimated from its Layout.

Korthikanti et al. 2022 (arXiv:2205.05198), section 4: a layer saves s*b*h*(34 + 5*a*s/h) bytes. The
34 is generalised here, tensor by tensor, to grouped heads, gates and experts. The s^2 term is omitted:
attention is assumed to be one fused kernel. Further copies made by a framework are not included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ZERO

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
class ActivationEstimate:
    """Bytes a token: in all blocks together, outside the blocks, and of one block's input."""

    blocks: int
    outside: int
    block_input: int
    num_layers: int

    def total(self, tokens: int) -> int:
        """Bytes saved for ``tokens`` tokens."""
        return tokens * (self.blocks + self.outside)

    def checkpointed(self, tokens: int) -> int:
        """Bytes with activation checkpointing: all blocks' inputs, and one average block in full."""
        block = -(-self.blocks // self.num_layers)
        between_blocks = self.outside + self.num_layers * self.block_input
        return tokens * (between_blocks + max(block - self.block_input, 0))


def estimated_activation_bytes(
    layout: Layout, *, batch: int, context: int, dtype: str = "bfloat16", dropout: bool = False
) -> dict[str, Any] | None:
    """`estimate` for ``batch`` x ``context`` tokens, with a report's keys."""
    per_token = estimate(layout, dtype=dtype, dropout=dropout)
    if per_token is None:
        return None
    tokens = batch * context
    return {
        "basis": "estimate",
        "batch": batch,
        "context": context,
        "dtype": dtype,
        "saved": per_token.total(tokens),
        "checkpointed": per_token.checkpointed(tokens),
    }


def estimate(
    layout: Layout, *, dtype: str = "bfloat16", dropout: bool = False
) -> ActivationEstimate | None:
    """Bytes a token with activations in ``dtype``; None for a layout without attention or width d.

    Nor is there one where layers are recurrent: what their scans save depends on the kernel. Short
    convolutions, as LFM2 has them in the place of attention, have no scan.
    """
    layout = layout.unshared()
    symbols = layout.symbols
    d = symbols.get("d", 0)
    convolutions = _short_convolutions(layout)
    num_layers = sum(kind.layers.value(symbols) for kind in layout.attention)
    num_layers += sum(weight.repeat.value(symbols) for weight in convolutions)
    if not d or not num_layers or layout.state != sum((w.count for w in convolutions), ZERO):
        return None
    width = BITS[dtype] // 8
    elements = (
        _norm_inputs(layout)
        + _sublayer_inputs(layout, num_layers) * d
        + _attention(layout)
        + (_convolved(layout, convolutions, d) if convolutions else 0)
        + _feed_forward(layout, d)
    )
    blocks = width * elements + _routing(layout, d, width)
    if dropout:
        blocks += 2 * num_layers * d  # a mask byte for each output of attention and feed-forward
    # The head's input, and the log-softmax over the vocabulary in float32.
    outside = width * (_outside_norms(layout) + d) + FLOAT32 * symbols.get("V", 0)
    return ActivationEstimate(blocks, outside + (d if dropout else 0), width * d, num_layers)


def _norm_inputs(layout: Layout) -> int:
    """Elements of the inputs of all norms in blocks; a query and key norm reads all heads."""
    elements = sum(
        layout.value(tensor)
        for tensor in layout.tensors
        if _is_norm(tensor) and tensor.component != components.FINAL_NORM
    )
    if any(tensor.component == components.ATTENTION_QK_NORM for tensor in layout.tensors):
        elements += sum(
            (kind.layers * kind.scores).value(layout.symbols)
            + (kind.layers * kind.cache).value(layout.symbols) // 2
            for kind in layout.attention
        )
    return elements


def _outside_norms(layout: Layout) -> int:
    return layout.count(components=(components.FINAL_NORM,), role=Role.SCALED)


def _is_norm(tensor: Tensor) -> bool:
    """Whether it is the gain of a norm over the width d."""
    others = (components.ATTENTION_QK_NORM, components.ATTENTION_SINKS)
    return tensor.role is Role.SCALED and tensor.component not in others


def _sublayer_inputs(layout: Layout, num_layers: int) -> int:
    """The number of tensors of width d that attention and feed-forward read, over all layers.

    A parallel residual has one norm for both, whose output they share.
    """
    names = {tensor.component for tensor in layout.tensors}
    is_parallel = components.ATTENTION_NORM in names and components.FEED_FORWARD_NORM not in names
    return num_layers if is_parallel else 2 * num_layers


def _attention(layout: Layout) -> int:
    """Elements of queries, keys, values and the output projection's input, over all layers.

    Latent keys and values are saved both compressed and expanded to every head.
    """
    is_latent = any(
        tensor.component == components.ATTENTION_KEY_VALUE_LATENT for tensor in layout.tensors
    )
    total = 0
    for kind in layout.attention:
        keys_values = kind.scores + kind.values + kind.cache if is_latent else kind.cache
        total += (kind.layers * (kind.scores + keys_values + kind.values)).value(layout.symbols)
    return total


def _short_convolutions(layout: Layout) -> list[Tensor]:
    """The weights of convolutions whose inputs are all that layers remember, if nothing decays there."""
    decays = any(tensor.component == components.MIXER_DECAY for tensor in layout.tensors)
    if decays or layout.state == ZERO:
        return []
    return [
        tensor
        for tensor in layout.tensors
        if tensor.component == components.CONVOLUTION and tensor.role is Role.MULTIPLIED
    ]


def _convolved(layout: Layout, convolutions: Sequence[Tensor], d: int) -> int:
    """Elements of what the first matrix puts out, the convolution's input and output, the last one's input.

    Two thirds of what the first matrix puts out are gates, of the input and of the output.
    """
    matrices = layout.count(
        components=(components.MIXER_INPUT, components.MIXER_OUTPUT), role=Role.MULTIPLIED
    )
    taps = [weight.shape[-1].value(layout.symbols) for weight in convolutions]
    channels = sum(layout.value(w) // z for w, z in zip(convolutions, taps, strict=True))
    return matrices // d + 2 * channels


def _feed_forward(layout: Layout, d: int) -> int:
    """Elements of the inputs of activation functions, gates and down projections, over all layers.

    Every matrix has d as one dimension; the other is the width of what is saved: the outputs of gate
    and up, the input of down. With a gate, its activation is saved too.
    """
    matrices = [
        tensor
        for tensor in layout.tensors
        if tensor.component in _FEED_FORWARD and tensor.role is Role.MULTIPLIED
    ]
    elements = sum(layout.value(tensor, active=True) for tensor in matrices) // d
    is_gated = any(tensor.component in _GATES for tensor in matrices)
    return elements + elements // 3 if is_gated else elements


def _routing(layout: Layout, d: int, width: int) -> int:
    """Bytes for experts: a token's router scores, and its copies sent to and returned by experts."""
    routers = [
        tensor
        for tensor in layout.tensors
        if tensor.component == components.ROUTER and tensor.role is Role.MULTIPLIED
    ]
    symbols: Mapping[str, int] = layout.symbols
    layers = sum(router.repeat.value(symbols) for router in routers)
    scores = sum(layout.value(router) for router in routers) // d
    return FLOAT32 * scores + 2 * width * layers * symbols.get("e", 0) * d
