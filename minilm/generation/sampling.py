"""The next token from the logits: greedy, or sampled from the tokens that the settings keep.

The repetition penalty divides a positive and multiplies a negative logit of a token that is in the text
(Keskar et al. 2019, arXiv:1909.05858); temperature divides the logits; top-k keeps the k most likely tokens
(Fan et al. 2018, arXiv:1805.04833); top-p keeps the fewest whose probabilities reach p (Holtzman et al. 2019,
arXiv:1904.09751); min-p keeps those at least p times as likely as the most likely one (Nguyen et al. 2024,
arXiv:2407.01082). In this order, as transformers applies them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minilm.errors import ConfigError, InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled; by default from the whole distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach p."""
    min_p: float = 0.0
    """Keep tokens at least p times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that are in the text already become less likely."""
    seed: int = 0
    """Of the sampling; the second of several texts uses the next seed, and so on."""

    def __post_init__(self) -> None:
        for name, value, valid, expected in (
            (
                "temperature",
                self.temperature,
                0 <= self.temperature < math.inf,
                "at least 0 and finite; 0 is greedy",
            ),
            ("top_k", self.top_k, self.top_k >= 0, "at least 0; 0 keeps every token"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "at least 0 and at most 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                0 < self.repetition_penalty < math.inf,
                "above 0 and finite; 1 is none",
            ),
            ("seed", self.seed, 0 <= self.seed < 2**62, "at least 0 and below 2^62"),
        ):
            if not valid:
                raise ConfigError(name, f"{value}", expected)


def choose(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    sequences: Sequence[Sequence[int]],
) -> list[int]:
    """A token id for each row of logits (b, V) on the CPU; ``sequences`` are the tokens before it.

    Raises InputError for logits of which the largest is not finite.
    """
    if sampling.repetition_penalty != 1:
        logits = _penalize_repetition(logits.double(), sampling.repetition_penalty, sequences)
    # numpy's is several times as fast as torch's; a NaN is the largest in both.
    most_likely = torch.from_numpy(logits.numpy().argmax(axis=-1, keepdims=True))
    largest = logits.gather(-1, most_likely)
    if not all(map(math.isfinite, largest.flatten().tolist())):
        raise InputError("weights", "an output that is not finite", "the weights of a good run")
    if sampling.temperature == 0:
        greedy: list[int] = most_likely.flatten().tolist()
        return greedy
    # The largest becomes 0 first, so that no temperature, however small, overflows it.
    logits = (logits.double() - largest) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        top = logits.topk(sampling.top_k)
        logits = torch.full_like(logits, -math.inf).scatter(-1, top.indices, top.values)
    if sampling.top_p < 1:
        probabilities, order = logits.softmax(dim=-1).sort(descending=True)
        # A token stays while those likelier than it do not yet reach p; the first always stays.
        dropped = probabilities.cumsum(dim=-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
    if sampling.min_p > 0:
        logits = logits.masked_fill(logits < math.log(sampling.min_p), -math.inf)
    probabilities = logits.softmax(dim=-1)
    return [
        int(torch.multinomial(row, 1, generator=generator))
        for row, generator in zip(probabilities, generators, strict=True)
    ]


def _penalize_repetition(
    logits: Tensor, penalty: float, sequences: Sequence[Sequence[int]]
) -> Tensor:
    logits = logits.clone()
    for row, sequence in zip(logits, sequences, strict=True):
        present = torch.tensor(sorted(set(sequence)), dtype=torch.long)
        values = row[present]
        row[present] = torch.where(values > 0, values / penalty, values * penalty)
    return logits
