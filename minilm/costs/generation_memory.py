"""Peak bytes of live tensors while one of minilm's models generates: those of the pass over the prompt.

Float weights run through the fast decoder, which holds query, key and value once more, joined to one matrix;
packed ones through the modules, which compute the logits of every token of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilm.config import ModelConfig
from minilm.costs.forward_pass import FLOAT32
from minilm.costs.memory import cache_bytes, hidden_matrices, kv_cache_elements
from minilm.costs.training_step import DEQUANTIZED, INT64, SCALE_GROUPS, loaded_bytes
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout

# What minilm computes with; NF4, which has no kernel, is made float32 when it is loaded.
PRECISIONS = ("float32", "bfloat16", "int8", "int4", "nf4")
_JOINED = (components.ATTENTION_QUERY, components.ATTENTION_KEY, components.ATTENTION_VALUE)


@dataclass(frozen=True)
class GenerationMemory:
    """Bytes of weights, of the KV cache, and of everything else: joined matrices, intermediate results."""

    weights: int
    kv_cache: int
    temporary: int

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.weights + self.kv_cache + self.temporary


def generation_memory(
    config: ModelConfig, layout: Layout, *, batch: int, context: int, precision: str = "float32"
) -> GenerationMemory:
    """For ``batch`` prompts of nearly ``context`` tokens, the cache's size, in one of `PRECISIONS`."""
    packed = precision in ("int8", "int4")
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    width, tokens = BITS[dtype] // 8, batch * context
    if packed:
        weights = loaded_bytes(layout, precision)
        temporary = _through_modules(config, tokens, precision)
        if precision == "int4":
            temporary = max(temporary, _kernel_operands(config, layout))
    else:
        weights = width * layout.count()
        temporary = width * max(_block_elements(config, tokens), batch * config.vocab_size)
        temporary += width * layout.count(components=_JOINED)
    # Tokens, their positions, cosines and sines.
    index = 3 * INT64 * tokens
    if config.position == "rope":
        index += FLOAT32 * context * config.rotary_dim + width * tokens * config.rotary_dim
    elements = kv_cache_elements(layout, context=context, batch=batch)
    return GenerationMemory(weights, cache_bytes(elements, dtype), temporary + index)


def _block_elements(config: ModelConfig, tokens: int) -> int:
    """The most elements at a time in a block of the fast decoder: in attention or in the feed-forward."""
    d, f = config.d_model, config.d_feed_forward
    queries, keys = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
    # Its input, the norm's output, the joined product, rotated queries; keys and values as the cache gives
    # them, and repeated for every head.
    attention = 2 * d + (queries + 2 * keys) + queries + 2 * keys + 2 * queries
    # Its input, attention's sum with it, the norm's output; up, and gate before and after.
    feed_forward = 3 * d + (4 if config.gated else 2) * f
    return tokens * max(attention, feed_forward)


def _through_modules(config: ModelConfig, tokens: int, precision: str) -> int:
    """The most bytes at a time: in the last product of a feed-forward, or at the logits of all tokens."""
    d, f = config.d_model, config.d_feed_forward
    # The block's input, attention's output and the sum; the norm's output.
    stream = FLOAT32 * tokens * 4 * d
    hidden = FLOAT32 * tokens * f
    biased = 2 if config.feed_forward_bias else 1
    product = FLOAT32 * tokens * d
    matrix = max(DEQUANTIZED[precision] * d * f, FLOAT32 * d * f + product, biased * product)
    # Up and gate are there until the end, the gate's activation is not.
    activation, down = (4, 3) if config.gated else (2, 2)
    feed_forward = stream + max(activation * hidden, down * hidden + matrix)
    return max(feed_forward, FLOAT32 * tokens * (config.vocab_size + 2 * d))


def _kernel_operands(config: ModelConfig, layout: Layout) -> int:
    """Codes and scales in the order of the kernel for few rows, which is given int32 ones of a matrix."""
    packed = sum(layout.value(tensor) for tensor in hidden_matrices(layout))
    scales = packed // SCALE_GROUPS["int4"] * 2 * (BITS["bfloat16"] // 8)
    return packed // 2 + scales + 5 * config.d_model * config.d_feed_forward
