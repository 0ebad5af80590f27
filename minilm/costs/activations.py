"""Tensors that autograd saves in a forward pass of minilm's own model, for the backward pass.

Declared operation by operation from minilm/model/*.py and torch's derivatives.yaml: a linear layer
saves its input, a norm its input and statistics, a softmax its output, and so on. What is frozen saves
less (`Trained`): a linear layer no input, and nothing before the first trained parameter saves anything.
`minilm.inspection.activation_check` measures the same on a running module; other architectures are
estimated in activation_estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

from minilm.config import ModelConfig
from minilm.costs.trained import Trained
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout_changes import r
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
    """One saved tensor, or one in each of ``repeat`` layers; ``nbytes`` is the size of one.

    ``where``: outside the blocks, in a block, or in the first one, where that saves less than the others.
    """

    name: str
    component: str
    nbytes: Polynomial
    repeat: Polynomial = ONE
    where: Literal["outside", "first block", "block"] = "outside"


@dataclass(frozen=True)
class Activations:
    """The tensors saved for ``B`` sequences of ``T`` tokens; ``block_input`` is in bytes.

    ``attention`` is explicit, math or fused.
    """

    saved: tuple[SavedTensor, ...]
    symbols: Mapping[str, int]
    block_input: Polynomial
    attention: str
    exact: bool

    @property
    def tokens(self) -> int:
        """Tokens of the forward pass."""
        return self.symbols["B"] * self.symbols["T"]

    def total(self) -> int:
        """Bytes without activation checkpointing."""
        return _sum(self.saved).value(self.symbols)

    def block(self) -> int:
        """Bytes saved by one block, its input included."""
        return self.block_bytes()

    def between_blocks(self) -> int:
        """Bytes of the inputs of all blocks, and of all that is saved outside of blocks."""
        return self.outside() + (L * self.block_input).value(self.symbols)

    def outside(self, *, but: Sequence[str] = ()) -> int:
        """Bytes saved outside of blocks, by all components ``but`` these."""
        return sum(
            tensor.nbytes.value(self.symbols)
            for tensor in self.saved
            if tensor.where == "outside" and tensor.component not in but
        )

    def block_bytes(self, parts: Sequence[str] | None = None) -> int:
        """Bytes saved by one block, by all components or by ``parts``."""
        return sum(
            tensor.nbytes.value(self.symbols)
            for tensor in self.saved
            if tensor.where == "block" and (parts is None or tensor.component in parts)
        )

    def block_sizes(self) -> list[int]:
        """Bytes saved by each of the layers; the first saves less where what enters it is frozen."""
        first = [tensor for tensor in self.saved if tensor.where == "first block"]
        size = sum(tensor.nbytes.value(self.symbols) for tensor in first) if first else self.block()
        return [size, *[self.block()] * (self.symbols["L"] - 1)]

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
    config: ModelConfig,
    *,
    batch: int,
    context: int,
    dtype: str = "float32",
    device: str = "cpu",
    trained: Trained | None = None,
) -> dict[str, Any]:
    """The numbers of `activations`, with a report's keys."""
    result = activations(
        config, batch=batch, context=context, dtype=dtype, device=device, trained=trained
    )
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
    config: ModelConfig,
    *,
    batch: int,
    context: int,
    dtype: str = "float32",
    device: str = "cpu",
    trained: Trained | None = None,
    gathered: bool = False,
) -> Activations:
    """What an eager forward pass of `minilm.training` saves for ``batch`` x ``context`` tokens.

    ``dtype`` other than float32 is autocast, which saves a cast copy of every matrix; not of those that
    fully_shard ``gathered`` in that dtype, which the residual stream then has too. Exact on a CPU, but for
    partial RoPE and a parallel residual, which are estimates; so is CUDA, where the fused kernels decide
    what to save (read from their derivatives, without padding). ``trained`` is by default everything.
    """
    trained = trained or Trained()
    forward = _ForwardPass(config, batch, context, dtype, device, trained, gathered=gathered)
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
        "r": trained.lora.rank if trained.lora else 0,
    }
    exact = (
        device == "cpu" and not config.parallel_residual and config.rotary_dim == config.head_dim
    )
    return Activations(
        tuple(_saved_tensors(forward)),
        symbols,
        forward.stream_width * N * d,
        forward.attention,
        exact=exact,
    )


