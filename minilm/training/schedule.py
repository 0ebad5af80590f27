"""The learning rate at each step: linear warm-up, then the chosen decay.

cosine: Loshchilov and Hutter 2016 (arXiv:1608.03983). wsd: Hu et al. 2024 (arXiv:2404.06395).
"""

from __future__ import annotations

import math

from minilm.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of the update that follows ``step`` finished ones, of `config.max_steps`."""
    peak, floor = config.learning_rate, config.learning_rate * config.final_learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    begin = config.warmup_steps
    if config.schedule == "constant":
        return peak
    if config.schedule == "wsd":
        begin = max(begin, config.max_steps - round(config.decay_fraction * config.max_steps))
    # The floor is reached after the last update: an update at a rate of zero would be wasted.
    done = min(1.0, max(0.0, (step - begin) / max(1, config.max_steps - begin)))
    if config.schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return peak + (floor - peak) * done
