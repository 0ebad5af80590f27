"""I-BERT's buffers: RoBERTa's matrices as whole numbers, their scales, and the ranges of activations.

Names and shapes: huggingface/transformers `models/ibert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import L, T, V, d, f
from minilm.architectures.config_fields import whole_number
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial

_BLOCK = "encoder.layer.{i}"
_ATTENTION = f"{_BLOCK}.attention"
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_ACTIVATIONS = (
    *(f"{_ATTENTION}.self.{n}_activation" for n in ("query", "key", "value", "output")),
    f"{_ATTENTION}.self.softmax.act",
    f"{_ATTENTION}.output.ln_input_act",
    f"{_ATTENTION}.output.LayerNorm.activation",
    f"{_ATTENTION}.output.output_activation",
    f"{_BLOCK}.intermediate.output_activation",
    f"{_BLOCK}.output.ln_input_act",
    f"{_BLOCK}.output.LayerNorm.activation",
    f"{_BLOCK}.output.output_activation",
    f"{_BLOCK}.pre_intermediate_act",
    f"{_BLOCK}.pre_output_act",
)
_MAPS: dict[str, tuple[Polynomial, Polynomial]] = {
    **{f"{_ATTENTION}.self.{n}": (d, d) for n in ("query", "key", "value")},
    f"{_ATTENTION}.output.dense": (d, d),
    f"{_BLOCK}.intermediate.dense": (f, d),
    f"{_BLOCK}.output.dense": (d, f),
}


def buffers(config: Mapping[str, Any]) -> Tensors:
    """All of them, below the model's prefix."""
    rows = (V, T, as_polynomial(whole_number(config, "type_vocab_size", 2)))
    own = ("embeddings_act1", "embeddings_act2", "LayerNorm.activation", "output_activation")
    return (
        *(
            t
            for name, count in zip(_TABLES, rows, strict=True)
            for t in (
                _buffer(f"embeddings.{name}.weight_integer", (count, d), ONE),
                _buffer(f"embeddings.{name}.weight_scaling_factor", (ONE,), ONE),
            )
        ),
        *(t for name in own for t in _range(f"embeddings.{name}", ONE)),
        _buffer("embeddings.LayerNorm.shift", (ONE,), ONE),
        *(t for name, shape in _MAPS.items() for t in _integers(name, shape)),
        *(t for name in _ACTIVATIONS for t in _range(name, L)),
        _buffer(f"{_ATTENTION}.output.LayerNorm.shift", (ONE,), L),
        _buffer(f"{_BLOCK}.output.LayerNorm.shift", (ONE,), L),
    )


def _buffer(name: str, shape: tuple[Polynomial, ...], repeat: Polynomial) -> Tensor:
    return Tensor(name, shape, components.ENCODER, Role.ONCE, repeat)


def _range(name: str, repeat: Polynomial) -> Tensors:
    ends = ("x_min", "x_max", "act_scaling_factor")
    return tuple(_buffer(f"{name}.{end}", (ONE,), repeat) for end in ends)


def _integers(name: str, shape: tuple[Polynomial, Polynomial]) -> Tensors:
    return (
        _buffer(f"{name}.weight_integer", shape, L),
        _buffer(f"{name}.fc_scaling_factor", shape[:1], L),
        _buffer(f"{name}.bias_integer", shape[:1], L),
    )
