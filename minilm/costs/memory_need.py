"""The bytes that one use of a model needs on each of several cards, by context and batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minilm.costs.memory import cache_bytes, kv_cache_elements, state_bytes
from minilm.ledger.layout import Layout

# CUDA's context, kernels and cuBLAS workspaces take 0.3 to 0.6 GiB, depending on card and driver.
CONTEXT_BYTES = 2**29
# Python, torch and minilm, imported: 0.23 GiB resident.
PROCESS_BYTES = 2**28
# The caching allocator rounds sizes up and leaves gaps: a fraction of 1 / FRAGMENTATION is added.
# (For the same reasons vLLM uses 0.9 of a card by default.)
FRAGMENTATION = 20


@dataclass(frozen=True, kw_only=True)
class Need:
    """A use's bytes in all: fixed ones, and cache and activations as functions of (context, batch).

    ``gathered`` are what a card holds of the others' weights at a time. ``batch_is_divided`` says that the
    cards work on different sequences.
    """

    use: str
    precision: str
    checkpointing: bool
    cards: int
    weights: int
    states: int = 0
    gathered: int = 0
    cache: Callable[[int, int], int] = lambda context, batch: 0
    activations: Callable[[int, int], int]
    batch_is_divided: bool = False
    cache_dtype: str = ""
    lora_rank: int = 0
    device: str = "cuda"
    own: bool = False

    @property
    def row(self) -> tuple[str, str, bool]:
        """What stands for it in a table."""
        return self.use, self.precision, self.checkpointing

    def on_each_card(self, context: int, batch: int) -> dict[str, int]:
        """Bytes of weights, states, kv_cache, activations and overhead on one card."""

        def share(total: int) -> int:
            return -(-total // self.cards)

        sizes = {
            "weights": share(self.weights) + self.gathered,
            "states": share(self.states),
            "kv_cache": share(self.cache(context, batch)),
            "activations": self.activations(
                context, share(batch) if self.batch_is_divided else batch
            ),
        }
        return {**sizes, "overhead": overhead_bytes(sum(sizes.values()), self.device)}

    def required(self, context: int, batch: int) -> int:
        """Bytes in all on one card."""
        return sum(self.on_each_card(context, batch).values())


def overhead_bytes(tensors: int, device: str = "cuda") -> int:
    """Bytes of a device's memory that a process needs besides its ``tensors`` bytes of tensors."""
    fixed = PROCESS_BYTES if device == "cpu" else CONTEXT_BYTES
    return fixed + -(-tensors // FRAGMENTATION)


def cache_need(layout: Layout, dtype: str) -> Callable[[int, int], int]:
    """Bytes of the KV cache in ``dtype``, and of a recurrent state, for (context, batch)."""

    def cache(context: int, batch: int) -> int:
        keys_values = kv_cache_elements(layout, context=context, batch=batch)
        return cache_bytes(keys_values, dtype) + state_bytes(layout, batch=batch)

    return cache
