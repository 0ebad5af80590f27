"""Runs of every shape that a stock architecture has."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import normalizers, pre_tokenizers

from minilm.checkpoint import save_weights
from minilm.config import ModelConfig, TrainConfig
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.published_tokenizers import QWEN2

TINY: dict[str, Any] = {
    "vocab_size": 256,
    "context_length": 32,
    "num_layers": 2,
    "d_model": 32,
    "num_heads": 4,
    "d_feed_forward": 48,
}
# Without symmetry: 8 heads on 2 key/value heads, and 5 layers, which 2 and 3 do not divide.
UNEVEN: dict[str, Any] = {
    "vocab_size": 37,
    "context_length": 20,
    "num_layers": 5,
    "d_model": 24,
    "num_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 6,
}
NO_BIASES = {"qkv_bias": False, "attention_output_bias": False, "feed_forward_bias": False}
GATED = TINY | {"norm": "rmsnorm", "feed_forward": "swiglu"}
# What each architecture is chosen for, by the name of the class in transformers.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", TINY | {"position": "learned", "feed_forward": "gelu_tanh"}),
    "gpt2-tied": ("GPT2LMHeadModel", TINY | {"position": "learned", "tied_embeddings": True}),
    # nanoGPT's own shape.
    "gpt2-no-biases": (
        "GPT2LMHeadModel",
        TINY | NO_BIASES | {"position": "learned", "tied_embeddings": True, "norm_bias": False},
    ),
    "gpt2-relu2": ("GPT2LMHeadModel", TINY | {"position": "learned", "feed_forward": "relu2"}),
    "neox": ("GPTNeoXForCausalLM", TINY),
    "neox-theta": (
        "GPTNeoXForCausalLM",
        TINY | {"rope_theta": 500.0, "qkv_bias": False, "attention_output_bias": False},
    ),
    "pythia": ("GPTNeoXForCausalLM", TINY | {"rotary_dim": 2, "parallel_residual": True}),
    "neox-tied": ("GPTNeoXForCausalLM", TINY | {"tied_embeddings": True}),
    "neox-linear": (
        "GPTNeoXForCausalLM",
        TINY | {"rope_scaling": "linear", "rope_factor": 4.0},
    ),
    "starcoder2-no-biases": ("Starcoder2ForCausalLM", TINY | NO_BIASES),
    "starcoder2": ("Starcoder2ForCausalLM", TINY | {"num_kv_heads": 2, "sliding_window": 5}),
    "llama": ("LlamaForCausalLM", GATED | NO_BIASES | {"num_kv_heads": 2, "head_dim": 12}),
    "llama-biased": ("LlamaForCausalLM", GATED | {"feed_forward": "geglu", "rope_theta": 5e5}),
    "llama-all-biases": ("LlamaForCausalLM", GATED | {"num_kv_heads": 2}),
    "llama-3.1": (
        "LlamaForCausalLM",
        GATED
        | NO_BIASES
        | {
            "head_dim": 32,
            "rope_theta": 1000.0,
            "rope_scaling": "llama3",
            "rope_factor": 8.0,
            "rope_original_context": 256,
        },
    ),
    "llama-linear": (
        "LlamaForCausalLM",
        GATED | NO_BIASES | {"rope_scaling": "linear", "rope_factor": 4.0},
    ),
    "mistral": ("MistralForCausalLM", GATED | NO_BIASES | {"sliding_window": 5}),
    "qwen2": (
        "Qwen2ForCausalLM",
        GATED | NO_BIASES | {"qkv_bias": True, "tied_embeddings": True, "num_kv_heads": 1},
    ),
    "qwen2-window": (
        "Qwen2ForCausalLM",
        GATED | NO_BIASES | {"qkv_bias": True, "sliding_window": 7},
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        GATED | NO_BIASES | {"qk_norm": True, "num_kv_heads": 2, "head_dim": 16},
    ),
}


def random_fields(choose: random.Random) -> dict[str, Any]:
    """A configuration of any shape; some can be exported."""
    heads, head_dim = choose.choice([1, 2, 3, 4, 6]), choose.choice([2, 4, 6, 8, 16, 32])
    norm = choose.choice(["layernorm", "rmsnorm"])
    is_gated = norm == "rmsnorm"
    fields = {
        "vocab_size": choose.choice([256, 257, 300]),
        "context_length": choose.choice([16, 32, 64]),
        "num_layers": choose.choice([1, 2, 3]),
        "num_heads": heads,
        "d_model": heads * head_dim,
        "num_kv_heads": choose.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "d_feed_forward": choose.choice([16, 24, 33, 64, 4 * heads * head_dim]),
        "position": "rope" if is_gated else choose.choice(["rope", "rope", "learned"]),
        "norm": norm,
        "norm_epsilon": choose.choice([1e-5, 1e-6, 1e-3]),
        "feed_forward": "swiglu" if is_gated else choose.choice(["gelu", "gelu_tanh"]),
        "rope_theta": choose.choice([1e4, 500.0, 1e6]),
        "rope_scaling": choose.choice(["none", "none", "none", "linear", "llama3"]),
        "rope_factor": choose.choice([2.0, 8.0]),
        "rope_original_context": choose.choice([8, 64]),
        "tied_embeddings": choose.random() < 0.5,
        "parallel_residual": choose.random() < 0.2,
        "qk_norm": is_gated and choose.random() < 0.3,
    }
    if choose.random() < 0.5:
        fields["num_kv_heads"] = heads
    if choose.random() < 0.2:
        fields["head_dim"] = 2 * head_dim
    if choose.random() < 0.2:
        fields["rotary_dim"] = 2
    if norm == "layernorm" and choose.random() < 0.2:
        fields["norm_bias"] = False
    names = ("qkv_bias", "attention_output_bias", "feed_forward_bias")
    biases = choose.choice([(1, 1, 1), (0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 1, 0)])
    return fields | {name: bool(bias) for name, bias in zip(names, biases, strict=True)}


def random_model(config: ModelConfig) -> Transformer:
    """Weights with nothing left at zero or one, as wide as a trained model's."""
    model = Transformer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(std=0.3, generator=generator)
    return model


def make_run(folder: Path, fields: dict[str, Any], dtype: torch.dtype = torch.float32) -> Path:
    """The folder of a run with a random model of this configuration, on bytes."""
    folder.mkdir()
    config = ModelConfig(**fields)
    save_weights(folder / run_files.WEIGHTS, random_model(config).to(dtype), {})
    run_files.write_record(folder, run_files.RunRecord(config, TrainConfig()))
    tokenizer = ByteTokenizer().to_json()
    if is_qwen2_shape(config):
        tokenizer = qwen2_bytes()
    (folder / run_files.TOKENIZER).write_text(tokenizer)
    return folder


def is_qwen2_shape(config: ModelConfig) -> bool:
    biases = (config.qkv_bias, config.attention_output_bias, config.feed_forward_bias)
    return config.gated and biases == (True, False, False) and not config.qk_norm


def qwen2_bytes() -> str:
    """tokenizer.json of bytes, split as Qwen2's: transformers keeps no other for its class."""
    backend = tokenizers.Tokenizer.from_str(ByteTokenizer().to_shared_json())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return str(backend.to_str(pretty=True))
