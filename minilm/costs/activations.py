"""What autograd keeps from the forward pass of a training step of minilm's own model.

Declared operation by operation from minilm/model/*.py: a linear map keeps its input, a norm its input
and statistics, a softmax its output, and so on, for what torch's derivatives.yaml needs backward.
`minilm.inspection.activation_check` counts the same on a running module; other architectures are estimated
in activation_estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minilm.config import ModelConfig
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.symbols import ASCII, ONE, ZERO, Polynomial, format_polynomial, symbol

B, T, L, V, d, f, h, g, k, c = (symbol(letter) for letter in "BTLVdfhgkc")
N = B * T  # tokens of one forward pass

FULL = 4  # bytes of float32, in which sums, norms and the loss stay under autocast
STATISTIC = 4  # bytes of a mean, a reciprocal deviation or a logarithm of a sum
INDEX = 8  # bytes of an int64

# minilm.model.attention writes attention out on a CPU up to these lengths.
EXPLICIT_UP_TO = {"float32": 128, "bfloat16": 512, "float16": 512}


@dataclass(frozen=True)
class Saved:
    """One tensor that is kept, or one in each of ``repeat`` layers; ``bytes`` are those of one."""

    what: str
    component: str
    bytes: Polynomial
    repeat: Polynomial = ONE


@dataclass(frozen=True)
class Activations:
    """All that is kept for ``B`` sequences of ``T`` tokens; ``block_input`` are the bytes between blocks."""

    saved: tuple[Saved, ...]
    symbols: Mapping[str, int]
    block_input: Polynomial
    exact: bool

    def total(self) -> int:
        """Bytes when every block keeps what it needs."""
        return _sum(self.saved).value(self.symbols)

    def block(self) -> int:
        """Bytes that one block keeps, its input included."""
        return sum(each.bytes.value(self.symbols) for each in self.saved if each.repeat != ONE)

    def between_blocks(self) -> int:
        """Bytes of the inputs of all blocks, and of all that is kept outside of blocks."""
        outside = _sum(tuple(each for each in self.saved if each.repeat == ONE))
        return (outside + L * self.block_input).value(self.symbols)

    def checkpointed(self) -> int:
        """Bytes at most when a block keeps its input only and is run again for its backward pass.

        Chen et al. 2016 (arXiv:1604.06174), with every block a segment: one block is whole at a time.
        """
        return self.between_blocks() + self.block() - self.block_input.value(self.symbols)

    def by_component(self) -> dict[str, int]:
        """Bytes of each component, in the order of the forward pass."""
        sums: dict[str, int] = {}
        for each in self.saved:
            size = (each.bytes * each.repeat).value(self.symbols)
            sums[each.component] = sums.get(each.component, 0) + size
        return sums

    def formula(self) -> str:
        """The closed form of `total`, for other programs."""
        return format_polynomial(_sum(self.saved), ASCII)


def activation_bytes(
    config: ModelConfig, *, batch: int, context: int, dtype: str = "float32", device: str = "cpu"
) -> dict[str, Any]:
    """The numbers of `activations` under the names that a report has."""
    kept = activations(config, batch=batch, context=context, dtype=dtype, device=device)
    return {
        "basis": "exact" if kept.exact else "estimate",
        "batch": batch,
        "context": context,
        "dtype": dtype,
        "saved": kept.total(),
        "checkpointed": kept.checkpointed(),
        "formula": kept.formula(),
        "components": kept.by_component(),
    }


def activations(
    config: ModelConfig, *, batch: int, context: int, dtype: str = "float32", device: str = "cpu"
) -> Activations:
    """What `minilm.training` keeps in one forward pass, eager, for ``batch`` x ``context`` tokens.

    ``dtype`` other than float32 is autocast: matrix products in it, and a cast of every matrix kept.
    Exact for a CPU. On CUDA the kernels choose what they keep; that form is read from their
    derivatives, leaves out paddings of some bytes, and is an estimate; so it is for heads that turn in part
    and for a parallel residual.
    """
    plan = _Plan(config, batch, context, dtype, device)
    symbols = {
        "B": batch,
        "T": context,
        "L": config.num_layers,
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
    return Activations(tuple(_forward(plan)), symbols, FULL * N * d, exact=exact)


@dataclass(frozen=True)
class _Plan:
    """The choices that decide what is kept."""

    config: ModelConfig
    batch: int
    context: int
    dtype: str
    device: str

    @property
    def width(self) -> int:
        """Bytes of what a matrix product takes and gives."""
        return BITS[self.dtype] // 8

    @property
    def autocast(self) -> bool:
        return self.dtype != "float32"

    @property
    def attention(self) -> str:
        """explicit, as two products around a softmax; math, torch's own such; or fused, one kernel."""
        if self.device != "cpu":
            return "fused"
        if self.context <= EXPLICIT_UP_TO[self.dtype]:
            return "explicit"
        # The fused kernel of a CPU has no dropout, and refuses how RoPE leaves heads of one pair.
        pair = self.config.head_dim == 2 and self.queries_by_head and not self.config.qk_norm
        return "math" if self.config.dropout or pair else "fused"

    @property
    def queries_by_head(self) -> bool:
        """Whether norms or RoPE have laid the queries out head by head, as the kernel then does too."""
        config = self.config
        return config.num_heads > 1 and (config.position == "rope" or config.qk_norm)

    @property
    def score_copies(self) -> int:
        """Tensors as large as the scores: the softmax; with dropout its mask and their product too."""
        return 3 if self.config.dropout else 1

    @property
    def queries(self) -> Polynomial:
        config = self.config
        return d if config.num_heads * config.head_dim == config.d_model else h * k

    @property
    def keys(self) -> Polynomial:
        return self.queries if self.config.num_kv_heads == self.config.num_heads else g * k

    @property
    def hidden(self) -> Polynomial:
        return 4 * d if self.config.d_feed_forward == 4 * self.config.d_model else f

    @property
    def norms_in_full(self) -> bool:
        """Whether autocast gives every norm float32: it does on CUDA, and on a CPU it does not."""
        return self.device != "cpu"

    @property
    def qk_norm_input(self) -> int:
        """Bytes of an element that the query and key norms take."""
        return FULL if self.norms_in_full else self.width

    @property
    def rotation_is_cast(self) -> bool:
        """Whether queries and keys are 16 bits wide when they are turned."""
        return self.autocast and not (self.config.qk_norm and self.norms_in_full)

    def dropout_mask(self, elements: Polynomial, width: int) -> Polynomial:
        """Bytes of the factors that dropout multiplied ``elements`` of ``width`` bytes by."""
        return elements * (width if self.device == "cpu" else 1)

    def repeated(self, *, copied: bool) -> Polynomial:
        """Width of keys or values given to every query head; one shared head is a view if not copied."""
        if self.config.num_kv_heads == self.config.num_heads:
            return self.keys
        return g * k if self.config.num_kv_heads == 1 and not copied else self.queries