@dataclass(frozen=True)
class _ForwardPass:
    """What decides which tensors are saved."""

    config: ModelConfig
    batch: int
    context: int
    dtype: str
    device: str
    trained: Trained
    _: KW_ONLY
    gathered: bool = False

    def trains(self, component: str) -> bool:
        """Whether parameters of ``component`` are trained themselves."""
        if component == components.CONVOLUTION and not self.config.convolution:
            return False
        if component == components.LM_HEAD and self.config.tied_embeddings:
            component = components.TOKEN_EMBEDDING
        return self.trained.lora is None and component not in self.trained.frozen

    def reads(self, component: str) -> bool:
        """Whether the gradient of a matrix, or of its adapter, needs the input."""
        return self.trains(component) or self.trained.adapted(component)

    @property
    def embedding_trained(self) -> bool:
        """Whether what enters the first block has a gradient."""
        config, names = self.config, [components.TOKEN_EMBEDDING]
        names += [components.POSITION_EMBEDDING] if config.position == "learned" else []
        names += [components.NGRAM_EMBEDDING] if config.ngram > 1 else []
        return any(self.trains(name) for name in names)

    @property
    def width(self) -> int:
        """Bytes of an element of a matrix product's inputs and output."""
        return BITS[self.dtype] // 8

    @property
    def stream_width(self) -> int:
        """Bytes of an element of the residual stream."""
        return self.width if self.gathered else FLOAT32

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

    def casts(self, component: str, layers: Polynomial) -> Polynomial:
        """How many 16-bit copies of a matrix of ``component`` the blocks of ``layers`` save.

        Autocast casts a trained matrix once in a pass, however often it is used, and a frozen one each
        time. What a packed one is multiplied by is not saved.
        """
        is_head = component == components.LM_HEAD
        if not self.autocast or self.gathered or (self.trained.packing and not is_head):
            return ZERO
        return layers if is_head or not self.trains(component) else self._cast_once(layers)

    def adapter_casts(self, component: str, layers: Polynomial) -> Polynomial:
        """As `casts`, of the two matrices of an adapter."""
        if not self.autocast or self.gathered:
            return ZERO
        return layers if component == components.LM_HEAD else self._cast_once(layers)

    def _cast_once(self, layers: Polynomial) -> Polynomial:
        if self.config.num_blocks == self.config.num_layers:
            return layers
        return ZERO if layers == ONE else S

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
    yield from _embedding(forward)
    if forward.embedding_trained:
        yield from _block(forward, L, flows=True)
    else:
        for tensor in _block(forward, ONE, flows=False):
            yield replace(tensor, where="first block")
        yield from _block(forward, L - ONE, flows=True)
    yield from _norm(forward, N, d, components.FINAL_NORM, ONE)
    yield from _linear_inputs(forward, (components.LM_HEAD,), ONE)
    yield from _matrices(forward, {components.LM_HEAD: (d, V)}, ONE, flows=True)
    yield SavedTensor("log-softmax", components.LM_HEAD, FLOAT32 * N * V)
    yield SavedTensor("number of targets", components.LM_HEAD, FLOAT32 * ONE)


def _block(forward: _ForwardPass, repeat: Polynomial, *, flows: bool) -> Iterator[SavedTensor]:
    """What ``repeat`` blocks save. ``flows``: whether their input has a gradient."""
    for tensor in _attention_half(forward, repeat, flows=flows):
        yield replace(tensor, where="block")
    attention = (
        components.CONVOLUTION,
        components.ATTENTION_NORM,
        *_QUERY_KEY_VALUE,
        components.ATTENTION_OUTPUT,
    )
    flows = flows or any(forward.reads(each) for each in attention)
    for tensor in _feed_forward_half(forward, repeat, flows=flows):
        yield replace(tensor, where="block")


