"""How a tensor of another program is made of ours, and ours of it: numpy alone, a tensor at a time.

Shapes: h heads, k head width, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from minilm.config import ModelConfig
from minilm.formats.tensor_io import Array

Form = Literal["same", "transposed", "joined", "joined_transposed", "by_head"]


@dataclass(frozen=True)
class Piece:
    """One tensor there, ``theirs``, and the tensors here, ``ours``, that it holds.

    ``joined`` puts the rows of ours one below the other; ``transposed`` is (in, out), as GPT-2's Conv1D keeps
    its matrices; ``by_head`` takes query, key and value head by head, as GPT-NeoX does.
    """

    theirs: str
    ours: tuple[str, ...]
    form: Form = "same"

    @property
    def transposed(self) -> bool:
        """Whether theirs is (in, out)."""
        return self.form.endswith("transposed")

    def join(self, parts: Sequence[Array], config: ModelConfig) -> Array:
        """Theirs of ours."""
        if self.form == "by_head":
            shape = (config.num_heads, config.head_dim, *parts[0].shape[1:])
            heads: Array = np.stack([part.reshape(shape) for part in parts], axis=1)  # h 3 k ...
            return heads.reshape(-1, *parts[0].shape[1:])
        whole: Array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.transpose(whole) if self.transposed else whole

    def split(self, whole: Array, rows: Sequence[int], config: ModelConfig) -> list[Array]:
        """Ours of theirs; ``rows`` are the rows of each of ours."""
        if self.form == "by_head":
            shape = (config.num_heads, len(rows), config.head_dim, *whole.shape[1:])
            heads = whole.reshape(shape)
            return [heads[:, i].reshape(-1, *whole.shape[1:]) for i in range(len(rows))]
        whole = np.transpose(whole) if self.transposed else whole
        return np.split(whole, np.cumsum(rows)[:-1].tolist())

    def shape(self, ours: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of theirs, from the shapes of ours."""
        joined = (sum(shape[0] for shape in ours), *ours[0][1:])
        return joined[::-1] if self.transposed else joined


def pieces_of_layers(block: Sequence[Piece], num_layers: int) -> list[Piece]:
    """``block``, with {i} for a layer's number, once for every layer."""
    return [
        Piece(piece.theirs.format(i=i), tuple(name.format(i=i) for name in piece.ours), piece.form)
        for i in range(num_layers)
        for piece in block
    ]
