"""Keys, values and other inputs of past tokens, so that a forward pass computes new tokens alone.

Shapes: b sequences, t new tokens, s slots, n keys that a query can see, g key/value heads, k head width,
c taps of a convolution, d model width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.model.rope import rotation

NO_TOKEN = -1  # before the first token of a text, as n-grams see it


@dataclass(frozen=True)
class Positions:
    """Where the new tokens of one pass stand, and which keys they see.

    ``index``: (b, t), the position of each token in its sequence. ``rotation``: cosines and sines of RoPE
    there, (b, 1, t, rotary_dim / 2), or None. ``slots``: where their keys and values are stored, the same for
    all sequences or (b, t). ``used``: how many slots are read. ``first``: the sequences were empty, and the
    tokens see each other causally. Otherwise ``mask`` is true where a query sees a key, (b, 1, t, n); None:
    everywhere. Both are for a sliding ``window``, or 0. Documents that share a row have no slots
    (`packed_positions`): their ``mask`` is over the row itself.
    """

    index: Tensor
    rotation: tuple[Tensor, Tensor] | None
    slots: slice | Tensor
    used: int
    first: bool
    mask: Tensor | None
    window: int


class BlockKVCache:
    """One layer's keys and values, (b, g, s, k), and the last inputs of its convolution, (b, c, d).

    The slots are a ring: the token at position p is in slot p modulo s. s is the sliding window where there
    is one, so what leaves the window is overwritten.
    """

    def __init__(self, key: Tensor, value: Tensor, convolution_inputs: Tensor) -> None:
        self.key, self.value, self.convolution_inputs = key, value, convolution_inputs

    def update(self, key: Tensor, value: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Store keys and values of t new tokens, (b, g, t, k); all that their queries see, (b, g, n, k)."""
        used = positions.used
        if key.shape[2] == 1:
            self._store(key, value, positions.slots)
            return self.key[:, :, :used], self.value[:, :, :used]
        # Several tokens may overwrite what the first of them still see: read first.
        keys_and_values = (
            torch.cat((self.key[:, :, :used], key), dim=2),
            torch.cat((self.value[:, :, :used], value), dim=2),
        )
        self._store(key, value, positions.slots)
        return keys_and_values

    def extend_inputs(self, x: Tensor) -> Tensor:
        """(b, t, d) -> (b, c + t, d): the convolution's last inputs, which are replaced, and the new ones."""
        inputs = torch.cat((self.convolution_inputs, x), dim=1)
        self.convolution_inputs.copy_(inputs[:, x.shape[1] :])
        return inputs

    def select(self, rows: list[int]) -> None:
        """Keep these sequences only."""
        self.key, self.value = self.key[rows], self.value[rows]
        self.convolution_inputs = self.convolution_inputs[rows]

    def row(self, row: int) -> BlockKVCache:
        """One of the sequences, in the same memory."""
        part = slice(row, row + 1)
        return BlockKVCache(self.key[part], self.value[part], self.convolution_inputs[part])

    def _store(self, key: Tensor, value: Tensor, slots: slice | Tensor) -> None:
        for stored, new in ((self.key, key), (self.value, value)):
            if isinstance(slots, slice):
                stored[:, :, slots] = new
            else:
                new = new[:, :, -slots.shape[1] :]  # of more than s tokens the last
                stored.scatter_(2, slots[:, None, :, None].expand_as(new), new)


