"""The cases of scripts/dev/ablate.py: the base recipe on each corpus, and what each case changes in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The stock shape of GPT-NeoX, as in `nano`, at the smallest width that still tells ideas apart.
_MODEL: dict[str, Any] = {
    "context_length": 128,
    "num_layers": 4,
    "d_model": 96,
    "num_heads": 3,
    "init_std": 0.05,
    "embedding_std": 1.0,
    "output_initialization": "zero",
}
_TRAIN: dict[str, Any] = {
    "optimizer": "muon",
    "batch_size": 16,
    "max_steps": 300,
    "eval_every": 300,
    "learning_rate": 0.02,
    "muon_learning_rate": 0.03,
    "schedule": "linear",
    "warmup_steps": 0,
    "final_learning_rate": 0.0,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "gradient_clip": 0.0,
    "sample_tokens": 0,
    "save_seconds": 0,
}

BASES: dict[str, dict[str, Any]] = {
    "characters": {"tokenizer": "char", "model": _MODEL, "train": _TRAIN},
    "stdlib": {"tokenizer": "bpe", "model": _MODEL, "train": _TRAIN},
}


@dataclass(frozen=True)
class Case:
    """Fields that replace the base's. ``tokens_kept`` changes the steps so that the tokens stay."""

    group: str
    what: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    corpora: tuple[str, ...] = ("characters", "stdlib")
    tokens_kept: bool = False

    def fits(self, corpus: str) -> bool:
        """Whether the case makes sense there."""
        return corpus in self.corpora

    def scaled(self, train: dict[str, Any]) -> dict[str, Any]:
        """Steps for the base's number of tokens at this case's batch size."""
        if not self.tokens_kept:
            return {}
        steps = _TRAIN["max_steps"] * _TRAIN["batch_size"] // train["batch_size"]
        return {"max_steps": steps, "eval_every": steps}


CASES: dict[str, Case] = {
    "base": Case("base", "the base: GPT-NeoX's shape, Muon and AdamW, linear decay"),
}
