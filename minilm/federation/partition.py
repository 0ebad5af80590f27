"""One text divided among clients: whole documents where there are enough, else pieces of text.

Legend: n tokens, c clients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minilm.data.conversations import Conversations
from minilm.data.dataset import Dataset
from minilm.data.mixture import Mixture
from minilm.errors import ConfigError, CorpusError

Partition = Literal["random", "contiguous"]

# Of a text with few documents: pieces for each client, enough to make the clients' texts alike.
PIECES = 32


def divide(dataset: Dataset, clients: int, partition: Partition, seed: int) -> list[Dataset]:
    """The training tokens of ``dataset`` in ``clients`` parts of about one size; each keeps their order.

    random: documents, or pieces where there are few, drawn at random, so that the texts are alike.
    contiguous: the text cut into consecutive parts, which differ as far as the text changes along its way.
    Raises ConfigError for a mixture or conversations, CorpusError for a text of fewer documents and pieces
    than clients.
    """
    if isinstance(dataset, (Conversations, Mixture)):
        raise ConfigError("clients", f"given with {dataset.source}", "one text to divide")
    starts = _starts(dataset, clients)
    if len(starts) < clients:
        raise CorpusError(
            dataset.source,
            f"{len(dataset.train):,} training tokens for {clients} clients",
            "at least one for each",
        )
    ends = np.append(starts[1:], len(dataset.train))
    order = np.arange(len(starts))
    if partition == "random":
        order = np.random.default_rng([seed, clients]).permutation(len(starts))
    # Each client gets the pieces whose middle is in its share of the tokens, and at least one.
    sizes = (ends - starts)[order]
    middles = np.cumsum(sizes) - sizes / 2
    owner = (middles * clients / len(dataset.train)).astype(np.int64)
    owner = np.maximum.accumulate(np.minimum(owner, clients - 1))
    for client in range(clients):
        if not (owner == client).any():
            owner = np.arange(len(starts)) * clients // len(starts)
            break
    parts = []
    for client in range(clients):
        own = np.sort(order[owner == client])
        tokens = np.concatenate([dataset.train[starts[k] : ends[k]] for k in own])
        parts.append(
            replace(
                dataset,
                train=tokens,
                train_bytes=dataset.train_bytes * len(tokens) // len(dataset.train),
                documents=len(own),
            )
        )
    return parts


def _starts(dataset: Dataset, clients: int) -> NDArray[np.int64]:
    """Where each document begins, or each piece where there are fewer documents than would mix well."""
    end_of_text = dataset.tokenizer.end_of_text
    if dataset.documents > 1 and end_of_text is not None:
        ends = np.flatnonzero(np.asarray(dataset.train) == end_of_text)
        starts = np.concatenate([[0], ends + 1])
        starts = starts[starts < len(dataset.train)]
        if len(starts) >= clients * PIECES:
            return starts.astype(np.int64)
    pieces = min(len(dataset.train), clients * PIECES)
    return np.arange(pieces) * len(dataset.train) // pieces
