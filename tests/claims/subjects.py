"""Small models whose effects are planted by hand, as the subjects of claims.

A bigram model: each of V tokens has one that follows it. Embedding and head make a table of it, through a
basis: with the unit vectors each entry of the table is one parameter, with a random basis it is spread over
all. Both compute the same. The blocks compute nothing, until something is planted in them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from minilm.claims.subject import Subject, unigram_losses
from minilm.claims.trials import Blocks
from minilm.config import ModelConfig
from minilm.model.transformer import Transformer

V, T, BLOCKS = 256, 8, 30
SURPRISE = 0.1  # of the tokens follow no rule


def successors() -> NDArray[np.int64]:
    """Of each token the one that follows it: one circle through all."""
    order = np.random.default_rng(0).permutation(V)
    following = np.empty(V, np.int64)
    following[order] = np.roll(order, -1)
    return following


def bigram_text(tokens: int, seed: int) -> NDArray[np.int64]:
    """A text of these pairs, with surprises."""
    random = np.random.default_rng(seed)
    following, text = successors(), np.empty(tokens, np.int64)
    text[0] = 0
    surprises = random.random(tokens) < SURPRISE
    drawn = random.integers(0, V, tokens)
    for place in range(1, tokens):
        text[place] = drawn[place] if surprises[place] else following[text[place - 1]]
    return text


def phrases(seed: int, repeats: int = 4) -> NDArray[np.int64]:
    """Each token several times after two of its own, and what follows it: facts of three and one."""
    random = np.random.default_rng(seed)
    before = random.integers(0, V, (V, 2))
    return np.concatenate(
        [
            [*random.integers(0, V, T), *before[token], token, successors()[token]]
            for token in random.permutation(np.repeat(np.arange(V), repeats))
        ]
    )


def bigram_model(basis: Literal["units", "random"], **fields: Any) -> Transformer:
    """The table of `successors` as a model, sure of each."""
    config = ModelConfig(
        **{"vocab_size": V, "context_length": T, "num_layers": 1, "d_model": V, "num_heads": 2}
        | {"d_feed_forward": 16, "norm": "rmsnorm", "qkv_bias": False, "norm_bias": False}
        | {"attention_output_bias": False, "feed_forward_bias": False}
        | {"output_initialization": "zero", "tied_embeddings": False}
        | fields
    )
    model = Transformer(config)
    rotation = torch.eye(V)
    if basis == "random":
        normal = torch.empty(V, V).normal_(generator=torch.Generator().manual_seed(1))
        rotation = torch.linalg.qr(normal).Q
    table = torch.zeros(V, V)
    following = torch.from_numpy(successors())
    table[following, torch.arange(V)] = 1
    table[following.roll(1), torch.arange(V)] = (
        0.2  # a rival, which comes first without the entry above
    )
    with torch.no_grad():
        model.embedding.token.weight.copy_(
            rotation * V**0.5
        )  # a norm of the width: RMSNorm keeps it
        model.lm_head.weight.copy_(table @ rotation * 10 / V**0.5)
    return model


def subject_of(model: Transformer, text: NDArray[np.int64] | None = None, **fields: Any) -> Subject:
    """The model with blocks of a bigram text, and facts in ``text``."""
    tokens = torch.from_numpy(bigram_text(2 * BLOCKS * T + 1, seed=1))
    inputs, targets = tokens[:-1].view(-1, T), tokens[1:].view(-1, T)
    blocks = Blocks(inputs[:BLOCKS], targets[:BLOCKS])
    return Subject(
        model=model,
        blocks=blocks,
        pilot=Blocks(inputs[BLOCKS:], targets[BLOCKS:]),
        text=(phrases(2) if text is None else text).astype(np.uint16),
        unigram=unigram_losses(blocks, np.ones(V, np.int64)),
        **fields,
    )


def planted_pairs(model: Transformer, constant: float, pairs: int = 1) -> Transformer:
    """Hidden units in pairs that compute the same and write it with opposite signs, ``constant`` large.

    The function stays; without one unit of a pair it breaks.
    """
    feed_forward = model.blocks[0].feed_forward
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for number in range(pairs):
            units = slice(2 * number, 2 * number + 2)
            feed_forward.up.weight[units] = torch.empty(V).normal_(generator=random)
            out = torch.empty(V).normal_(generator=random) * constant
            feed_forward.down.weight[:, units] = torch.stack((out, -out), dim=1)
    return model
