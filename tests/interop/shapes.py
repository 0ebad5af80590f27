"""Runs of every shape that a stock architecture has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minilm.checkpoint import save_weights
from minilm.config import ModelConfig, TrainConfig
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.text.tokenizers import ByteTokenizer

TINY: dict[str, Any] = {
    "vocab_size": 256,
    "context_length": 32,
    "num_layers": 2,
    "d_model": 32,
    "num_heads": 4,
    "d_feed_forward": 48,
}
NO_BIASES = {"qkv_bias": False, "attention_output_bias": False, "feed_forward_bias": False}
GATED = TINY | {"norm": "rmsnorm", "feed_forward": "swiglu"}
# What each architecture is chosen for, by the name of the class in transformers.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", TINY | {"position": "learned", "feed_forward": "gelu_tanh"}),
    "gpt2-tied": ("GPT2LMHeadModel", TINY | {"position": "learned", "tied_embeddings": True}),
    "gpt2-relu2": ("GPT2LMHeadModel", TINY | {"position": "learned", "feed_forward": "relu2"}),
    "neox": ("GPTNeoXForCausalLM", TINY),
    "neox-theta": (
        "GPTNeoXForCausalLM",
        TINY | {"rope_theta": 500.0, "qkv_bias": False, "attention_output_bias": False},
    ),
    "pythia": ("GPTNeoXForCausalLM", TINY | {"rotary_dim": 2, "parallel_residual": True}),
    "starcoder2": ("Starcoder2ForCausalLM", TINY | {"num_kv_heads": 2, "sliding_window": 5}),
    "llama": ("LlamaForCausalLM", GATED | NO_BIASES | {"num_kv_heads": 2, "head_dim": 12}),
    "llama-biased": ("LlamaForCausalLM", GATED | {"feed_forward": "geglu", "rope_theta": 5e5}),
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
    run_files.write_config(folder, config, TrainConfig())
    ByteTokenizer().save(folder / run_files.TOKENIZER)
    return folder
