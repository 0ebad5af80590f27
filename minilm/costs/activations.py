"""Tensors that autograd saves in a forward pass of minilm's own model, for the backward pass.

Declared operation by operation from minilm/model/*.py and torch's derivatives.yaml: a linear layer
saves its input, a norm its input and statistics, a softmax its output, and so on.
`minilm.inspection.activation_check` measures the same on a running module; other architectures are
estimated in activation_estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minilm.config import ModelConfig
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.symbols import ASCII, ONE, ZERO, Polynomial, format_polynomial, symbol

B, T, L, S, V, d, f, h, g, k, c = (symbol(letter) for letter in "BTLSVdfhgkc")
N = B * T  # tokens of one forward pass

# Bytes of an element.
FLOAT32 = 4  # the residual stream, norms and the loss, under autocast too
STATISTIC = 4  # a mean, a reciprocal standard deviation or a log-sum-exp
INT64 = 8

# On a CPU, minilm.model.attention uses two matrix products up to these contexts.
EXPLICIT_UP_TO = {"float32": 128, "bfloat16": 512, "float16": 512}


@dataclass(frozen=True)
class SavedTensor:
    """One saved tensor, or one in each of ``repeat`` layers; ``nbytes`` is the size of one."""

    name: str
    component: str
    nbytes: Polynomial
    repeat: Polynomial = ONE


@dataclass(frozen=True)
class Activations:
    """The tensors saved for ``B`` sequences of ``T`` tokens; ``block_input`` is in bytes."""

    saved: tuple[SavedTensor, ...]
    symbols: Mapping[str, int]
    block_input: Polynomial
    exact: bool

    def total(self) -> int:
        """Bytes without activation checkpointing."""
        return _sum(self.saved).value(self.symbols)

    def block(self) -> int:
        """Bytes saved by one block, its input included."""
        return sum(
            tensor.nbytes.value(self.symbols) for tensor in self.saved if tensor.repeat != ONE
        )

    def between_blocks(self) -> int:
        """Bytes of the inputs of all blocks, and of all that is saved outside of blocks."""
        outside = _sum(tuple(tensor for tensor in self.saved if tensor.repeat == ONE))
        return (outside + L * self.block_input).value(self.symbols)

    def checkpointed(self) -> int:
        """Peak bytes with activation checkpointing, every block a segment: one is recomputed at a time.

        Chen et al. 2016 (arXiv:1604.06174).
        """
        return self.between_blocks() + self.block() - self.block_input.value(self.symbols)

    def by_component(self) -> dict[str, int]:
        """Bytes of tensor component, in the order of the forward pass."""
        sums: dict[str, int] = {}
        for tensor in self.saved:
            size = (tensor.nbytes * tensor.repeat).value(self.symbols)
            sums[tensor.component] = sums.get(tensor.component, 0) + size
        return sums

    def formula(self) -> str:
        """The closed form of `total`, in ASCII."""
        return format_polynomial(_sum(self.saved), ASCII)

    def formula_symbols(self) -> dict[str, int]:
        """The values of the letters in `formula`."""
        letters = {letter for monomial in _sum(self.saved).terms for letter, _ in monomial}
        return {letter: value for letter, value in self.symbols.items() if letter in letters}


def activation_bytes(
    config: ModelConfig, *, batch: int, context: int, dtype: str = "float32", device: str = "cpu"
) -> dict[str, Any]:
    """The numbers of `activations`, with a report's keys."""
    result = activations(config, batch=batch, context=context, dtype=dtype, device=device)
    return {
        "basis": "exact" if result.exact else "estimate",
        "batch": batch,
        "context": context,
        "dtype": dtype,
        "saved": result.total(),
        "checkpointed": result.checkpointed(),
        "formula": result.formula(),
        "symbols": result.formula_symbols(),
        "components": result.by_component(),
    }


