"""What DeBERTa and DeBERTa-v2 have beside BERT's layers: relative positions, and a convolution.

Names, shapes and defaults: huggingface/transformers `models/{deberta,deberta_v2}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as shortened

from minilm.architectures.building_blocks import L, d, h, linear, norm
from minilm.architectures.config_fields import Config, flag, optional_size, size
from minilm.architectures.encoder_layers import SELF_ATTENTION, attention_maps, lookup
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, as_polynomial


def deberta(config: Config) -> Tensors:
    """Two biases in the place of one, and what relative positions need."""
    relative = flag(config, "relative_attention", False)
    kinds = config.get("pos_att_type")
    kinds = kinds.split("|") if isinstance(kinds, str) else kinds or []
    if not isinstance(kinds, Sequence):
        raise ConfigError("config.json: pos_att_type", shortened(kinds), "c2p, p2c or both")
    part, block = components.ATTENTION_QUERY_KEY_VALUE, SELF_ATTENTION
    tensors = [
        *linear(f"{block}.in_proj", 3 * d, d, part),
        *(Tensor(f"{block}.{n}_bias", (d,), part, Role.ADDED, L) for n in "qv"),
    ]
    if relative and "c2p" in kinds:
        tensors += linear(f"{block}.pos_proj", d, d, part)
    if relative and "p2c" in kinds:
        tensors += linear(f"{block}.pos_q_proj", d, d, part, bias=True)
    if flag(config, "talking_head", False):
        for name in ("head_logits_proj", "head_weights_proj"):
            tensors += linear(f"{block}.{name}", h, h, part)
    if relative:
        tensors.append(_relative_table(config, 2 * _relative_positions(config)))
    return tuple(tensors)


def _relative_positions(config: Config) -> int:
    return _unless_negative(config, "max_relative_positions") or size(
        config, "max_position_embeddings", 512
    )


def _unless_negative(config: Config, name: str) -> int:
    """A size, 0 where the field is absent, null or negative."""
    value = config.get(name)
    return 0 if type(value) is int and value < 1 else optional_size(config, name) or 0


def _relative_table(config: Config, rows: int) -> Tensor:
    return lookup("encoder.rel_embeddings", rows, components.POSITION_EMBEDDING)


def deberta_v2(config: Config) -> Tensors:
    relative = flag(config, "relative_attention", False)
    kinds = config.get("pos_att_type")
    kinds = kinds.split("|") if isinstance(kinds, str) else kinds or []
    if not isinstance(kinds, Sequence):
        raise ConfigError("config.json: pos_att_type", shortened(kinds), "c2p, p2c or both")
    tensors: list[Tensor] = []
    shares = flag(config, "share_att_key", False)
    if relative and not shares and "c2p" in kinds:
        tensors += attention_maps(SELF_ATTENTION, "pos_key_proj")
    if relative and not shares and "p2c" in kinds:
        tensors += attention_maps(SELF_ATTENTION, "pos_query_proj")
    if relative:
        rows = _unless_negative(config, "position_buckets") or _relative_positions(config)
        tensors.append(_relative_table(config, 2 * rows))
    kinds = config.get("norm_rel_ebd") or "none"
    if not isinstance(kinds, str):
        raise ConfigError("config.json: norm_rel_ebd", shortened(kinds), "none or layer_norm")
    if "layer_norm" in kinds.lower():
        part = components.EMBEDDING_NORM
        tensors += norm("encoder.LayerNorm", part, bias=True, repeat=ONE)
    kernel = config.get("conv_kernel_size", 0)
    if kernel:
        taps = size(config, "conv_kernel_size")
        shape = (d, d * _one_of(config, taps), as_polynomial(taps))
        part = components.CONVOLUTION
        tensors += [
            Tensor("encoder.conv.conv.weight", shape, part, Role.MULTIPLIED),
            Tensor("encoder.conv.conv.bias", (d,), part, Role.ADDED),
            *norm("encoder.conv.LayerNorm", part, bias=True, repeat=ONE),
        ]
    return tuple(tensors)


def _one_of(config: Config, taps: int) -> int:
    if config.get("conv_groups", 1) != 1:
        raise ConfigError("config.json: conv_groups", shortened(config["conv_groups"]), "1")
    return 1
