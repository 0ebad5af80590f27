"""Activations of minilm's own model: the bytes that a forward pass saves for the backward pass.

The tensors are declared in saved_tensors.py. `minilm.inspection.activation_check` measures the same on a
running module; other architectures are estimated in activation_estimate.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.config import ModelConfig
from minilm.costs.forward_pass import FLOAT32, ForwardPass
from minilm.costs.saved_tensors import L, N, SavedTensor, d, saved_tensors
from minilm.costs.trained import Trained
from minilm.ledger.symbols import ASCII, ZERO, Polynomial, format_polynomial


def activations(
    config: ModelConfig,
    *,
    batch: int,
    context: int,
    dtype: str = "float32",
    device: str = "cpu",
    trained: Trained | None = None,
    gathered: bool = False,
    explicit_up_to: int | None = None,
) -> Activations:
    """What an eager forward pass of `minilm.training` saves for ``batch`` x ``context`` tokens.

    ``dtype`` other than float32 is autocast, which saves a cast copy of every matrix; not of those that
    fully_shard ``gathered`` in that dtype, all in the blocks. Exact on a CPU, but for partial RoPE and a
    parallel residual, which are estimates; so is CUDA, where the fused kernels decide what to save (read from
    their derivatives, without padding). ``trained`` is by default everything. On a CPU, attention is explicit
    for rows of ``explicit_up_to`` tokens, as a run may have measured it; by default by rule.
    """
    trained = trained or Trained()
    forward = ForwardPass(
        config,
        batch,
        context,
        dtype,
        device,
        trained,
        gathered=gathered,
        explicit_up_to=explicit_up_to,
    )
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
        tuple(saved_tensors(forward)),
        symbols,
        block_input=FLOAT32 * N * d,
        attention=forward.attention,
        loss_in_chunks=forward.loss_in_chunks,
        dtype=dtype,
        exact=exact,
    )


@dataclass(frozen=True)
class Activations:
    """The tensors saved for ``B`` sequences of ``T`` tokens; ``block_input`` is in bytes.

    ``attention`` is one of `ForwardPass.attention`; ``loss_in_chunks`` is its own.
    """

    saved: tuple[SavedTensor, ...]
    symbols: Mapping[str, int]
    block_input: Polynomial
    attention: str
    loss_in_chunks: bool
    dtype: str
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

    def to_dict(self) -> dict[str, Any]:
        """The numbers, with a report's keys."""
        return {
            "basis": "exact" if self.exact else "estimate",
            "batch": self.symbols["B"],
            "context": self.symbols["T"],
            "dtype": self.dtype,
            "saved": self.total(),
            "checkpointed": self.checkpointed(),
            "formula": self.formula(),
            "symbols": self.formula_symbols(),
            "components": self.by_component(),
        }


def _sum(saved: tuple[SavedTensor, ...]) -> Polynomial:
    return sum((tensor.nbytes * tensor.repeat for tensor in saved), ZERO)