def _forward(plan: _Plan) -> Iterator[Saved]:
    config, width = plan.config, plan.width
    yield from _embedding(plan)
    if config.convolution:  # each tap keeps the sequence that it shifted
        yield Saved("shifted input", components.CONVOLUTION, FULL * c * N * d, L)
    yield from _norm(plan, N, d, components.ATTENTION_NORM, L)
    yield from _linear_input(plan, 3, components.ATTENTION_QUERY, L)
    yield from _attention(plan)
    if config.dropout:
        mask = plan.dropout_mask(N * d, width)
        yield Saved("dropout mask", components.ATTENTION_OUTPUT, mask, L)
    yield from _norm(plan, N, d, components.FEED_FORWARD_NORM, L)
    yield from _linear_input(plan, 2 if config.gated else 1, components.FEED_FORWARD_UP, L)
    yield from _feed_forward(plan)
    yield from _norm(plan, N, d, components.FINAL_NORM, ONE)
    yield from _linear_input(plan, 1, components.LM_HEAD, ONE)
    if plan.autocast:
        yield Saved("matrix in 16 bits", components.LM_HEAD, width * V * d)
    yield Saved("log-softmax", components.LM_HEAD, FULL * N * V)
    yield Saved("number of targets", components.LM_HEAD, FULL * ONE)


def _embedding(plan: _Plan) -> Iterator[Saved]:
    if plan.config.position == "learned":
        yield Saved("positions", components.POSITION_EMBEDDING, INDEX * T)
    if plan.config.ngram > 1:
        yield Saved("rows", components.NGRAM_EMBEDDING, INDEX * (plan.config.ngram - 1) * N)
    if plan.config.dropout:
        yield Saved("dropout mask", components.TOKEN_EMBEDDING, plan.dropout_mask(N * d, FULL))
    # One table for all layers in float32; under autocast queries and keys each cast it (below).
    if plan.config.position == "rope" and not plan.rotation_is_cast:
        yield Saved("cosines and sines", components.ATTENTION_QUERY, FULL * T * k)


def _norm(
    plan: _Plan,
    rows: Polynomial,
    width: Polynomial,
    component: str,
    repeat: Polynomial,
    input_bytes: int = FULL,
) -> Iterator[Saved]:
    """A LayerNorm's or RMSNorm's input of ``rows`` x ``width`` and its statistics."""
    if plan.config.norm == "layernorm":
        yield Saved("input", component, input_bytes * rows * width, repeat)
        yield Saved("mean and deviation", component, 2 * STATISTIC * rows, repeat)
        return
    yield Saved("input", component, FULL * rows * width, repeat)
    yield Saved("deviation", component, STATISTIC * rows, repeat)
    if plan.device == "cpu":  # written out there: the gain's gradient needs the product before it
        yield Saved("normalised", component, FULL * rows * width, repeat)


