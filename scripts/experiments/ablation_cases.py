"""The cases of ablate.py: the base recipe on each corpus, and what each case changes in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# The recipe of the preset `nano`, narrower, and as long as a sixth of its run.
MODEL: dict[str, Any] = {
    "context_length": 128,
    "num_layers": 4,
    "d_model": 96,
    "num_heads": 3,
    "init_std": 0.05,
    "embedding_std": 1.0,
    "output_initialization": "zero",
}
TRAIN: dict[str, Any] = {
    "optimizer": "muon",
    "batch_size": 8,
    "max_steps": 200,
    "eval_every": 200,
    "learning_rate": 0.02,
    "muon_learning_rate": 0.03,
    "schedule": "linear",
    "warmup_steps": 0,
    "final_lr_fraction": 0.0,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "gradient_clip": 0.0,
    "sample_tokens": 0,
    "save_every_seconds": 0.0,
}
# What would follow from the size of a text, from the machine or from the preset; a case may set it.
FIXED_MODEL: dict[str, Any] = {"dropout": 0.0}
FIXED_SETTINGS: dict[str, Any] = {
    "early_stopping": 0,
    "eval_tokens": 0,
    "device": "cpu",
    "dtype": "float32",
    "compile": "off",
    "windows": "random",
}
TOKENS = TRAIN["max_steps"] * TRAIN["batch_size"] * MODEL["context_length"]


@dataclass(frozen=True)
class Corpus:
    """A text, how it is cut into tokens, and what it is for."""

    what: str
    tokenizer: str
    vocab_size: int | None = None
    characters: int | None = None
    """Of the beginning of the text; None: all."""
    steps: int | None = None
    """Instead of the case's."""


CORPORA = {
    "characters": Corpus("tinyshakespeare, characters", "char"),
    "stdlib": Corpus(
        "the first 2,000,000 characters of Python's standard library, BPE of 1,024",
        "bpe",
        1024,
        2_000_000,
    ),
    "little": Corpus(
        "the first 100,000 characters of tinyshakespeare, BPE of 512: some 4 epochs, for what works "
        "against overfitting",
        "bpe",
        512,
        100_000,
    ),
}
CORPORA |= {
    f"{name}-long": replace(CORPORA[name], what=f"{CORPORA[name].what}; 1,000 steps", steps=1000)
    for name in ("characters", "stdlib")
}
LONG = ("characters-long", "stdlib-long")
LARGE = ("characters", "stdlib")
LITTLE = ("little",)


@dataclass(frozen=True)
class Case:
    """Fields that replace the base's; ``variant`` is a class of scripts/experiments/variants.py."""

    group: str
    what: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    corpora: tuple[str, ...] = LARGE


def _steps(steps: int) -> dict[str, int]:
    return {"max_steps": steps, "eval_every": steps}


NO_BIAS = {
    "norm_bias": False,
    "qkv_bias": False,
    "attention_output_bias": False,
    "feed_forward_bias": False,
}
RMS = {"norm": "rmsnorm", "norm_bias": False}
GATED = {"feed_forward": "swiglu", "d_feed_forward": 256}
ADAMW = {"optimizer": "adamw", "beta1": 0.9, "warmup_steps": 20, "weight_decay": 0.1}

BASE, SHAPES, ADDED, START = "Base", "Stock shapes", "What no stock shape has", "Initial weights"
OPTIMIZER, SCHEDULE, BATCHES = "Optimizer", "Schedules", "Batches"
REGULARISATION, SHARED = "Against overfitting", "Shared layers"

