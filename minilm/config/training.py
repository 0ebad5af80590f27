"""How a model is trained: frozen, validated once, and the same after JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from minilm.config.validation import LARGEST_DIMENSION, check_range, check_types
from minilm.errors import ConfigError

MOST_SAMPLE_TOKENS = 10_000
TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Lengths are in optimizer steps unless said otherwise."""

    batch_size: int = 32
    """Sequences in one forward pass."""
    gradient_accumulation: int = 1
    """Forward passes whose gradients are averaged into one step."""
    max_steps: int = 1000
    """Steps of the whole run; the learning-rate schedule spans them. Unless set: fewer for a small text."""
    max_seconds: float | None = None
    """Stop after this many seconds of wall time; of a resumed run, since that command (or call) began."""
    target_val_loss: float | None = None
    """Stop when the validation loss (nats a token) is at or below this."""
    eval_every: int = 100
    """Steps between evaluations; each also saves the run. Unless set: from the sizes of run and text."""
    eval_tokens: int = 0
    """Validation tokens of an evaluation, evenly spread; 0: all, as at the end. Unless set: by the sizes."""
    early_stopping: int = 0
    """Stop after so many evaluations without a better loss; 0: never. Unless set: 5 beyond one epoch."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon for the matrices of the blocks and AdamW for the rest; adamw: AdamW for all."""
    learning_rate: float = 0.02
    """Peak learning rate of AdamW; for all parameters about 0.004 is enough."""
    muon_learning_rate: float = 0.03
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.95
    """Momentum of Muon."""
    momentum_warmup_steps: int = 0
    """Steps in which Muon's momentum rises linearly from 0.85."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "linear"
    """After the warm-up: cosine or linear decay, warm-up-stable-decay, or no decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    final_lr_fraction: float = 0.0
    """Learning rate at the end of the decay, as a fraction of the peak."""
    decay_fraction: float = 0.2
    """Fraction of the steps in which wsd decays, at the end."""
    initial_batch_size: int = 0
    """Batch size at the start, doubled until batch_size is reached; 0: batch_size throughout."""
    initial_context_length: int = 0
    """Sequence length at the start, doubled until the model's; 0: the model's throughout."""
    growth_fraction: float = 0.5
    """Fraction of the steps after which batch size and length have their full size."""
    weight_decay: float = 0.0
    """Decoupled weight decay, of matrices only (not of embeddings, norms and biases)."""
    l1_weight: float = 0.0
    """Weight of an L1 penalty on the matrices; its gradient is added to that of the loss."""
    hold_zeros: bool = False
    """Weights of the blocks' matrices that are zero at the start stay zero: a pruned model recovers so."""
    beta1: float = 0.8
    """AdamW's decay rate of the first moment."""
    beta2: float = 0.95
    """AdamW's decay rate of the second moment."""
    gradient_clip: float = 0.0
    """Clip the gradient to this global norm; 0: no clipping."""
    windows: Literal["random", "even"] = "random"
    """Where rows of a text begin: anywhere, or so that all parts of the text are seen about as often."""
    bpe_dropout: float = 0.0
    """Probability that a merge in a training batch is undone (subword augmentation)."""
    document_attention: bool = False
    """Tokens see their own document only, where several are in a row: positions begin anew in each."""
    val_fraction: float = 0.1
    """Fraction of the text that is the validation split."""
    split: Literal["position", "document", "shuffle"] = "position"
    """position: the text's end validates; document: whole documents, drawn at random; shuffle: documents,
    or the lines of a single one, in random order."""
    seed: int = 0
    """Seed of the initial weights, the batches and the dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Dtype of matrix products (autocast); weights stay float32. auto: bfloat16 where it is fast."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: for runs long enough to save more time than compiling takes."""
    tune: Literal["auto", "off"] = "auto"
    """auto: on a CPU, what is faster there is measured once, remembered and recorded; off: by rule."""
    cuda_graphs: bool = True
    """Replay each step on CUDA as a captured graph: the same numbers, without waits for Python."""
    activation_checkpointing: bool = False
    """Keep only each block's input and recompute the block backward: less memory, more time."""
    parallel: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """Under torchrun. ddp: each process has the model; fsdp: a part of it; hsdp: a part within a machine."""
    tensor_parallel: int = 1
    """Under torchrun: so many processes share each matrix of the blocks, and the same part of a batch."""
    deterministic: bool = False
    """Deterministic algorithms on CUDA too, so that a run resumes bit for bit there."""
    save_every_seconds: float = 60.0
    """Seconds between saves of the training state; evaluations save too. 0: at evaluations only."""
    keep_states: int = 2
    """How many training states resume/ holds: the newest ones."""
    sample_tokens: int = 64
    """Tokens of the sample text at each evaluation, shown in report.html; 0: none."""
    watch: bool = False
    """Keep parameters.jsonl: norms, updates, gradients, histograms of the parameters, for report.html."""
    log_to: str = ""
    """Trackers that get the metrics as well: any of tensorboard, wandb, trackio, with commas between."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in _TRAINING_SIZES:
            check_range(self, name, 1, LARGEST_DIMENSION)
        for name in _TRAINING_COUNTS:
            check_range(self, name, 0, 2**63 - 1)
        check_range(self, "initial_batch_size", 0, self.batch_size)
        check_range(self, "sample_tokens", 0, MOST_SAMPLE_TOKENS)
        for name in ("weight_decay", "l1_weight", "gradient_clip", "save_every_seconds"):
            check_range(self, name, 0, math.inf, upper_open=True)
        for name in ("learning_rate", "muon_learning_rate"):
            check_range(self, name, 0, math.inf, lower_open=True, upper_open=True)
        for name in ("final_lr_fraction", "growth_fraction"):
            check_range(self, name, 0, 1)
        check_range(self, "decay_fraction", 0, 1, lower_open=True)
        for name in ("beta1", "beta2", "muon_momentum", "bpe_dropout"):
            check_range(self, name, 0, 1, upper_open=True)
        check_range(self, "val_fraction", 0, 1, lower_open=True, upper_open=True)
        for name in self.trackers:
            if name not in TRACKERS:
                expected = f"any of {', '.join(TRACKERS)}, with commas between"
                raise ConfigError("log_to", repr(name), expected)
        if self.max_seconds is not None:
            check_range(self, "max_seconds", 0, math.inf, lower_open=True, upper_open=True)
        if self.target_val_loss is not None:
            check_range(self, "target_val_loss", 0, math.inf, upper_open=True)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``log_to``, each once."""
        names = (name.strip() for name in self.log_to.split(","))
        return tuple(dict.fromkeys(name for name in names if name))


_TRAINING_SIZES = (
    *("batch_size", "gradient_accumulation", "max_steps", "eval_every", "log_every", "keep_states"),
    "tensor_parallel",
)
_TRAINING_COUNTS = (
    *(
        "eval_tokens",
        "early_stopping",
        "warmup_steps",
        "momentum_warmup_steps",
        "initial_context_length",
    ),
    "seed",
)
