"""Tensors that autograd saves in a forward pass of minilm's own model, for the backward pass.

Declared operation by operation from minilm/model/*.py and torch's derivatives.yaml: a linear layer
saves its input, a norm its input and statistics, a softmax its output, and so on. What is frozen saves
less (`Trained`): a linear layer no input, and nothing before the first trained parameter saves anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from minilm.costs.forward_pass import FLOAT32, ForwardPass
from minilm.ledger import components
from minilm.ledger.layout_changes import r
from minilm.ledger.symbols import ONE, ZERO, Polynomial, symbol

B, T, L, V, d, h, g, k, c = (symbol(letter) for letter in "BTLVdhgkc")
N = B * T  # tokens of one forward pass

# Bytes of an element.
STATISTIC = 4  # a mean, a reciprocal standard deviation or a log-sum-exp
INT64 = 8


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


def saved_tensors(forward: ForwardPass) -> Iterator[SavedTensor]:
    """In the order of the forward pass."""
    yield from _embedding(forward)
    if forward.embedding_trained:
        yield from _block(forward, L, flows=True)
    else:
        for tensor in _block(forward, ONE, flows=False):
            yield replace(tensor, where="first block")
        yield from _block(forward, L - ONE, flows=forward.block_trained)
    flows = forward.embedding_trained or forward.block_trained
    if flows or forward.trains(components.FINAL_NORM):
        yield from _norm(forward, N, d, components.FINAL_NORM, ONE, flows=flows)
        flows = True
    yield from _head_and_loss(forward, flows=flows)


def _head_and_loss(forward: ForwardPass, *, flows: bool) -> Iterator[SavedTensor]:
    """``flows``: whether the head's input has a gradient."""
    if forward.loss_in_chunks:
        if flows:
            yield SavedTensor("gradient of the input", components.LM_HEAD, FLOAT32 * N * d)
        if forward.trains(components.LM_HEAD):
            yield SavedTensor("gradient of the matrix", components.LM_HEAD, FLOAT32 * V * d)
    else:
        yield from _linear_inputs(forward, (components.LM_HEAD,), ONE)
        yield from _matrices(forward, {components.LM_HEAD: (d, V)}, ONE, flows=flows)
        if forward.device == "cpu":  # `loss_of_logits`
            yield SavedTensor("gradient of the logits", components.LM_HEAD, forward.width * N * V)
        else:
            yield SavedTensor("log-softmax", components.LM_HEAD, FLOAT32 * N * V)
    yield SavedTensor("number of targets", components.LM_HEAD, FLOAT32 * ONE)


def _block(forward: ForwardPass, repeat: Polynomial, *, flows: bool) -> Iterator[SavedTensor]:
    """What ``repeat`` blocks save. ``flows``: whether their input has a gradient."""
    for tensor in _attention_half(forward, repeat, flows=flows):
        yield replace(tensor, where="block")
    attention = (
        components.CONVOLUTION,
        components.ATTENTION_NORM,
        *_QUERY_KEY_VALUE,
        components.ATTENTION_QK_NORM,
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
    forward: ForwardPass, repeat: Polynomial, *, flows: bool
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
    query, key, value = (flows or forward.reads(each) for each in _QUERY_KEY_VALUE)
    if config.qk_norm:
        trained = forward.trains(components.ATTENTION_QK_NORM)
        for heads, side_flows in ((h, query), (g, key)):
            if side_flows or trained:
                yield from _norm(
                    forward,
                    N * heads,
                    k,
                    components.ATTENTION_QK_NORM,
                    repeat,
                    forward.qk_norm_input,
                    flows=side_flows,
                )
        query, key = query or trained, key or trained
    flows = query or key or value
    if flows:
        yield from _attention(forward, repeat, query, key, value)
    elif forward.reads(components.ATTENTION_OUTPUT):
        size = width * N * forward.query_width
        yield SavedTensor("input", components.ATTENTION_OUTPUT, size, repeat)
    sides = {components.ATTENTION_OUTPUT: (forward.query_width, d)}
    yield from _matrices(forward, sides, repeat, flows=flows, input_bytes=width)
    if config.dropout and (flows or forward.reads(components.ATTENTION_OUTPUT)):
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.ATTENTION_OUTPUT, mask, repeat)