CASES: dict[str, Case] = {
    "base": Case(
        BASE,
        "GPT-NeoX's shape (LayerNorm, RoPE, GELU, biases, untied head), zero-initialised outputs and head, "
        "Muon and AdamW, linear decay",
        corpora=LARGE + LITTLE + LONG,
    ),
    "learned-positions": Case(SHAPES, "learned positions instead of RoPE", {"position": "learned"}),
    "qk-norm": Case(SHAPES, "QK-norm", {"qk_norm": True}, corpora=LARGE + LONG),
    "relu2": Case(SHAPES, "ReLU² instead of GELU", {"feed_forward": "relu2"}),
    "swiglu": Case(SHAPES, "SwiGLU of the same size instead of GELU", GATED),
    "rmsnorm": Case(SHAPES, "RMSNorm instead of LayerNorm", RMS),
    "no-biases": Case(SHAPES, "no biases", NO_BIAS),
    "llama": Case(SHAPES, "Llama's shape: RMSNorm, SwiGLU, no biases", RMS | GATED | NO_BIAS),
    "qwen3": Case(
        SHAPES, "Qwen3's shape: Llama's with QK-norm", RMS | GATED | NO_BIAS | {"qk_norm": True}
    ),
    "nemotron": Case(
        SHAPES,
        "Nemotron's shape: LayerNorm, ReLU², no biases but the norms'",
        {**NO_BIAS, "norm_bias": True, "feed_forward": "relu2"},
    ),
    "persimmon": Case(
        SHAPES,
        "Persimmon's shape: the base's with QK-norm and ReLU²",
        {"qk_norm": True, "feed_forward": "relu2"},
        corpora=LARGE + LONG,
    ),
    "prototype": Case(
        SHAPES,
        "RMSNorm, QK-norm and ReLU² together",
        RMS | {"qk_norm": True, "feed_forward": "relu2"},
    ),
    "tied": Case(SHAPES, "tied head", {"tied_embeddings": True, "embedding_std": 0.05}),
    "convolution-2": Case(ADDED, "causal convolution of 2 preceding tokens", {"convolution": 2}),
    "ngram-3": Case(ADDED, "tables of bigrams and trigrams", {"ngram": 3}),
    "fast": Case(ADDED, "convolution of 2 and tables to trigrams", {"convolution": 2, "ngram": 3}),
    "soft-cap": Case(ADDED, "logit soft cap at 15", variant="SoftCap"),
    "embedding-shortcut": Case(
        ADDED, "embedding shortcut into every block", variant="EmbeddingShortcut"
    ),
    "value-shortcut": Case(ADDED, "value shortcut: a table a layer", variant="ValueShortcut"),
    **{
        f"layers-{layers}": Case(
            SHARED,
            f"{layers} layers" if layers > 1 else "1 layer",
            {"num_layers": layers},
            corpora=("stdlib",),
        )
        for layers in (1, 2, 8)
    },
    **{
        f"shared-{blocks}-{layers}-{sharing}": Case(
            SHARED,
            f"{blocks} block{'s' if blocks > 1 else ''} shared by {layers} layers, {sharing}",
            {"num_layers": layers, "shared_layers": blocks, "sharing": sharing},
            corpora=("stdlib",),
        )
        for blocks, layers, sharing in (
            (1, 4, "cycle"),
            (2, 4, "cycle"),
            (2, 4, "group"),
            (4, 8, "cycle"),
            (4, 8, "group"),
        )
    },
    "shared-2-4-wide": Case(
        SHARED,
        "2 blocks shared by 4 layers, group, 126 wide",
        {"num_layers": 4, "shared_layers": 2, "sharing": "group", "d_model": 126},
        corpora=("stdlib",),
    ),
    "scaled-outputs": Case(
        START, "outputs scaled by depth instead of zero", {"output_initialization": "scaled"}
    ),
    "xavier": Case(START, "Xavier", {"initialization": "xavier"}),
    "adamw-0.002": Case(
        OPTIMIZER, "AdamW for everything, 0.002", train=ADAMW | {"learning_rate": 0.002}
    ),
    "adamw-0.004": Case(
        OPTIMIZER, "AdamW for everything, 0.004", train=ADAMW | {"learning_rate": 0.004}
    ),
    "adamw-small-start": Case(
        OPTIMIZER,
        "AdamW for everything, 0.004, from embeddings of 0.02 and scaled outputs",
        {"init_std": 0.02, "embedding_std": 0.02, "output_initialization": "scaled"},
        ADAMW | {"learning_rate": 0.004},
    ),
    "muon-0.015": Case(OPTIMIZER, "Muon at 0.015, not 0.03", train={"muon_learning_rate": 0.015}),
    "muon-0.06": Case(OPTIMIZER, "Muon at 0.06, not 0.03", train={"muon_learning_rate": 0.06}),
    "momentum-warm-up": Case(
        OPTIMIZER, "Muon's momentum from 0.85 over 40 steps", train={"momentum_warmup_steps": 40}
    ),
    "clip-1": Case(OPTIMIZER, "gradient clipped at 1", train={"gradient_clip": 1.0}),
    "cosine": Case(SCHEDULE, "cosine instead of linear decay", train={"schedule": "cosine"}),
    "wsd-20": Case(SCHEDULE, "WSD, cooling over the last 20%", train={"schedule": "wsd"}),
    "warm-up": Case(SCHEDULE, "a warm-up of 20 steps", train={"warmup_steps": 20}),
    "growing-batch": Case(
        BATCHES,
        "batches of 4, 8, then 16 from half of the steps on",
        train={"batch_size": 16, "initial_batch_size": 4} | _steps(146),
    ),
    "growing-length": Case(
        BATCHES,
        "lengths of 32, 64, then 128 from half of the steps on",
        train={"initial_context_length": 32} | _steps(291),
    ),
    "dropout-0.1": Case(REGULARISATION, "dropout 0.1", {"dropout": 0.1}, corpora=LARGE + LITTLE),
    "dropout-0.2": Case(REGULARISATION, "dropout 0.2", {"dropout": 0.2}, corpora=LITTLE),
    "little-decay-0.1": Case(
        REGULARISATION, "weight decay 0.1", train={"weight_decay": 0.1}, corpora=LITTLE
    ),
    "little-decay-0.5": Case(
        REGULARISATION, "weight decay 0.5", train={"weight_decay": 0.5}, corpora=LITTLE
    ),
    "l1": Case(REGULARISATION, "L1 of 1e-5", train={"l1_weight": 1e-5}, corpora=LITTLE),
    "bpe-dropout-0.1": Case(
        REGULARISATION, "BPE-dropout 0.1", train={"bpe_dropout": 0.1}, corpora=LITTLE
    ),
    "bpe-dropout-0.05": Case(
        REGULARISATION, "BPE-dropout 0.05", train={"bpe_dropout": 0.05}, corpora=LITTLE
    ),
    "dropout-and-bpe": Case(
        REGULARISATION,
        "dropout 0.1 and BPE-dropout 0.05",
        {"dropout": 0.1},
        {"bpe_dropout": 0.05},
        corpora=LITTLE,
    ),
    "early-stopping": Case(
        REGULARISATION,
        "early stopping after 2 of 10 evaluations without progress",
        train={"early_stopping": 2, "eval_every": 20},
        corpora=LITTLE,
    ),
    "little-half": Case(REGULARISATION, "half of the steps", train=_steps(100), corpora=LITTLE),
}


def train_settings(case: str, corpus: str) -> dict[str, Any]:
    """Fields of TrainConfig."""
    steps = CORPORA[corpus].steps
    return TRAIN | CASES[case].train | (_steps(steps) if steps is not None else {})


def digest(case: str, corpus: str) -> str:
    """Short, of all that a run of the case is made with: another digest is another experiment."""
    chosen, text = CASES[case], asdict(CORPORA[corpus])
    del text["what"]
    parts = (MODEL | chosen.model, train_settings(case, corpus), chosen.variant, text)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
