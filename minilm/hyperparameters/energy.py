"""How many joules this machine takes for each that is estimated, measured on the preset's model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from minilm.hyperparameters.budget import price
from minilm.hyperparameters.space import Space
from minilm.hyperparameters.trial import TextOptions
from minilm.training.energy import EnergyMeter
from minilm.training.resume_state import Progress
from minilm.training.signals import StopRequest
from minilm.training.throughput import card_uuid
from minilm.training.train_step import TrainStep

WARMUP_STEPS, STEPS = 3, 20


def energy_factor(options: TextOptions, space: Space) -> float | None:
    """Measured joules a token, divided by the estimate; None where there is no counter."""
    with tempfile.TemporaryDirectory() as folder:
        spec = options.run(space.model, space.settings, Path(folder) / "energy")
    device = spec.runtime.device
    if EnergyMeter(device.type, card_uuid(device)).joules() is None:
        return None
    spec.model.to(device).train()
    spec.runtime.prepare(spec.model)
    progress = Progress()
    step = TrainStep(spec, progress, StopRequest())
    for _ in range(WARMUP_STEPS):
        step.run()
    step.loss_sum.item()  # waits for the device
    tokens, meter = progress.tokens, EnergyMeter(device.type, card_uuid(device))
    for _ in range(STEPS):
        step.run()
    step.loss_sum.item()
    joules = meter.joules()
    if not joules:
        return None
    estimate = price(spec.model.config, spec.config).joules
    return joules / (progress.tokens - tokens) / estimate
