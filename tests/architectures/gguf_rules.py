"""What several of llama.cpp's conversions do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from tests.architectures.gguf_conversions import (
    EVEN,
    FLAG,
    WIDTH,
    Config,
    Edit,
    Shape,
    renamed,
    split,
)

CORRECTION = {"e_score_correction_bias": renamed("e_score_correction.bias")}

EXPERT_BIAS = {".expert_bias": renamed(".expert_bias.bias")}

EXPERT_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}

DENSE_FIRST = {"leading_dense_block_count": "first_k_dense_replace"}

VOCABULARY = {"vocab_size": "vocab_size"}

BIASES = {"attention_bias": FLAG, "mlp_bias": FLAG}

HALVES = split(-2, "gate_proj.weight", "up_proj.weight")

# granite.py names them itself.
GRANITE = {
    "block_sparse_moe.input_linear.weight": split(
        -2, "mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"
    ),
    "shared_mlp.input_linear.weight": split(
        -2, "mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight"
    ),
}

# llama.py, lfm2.py and arctic.py.
W_EXPERTS = tuple(
    (rf"(block_sparse_moe|feed_forward)\.experts\.{name}\.", f"mlp.experts.{to}_proj.")
    for name, to in (("w1", "gate"), ("w2", "down"), ("w3", "up"))
)

# gpt_oss.py and llama4.py: in place of (in, out).
SWAPPED = {
    "gate_up_proj": split(-2, "gate_proj.weight", "up_proj.weight", swap=True),
    "down_proj": split(-1, "down_proj.weight", swap=True),
}

LATENT = {
    "kv_lora_rank": EVEN,
    "qk_rope_head_dim": EVEN,
    "qk_nope_head_dim": EVEN,
    "v_head_dim": WIDTH,
}


def all_heads(config: Config) -> Config:
    """As many key/value heads as heads."""
    return {"num_key_value_heads": config["num_attention_heads"]}


def head_width(config: Config) -> int:
    """Where no key says it."""
    return int(config["hidden_size"]) // int(config["num_attention_heads"])


def experts_of(config: Config, shape: Shape) -> Shape:
    """dbrx.py: a matrix of all experts, one after the other."""
    number = config["ffn_config"]["moe_num_experts"]
    return (number, shape[0] // number, shape[1])


# mamba.py, and granite.py and nemotron.py after it.
CONVOLUTION = {"conv1d.weight": renamed("conv1d.weight", squeezed=True)}

MAMBA2: Mapping[str, Edit] = {
    **CONVOLUTION,
    "dt_bias": renamed("dt_proj.bias"),
    "A_log": renamed("A_log", stacked=True),
    ".D": renamed(".D", stacked=True),
}


def layer_kinds(config: Config, *names: str) -> list[str]:
    """Each kind in one of the layers, and the others at random, the same for a config."""
    random = Random(str(config))
    number = max(len(names), config["num_hidden_layers"])
    kinds = [*names, *(random.choice(names) for _ in range(number - len(names)))]
    random.shuffle(kinds)
    return kinds


def where(field: str, kind: str, value: str) -> Callable[[Config], list[int]]:
    """The number in the layers of a kind, and 0 in the others."""
    return lambda config: [config[value] if each == kind else 0 for each in config[field]]
