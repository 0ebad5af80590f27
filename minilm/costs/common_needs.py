"""What inference, LoRA and training of any architecture need in other programs: estimates of common practice.

On several cards, inference has an equal share of the layers on each, which work one after the other:
weights and KV cache are divided, activations are not. Training shards everything (ZeRO stage 3, PyTorch's
fully_shard): weights and states are divided, one layer's weights are gathered at a time, and each card has
its share of the sequences.
"""

from __future__ import annotations

from collections.abc import Iterator

from minilm.costs.activation_estimate import FLOAT32, estimate
from minilm.costs.gguf_types import FILE_TYPES, gguf_bytes
from minilm.costs.memory import FULL_TRAINING, LORA_BASES, lora_state, stored_bytes, training_state
from minilm.costs.memory_need import Need, cache_need
from minilm.dtypes import BITS
from minilm.ledger.layout import Layout

# Inference engines prefill a long prompt in chunks of a few thousand tokens.
PREFILL_TOKENS = 2048

AS_STORED = "as stored"
INFERENCE = ("float32", "bfloat16", "fp8", "int8", "int4")


def common_needs(
    layout: Layout, cards: int, rank: int, cache_dtype: str | None, stored: int | None
) -> Iterator[Need]:
    """In the order inference, LoRA, training; ``stored`` are the bytes of the model's file."""
    weights = {} if stored is None else {AS_STORED: stored}
    weights |= {precision: stored_bytes(layout, precision) for precision in INFERENCE}
    weights |= {file_type: gguf_bytes(layout, file_type) for file_type in FILE_TYPES}
    for precision, size in weights.items():
        yield _inference(layout, precision, size, cards, cache_dtype)
    if estimate(layout) is None:
        return
    for base in LORA_BASES:
        state = lora_state(layout, base, rank=rank)
        yield _training(layout, f"lora_{base}", state, cards, checkpointing=True, lora_rank=rank)
    for checkpointing in (False, True):
        for variant in FULL_TRAINING:
            state = training_state(layout, variant)
            yield _training(layout, variant, state, cards, checkpointing=checkpointing)


def _inference(
    layout: Layout, precision: str, weights: int, cards: int, cache_dtype: str | None
) -> Need:
    """Weights, KV cache, one block's activations on a prefill chunk, and the next token's logits.

    Arithmetic is in float32 for float32 weights, else in bfloat16; so is the cache unless given.
    """
    dtype = "float32" if weights >= FLOAT32 * layout.count() else "bfloat16"
    per_token = estimate(layout, dtype=dtype)
    block = -(-per_token.blocks // per_token.num_layers) if per_token else 0
    cached = cache_dtype or dtype

    def activations(context: int, batch: int) -> int:
        logits = FLOAT32 * batch * layout.symbols.get("V", 0)
        return min(batch * context, PREFILL_TOKENS) * block + logits

    return Need(
        use="inference",
        precision=precision,
        checkpointing=False,
        cards=cards,
        weights=weights,
        cache=cache_need(layout, cached),
        activations=activations,
        cache_dtype=cached,
    )


def _training(
    layout: Layout,
    variant: str,
    state: dict[str, int],
    cards: int,
    *,
    checkpointing: bool,
    lora_rank: int = 0,
) -> Need:
    """Training state, saved activations, and the logits with their gradient, where they peak."""
    dtype = "bfloat16" if lora_rank else variant.split("_")[1]
    per_token = estimate(layout, dtype=dtype)
    assert per_token is not None
    saved_bytes = per_token.checkpointed if checkpointing else per_token.total
    loss = (BITS[dtype] // 8 + FLOAT32) * layout.symbols.get("V", 0)
    distinct_layers = layout.symbols.get("S", per_token.num_layers)

    def activations(context: int, batch: int) -> int:
        return saved_bytes(batch * context) + loss * batch * context

    return Need(
        use="LoRA" if lora_rank else "training",
        precision=variant,
        checkpointing=checkpointing,
        cards=cards,
        weights=state["weights"],
        states=state["total"] - state["weights"],
        gathered=-(-state["weights"] // distinct_layers) if cards > 1 else 0,
        activations=activations,
        batch_is_divided=True,
        lora_rank=lora_rank,
    )
