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
    # The last update, not the one after it, is the first at the floor.
    done = (step - begin) / max(1, config.max_steps - 1 - begin)
    done = min(1.0, max(0.0, done))
    if config.schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return peak + (floor - peak) * done