_QUERY_KEY_VALUE = (
    components.ATTENTION_QUERY,
    components.ATTENTION_KEY,
    components.ATTENTION_VALUE,
)


def _attention_half(
    forward: _ForwardPass, repeat: Polynomial, *, flows: bool
) -> Iterator[SavedTensor]:
    config, width = forward.config, forward.width
    if forward.trains(components.CONVOLUTION):
        # Each tap saves its shifted copy of the sequence.
        yield SavedTensor("shifted input", components.CONVOLUTION, FLOAT32 * c * N * d, repeat)
        flows = True
    if flows or forward.trains(components.ATTENTION_NORM):
        yield from _norm(forward, N, d, components.ATTENTION_NORM, repeat, flows=flows)
        flows = True
    yield from _linear_inputs(forward, _QUERY_KEY_VALUE, repeat)
    sides = {
        components.ATTENTION_QUERY: (d, forward.query_width),
        components.ATTENTION_KEY: (d, forward.key_width),
        components.ATTENTION_VALUE: (d, forward.key_width),
    }
    yield from _matrices(forward, sides, repeat, flows=flows)
    scores_flow = flows or any(forward.reads(each) for each in _QUERY_KEY_VALUE[:2])
    flows = scores_flow or forward.reads(components.ATTENTION_VALUE)
    if flows:
        yield from _attention(forward, repeat, scores_flow=scores_flow)
    elif forward.reads(components.ATTENTION_OUTPUT):
        size = width * N * forward.query_width
        yield SavedTensor("input", components.ATTENTION_OUTPUT, size, repeat)
    sides = {components.ATTENTION_OUTPUT: (forward.query_width, d)}
    yield from _matrices(forward, sides, repeat, flows=flows, input_bytes=width)
    if config.dropout and (flows or forward.reads(components.ATTENTION_OUTPUT)):
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.ATTENTION_OUTPUT, mask, repeat)


def _feed_forward_half(
    forward: _ForwardPass, repeat: Polynomial, *, flows: bool
) -> Iterator[SavedTensor]:
    if flows or forward.trains(components.FEED_FORWARD_NORM):
        yield from _norm(forward, N, d, components.FEED_FORWARD_NORM, repeat, flows=flows)
        flows = True
    up = [components.FEED_FORWARD_GATE] if forward.config.gated else []
    up.append(components.FEED_FORWARD_UP)
    yield from _linear_inputs(forward, up, repeat)
    sides = dict.fromkeys(up, (d, forward.hidden_width))
    yield from _matrices(forward, sides, repeat, flows=flows)
    flows = flows or any(forward.reads(each) for each in up)
    yield from _feed_forward(forward, repeat, flows=flows)


def _matrices(
    forward: _ForwardPass,
    sides: Mapping[str, tuple[Polynomial, Polynomial]],
    repeat: Polynomial,
    *,
    flows: bool,
    input_bytes: int = FLOAT32,
) -> Iterator[SavedTensor]:
    """What linear layers save beside their inputs, which have a gradient if ``flows``.

    Under autocast the matrix in 16 bits, for the gradient of the input. Of LoRA the input of B, and under
    autocast B and A in 16 bits; with dropout the mask of its input, of ``input_bytes`` an element.
    """
    lora = forward.trained.lora
    for component, (inputs, outputs) in sides.items():
        if flows and (copies := forward.casts(component, repeat)) != ZERO:
            size = forward.width * inputs * outputs
            yield SavedTensor("matrix in 16 bits", component, size, copies)
        if lora is None or not forward.trained.adapted(component):
            continue
        yield SavedTensor("input of B", component, forward.width * N * r, repeat)
        if (copies := forward.adapter_casts(component, repeat)) != ZERO:
            size = forward.width * r * (inputs + outputs if flows else outputs)
            yield SavedTensor("A and B in 16 bits", component, size, copies)
        if lora.dora:  # both are scaled by the ratio of two lengths of each row
            ratios = (2 if flows else 1) * forward.width * outputs
            size = 2 * forward.width * N * outputs + ratios + FLOAT32 * outputs
            yield SavedTensor("product and change, ratios", component, size, repeat)
        if lora.dropout and flows:
            mask = forward.dropout_mask(N * inputs, input_bytes)
            yield SavedTensor("dropout mask", component, mask, repeat)


