"""Peak bytes of live tensors while one of minilm's models generates: those of the pass over the prompt.

The fast decoder holds query, key and value once more, joined to one matrix. Packed matrices are made float32
one after the other for a prompt, and multiplied as they are for few rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilm.config import ModelConfig
from minilm.costs.forward_pass import FLOAT32
from minilm.costs.memory import cache_bytes, hidden_matrices, kv_cache_elements
from minilm.costs.training_step import DEQUANTIZED, INT64, SCALE_GROUPS, loaded_bytes, packed_bytes
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout

# What minilm computes with; NF4, which has no kernel, is made float32 when it is loaded.
PRECISIONS = ("float32", "bfloat16", "int8", "int4", "nf4")
# Up to so many rows are multiplied by packed matrices as they are, by the table in docs/parameters.md.
KERNEL_ROWS = 32
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
    temporary = width * max(_block_elements(config, tokens), batch * config.vocab_size)
    if packed:
        weights = loaded_bytes(layout, precision)
        if tokens > KERNEL_ROWS:
            temporary = max(temporary, _packed_products(config, tokens, precision))
        if precision == "int4":
            temporary = max(temporary, _kernel_operands(config, layout))
        joined = [each for each in hidden_matrices(layout) if each.component in _JOINED]
        temporary += packed_bytes(layout, joined, precision)
    else:
        weights = width * layout.count()
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


def _packed_products(config: ModelConfig, tokens: int, precision: str) -> int:
    """The most bytes while a packed matrix is float32: in the joined product, or in a feed-forward's last."""
    d, f = config.d_model, config.d_feed_forward
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim

    def product(inputs: int, outputs: int) -> int:
        matrix = inputs * outputs
        return max(DEQUANTIZED[precision] * matrix, FLOAT32 * (matrix + tokens * outputs))

    # What the block holds meanwhile is as in `_block_elements`; the activation takes the place of up.
    hidden = (2 if config.gated else 1) * f
    return max(
        FLOAT32 * tokens * 2 * d + product(d, heads),
        FLOAT32 * tokens * (3 * d + hidden) + product(f, d),
    )


def _kernel_operands(config: ModelConfig, layout: Layout) -> int:
    """Codes and scales in the order of the kernel for few rows, which is given int32 ones of a matrix."""
    packed = sum(layout.value(tensor) for tensor in hidden_matrices(layout))
    scales = packed // SCALE_GROUPS["int4"] * 2 * (BITS["bfloat16"] // 8)
    return packed // 2 + scales + 5 * config.d_model * config.d_feed_forward
