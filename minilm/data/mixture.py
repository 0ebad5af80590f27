"""Several texts as one dataset: each row of a batch is of one of them, drawn by their weights.

Which one is a function of seed, step, micro-step and row, as everything in a batch is: a run that is resumed,
or that shares its rows among other processes, has the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.config import TrainConfig
from minilm.data.batches import Batch, batch_random, training_windows
from minilm.data.dataset import Dataset
from minilm.data.token_store import ShardedTokens


@dataclass(frozen=True, kw_only=True)
class Mixture(Dataset):
    """As a text, with its ``parts``, of one tokenizer, and the weight of each.

    ``train`` and ``val`` are those of the parts one after another: of the validation text each part has as
    much as it is long, whatever its weight.
    """

    parts: tuple[Dataset, ...]
    weights: tuple[float, ...]

    @property
    def longest_window(self) -> int:
        return min(part.longest_window for part in self.parts)

    @property
    def description(self) -> dict[str, Any]:
        sources = [
            {
                "source": part.source,
                "weight": weight,
                "train_tokens": part.train_tokens,
                "val_tokens": part.val_tokens,
            }
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return {"mixture": sources}

    def training_batch(
        self,
        config: TrainConfig,
        *,
        step: int,
        micro_step: int,
        rows: int,
        length: int,
        merges: NDArray[np.int64] | None,
    ) -> Batch:
        """Each row: a part by its weight, then any window of that part."""
        random = batch_random(config.seed, step, micro_step)
        bounds = np.cumsum(self.weights) / sum(self.weights)
        chosen = np.searchsorted(bounds, random.random(rows), side="right")
        sizes = np.array([len(part.train) for part in self.parts])
        firsts = np.cumsum(sizes) - sizes
        places = sizes[chosen] - length
        fractions = self.fractions(config, step, micro_step, rows, length)
        if fractions is None:
            starts = firsts[chosen] + random.integers(0, places)
        else:
            starts = firsts[chosen] + (fractions * places).astype(np.int64)
        windows = training_windows(self.train, starts, length, random, merges, config.bpe_dropout)
        return self.batch(windows, rows * length)


def mixed(parts: Sequence[Dataset], weights: Sequence[float], source: str, sha256: str) -> Mixture:
    """The ``parts`` as one dataset, of a text with that ``sha256``."""
    identity = [[part.key for part in parts], list(weights)]
    return Mixture(
        train=ShardedTokens([part.train for part in parts]),
        val=ShardedTokens([part.val for part in parts]),
        tokenizer=parts[0].tokenizer,
        source=source,
        bytes=sum(part.bytes for part in parts),
        sha256=sha256,
        train_bytes=sum(part.train_bytes for part in parts),
        val_bytes=sum(part.val_bytes for part in parts),
        documents=sum(part.documents for part in parts),
        key=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        parts=tuple(parts),
        weights=tuple(weights),
    )
