"""A layer of an encoder, the head of a masked language model, and tables that are looked up."""

from __future__ import annotations

from minilm.architectures.building_blocks import L, V, d, f, linear, norm
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

SELF_ATTENTION = "encoder.layer.{i}.attention.self"  # of BERT, below its prefix
BERT_LAYER = (
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "attention.output.LayerNorm intermediate.dense output.dense output.LayerNorm"
)


def lookup(
    name: str,
    rows: Polynomial | int,
    component: str = components.TOKEN_TYPE_EMBEDDING,
    width: Polynomial = d,
) -> Tensor:
    """A table, ``name.weight`` (rows, width)."""
    return Tensor(f"{name}.weight", (as_polynomial(rows), width), component, Role.LOOKED_UP)


def encoder_layer(
    block: str, names: str, *, bias: bool = True, repeat: Polynomial = L, width: Polynomial = d
) -> Tensors:
    """A layer of one width and heads; ``names`` as BERT_LAYER, - for one that is not there."""
    query, key, value, output, first, up, down, second = names.split()
    parts: tuple[tuple[str, Polynomial, Polynomial, str], ...] = (
        (query, d, d, components.ATTENTION_QUERY),
        (key, d, d, components.ATTENTION_KEY),
        (value, d, d, components.ATTENTION_VALUE),
        (output, d, d, components.ATTENTION_OUTPUT),
        (up, f, d, components.FEED_FORWARD_UP),
        (down, d, f, components.FEED_FORWARD_DOWN),
    )
    norms = (
        (first, components.ATTENTION_OUTPUT_NORM),
        (second, components.FEED_FORWARD_OUTPUT_NORM),
    )
    return (
        *(
            tensor
            for name, outputs, inputs, component in parts
            if name != "-"
            for tensor in linear(
                f"{block}.{name}", outputs, inputs, component, bias=bias, repeat=repeat
            )
        ),
        *(
            tensor
            for name, component in norms
            if name != "-"
            for tensor in norm(f"{block}.{name}", component, bias=True, repeat=repeat)
        ),
    )


def masked_head(
    transform: tuple[str, str],
    out: str,
    bias: str,
    *,
    tied: bool,
    width: Polynomial = d,
) -> Tensors:
    """A dense map and a norm, and the table's ``bias``; not tied, the matrix ``out`` and its own."""
    part, (dense, gain) = components.LM_HEAD, transform
    own = linear(out, V, width, part, bias=f"{out}.bias" != bias, repeat=ONE)
    return (
        *linear(dense, width, d, part, bias=True, repeat=ONE),
        *norm(gain, part, width=width, bias=True, repeat=ONE),
        Tensor(bias, (V,), part, Role.ADDED),
        *(() if tied else own),
    )


def attention_maps(
    block: str, names: str, outputs: Polynomial = d, inputs: Polynomial = d
) -> Tensors:
    """Further matrices of a layer's attention."""
    part = components.ATTENTION_QUERY
    maps = (linear(f"{block}.{name}", outputs, inputs, part, bias=True) for name in names.split())
    return tuple(tensor for pair in maps for tensor in pair)