def activations(
    config: ModelConfig, *, batch: int, context: int, dtype: str = "float32", device: str = "cpu"
) -> Activations:
    """What an eager forward pass of `minilm.training` saves for ``batch`` x ``context`` tokens.

    ``dtype`` other than float32 is autocast, which saves a cast copy of every matrix. Exact on a CPU,
    but for partial RoPE and a parallel residual, which are estimates; so is CUDA, where the fused
    kernels decide what to save (read from their derivatives, without padding).
    """
    forward = _ForwardPass(config, batch, context, dtype, device)
    symbols = {
        "B": batch,
        "T": context,
        "L": config.num_layers,
        "S": config.num_blocks,
        "V": config.vocab_size,
        "d": config.d_model,
        "f": config.d_feed_forward,
        "h": config.num_heads,
        "g": config.num_kv_heads,
        "k": config.head_dim,
        "c": config.convolution,
    }
    exact = (
        device == "cpu" and not config.parallel_residual and config.rotary_dim == config.head_dim
    )
    return Activations(tuple(_saved_tensors(forward)), symbols, FLOAT32 * N * d, exact=exact)


@dataclass(frozen=True)
class _ForwardPass:
    """What decides which tensors are saved."""

    config: ModelConfig
    batch: int
    context: int
    dtype: str
    device: str

    @property
    def width(self) -> int:
        """Bytes of an element of a matrix product's inputs and output."""
        return BITS[self.dtype] // 8

    @property
    def autocast(self) -> bool:
        return self.dtype != "float32"

    @property
    def attention(self) -> str:
        """explicit: two products around a softmax; math: torch's equivalent; fused: one kernel."""
        if self.device != "cpu":
            return "fused"
        if self.context <= EXPLICIT_UP_TO[self.dtype]:
            return "explicit"
        # The CPU's fused kernel has no dropout, and rejects RoPE's memory layout for heads of width 2.
        is_pair = self.config.head_dim == 2 and self.queries_by_head and not self.config.qk_norm
        return "math" if self.config.dropout or is_pair else "fused"

    @property
    def distinct_layers(self) -> Polynomial:
        """Autocast casts a matrix once in a pass, however often it is used."""
        return S if self.config.num_blocks < self.config.num_layers else L

    @property
    def queries_by_head(self) -> bool:
        """Whether a norm or RoPE stores the queries head by head; the kernel's output is then too."""
        config = self.config
        return config.num_heads > 1 and (config.position == "rope" or config.qk_norm)

    @property
    def score_tensors(self) -> int:
        """Saved tensors of the scores' size: the softmax; with dropout, the mask and the product too."""
        return 3 if self.config.dropout else 1

    @property
    def query_width(self) -> Polynomial:
        config = self.config
        return d if config.num_heads * config.head_dim == config.d_model else h * k

    @property
    def key_width(self) -> Polynomial:
        return self.query_width if self.config.num_kv_heads == self.config.num_heads else g * k

    @property
    def hidden_width(self) -> Polynomial:
        return 4 * d if self.config.d_feed_forward == 4 * self.config.d_model else f

    @property
    def norms_in_float32(self) -> bool:
        """Whether autocast runs every norm in float32: on CUDA it does, on a CPU it does not."""
        return self.device != "cpu"

    @property
    def qk_norm_input(self) -> int:
        """Bytes of an element of the query and key norms' inputs."""
        return FLOAT32 if self.norms_in_float32 else self.width

    @property
    def rotation_is_cast(self) -> bool:
        """Whether RoPE is applied to 16-bit queries and keys."""
        return self.autocast and not (self.config.qk_norm and self.norms_in_float32)

    def dropout_mask(self, elements: Polynomial, width: int) -> Polynomial:
        """Bytes of the mask for ``elements`` of ``width`` bytes; on CUDA it is boolean."""
        return elements * (width if self.device == "cpu" else 1)

    def repeated_width(self, *, copied: bool) -> Polynomial:
        """Width of keys or values repeated for every query head; a single one may be a view."""
        if self.config.num_kv_heads == self.config.num_heads:
            return self.key_width
        return g * k if self.config.num_kv_heads == 1 and not copied else self.query_width


