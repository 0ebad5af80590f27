"""A client's side: its model, optimizers and text, trained for some steps from the weights it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from minilm.errors import InputError
from minilm.federation.update import Array
from minilm.model.transformer import Transformer
from minilm.training.optimizers import hold_zeros
from minilm.training.resume_state import Progress, random_states, restore_random_states
from minilm.training.run_spec import RunSpec
from minilm.training.signals import StopRequest
from minilm.training.train_step import TrainStep


def trained_parameters(model: Transformer) -> Mapping[str, nn.Parameter]:
    """What travels: the parameters that are trained, by name; of an adapter on a model, its own."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def to_arrays(parameters: Mapping[str, nn.Parameter]) -> list[Array]:
    """The values of parameters, in their order."""
    return [each.detach().cpu().float().numpy() for each in parameters.values()]


@torch.no_grad()
def fill(parameters: Mapping[str, nn.Parameter], arrays: Sequence[Array]) -> None:
    """Put values into parameters, in their order."""
    for parameter, array in zip(parameters.values(), arrays, strict=True):
        parameter.copy_(torch.from_numpy(np.array(array)))


class LocalTraining:
    """The steps of one client. Its optimizers' state stays with it from round to round."""

    def __init__(self, spec: RunSpec, stop: StopRequest) -> None:
        self.spec = spec
        self.progress = Progress()
        spec.model.to(spec.runtime.device).train()
        spec.runtime.prepare(spec.model)
        self.parameters = trained_parameters(spec.model)
        self.step = TrainStep(spec, self.progress, stop)
        if spec.config.hold_zeros:
            hold_zeros(spec.model, self.step.optimizers)
        # Of dropout: each client has its own, whichever of them share a process.
        self.random: Mapping[str, Tensor] | None = None

    @property
    def tokens(self) -> int:
        """How many this client trains on: its weight in the average."""
        return self.spec.dataset.train_tokens

    def train(self, arrays: Sequence[Array], *, step: int, steps: int) -> tuple[list[Array], float]:
        """Trained values and mean loss after ``steps`` from ``arrays``, as the steps after ``step`` of a run.

        Raises InputError where the loss is not finite, Interrupted where a signal came.
        """
        fill(self.parameters, arrays)
        self.progress.step = step
        before = random_states()
        try:
            if self.random is None:
                torch.manual_seed(self.spec.config.seed)
            else:
                restore_random_states(self.random)
            for _ in range(steps):
                self.step.run()
            self.random = random_states()
        finally:
            restore_random_states(before)
        line = self.step.reading()
        if line is None:
            raise InputError(self.spec.dataset.source, "a loss that is not finite", "a number")
        return to_arrays(self.parameters), line["train_loss"]
