"""What a model is: its architecture, frozen, validated once, and the same after JSON.

A field whose default depends on others (`num_kv_heads`, `head_dim`, ...) may be left out or given as
None; after construction every field holds a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from minilm.config.validation import (
    LARGEST_DIMENSION,
    LARGEST_LAYER_COUNT,
    LARGEST_MATRIX,
    check_range,
    check_sizes,
    check_types,
)
from minilm.errors import ConfigError

# The default of a field that `__post_init__` derives from the others.
DERIVED: Any = None

LONGEST_NGRAM = 16
LONGEST_CONVOLUTION = 64


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm decoder-only transformer. Widths are in elements, lengths in tokens."""

    vocab_size: int = 256
    """Rows of the token embedding (V)."""
    context_length: int = 256
    """Longest sequence in tokens (T)."""
    num_layers: int = 4
    """Layers (L)."""
    shared_layers: int = 0
    """Distinct blocks (S) that all layers run, each several times; 0: a block of its own in each."""
    sharing: Literal["group", "cycle"] = "group"
    """Which layers share a block: neighbours (0 0 1 1), or every S-th (0 1 0 1)."""
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
    """Elements of a head that RoPE rotates, the first ones. Default: head_dim."""
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    """Slower rotation, for longer texts: of all frequencies, or of the low ones as Llama 3.1 has it."""
    rope_factor: float = 1.0
    """How many times slower."""
    rope_low_factor: float = 1.0
    """llama3: frequencies with fewer rotations in rope_original_context are divided by rope_factor."""
    rope_high_factor: float = 4.0
    """llama3: frequencies with more rotations in rope_original_context are unchanged."""
    rope_original_context: int = 8192
    """llama3: context length before the extension."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation of every block and of the final norm."""
    norm_bias: bool = DERIVED
    """LayerNorm's bias. Default: on for layernorm; rmsnorm has none."""
    norm_epsilon: float = 1e-5
    """Added under the square root of the normalisation."""
    feed_forward: Literal["gelu", "gelu_tanh", "relu2", "swiglu", "geglu"] = "gelu"
    """Activation; swiglu and geglu add a gate matrix."""
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
    """Dropout probability in training, after embeddings, attention and feed-forward."""
    initialization: Literal["normal", "xavier", "kaiming"] = "normal"
    """Scale of the weight matrices: normal(init_std), or by fan-in and fan-out, or by fan-in."""
    init_std: float = 0.02
    """Standard deviation of the matrices under `normal`."""
    embedding_std: float = DERIVED
    """Standard deviation of the token and position embeddings. Default: init_std."""
    output_initialization: Literal["scaled", "zero"] = "scaled"
    """Block outputs divided by sqrt(2 * num_layers), or zero, with an untied LM head zero too."""

    def __post_init__(self) -> None:
        check_sizes(self, ("d_model", "num_heads"))  # the derived fields are computed from these
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
        check_types(self)
        check_sizes(self, _SIZES)
        if self.num_layers > LARGEST_LAYER_COUNT:
            raise ConfigError("num_layers", f"{self.num_layers}", f"at most {LARGEST_LAYER_COUNT}")
        check_range(self, "shared_layers", 0, self.num_layers)
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                "num_kv_heads",
                f"{self.num_kv_heads} key/value heads do not divide num_heads {self.num_heads}",
                "a divisor of num_heads",
            )
        if self.position == "rope" and self.head_dim % 2:
            raise ConfigError(
                "head_dim", f"{self.head_dim}", "an even number, since RoPE rotates pairs"
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
        check_range(self, "sliding_window", 0, LARGEST_DIMENSION)
        check_range(self, "ngram", 1, LONGEST_NGRAM)
        check_range(self, "convolution", 0, LONGEST_CONVOLUTION)
        check_range(self, "dropout", 0, 1, upper_open=True)
        for name in _POSITIVE:
            check_range(self, name, 0, math.inf, lower_open=True, upper_open=True)
        widest = max(
            *(self.vocab_size, self.context_length, self.d_feed_forward, self.d_model),
            *(self.num_heads * self.head_dim, (self.ngram - 1) * self.ngram_rows),
        )
        if self.d_model * widest >= LARGEST_MATRIX:
            raise ConfigError(
                "d_model",
                f"{self.d_model}, for a matrix of {self.d_model} x {widest}",
                f"below {LARGEST_MATRIX} elements",
            )

    @property
    def gated(self) -> bool:
        """Whether the feed-forward has a gate matrix."""
        return self.feed_forward in ("swiglu", "geglu")

    @property
    def num_blocks(self) -> int:
        """Distinct blocks; as many as layers where none is shared."""
        return self.shared_layers or self.num_layers

    @property
    def block_order(self) -> tuple[int, ...]:
        """The number of the block that each layer runs.

        Where S does not divide L, the first blocks run once more than the others.
        """
        if self.sharing == "cycle":
            return tuple(layer % self.num_blocks for layer in range(self.num_layers))
        runs, more = divmod(self.num_layers, self.num_blocks)
        return tuple(
            block for block in range(self.num_blocks) for _ in range(runs + (block < more))
        )


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