def _saved_tensors(forward: _ForwardPass) -> Iterator[SavedTensor]:
    config, width = forward.config, forward.width
    yield from _embedding(forward)
    if config.convolution:  # each tap saves its shifted copy of the sequence
        yield SavedTensor("shifted input", components.CONVOLUTION, FLOAT32 * c * N * d, L)
    yield from _norm(forward, N, d, components.ATTENTION_NORM, L)
    yield from _linear_input(forward, 3, components.ATTENTION_QUERY, L)
    yield from _attention(forward)
    if config.dropout:
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.ATTENTION_OUTPUT, mask, L)
    yield from _norm(forward, N, d, components.FEED_FORWARD_NORM, L)
    yield from _linear_input(forward, 2 if config.gated else 1, components.FEED_FORWARD_UP, L)
    yield from _feed_forward(forward)
    yield from _norm(forward, N, d, components.FINAL_NORM, ONE)
    yield from _linear_input(forward, 1, components.LM_HEAD, ONE)
    if forward.autocast:
        yield SavedTensor("matrix in 16 bits", components.LM_HEAD, width * V * d)
    yield SavedTensor("log-softmax", components.LM_HEAD, FLOAT32 * N * V)
    yield SavedTensor("number of targets", components.LM_HEAD, FLOAT32 * ONE)


def _embedding(forward: _ForwardPass) -> Iterator[SavedTensor]:
    if forward.config.position == "learned":
        yield SavedTensor("positions", components.POSITION_EMBEDDING, INT64 * T)
    if forward.config.ngram > 1:
        yield SavedTensor(
            "rows", components.NGRAM_EMBEDDING, INT64 * (forward.config.ngram - 1) * N
        )
    if forward.config.dropout:
        yield SavedTensor(
            "dropout mask", components.TOKEN_EMBEDDING, forward.dropout_mask(N * d, FLOAT32)
        )
    # One table for all layers in float32; under autocast queries and keys each save a cast (below).
    if forward.config.position == "rope" and not forward.rotation_is_cast:
        yield SavedTensor("cosines and sines", components.ATTENTION_QUERY, FLOAT32 * T * k)


def _norm(
    forward: _ForwardPass,
    rows: Polynomial,
    width: Polynomial,
    component: str,
    repeat: Polynomial,
    input_bytes: int = FLOAT32,
) -> Iterator[SavedTensor]:
    """A LayerNorm's or RMSNorm's input of ``rows`` x ``width`` and its statistics."""
    if forward.config.norm == "layernorm":
        yield SavedTensor("input", component, input_bytes * rows * width, repeat)
        yield SavedTensor("mean and deviation", component, 2 * STATISTIC * rows, repeat)
        return
    yield SavedTensor("input", component, FLOAT32 * rows * width, repeat)
    yield SavedTensor("deviation", component, STATISTIC * rows, repeat)
    if forward.device == "cpu":  # no fused RMSNorm there: the gain's gradient needs its input
        yield SavedTensor("normalised", component, FLOAT32 * rows * width, repeat)


def _linear_input(
    forward: _ForwardPass, consumers: int, component: str, repeat: Polynomial
) -> Iterator[SavedTensor]:
    """A norm's output for the linear layers that read it; under autocast each casts its own copy."""
    copies = consumers if forward.autocast else 1
    yield SavedTensor("input", component, copies * forward.width * N * d, repeat)


def _attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    config, width = forward.config, forward.width
    if forward.autocast:
        matrices = 2 * d * forward.query_width + 2 * d * forward.key_width
        yield SavedTensor(
            "matrices in 16 bits",
            components.ATTENTION_QUERY,
            width * matrices,
            forward.distinct_layers,
        )
    if config.qk_norm:
        component = components.ATTENTION_QK_NORM
        yield from _norm(forward, N * h, k, component, L, forward.qk_norm_input)
        yield from _norm(forward, N * g, k, component, L, forward.qk_norm_input)
    if config.position == "rope" and forward.rotation_is_cast:
        yield SavedTensor("cosines and sines", components.ATTENTION_QUERY, 2 * width * T * k, L)
    yield from _ATTENTION[forward.attention](forward)


