"""What is kept of the tokens so far, so that a new one is computed alone.

Shapes: b sequences, t tokens, s slots, g key/value heads, k head width, c taps of a convolution, d model
width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.model.rope import rotation

NO_TOKEN = -1


@dataclass(frozen=True)
class Step:
    """Where the tokens of one pass stand: the first of empty sequences, or one more of each.

    ``positions`` are (t,) of the first tokens, else (b,). ``slots`` is where their keys and values go: the
    same for all sequences, or one each, (b,). A query sees the first ``used`` slots, or those of them that
    are ``visible``, (b, 1, 1, s).
    """

    first: bool
    positions: Tensor
    rotation: tuple[Tensor, Tensor] | None
    slots: slice | Tensor
    used: int
    visible: Tensor | None


class BlockCache:
    """One block's keys and values, (b, g, s, k), and the last inputs of its convolution, (b, c, d).

    The slots are a ring: the token at position p is in slot p modulo s. s is the sliding window where there
    is one, so what leaves the window is overwritten.
    """

    def __init__(self, key: Tensor, value: Tensor, recent: Tensor) -> None:
        self.key, self.value, self.recent = key, value, recent

    def keep(self, key: Tensor, value: Tensor, step: Step) -> None:
        """Store ``key`` and ``value``, (b, g, t, k); of more than s tokens the last."""
        slots = step.slots
        for kept, new in ((self.key, key), (self.value, value)):
            s, t = kept.shape[2], new.shape[2]
            if t > s:
                new = new[:, :, -s:].roll(t % s, dims=2)
            if isinstance(slots, slice):
                kept[:, :, slots] = new
            else:
                kept.scatter_(2, slots[:, None, None, None].expand_as(new), new)

    def seen(self, step: Step) -> tuple[Tensor, Tensor]:
        """Keys and values that a next token looks at."""
        return self.key[:, :, : step.used], self.value[:, :, : step.used]


class Cache:
    """The state of b sequences of at most ``size`` tokens, all of it allocated at once."""

    def __init__(
        self,
        config: ModelConfig,
        sequences: int,
        *,
        size: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        fixed_shapes: bool = False,
    ) -> None:
        """``size`` is the context length unless given; ``fixed_shapes`` is for graphs that are replayed."""
        self.size = config.context_length if size is None else size
        self.fixed_shapes = fixed_shapes
        slots = min(self.size, config.sliding_window or self.size)
        shape = (config.num_layers, sequences, config.num_kv_heads, slots, config.head_dim)
        key, value = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        inputs = (config.num_layers, sequences, config.convolution, config.d_model)
        recent = torch.zeros(inputs, device=device, dtype=dtype)
        self.blocks = [BlockCache(*parts) for parts in zip(key, value, recent, strict=True)]
        # The last tokens, as far as the longest n-gram reaches back.
        self.tokens = torch.full((sequences, config.ngram - 1), NO_TOKEN, device=device)
        # Tokens kept of each sequence.
        self.lengths = [0] * sequences
        self._device = torch.device(device)
        self._angles = None
        if config.position == "rope":
            cosine, sine = rotation(self.size, config, self._device)
            self._angles = cosine.to(dtype), sine.to(dtype)

    def tensors(self) -> list[Tensor]:
        """All that is written to."""
        return [
            self.tokens,
            *(part for block in self.blocks for part in (block.key, block.value, block.recent)),
        ]

    def of_row(self, row: int) -> Cache:
        """One of the sequences, as a cache that shares this one's memory; its length is its own."""
        part, single = slice(row, row + 1), copy.copy(self)
        single.fixed_shapes = False
        single.blocks = [
            BlockCache(each.key[part], each.value[part], each.recent[part]) for each in self.blocks
        ]
        single.tokens, single.lengths = self.tokens[part], self.lengths[part]
        return single

    def keep_rows(self, rows: list[int]) -> None:
        """Let the other sequences go."""
        for block in self.blocks:
            block.key, block.value = block.key[rows], block.value[rows]
            block.recent = block.recent[rows]
        self.tokens, self.lengths = self.tokens[rows], [self.lengths[row] for row in rows]

    def clear(self) -> None:
        """Back to no tokens."""
        self.lengths = [0] * len(self.lengths)
        self.tokens.fill_(NO_TOKEN)
        for block in self.blocks:
            block.recent.zero_()

    def first_step(self, t: int) -> Step:
        """The first ``t`` tokens of each sequence."""
        assert t <= self.size, f"{t} tokens exceed the {self.size} kept"
        used = min(t, self.blocks[0].key.shape[2])
        positions = torch.arange(t, device=self._device)
        return Step(True, positions, self._turned(positions), slice(0, used), used, None)

    def next_step(self) -> Step:
        """One more token of each sequence."""
        slots, longest = self.blocks[0].key.shape[2], max(self.lengths)
        assert longest < self.size, f"{longest} tokens fill the {self.size} kept"
        alike = min(self.lengths) == longest
        positions = torch.tensor(self.lengths, device=self._device)
        used = slots if self.fixed_shapes else min(longest + 1, slots)
        visible = None
        if self.fixed_shapes or not alike:
            visible = torch.arange(used, device=self._device) <= positions[:, None]
            visible = visible[:, None, None]  # b 1 1 s
        turned = self._turned(positions[:, None, None])  # b 1 1 k/2
        where: slice | Tensor = positions % slots
        if alike and not self.fixed_shapes:
            where = slice(longest % slots, longest % slots + 1)
        return Step(False, positions, turned, where, used, visible)

    def advance(self, t: int) -> None:
        """Count ``t`` more tokens in each sequence: the end of a pass."""
        self.lengths = [length + t for length in self.lengths]

    def _turned(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        if self._angles is None:
            return None
        cosine, sine = self._angles
        return cosine[positions], sine[positions]
