"""What changes from step to step: learning rate, Muon's momentum, and the size of a batch.

cosine: Loshchilov and Hutter 2016 (arXiv:1608.03983). wsd: Hu et al. 2024 (arXiv:2404.06395). Momentum
warm-up: Jordan et al. 2024 (modded-nanogpt). Growing batches: Smith et al. 2017 (arXiv:1711.00489);
growing lengths: Li et al. 2021 (arXiv:2108.06084).
"""

from __future__ import annotations

import math

from minilm.config import TrainConfig

INITIAL_MOMENTUM = 0.85


def lr_multiplier(step: int, config: TrainConfig) -> float:
    """The factor on the peak learning rates at the update that follows ``step`` finished ones."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    begin = config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "wsd":
        begin = max(begin, config.max_steps - round(config.decay_fraction * config.max_steps))
    # The floor is reached after the last update: an update at a rate of zero would be wasted.
    progress = min(1.0, max(0.0, (step - begin) / max(1, config.max_steps - begin)))
    if config.schedule == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return 1.0 + (config.final_lr_fraction - 1.0) * progress


def momentum(step: int, config: TrainConfig) -> float:
    """Muon's momentum at that update."""
    if step >= config.momentum_warmup_steps or config.muon_momentum < INITIAL_MOMENTUM:
        return config.muon_momentum
    share = step / config.momentum_warmup_steps
    return INITIAL_MOMENTUM + (config.muon_momentum - INITIAL_MOMENTUM) * share


def batch_shape(step: int, config: TrainConfig, context_length: int) -> tuple[int, int]:
    """Sequences, and tokens of each, in a forward pass of that update."""
    growing_steps = round(config.growth_fraction * config.max_steps)
    return (
        staged_size(step, config.initial_batch_size, config.batch_size, growing_steps),
        staged_size(step, config.initial_context_length, context_length, growing_steps),
    )


def staged_size(step: int, first: int, last: int, growing_steps: int) -> int:
    """From ``first`` in equally long stages of doubled size to ``last``; 0 is ``last`` throughout.

    Doubling keeps the shapes few, which compiled code needs.
    """
    if first == 0 or first >= last or step >= growing_steps:
        return last
    stages = math.ceil(math.log2(last / first))
    return min(last, first << (step * stages // growing_steps))
