"""Floating-point operations a token costs.

A multiply and an add are two operations, so a matrix costs 2 FLOPs a parameter a token forward, and
twice that again backward (Kaplan et al. 2020, section 2.1). The products of queries with keys and of
scores with values depend on the context instead of the parameters and are kept apart.
"""

from __future__ import annotations

from minilm.ledger.layout import AttentionSpec, Layout, Role


def flops_per_token(layout: Layout, *, context: int) -> dict[str, int]:
    """Forward, training and attention FLOPs of one token at the end of ``context`` tokens.

    Of experts, those that a token uses are counted. A tied head is stored once and multiplied once: its
    embedding is looked up, which costs nothing, and its use as a head is counted here.
    """
    multiplied = layout.count(role=Role.MULTIPLIED, active=True)
    multiplied += sum(
        layout.value(tensor)
        for _, shared in layout.ties
        for tensor in layout.tensors
        if tensor.name == shared
    )
    attention = sum(_a_position(layout, kind) * kind.span(context) for kind in layout.attention)
    forward = 2 * multiplied + attention
    return {
        "forward_per_token": forward,
        "training_per_token": 3 * forward,
        "attention_per_token": attention,
    }


def mean_attention_per_token(layout: Layout, *, context: int) -> int:
    """Attention FLOPs of a token, the mean over a causal sequence of ``context`` tokens, rounded."""
    total = 0
    for kind in layout.attention:
        full = kind.span(context)  # the first tokens see 1, 2, ... and the rest this many
        seen = full * (full + 1) // 2 + (context - full) * full
        total += _a_position(layout, kind) * seen
    return (2 * total + context) // (2 * context)


def _a_position(layout: Layout, kind: AttentionSpec) -> int:
    """FLOPs for each position that a token looks at: its score, and its share of the values."""
    return 2 * (kind.layers * (kind.scores + kind.values)).value(layout.symbols)
