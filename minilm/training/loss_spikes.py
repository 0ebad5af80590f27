"""Jumps of the training loss, which are counted and said; nothing is done about them."""

from __future__ import annotations

import logging

from minilm.training.resume_state import Progress

# A logged loss is a spike if it is above the running mean by this factor and by so many nats.
SPIKE_RATIO, SPIKE_NATS = 1.3, 0.5
MEAN_DECAY = 0.9  # of the running mean of logged losses

logger = logging.getLogger(__name__)


def watch_for_spikes(progress: Progress, loss: float) -> None:
    """Log a jump of the loss. The best weights and the last states are kept in any case."""
    mean = progress.running_mean_loss
    if mean is not None and loss > max(mean * SPIKE_RATIO, mean + SPIKE_NATS):
        progress.loss_spikes += 1
        logger.info(f"step {progress.step:>6}   loss spike: {loss:.3f} after {mean:.3f}")
    decay = MEAN_DECAY if mean is not None else 0.0
    progress.running_mean_loss = decay * (mean or 0.0) + (1 - decay) * loss