def _feed_forward_half(
    forward: ForwardPass, repeat: Polynomial, *, flows: bool
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
    forward: ForwardPass,
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
        copies = forward.casts(component, repeat)
        if component in _QUERY_KEY_VALUE and forward.joins_projections:
            copies = repeat  # the joined matrix is of a layer alone
        if flows and copies != ZERO:
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


def _embedding(forward: ForwardPass) -> Iterator[SavedTensor]:
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
    # One table for all layers in float32; else queries and keys may each save a cast (below).
    if (
        forward.config.position == "rope"
        and not forward.rotation_is_cast
        and forward.rotation_needed
    ):
        yield SavedTensor("cosines and sines", components.ATTENTION_QUERY, FLOAT32 * T * k)


def _norm(
    forward: ForwardPass,
    rows: Polynomial,
    width: Polynomial,
    component: str,
    repeat: Polynomial,
    input_bytes: int = FLOAT32,
    *,
    flows: bool = True,
) -> Iterator[SavedTensor]:
    """A norm's input of ``rows`` x ``width``, which has a gradient if ``flows``, and its statistics.

    The input is the residual stream unless its ``input_bytes`` an element are given.
    """
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
    forward: ForwardPass, consumers: Sequence[str], repeat: Polynomial
) -> Iterator[SavedTensor]:
    """A norm's output for the linear layers that read it; under autocast each casts its own copy."""
    readers = [component for component in consumers if forward.reads(component)]
    if not readers:
        return
    lora = forward.trained.lora
    is_joined = consumers == _QUERY_KEY_VALUE and forward.joins_projections
    own_copies = (forward.autocast and not is_joined) or (lora is not None and lora.dropout > 0)
    copies = len(readers) if own_copies else 1
    yield SavedTensor("input", readers[0], copies * forward.width * N * d, repeat)


def _attention(
    forward: ForwardPass, repeat: Polynomial, query_flows: bool, key_flows: bool, value_flows: bool
) -> Iterator[SavedTensor]:
    """Which of queries, keys and values have a gradient: a product saves what the other's needs."""
    config, width = forward.config, forward.width
    scores_flow = query_flows or key_flows
    if config.position == "rope" and forward.rotation_is_cast and scores_flow:
        rotation = (query_flows + key_flows) * width * T * k
        yield SavedTensor("cosines and sines", components.ATTENTION_QUERY, rotation, repeat)
    is_one_operation = forward.attention in ("fused", "at once")
    needed = {"queries": key_flows, "keys": query_flows, "values": scores_flow}
    for tensor in _ATTENTION[forward.attention](forward):
        if tensor.name == "input" and not forward.reads(components.ATTENTION_OUTPUT):
            continue
        if tensor.name == "scores":
            count = forward.score_tensors(scores_flow=scores_flow, values_flow=value_flows)
            yield replace(tensor, nbytes=count * tensor.nbytes, repeat=repeat)
        elif is_one_operation or needed.get(tensor.name, True):
            yield replace(tensor, repeat=repeat)


def _explicit_attention(forward: ForwardPass) -> Iterator[SavedTensor]:
    """`explicit_attention`, and the output projection's input."""
    # Merging the batch and head dimensions copies.
    yield from _two_products(forward, forward.repeated_width(copied=forward.batch > 1))


def _attention_at_once(forward: ForwardPass) -> Iterator[SavedTensor]:
    """`attention_at_once`, which repeats no key, and the output projection's input."""
    yield from _two_products(forward, forward.key_width)


def _two_products(forward: ForwardPass, kv_width: Polynomial) -> Iterator[SavedTensor]:
    width = forward.width
    yield SavedTensor("queries", components.ATTENTION_QUERY, width * N * forward.query_width)
    yield SavedTensor("keys", components.ATTENTION_KEY, width * N * kv_width)
    yield SavedTensor("values", components.ATTENTION_VALUE, width * N * kv_width)
    yield SavedTensor("scores", components.ATTENTION_QUERY, width * B * h * T * T)
    yield SavedTensor("input", components.ATTENTION_OUTPUT, width * N * forward.query_width)


def _math_attention(forward: ForwardPass) -> Iterator[SavedTensor]:
    """torch's scaled_dot_product_attention without a fused kernel, which computes in float32."""
    yield SavedTensor("queries", components.ATTENTION_QUERY, FLOAT32 * N * forward.query_width)
    yield SavedTensor("keys", components.ATTENTION_KEY, FLOAT32 * N * forward.query_width)
    values = (
        forward.query_width
        if forward.autocast
        else forward.repeated_width(copied=forward.batch > 1)
    )
    yield SavedTensor("values", components.ATTENTION_VALUE, FLOAT32 * N * values)
    yield SavedTensor("scores", components.ATTENTION_QUERY, FLOAT32 * B * h * T * T)
    yield SavedTensor("input", components.ATTENTION_OUTPUT, forward.width * N * forward.query_width)


def _fused_attention(forward: ForwardPass) -> Iterator[SavedTensor]:
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
    "at once": _attention_at_once,
    "math": _math_attention,
    "fused": _fused_attention,
}


def _feed_forward(
    forward: ForwardPass, repeat: Polynomial, *, flows: bool
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
    if config.dropout and (flows or forward.reads(components.FEED_FORWARD_DOWN)):
        mask = forward.dropout_mask(N * d, width)
        yield SavedTensor("dropout mask", components.FEED_FORWARD_DOWN, mask, repeat)
