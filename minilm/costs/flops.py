"""Floating-point operations for a token.

A multiply and an add are two operations, so a matrix takes 2 FLOPs a parameter a token forward, and
twice that backward (Kaplan et al. 2020, section 2.1). The products of queries with keys and of scores
with values depend on the context and not on parameters, so they are counted separately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from minilm.ledger.layout import SHARED, Layout, NamedTensor, Role, Tensor
from minilm.ledger.symbols import ZERO, Polynomial, symbol

TRAINING = 3  # times the FLOPs forward: the backward pass takes twice as many


def flops_per_token(layout: Layout, *, context: int) -> dict[str, int]:
    """Forward, training and attention FLOPs of one token at the end of ``context`` tokens.

    Only the experts that a token uses are counted, and a shared layer as often as it runs. A tied matrix
    is counted once, as the head: embedding lookup is free.
    """
    attention = sum(2 * kind.multiplied(context).value(layout.symbols) for kind in layout.attention)
    forward = matrix_flops(layout).value(layout.symbols) + attention
    return {
        "forward_per_token": forward,
        "training_per_token": TRAINING * forward,
        "attention_per_token": attention,
    }


def matrix_flops(layout: Layout) -> Polynomial:
    """Forward FLOPs of one token but for attention over the context, in the letters of the layout."""
    multiplied = sum(
        (
            tensor.runs * tensor.active
            for tensor in layout.tensors
            if tensor.role is Role.MULTIPLIED
        ),
        ZERO,
    )
    multiplied = multiplied + layout.mixing
    multiplied += sum((tensor.runs * tensor.count for tensor in _tied_heads(layout)), ZERO)
    return 2 * multiplied.substituted({"S": symbol("L")})


def causal_training_flops(layout: Layout, *, context: int) -> float:
    """Training FLOPs of an average token of ``context`` tokens, each attending to itself and those before.

    `flops_per_token` counts all of the context for every token, as published utilisations do (Chowdhery et
    al. 2022, arXiv:2204.02311, appendix B), whatever a causal kernel leaves out.
    """
    full = flops_per_token(layout, context=context)
    causal = 0.0
    for kind in (part for each in layout.attention for part in each.parts()):
        attended = kind.layers * (kind.scores + kind.values)
        indexed = kind.layers * kind.index
        for width, span in ((attended, kind.seen(context)), (indexed, kind.span(context))):
            per_token = 2 * width.value(layout.symbols)
            unseen = 0 if kind.fixed else span * (span * kind.every - 1) / (2 * context)
            causal += per_token * (span - unseen)
    return TRAINING * (full["forward_per_token"] - full["attention_per_token"] + causal)


def tensor_flops(layout: Layout) -> Iterator[tuple[NamedTensor, float]]:
    """Each tensor with the forward FLOPs of one token in it, attention over the context left out.

    Of an expert's tensor it is the average over tokens, which use e of the E experts.
    """
    heads = {id(tensor) for tensor in _tied_heads(layout)}
    flops_per_element = {
        id(tensor): 2 * layout.value(tensor, active=True) / max(layout.value(tensor), 1)
        if tensor.role is Role.MULTIPLIED or id(tensor) in heads
        else 0
        for tensor in layout.tensors
    }
    blocks = Counter[int]()  # of each shared tensor, how many came before
    for named in layout.named_tensors():
        declared, runs = named.declared, named.declared.runs
        if declared.repeat == SHARED:
            runs = layout.runs(blocks[id(declared)])
            blocks[id(declared)] += 1
        yield named, named.count * runs * flops_per_element[id(declared)]


def _tied_heads(layout: Layout) -> list[Tensor]:
    """The tables that are heads too, each once; a bias may be tied as well, or the table of another part."""
    shared = {name for _, name in layout.ties}
    return [t for t in layout.tensors if t.role is Role.LOOKED_UP and t.name in shared]