def _embedding(forward: _ForwardPass) -> Iterator[SavedTensor]:
    learned = forward.config.position == "learned"
    if learned and forward.trains(components.POSITION_EMBEDDING):
        yield SavedTensor("positions", components.POSITION_EMBEDDING, INT64 * T)
    if forward.config.ngram > 1 and forward.trains(components.NGRAM_EMBEDDING):
        yield SavedTensor(
            "rows", components.NGRAM_EMBEDDING, INT64 * (forward.config.ngram - 1) * N
        )
    if forward.config.dropout and forward.embedding_trained:
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
    input_bytes: int = 0,
    *,
    flows: bool = True,
) -> Iterator[SavedTensor]:
    """A norm's input of ``rows`` x ``width``, which has a gradient if ``flows``, and its statistics.

    The input is the residual stream unless its ``input_bytes`` an element are given.
    """
    if not input_bytes:
        input_bytes = FLOAT32 if forward.norms_in_float32 else forward.stream_width
    if forward.config.norm == "layernorm":
        yield SavedTensor("input", component, input_bytes * rows * width, repeat)
        yield SavedTensor("mean and deviation", component, 2 * STATISTIC * rows, repeat)
        return
    if flows or forward.device != "cpu":
        yield SavedTensor("input", component, FLOAT32 * rows * width, repeat)
        yield SavedTensor("deviation", component, STATISTIC * rows, repeat)
    # There is no fused RMSNorm on a CPU: the gain's gradient needs its input.
    if forward.device == "cpu" and forward.trains(component):
        yield SavedTensor("normalised", component, FLOAT32 * rows * width, repeat)


def _linear_inputs(
    forward: _ForwardPass, consumers: Sequence[str], repeat: Polynomial
) -> Iterator[SavedTensor]:
    """A norm's output for the linear layers that read it; under autocast each casts its own copy."""
    readers = [component for component in consumers if forward.reads(component)]
    if not readers:
        return
    lora = forward.trained.lora
    own_copies = forward.autocast or (lora is not None and lora.dropout > 0)
    copies = len(readers) if own_copies else 1
    yield SavedTensor("input", readers[0], copies * forward.width * N * d, repeat)


def _attention(
    forward: _ForwardPass, repeat: Polynomial, *, scores_flow: bool
) -> Iterator[SavedTensor]:
    """``scores_flow``: whether queries or keys have a gradient, not the values alone."""
    config, width = forward.config, forward.width
    if config.qk_norm and scores_flow:
        component = components.ATTENTION_QK_NORM
        yield from _norm(forward, N * h, k, component, repeat, forward.qk_norm_input)
        yield from _norm(forward, N * g, k, component, repeat, forward.qk_norm_input)
    if config.position == "rope" and forward.rotation_is_cast and scores_flow:
        rotation = 2 * width * T * k
        yield SavedTensor("cosines and sines", components.ATTENTION_QUERY, rotation, repeat)
    for tensor in _ATTENTION[forward.attention](forward):
        if tensor.name == "input" and not forward.reads(components.ATTENTION_OUTPUT):
            continue
        if forward.attention == "fused" or scores_flow or tensor.name == "input":
            yield replace(tensor, repeat=repeat)
        elif tensor.name == "scores":  # only what the values are multiplied by
            size = FLOAT32 if forward.attention == "math" else width
            yield replace(tensor, nbytes=size * B * h * T * T, repeat=repeat)