def _explicit_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """`explicit_attention`, and the output projection's input."""
    width = forward.width
    # Merging the batch and head dimensions copies.
    kv_width = forward.repeated_width(copied=forward.batch > 1)
    yield SavedTensor("queries", components.ATTENTION_QUERY, width * N * forward.query_width, L)
    yield SavedTensor("keys", components.ATTENTION_KEY, width * N * kv_width, L)
    yield SavedTensor("values", components.ATTENTION_VALUE, width * N * kv_width, L)
    scores = forward.score_tensors * width * B * h * T * T
    yield SavedTensor("scores", components.ATTENTION_QUERY, scores, L)
    yield SavedTensor("input", components.ATTENTION_OUTPUT, width * N * forward.query_width, L)


def _math_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """torch's scaled_dot_product_attention without a fused kernel, which computes in float32."""
    yield SavedTensor("queries", components.ATTENTION_QUERY, FLOAT32 * N * forward.query_width, L)
    yield SavedTensor("keys", components.ATTENTION_KEY, FLOAT32 * N * forward.query_width, L)
    values = (
        forward.query_width
        if forward.autocast
        else forward.repeated_width(copied=forward.batch > 1)
    )
    yield SavedTensor("values", components.ATTENTION_VALUE, FLOAT32 * N * values, L)
    scores = forward.score_tensors * FLOAT32 * B * h * T * T
    yield SavedTensor("scores", components.ATTENTION_QUERY, scores, L)
    yield SavedTensor(
        "input", components.ATTENTION_OUTPUT, forward.width * N * forward.query_width, L
    )


def _fused_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """One kernel: its inputs, its output and a log-sum-exp a row; the projection may need a copy."""
    width = forward.width
    kv_width = forward.repeated_width(copied=False)
    yield SavedTensor("queries", components.ATTENTION_QUERY, width * N * forward.query_width, L)
    yield SavedTensor("keys", components.ATTENTION_KEY, width * N * kv_width, L)
    yield SavedTensor("values", components.ATTENTION_VALUE, width * N * kv_width, L)
    yield SavedTensor("row sums", components.ATTENTION_QUERY, STATISTIC * B * h * T, L)
    if 0 < forward.config.sliding_window < forward.context:
        yield SavedTensor("window mask", components.ATTENTION_QUERY, width * T * T, L)
    copies = 2 if forward.queries_by_head else 1  # head by head, and token by token
    yield SavedTensor(
        "input", components.ATTENTION_OUTPUT, copies * width * N * forward.query_width, L
    )


_ATTENTION = {
    "explicit": _explicit_attention,
    "math": _math_attention,
    "fused": _fused_attention,
}


def _feed_forward(forward: _ForwardPass) -> Iterator[SavedTensor]:
    config, width, hidden = forward.config, forward.width, forward.hidden_width
    if forward.autocast:
        matrices = (3 if config.gated else 2) * d * hidden
        yield SavedTensor(
            "matrices in 16 bits",
            components.FEED_FORWARD_UP,
            width * matrices,
            forward.distinct_layers,
        )
    if config.gated:
        yield SavedTensor(
            "gate, before and after", components.FEED_FORWARD_GATE, 2 * width * N * hidden, L
        )
    # The activation's input; squared ReLU saves the ReLU's output instead, of the same size.
    yield SavedTensor("up", components.FEED_FORWARD_UP, width * N * hidden, L)
    yield SavedTensor("input", components.FEED_FORWARD_DOWN, width * N * hidden, L)
    if config.dropout:
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.FEED_FORWARD_DOWN, mask, L)


def _sum(saved: tuple[SavedTensor, ...]) -> Polynomial:
    return sum((tensor.nbytes * tensor.repeat for tensor in saved), ZERO)
