"""Named configurations, as plain values: the model's fields, the training fields, the tokenizer.

GPT-2: Radford et al. 2019, table 2. Llama 3: Grattafiori et al. 2024, table 3.
`nano` and `small` have the shape of a stock GPT-NeoX (LayerNorm, RoPE on the whole head, GELU, 4d,
untied head, biases), so that what is trained here opens in other programs; `nano-fast` has parts that no
stock architecture has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minilm.config import ModelConfig, TrainConfig
from minilm.config.validation import check_names
from minilm.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """Fields that differ from the defaults of ModelConfig and TrainConfig, before derivation."""

    summary: str
    model: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "bpe"

    def model_config(self, **overrides: Any) -> ModelConfig:
        """The model, with fields replaced before the derived ones are worked out."""
        check_names(ModelConfig, overrides, "model")
        return ModelConfig(**(self.model | overrides))

    def train_config(self, **overrides: Any) -> TrainConfig:
        """The training settings, with fields replaced."""
        check_names(TrainConfig, overrides, "settings")
        return TrainConfig(**(self.train | overrides))


def _gpt2(num_layers: int, d_model: int, num_heads: int) -> dict[str, Any]:
    return {
        "vocab_size": 50257,
        "context_length": 1024,
        "num_layers": num_layers,
        "d_model": d_model,
        "num_heads": num_heads,
        "position": "learned",
        "feed_forward": "gelu_tanh",
        "tied_embeddings": True,
        "dropout": 0.1,
    }


def _llama3(num_layers: int, d_model: int, num_heads: int, d_feed_forward: int) -> dict[str, Any]:
    return {
        "vocab_size": 128256,
        "context_length": 8192,
        "num_layers": num_layers,
        "d_model": d_model,
        "num_heads": num_heads,
        "num_kv_heads": 8,
        "d_feed_forward": d_feed_forward,
        "rope_theta": 500000.0,
        "norm": "rmsnorm",
        "feed_forward": "swiglu",
        "qkv_bias": False,
        "attention_output_bias": False,
        "feed_forward_bias": False,
    }


_GPT_TRAINING = {
    "optimizer": "adamw",
    "batch_size": 8,
    "gradient_accumulation": 8,
    "learning_rate": 6e-4,
    "beta1": 0.9,
    "gradient_clip": 1.0,
    "schedule": "cosine",
    "final_lr_fraction": 0.1,
    "weight_decay": 0.1,
    "max_steps": 20000,
    "warmup_steps": 500,
}

# The stock shape that docs/ablations.md found best, and how it starts.
_NANO = {
    "vocab_size": 1024,
    "context_length": 128,
    "num_layers": 4,
    "d_model": 128,
    "num_heads": 4,
    "init_std": 0.05,
    "embedding_std": 1.0,
    "output_initialization": "zero",
}
# No part of the text is seen much more often than another.
_NANO_TRAINING = {"batch_size": 8, "max_steps": 1200, "weight_decay": 0.1, "windows": "even"}

PRESETS: dict[str, Preset] = {
    "nano": Preset("the default: minutes on a laptop", _NANO, _NANO_TRAINING),
    "nano-fast": Preset(
        "nano, n-gram tables, convolutions: not exportable",
        _NANO | {"ngram": 3, "ngram_rows": 4096, "convolution": 2},
        _NANO_TRAINING,
    ),
    "small": Preset(
        "about 10M parameters, for a GPU",
        _NANO
        | {
            "vocab_size": 2048,
            "context_length": 256,
            "num_layers": 5,
            "d_model": 384,
            "num_heads": 6,
        },
        {"batch_size": 64, "max_steps": 5000, "learning_rate": 0.01},
    ),
    "gpt2": Preset("GPT-2 small", _gpt2(12, 768, 12), _GPT_TRAINING),
    "gpt2-medium": Preset("GPT-2 medium", _gpt2(24, 1024, 16), _GPT_TRAINING),
    "gpt2-large": Preset("GPT-2 large", _gpt2(36, 1280, 20), _GPT_TRAINING),
    "gpt2-xl": Preset("GPT-2 XL", _gpt2(48, 1600, 25), _GPT_TRAINING),
    "llama-3-8b": Preset("Llama 3 8B", _llama3(32, 4096, 32, 14336), _GPT_TRAINING),
    "llama-3-70b": Preset("Llama 3 70B", _llama3(80, 8192, 64, 28672), _GPT_TRAINING),
}


def find_preset(name: str) -> Preset:
    """The preset of that name, or a ConfigError that lists the names."""
    if name not in PRESETS:
        raise ConfigError("preset", repr(name), f"one of {', '.join(PRESETS)}")
    return PRESETS[name]


def preset(name: str) -> ModelConfig:
    """The model configuration of a preset (`minilm.preset`)."""
    return find_preset(name).model_config()
