"""Which token comes next, from the logits: greedy, or drawn from what the settings leave.

The repetition penalty divides a positive and multiplies a negative logit of a token that is in the text
(Keskar et al. 2019, arXiv:1909.05858); temperature divides the logits; top-k keeps the k likeliest tokens
(Fan et al. 2018, arXiv:1805.04833); top-p keeps the fewest whose probabilities reach p (Holtzman et al. 2019,
arXiv:1904.09751); min-p keeps those at least p times as likely as the likeliest (Nguyen et al. 2024,
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
    """How tokens are chosen; what each default does is nothing, but for the temperature of 1."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach p."""
    min_p: float = 0.0
    """Keep tokens at least p times as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens of the text so far become less likely."""
    seed: int = 0
    """Of the draws; the second of several texts draws with the next seed, and so on."""

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
    texts: Sequence[Sequence[int]],
) -> list[int]:
    """A token id a row of logits (b, V) on the CPU; ``texts`` is what is there so far, of each.

    Raises InputError for logits of which the largest is not finite.
    """
    if sampling.repetition_penalty != 1:
        logits = _penalized(logits.double(), sampling.repetition_penalty, texts)
    largest, likeliest = logits.max(dim=-1, keepdim=True)
    if not all(map(math.isfinite, largest.flatten().tolist())):
        raise InputError("weights", "an output that is not finite", "the weights of a good run")
    if sampling.temperature == 0:
        greedy: list[int] = likeliest.flatten().tolist()
        return greedy
    # The likeliest becomes 0 first, so that no temperature, however small, overflows it.
    logits = (logits.double() - largest) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        kept = logits.topk(sampling.top_k)
        logits = torch.full_like(logits, -math.inf).scatter(-1, kept.indices, kept.values)
    if sampling.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        # A token stays while those likelier than it do not yet reach p; the first always stays.
        dropped = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
    if sampling.min_p > 0:
        logits = logits.masked_fill(logits < math.log(sampling.min_p), -math.inf)
    chances = logits.softmax(dim=-1)
    return [
        int(torch.multinomial(row, 1, generator=generator))
        for row, generator in zip(chances, generators, strict=True)
    ]


def _penalized(logits: Tensor, penalty: float, texts: Sequence[Sequence[int]]) -> Tensor:
    logits = logits.clone()
    for row, text in zip(logits, texts, strict=True):
        there = torch.tensor(sorted(set(text)), dtype=torch.long)
        found = row[there]
        row[there] = torch.where(found > 0, found / penalty, found * penalty)
    return logits