def _linear_input(
    plan: _Plan, consumers: int, component: str, repeat: Polynomial
) -> Iterator[Saved]:
    """A norm's output for the linear maps that read it; under autocast each casts its own copy."""
    copies = consumers if plan.autocast else 1
    yield Saved("input", component, copies * plan.width * N * d, repeat)


def _attention(plan: _Plan) -> Iterator[Saved]:
    config, width = plan.config, plan.width
    queries, keys = plan.queries, plan.keys
    if plan.autocast:
        matrices = 2 * d * queries + 2 * d * keys
        yield Saved("matrices in 16 bits", components.ATTENTION_QUERY, width * matrices, L)
    if config.qk_norm:
        part = components.ATTENTION_QK_NORM
        yield from _norm(plan, N * h, k, part, L, plan.qk_norm_input)
        yield from _norm(plan, N * g, k, part, L, plan.qk_norm_input)
    if config.position == "rope" and plan.rotation_is_cast:
        yield Saved("cosines and sines", components.ATTENTION_QUERY, 2 * width * T * k, L)
    yield from _ATTENTION[plan.attention](plan)


def _explicit_attention(plan: _Plan) -> Iterator[Saved]:
    """Between the projections: `explicit_attention`, and what `output` takes."""
    width = plan.width
    shared = plan.repeated(copied=plan.batch > 1)  # merging batch and heads copies
    yield Saved("queries", components.ATTENTION_QUERY, width * N * plan.queries, L)
    yield Saved("keys", components.ATTENTION_KEY, width * N * shared, L)
    yield Saved("values", components.ATTENTION_VALUE, width * N * shared, L)
    scores = plan.score_copies * width * B * h * T * T
    yield Saved("scores", components.ATTENTION_QUERY, scores, L)
    yield Saved("input", components.ATTENTION_OUTPUT, width * N * plan.queries, L)


def _math_attention(plan: _Plan) -> Iterator[Saved]:
    """torch's scaled_dot_product_attention without a fused kernel: in float32 throughout."""
    yield Saved("queries", components.ATTENTION_QUERY, FULL * N * plan.queries, L)
    yield Saved("keys", components.ATTENTION_KEY, FULL * N * plan.queries, L)
    values = plan.queries if plan.autocast else plan.repeated(copied=plan.batch > 1)
    yield Saved("values", components.ATTENTION_VALUE, FULL * N * values, L)
    scores = plan.score_copies * FULL * B * h * T * T
    yield Saved("scores", components.ATTENTION_QUERY, scores, L)
    yield Saved("input", components.ATTENTION_OUTPUT, plan.width * N * plan.queries, L)


def _fused_attention(plan: _Plan) -> Iterator[Saved]:
    """One kernel: its inputs, its output and a sum a row; `output` reads that in place if it can."""
    width = plan.width
    shared = plan.repeated(copied=False)
    yield Saved("queries", components.ATTENTION_QUERY, width * N * plan.queries, L)
    yield Saved("keys", components.ATTENTION_KEY, width * N * shared, L)
    yield Saved("values", components.ATTENTION_VALUE, width * N * shared, L)
    yield Saved("row sums", components.ATTENTION_QUERY, STATISTIC * B * h * T, L)
    if 0 < plan.config.sliding_window < plan.context:
        yield Saved("window mask", components.ATTENTION_QUERY, width * T * T, L)
    copies = 2 if plan.queries_by_head else 1  # by head, and by token
    yield Saved("input", components.ATTENTION_OUTPUT, copies * width * N * plan.queries, L)


_ATTENTION = {
    "explicit": _explicit_attention,
    "math": _math_attention,
    "fused": _fused_attention,
}


def _feed_forward(plan: _Plan) -> Iterator[Saved]:
    config, width, hidden = plan.config, plan.width, plan.hidden
    if plan.autocast:
        matrices = (3 if config.gated else 2) * d * hidden
        yield Saved("matrices in 16 bits", components.FEED_FORWARD_UP, width * matrices, L)
    if config.gated:
        yield Saved(
            "gate, before and after", components.FEED_FORWARD_GATE, 2 * width * N * hidden, L
        )
    # The activation's input; squared ReLU keeps the ReLU's output instead, which is as large.
    yield Saved("up", components.FEED_FORWARD_UP, width * N * hidden, L)
    yield Saved("input", components.FEED_FORWARD_DOWN, width * N * hidden, L)
    if config.dropout:
        mask = plan.dropout_mask(N * d, width)
        yield Saved("dropout mask", components.FEED_FORWARD_DOWN, mask, L)


def _sum(saved: tuple[Saved, ...]) -> Polynomial:
    return sum((each.bytes * each.repeat for each in saved), ZERO)