class KVCache:
    """The state of b sequences of at most ``max_length`` tokens, all of it allocated at once.

    It is written in place, without gradients: for use under `torch.no_grad()`.
    """

    def __init__(
        self,
        config: ModelConfig,
        sequences: int,
        *,
        max_length: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        fixed_shapes: bool = False,
    ) -> None:
        """``max_length`` is the context length unless given.

        With ``fixed_shapes`` the pass of one token reads all slots, whatever is in them, so that a captured
        graph can be replayed.
        """
        self.max_length = config.context_length if max_length is None else max_length
        self.window, self.fixed_shapes = config.sliding_window, fixed_shapes
        slots = min(self.max_length, self.window or self.max_length)
        shape = (config.num_layers, sequences, config.num_kv_heads, slots, config.head_dim)
        key, value = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        inputs_shape = (config.num_layers, sequences, config.convolution, config.d_model)
        inputs = torch.zeros(inputs_shape, device=device, dtype=dtype)
        self.blocks = [BlockKVCache(*tensors) for tensors in zip(key, value, inputs, strict=True)]
        # The last tokens, as far as the longest n-gram reaches back.
        self.previous_tokens = torch.full((sequences, config.ngram - 1), NO_TOKEN, device=device)
        # Tokens of each sequence so far.
        self.lengths = [0] * sequences
        self._device = torch.device(device)
        self._rotation = None
        if config.position == "rope":
            cosine, sine = rotation(self.max_length, config, self._device)
            self._rotation = cosine.to(dtype), sine.to(dtype)

    def tensors(self) -> list[Tensor]:
        """Every tensor that a pass writes to."""
        return [
            self.previous_tokens,
            *(
                tensor
                for block in self.blocks
                for tensor in (block.key, block.value, block.convolution_inputs)
            ),
        ]

    def row(self, row: int) -> KVCache:
        """One of the sequences, as a cache in the same memory; its length is its own."""
        single = copy.copy(self)
        single.fixed_shapes = False
        single.blocks = [block.row(row) for block in self.blocks]
        single.previous_tokens = self.previous_tokens[row : row + 1]
        single.lengths = self.lengths[row : row + 1]
        return single

    def select(self, rows: list[int]) -> None:
        """Keep these sequences only."""
        for block in self.blocks:
            block.select(rows)
        self.previous_tokens = self.previous_tokens[rows]
        self.lengths = [self.lengths[row] for row in rows]

    def clear(self) -> None:
        """Back to no tokens."""
        self.lengths = [0] * len(self.lengths)
        self.previous_tokens.fill_(NO_TOKEN)
        for block in self.blocks:
            block.convolution_inputs.zero_()

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first ``length`` of each sequence, or all where the last ones matter.

        They do to a convolution and to n-grams, and past a sliding window the first are overwritten.
        """
        if self.forgets_exactly(max(self.lengths)):
            self.lengths = [length] * len(self.lengths)
        else:
            self.clear()

    def forgets_exactly(self, length: int) -> bool:
        """Whether the last tokens of so many can be forgotten, as if they had never been there."""
        inputs = self.blocks[0].convolution_inputs.shape[1] + self.previous_tokens.shape[1]
        return not inputs and length <= self.blocks[0].key.shape[2]

    def check_room(self, t: int) -> None:
        """AssertionError where ``t`` more tokens are too many."""
        longest = max(self.lengths)
        assert longest + t <= self.max_length, (
            f"{longest} tokens and {t} exceed the {self.max_length} of the cache"
        )

    def next_positions(self, t: int, on_device: Tensor | None = None) -> Positions:
        """Those of the next ``t`` tokens of each sequence.

        ``on_device``: (b), the lengths so far, where a captured graph is to read them.
        """
        self.check_room(t)
        slots, longest = self.blocks[0].key.shape[2], max(self.lengths)
        fixed = self.fixed_shapes and t == 1
        equal = min(self.lengths) == longest
        if on_device is None:
            on_device = torch.tensor(self.lengths, device=self._device)
        lengths = on_device[:, None]
        index = lengths if t == 1 else lengths + torch.arange(t, device=self._device)  # b t
        # One token is stored before it reads, several are appended to what they read: see `update`.
        used = slots if fixed else min(longest + (t == 1), slots)
        start = longest % slots
        contiguous = equal and not fixed and start + t <= slots
        first = longest == 0 and not fixed
        mask = None
        if t > 1 and not first:
            mask = self._mask(lengths, index, used)
        elif fixed or not equal:
            mask = torch.arange(used, device=self._device) <= index[:, :, None]  # b t n
        return Positions(
            index=index,
            rotation=self._rotation_at(index),
            slots=slice(start, start + t) if contiguous else index[:, -slots:] % slots,
            used=used,
            first=first,
            mask=None if mask is None else mask[:, None],  # b t n -> b 1 t n
            window=self.window,
        )

    def extend_tokens(self, tokens: Tensor) -> Tensor:
        """(b, t) -> (b, ngram - 1 + t): the last tokens, which are replaced, and the new ones."""
        extended = torch.cat((self.previous_tokens, tokens), dim=1)
        self.previous_tokens.copy_(extended[:, tokens.shape[1] :])
        return extended

    def advance(self, t: int) -> None:
        """Count ``t`` more tokens in each sequence: the end of a pass."""
        self.lengths = [length + t for length in self.lengths]

    def _mask(self, lengths: Tensor, index: Tensor, used: int) -> Tensor:
        """(b, t, used + t), true where a new token sees a slot or, after those, a new token."""
        slots = self.blocks[0].key.shape[2]
        slot = torch.arange(used, device=self._device)
        last = lengths - 1
        stored = (
            last - (last - slot) % slots
        )  # the newest position of each slot; negative: none yet
        keys = torch.cat((stored, index), dim=1)[:, None]  # b 1 n
        queries = index[:, :, None]  # b t 1
        visible = (keys >= 0) & (keys <= queries)
        return visible & (queries - keys < self.window) if self.window else visible

    def _rotation_at(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        if self._rotation is None:
            return None
        cosine, sine = self._rotation
        index = index[:, None]  # b 1 t
        return F.embedding(index, cosine), F.embedding(index, sine)  # b 1 t rotary_dim/2
