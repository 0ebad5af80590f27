"""A corpus as tokens in two splits, and the batches of it.

Legend: b rows of t tokens each, n tokens of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.config import TrainConfig
from minilm.data.batches import (
    IGNORED,
    Batch,
    Windows,
    document_positions,
    even_fractions,
    training_batch,
    validation_windows,
    window_starts,
)
from minilm.data.token_store import Tokens
from minilm.errors import ConfigError
from minilm.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Dataset:
    """A corpus as tokens. ``train`` and ``val``, (n,) each, are memory-mapped and read-only.

    ``bytes`` and ``sha256`` are of the raw text; ``train_bytes`` and ``val_bytes`` count the
    cleaned text of each split as UTF-8, the separators between ``documents`` left out. ``key`` is
    that of its entry in the cache, for `find`. With ``document_attention`` a batch has the positions by
    which a token sees only its own document.
    """

    train: Tokens
    val: Tokens
    tokenizer: Tokenizer
    source: str
    bytes: int
    sha256: str
    train_bytes: int
    val_bytes: int
    documents: int
    key: str = ""
    document_attention: bool = False

    @property
    def train_tokens(self) -> int:
        return len(self.train)

    @property
    def val_tokens(self) -> int:
        return len(self.val)

    @property
    def longest_window(self) -> int:
        """The tokens of training text that a row and its last target are drawn from."""
        return len(self.train)

    @property
    def train_places(self) -> int:
        """What a model is given to see the training part once."""
        return len(self.train)

    @property
    def val_places(self) -> int:
        """What it is given in an evaluation over the whole split."""
        return len(self.val) - 1

    @property
    def val_labels(self) -> int:
        """The targets that an evaluation over the whole split is the mean of."""
        return len(self.val) - 1

    @property
    def description(self) -> dict[str, Any]:
        """What there is to say in summary.json beside the sizes."""
        return {}

    def row_length(self, context_length: int) -> int:
        """Tokens of a row of a batch, at most the model's ``context_length``."""
        return context_length

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
        """The batch of that pass of the step after ``step`` finished ones; bpe_dropout undoes ``merges``."""
        windows = training_batch(
            self.train,
            context_length=length,
            batch_size=rows,
            seed=config.seed,
            step=step,
            micro_step=micro_step,
            fractions=self.fractions(config, step, micro_step, rows, length),
            merges=merges,
            undo_probability=config.bpe_dropout,
        )
        return self.batch(windows, rows * length)

    def fractions(
        self, config: TrainConfig, step: int, micro_step: int, rows: int, length: int
    ) -> NDArray[np.float64] | None:
        """Where in the text the rows of a batch begin, (rows,) in [0, 1); None: anywhere."""
        if config.windows == "random":
            return None
        passes = step * config.gradient_accumulation + micro_step
        return even_fractions(config.seed, passes, rows, length)

    def batch(self, windows: Windows, tokens: int) -> Batch:
        """Inputs and targets, (b, t) each, with the positions of their documents where these matter."""
        end = self.tokenizer.end_of_text
        if not self.document_attention or end is None:
            return Batch(windows, tokens)
        return Batch((*windows, document_positions(windows[0], end)), tokens)

    def num_validation_rows(self, length: int, at_most: int) -> int:
        """How many rows of ``length`` an evaluation of ``at_most`` tokens (0: of all) has."""
        return len(window_starts(len(self.val), context_length=length, at_most=at_most))

    def validation_batches(self, length: int, rows: int, at_most: int) -> Iterator[Batch]:
        """These rows, in batches of one shape."""
        for windows in validation_windows(
            self.val, context_length=length, batch_size=rows, at_most=at_most
        ):
            yield self.batch(windows, int((windows[1] != IGNORED).sum()))


def with_document_attention(dataset: Dataset, config: TrainConfig) -> Dataset:
    """``dataset`` with batches as ``config`` says. Raises ConfigError where nothing ends a document."""
    if not config.document_attention:
        return dataset
    if dataset.documents < 2 or dataset.tokenizer.end_of_text is None:
        single = dataset.documents < 2
        raise ConfigError(
            "document_attention",
            "true with one document" if single else "true with a tokenizer without end of text",
            "several documents, with a token between them",
        )
    return replace(dataset, document_attention=True)
