"""Decoders whose layers differ in heads and widths: how llama.cpp converts them."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.gguf_conversions import FLAG, Config, Conversion, split
from tests.architectures.gguf_rules import BIASES, VOCABULARY


def _openelm(config: Config) -> Config:
    """A number for each layer, the same for a config."""
    random = Random(str(config))
    layers = range(config["num_hidden_layers"])
    groups = [random.randint(1, 3) for _ in layers]
    return {
        "num_transformer_layers": len(layers),
        "model_dim": config["hidden_size"],
        "max_context_length": config["max_position_embeddings"],
        "head_dim": 2 * random.randint(1, 9),
        "num_kv_heads": groups,
        "num_query_heads": [number * random.randint(1, 3) for number in groups],
        "ffn_multipliers": [random.choice((0.5, 1.0, 1.7, 4.0)) for _ in layers],
    }


def _widths(config: Config) -> list[int]:
    """openelm.py: the nearest multiples, at most a tenth less."""
    divisor, widths = config["ffn_dim_divisor"], []
    for factor in config["ffn_multipliers"]:
        wanted = factor * config["model_dim"]
        width = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
        widths.append(width + divisor if width < 0.9 * wanted else width)
    return widths


def _kv_heads(config: Config) -> Config:
    """Divisors of the number of heads."""
    random, heads = Random(str(config)), config["num_attention_heads"]
    divisors = [number for number in range(1, heads + 1) if heads % number == 0]
    layers = range(config["num_hidden_layers"])
    return {"num_key_value_heads_per_layer": [random.choice(divisors) for _ in layers]}


def _blocks(config: Config) -> Config:
    """Of every kind one: heads and a feed-forward, one matrix in their place, one of both, and neither."""
    random, heads = Random(str(config)), config["num_attention_heads"]
    group = random.choice([number for number in range(1, heads + 1) if heads % number == 0])
    attends: dict[str, Any] = {"n_heads_in_group": group}
    linear = {"n_heads_in_group": None, "replace_with_linear": True}
    nothing = {"n_heads_in_group": None, "replace_with_linear": False, "no_op": True}
    feeds, none = {"ffn_mult": random.choice((1.3, 40.0, 85.5))}, {"ffn_mult": None, "no_op": True}
    kinds = [(attends, feeds), (linear, feeds), (nothing, feeds), (attends, none), (nothing, none)]
    rest = [random.choice(kinds) for _ in range(random.randint(0, 3))]
    blocks = [{"attention": {**a}, "ffn": {**f}} for a, f in (kinds[0], *kinds[1:], *rest)]
    return {"block_configs": blocks, "num_hidden_layers": len(blocks)}


def _heads(config: Config, *, shared: bool) -> list[int]:
    """deci.py: none for a layer without attention, and no keys for one matrix."""
    own, numbers = config["num_attention_heads"], []
    for block in config["block_configs"]:
        group = block["attention"]["n_heads_in_group"]
        alone = own if block["attention"].get("replace_with_linear") and not shared else 0
        numbers.append((own // group if shared else own) if group else alone)
    return numbers


def _multiples(config: Config) -> list[int]:
    """deci.py: the next multiple of 256."""
    factors = (block["ffn"]["ffn_mult"] or 0.0 for block in config["block_configs"])
    return [-(-int(2 * factor * config["hidden_size"] / 3) // 256) * 256 for factor in factors]


CONVERSIONS: dict[str, Conversion] = {
    "deci": Conversion(
        "deci",
        BIASES,
        {**VOCABULARY, "head_count_kv": "num_key_value_heads_per_layer"},
        derived=_kv_heads,
    ),
    "nemotron-nas": Conversion(
        "deci",
        BIASES,
        {
            **VOCABULARY,
            "head_count": lambda config: _heads(config, shared=False),
            "head_count_kv": lambda config: _heads(config, shared=True),
            "feed_forward_length": _multiples,
        },
        derived=_blocks,
    ),
    "openelm": Conversion(
        "openelm",
        {
            "ffn_dim_divisor": (1, 4, 8),
            "ffn_with_glu": True,
            "normalize_qk_projections": FLAG,
            "share_input_output_layers": True,
        },
        {
            "block_count": "num_transformer_layers",
            "head_count": "num_query_heads",
            "head_count_kv": "num_kv_heads",
            "feed_forward_length": _widths,
        },
        {"mlp.gate_up_proj.weight": split(0, "mlp.gate_proj.weight", "mlp.up_proj.weight")},
        derived=_openelm,
        # openelm.py names them itself.
        renames=((r"transformer\.(layers\.\d+)\.ffn\.proj_1", r"model.\1.mlp.gate_up_proj"),),
    ),
}
