"""What a model is and how it is trained: frozen, validated once, and the same after JSON.

A field whose default depends on others (`num_kv_heads`, `head_dim`, ...) may be left out or given as
None; after construction every field holds a value.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from minilm.errors import ConfigError

# The default of a field that `__post_init__` derives from the others.
DERIVED: Any = None

# Configurations also come from files: no size in one may make us allocate or loop without end.
LARGEST_DIMENSION = 2**31
LARGEST_LAYER_COUNT = 10_000
LONGEST_NGRAM = 16
LONGEST_CONVOLUTION = 64
LONGEST_SAMPLE = 10_000


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm decoder-only transformer. Widths are in elements, lengths in tokens."""

    vocab_size: int = 256
    """Rows of the token embedding (V)."""
    context_length: int = 256
    """Longest sequence in tokens (T)."""
    num_layers: int = 4
    """Blocks (L)."""
    d_model: int = 128
    """Width of the residual stream (d)."""
    num_heads: int = 4
    """Query heads (h)."""
    num_kv_heads: int = DERIVED
    """Key and value heads (g); fewer than num_heads is grouped-query attention. Default: num_heads."""
    head_dim: int = DERIVED
    """Width of one head (k). Default: d_model / num_heads."""
    d_feed_forward: int = DERIVED
    """Feed-forward width (f). Default: 4 * d_model."""
    position: Literal["rope", "learned"] = "rope"
    """Rotary positions (rotate-half form), or a learned table of context_length rows."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rotary_dim: int = DERIVED
    """Elements of a head that turn, the first ones. Default: head_dim."""
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    """Slower rotation, for longer texts: of all frequencies, or of the low ones as Llama 3.1 has it."""
    rope_factor: float = 1.0
    """How many times slower."""
    rope_low_factor: float = 1.0
    """llama3: below as many turns in rope_original_context, the whole factor."""
    rope_high_factor: float = 4.0
    """llama3: above as many turns in rope_original_context, none."""
    rope_original_context: int = 8192
    """llama3: tokens that the model was first trained for."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation of every block and of the final norm."""
    norm_bias: bool = DERIVED
    """LayerNorm's bias. Default: on for layernorm; rmsnorm has none."""
    norm_epsilon: float = 1e-5
    """Added under the square root of the normalisation."""
    feed_forward: Literal["gelu", "gelu_tanh", "relu2", "swiglu", "geglu"] = "gelu"
    """Activation; swiglu and geglu have a gate matrix besides."""
    qkv_bias: bool = True
    """Biases of the query, key and value projections."""
    attention_output_bias: bool = True
    """Bias of the attention output projection."""
    feed_forward_bias: bool = True
    """Biases of the feed-forward projections."""
    parallel_residual: bool = False
    """Attention and feed-forward read the same input and are added together."""
    qk_norm: bool = False
    """Normalise each query and key head before the product."""
    tied_embeddings: bool = False
    """The LM head is the token embedding itself."""
    sliding_window: int = 0
    """A token attends to this many tokens, itself included; 0: to all before it."""
    ngram: int = 1
    """Longest n-gram with an embedding of its own: a table for 2 tokens, for 3, ...; 1: none."""
    ngram_rows: int = 4096
    """Rows of each n-gram table (R), which n-grams share by their hash."""
    convolution: int = 0
    """Preceding tokens that a depthwise causal convolution adds to a block's input (c); 0: none."""
    dropout: float = 0.0
    """Share of activations dropped in training, after embeddings, attention and feed-forward."""
    initialization: Literal["normal", "xavier", "kaiming"] = "normal"
    """Scale of the weight matrices: normal(init_std), or by fan-in and fan-out, or by fan-in."""
    init_std: float = 0.02
    """Standard deviation of the matrices under `normal`."""
    embedding_std: float = DERIVED
    """Standard deviation of the token and position embeddings. Default: init_std."""
    output_initialization: Literal["scaled", "zero"] = "scaled"
    """Block outputs divided by sqrt(2 * num_layers), or zero, with an untied LM head zero too."""

    def __post_init__(self) -> None:
        _check_sizes(self, ("d_model", "num_heads"))  # the derived fields are computed from these
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ConfigError(
                "num_heads",
                f"{self.num_heads} heads do not divide d_model {self.d_model}",
                "a divisor of d_model",
                "change one of them or give head_dim",
            )
        for name, value in (
            ("num_kv_heads", self.num_heads),
            ("head_dim", self.d_model // self.num_heads),
            ("rotary_dim", self.head_dim or self.d_model // self.num_heads),
            ("d_feed_forward", 4 * self.d_model),
            ("norm_bias", self.norm == "layernorm"),
            ("embedding_std", self.init_std),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _check_types(self)
        _check_sizes(self, _SIZES)
        if self.num_layers > LARGEST_LAYER_COUNT:
            raise ConfigError("num_layers", f"{self.num_layers}", f"at most {LARGEST_LAYER_COUNT}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                "num_kv_heads",
                f"{self.num_kv_heads} key/value heads do not divide num_heads {self.num_heads}",
                "a divisor of num_heads",
            )
        if self.position == "rope" and self.head_dim % 2:
            raise ConfigError(
                "head_dim", f"{self.head_dim}", "an even number, since RoPE turns pairs"
            )
        if self.position == "rope" and (self.rotary_dim % 2 or self.rotary_dim > self.head_dim):
            raise ConfigError(
                "rotary_dim", f"{self.rotary_dim}", f"an even number up to head_dim {self.head_dim}"
            )
        if self.rope_low_factor >= self.rope_high_factor:
            raise ConfigError(
                "rope_low_factor",
                f"{self.rope_low_factor}",
                f"below rope_high_factor {self.rope_high_factor}",
            )
        if self.norm == "rmsnorm" and self.norm_bias:
            raise ConfigError("norm_bias", "true with rmsnorm", "false: RMSNorm has no bias")
        _check_range(self, "sliding_window", 0, LARGEST_DIMENSION)
        _check_range(self, "ngram", 1, LONGEST_NGRAM)
        _check_range(self, "convolution", 0, LONGEST_CONVOLUTION)
        _check_range(self, "dropout", 0, 1, upper_open=True)
        for name in _POSITIVE:
            _check_range(self, name, 0, math.inf, lower_open=True, upper_open=True)

    @property
    def gated(self) -> bool:
        """Whether the feed-forward has a gate matrix."""
        return self.feed_forward in ("swiglu", "geglu")


_SIZES = (
    "vocab_size",
    "context_length",
    "num_layers",
    "d_model",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "rotary_dim",
    "rope_original_context",
    "d_feed_forward",
    "ngram_rows",
)
_POSITIVE = (
    *("rope_theta", "rope_factor", "rope_low_factor", "rope_high_factor"),
    *("norm_epsilon", "init_std", "embedding_std"),
)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Lengths are in optimizer steps unless said otherwise."""

    batch_size: int = 32
    """Sequences in one forward pass."""
    gradient_accumulation: int = 1
    """Forward passes whose gradients make one step."""
    max_steps: int = 1000
    """Steps of the whole run; the schedule is laid out over them."""
    max_seconds: float | None = None
    """Stop after this much wall time since the process started."""
    target_val_loss: float | None = None
    """Stop when the validation loss (nats a token) is at or below this."""
    eval_every: int = 100
    """Steps between evaluations over the whole validation split, which also save the run."""
    early_stopping: int = 0
    """Stop after this many evaluations without a better validation loss; 0: never."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon for the matrices of the blocks and AdamW for the rest; adamw: AdamW for all."""
    learning_rate: float = 0.02
    """Peak learning rate of AdamW; for all parameters about 0.004 is enough."""
    muon_learning_rate: float = 0.03
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.95
    """Muon's decay of the gradient's mean."""
    momentum_warmup_steps: int = 0
    """Steps in which Muon's momentum rises linearly from 0.85."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "linear"
    """After the warm-up: cosine or linear decay, warm-up-stable-decay, or no decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    final_learning_rate: float = 0.0
    """Where the decay ends, as a share of the peak."""
    decay_fraction: float = 0.2
    """Share of the steps that wsd spends decaying."""
    initial_batch_size: int = 0
    """Sequences at the start, doubled until batch_size is reached; 0: batch_size throughout."""
    initial_context_length: int = 0
    """Tokens a sequence at the start, doubled until the model's; 0: those throughout."""
    growth_fraction: float = 0.5
    """Share of the steps after which batch and length have grown to their full size."""
    weight_decay: float = 0.0
    """Decoupled decay, on matrices only (embeddings, norms and biases are left out)."""
    l1: float = 0.0
    """Weight of the L1 norm of the matrices, added to the training loss's gradient."""
    beta1: float = 0.8
    """AdamW's decay of the gradient's mean."""
    beta2: float = 0.95
    """AdamW's decay of the gradient's square."""
    gradient_clip: float = 0.0
    """Largest norm of the whole gradient; 0: no clipping."""
    bpe_dropout: float = 0.0
    """Share of the merges in a training batch that are undone at random (subword augmentation)."""
    val_fraction: float = 0.1
    """Share of the text, at its end, that is validation."""
    seed: int = 0
    """Seed of the initial weights, the batches and the dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the matrix products (autocast); weights stay float32. auto: bfloat16 where it is fast."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: where the run is long enough to win its compilation back."""
    activation_checkpointing: bool = False
    """Keep the input of each block only and run the block again backward: less memory, more time."""
    deterministic: bool = False
    """Deterministic algorithms on CUDA too, so that a resumed run ends in the same bytes there."""
    save_seconds: float = 60.0
    """Wall time between saves of the training state (evaluations save as well); 0: at those alone."""
    keep_last: int = 2
    """Training states that are kept in resume/, the newest ones."""
    sample_tokens: int = 64
    """Tokens of the sample that is drawn at each evaluation, for report.html; 0: none."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard as well, in the run's folder tensorboard/."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name in _TRAINING_SIZES:
            _check_range(self, name, 1, LARGEST_DIMENSION)
        for name in _TRAINING_COUNTS:
            _check_range(self, name, 0, 2**63 - 1)
        _check_range(self, "initial_batch_size", 0, self.batch_size)
        _check_range(self, "sample_tokens", 0, LONGEST_SAMPLE)
        for name in ("weight_decay", "l1", "gradient_clip", "save_seconds"):
            _check_range(self, name, 0, math.inf, upper_open=True)
        for name in ("learning_rate", "muon_learning_rate"):
            _check_range(self, name, 0, math.inf, lower_open=True, upper_open=True)
        for name in ("final_learning_rate", "growth_fraction"):
            _check_range(self, name, 0, 1)
        _check_range(self, "decay_fraction", 0, 1, lower_open=True)
        for name in ("beta1", "beta2", "muon_momentum", "bpe_dropout"):
            _check_range(self, name, 0, 1, upper_open=True)
        _check_range(self, "val_fraction", 0, 1, lower_open=True, upper_open=True)
        if self.max_seconds is not None:
            _check_range(self, "max_seconds", 0, math.inf, lower_open=True, upper_open=True)
        if self.target_val_loss is not None:
            _check_range(self, "target_val_loss", 0, math.inf, upper_open=True)


_TRAINING_SIZES = (
    *("batch_size", "gradient_accumulation", "max_steps", "eval_every", "log_every", "keep_last"),
)
_TRAINING_COUNTS = (
    *("early_stopping", "warmup_steps", "momentum_warmup_steps", "initial_context_length"),
    "seed",
)


Config = TypeVar("Config", ModelConfig, TrainConfig)


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """Every field by name, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type[Config], values: Any, where: object) -> Config:
    """The inverse of `to_dict`. ``where`` names the file in the ConfigError of a value that is wrong."""
    if not isinstance(values, dict):
        raise ConfigError(where, f"{type(values).__name__}", "an object of configuration fields")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(where, f"unknown field {unknown[0]!r}", f"fields of {cls.__name__}")
    try:
        return cls(**values)
    except ConfigError as error:
        field = f"{where}: {error.where}"
        raise ConfigError(field, error.came, error.expected, error.remedy) from None


def _check_types(config: ModelConfig | TrainConfig) -> None:
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                choices = ", ".join(get_args(hint))
                raise ConfigError(name, repr(value), f"one of {choices}")
            continue
        if value is None and type(None) in get_args(hint):
            continue
        if hint in (float, float | None):
            valid = type(value) is float or (type(value) is int and abs(value) <= 2**53)
            if valid:
                object.__setattr__(config, name, float(value))
        else:  # bool is an int to Python, but a count of True layers is a mistake
            valid = type(value) is hint
        if not valid:
            wanted = (
                "a number" if hint in (float, float | None) else f"a value of type {hint.__name__}"
            )
            raise ConfigError(name, repr(value), wanted)


def _check_sizes(config: ModelConfig, names: tuple[str, ...]) -> None:
    for name in names:
        if type(getattr(config, name)) is not int:
            raise ConfigError(name, repr(getattr(config, name)), "a whole number")
        _check_range(config, name, 1, LARGEST_DIMENSION)


def _check_range(
    config: ModelConfig | TrainConfig,
    name: str,
    lower: float,
    upper: float,
    *,
    lower_open: bool = False,
    upper_open: bool = False,
) -> None:
    value = getattr(config, name)
    above = value > lower if lower_open else value >= lower
    below = value < upper if upper_open else value <= upper
    if not (above and below):  # written so that NaN fails
        low = f"{'above' if lower_open else 'at least'} {lower}"
        high = "" if upper == math.inf else f" and {'below' if upper_open else 'at most'} {upper}"
        finite = " and finite" if upper == math.inf and upper_open else ""
        raise ConfigError(name, f"{value}", f"{low}{high}{finite}")