def _explicit_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """`explicit_attention`, and the output projection's input."""
    width = forward.width
    # Merging the batch and head dimensions copies.
    kv_width = forward.repeated_width(copied=forward.batch > 1)
    yield SavedTensor("queries", components.ATTENTION_QUERY, width * N * forward.query_width)
    yield SavedTensor("keys", components.ATTENTION_KEY, width * N * kv_width)
    yield SavedTensor("values", components.ATTENTION_VALUE, width * N * kv_width)
    scores = forward.score_tensors * width * B * h * T * T
    yield SavedTensor("scores", components.ATTENTION_QUERY, scores)
    yield SavedTensor("input", components.ATTENTION_OUTPUT, width * N * forward.query_width)


def _math_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """torch's scaled_dot_product_attention without a fused kernel, which computes in float32."""
    yield SavedTensor("queries", components.ATTENTION_QUERY, FLOAT32 * N * forward.query_width)
    yield SavedTensor("keys", components.ATTENTION_KEY, FLOAT32 * N * forward.query_width)
    values = (
        forward.query_width
        if forward.autocast
        else forward.repeated_width(copied=forward.batch > 1)
    )
    yield SavedTensor("values", components.ATTENTION_VALUE, FLOAT32 * N * values)
    scores = forward.score_tensors * FLOAT32 * B * h * T * T
    yield SavedTensor("scores", components.ATTENTION_QUERY, scores)
    yield SavedTensor("input", components.ATTENTION_OUTPUT, forward.width * N * forward.query_width)


def _fused_attention(forward: _ForwardPass) -> Iterator[SavedTensor]:
    """One kernel: its inputs, its output and a log-sum-exp a row; the projection may need a copy."""
    width = forward.width
    kv_width = forward.repeated_width(copied=False)
    yield SavedTensor("queries", components.ATTENTION_QUERY, width * N * forward.query_width)
    yield SavedTensor("keys", components.ATTENTION_KEY, width * N * kv_width)
    yield SavedTensor("values", components.ATTENTION_VALUE, width * N * kv_width)
    yield SavedTensor("row sums", components.ATTENTION_QUERY, STATISTIC * B * h * T)
    if 0 < forward.config.sliding_window < forward.context:
        yield SavedTensor("window mask", components.ATTENTION_QUERY, width * T * T)
    output = width * N * forward.query_width
    yield SavedTensor("output", components.ATTENTION_OUTPUT, output)
    # The projection reads token by token, and an adapter's dropout writes a copy.
    lora = forward.trained.lora
    copied = (
        lora is not None and lora.dropout and forward.trained.adapted(components.ATTENTION_OUTPUT)
    )
    if forward.queries_by_head or copied:
        yield SavedTensor("input", components.ATTENTION_OUTPUT, output)


_ATTENTION = {
    "explicit": _explicit_attention,
    "math": _math_attention,
    "fused": _fused_attention,
}


def _feed_forward(
    forward: _ForwardPass, repeat: Polynomial, *, flows: bool
) -> Iterator[SavedTensor]:
    """From the outputs of up and gate on, which have a gradient if ``flows``."""
    config, width, hidden = forward.config, forward.width, forward.hidden_width
    if config.gated and flows:
        yield SavedTensor(
            "gate, before and after", components.FEED_FORWARD_GATE, 2 * width * N * hidden, repeat
        )
    if flows:
        # The activation's input; squared ReLU saves the ReLU's output instead, of the same size.
        yield SavedTensor("up", components.FEED_FORWARD_UP, width * N * hidden, repeat)
    if forward.reads(components.FEED_FORWARD_DOWN):
        yield SavedTensor("input", components.FEED_FORWARD_DOWN, width * N * hidden, repeat)
    sides = {components.FEED_FORWARD_DOWN: (hidden, d)}
    yield from _matrices(forward, sides, repeat, flows=flows, input_bytes=width)
    if config.dropout:
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.FEED_FORWARD_DOWN, mask, repeat)


def _sum(saved: tuple[SavedTensor, ...]) -> Polynomial:
    return sum((tensor.nbytes * tensor.repeat for tensor in saved), ZERO)
