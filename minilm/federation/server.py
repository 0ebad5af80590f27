"""The server's side: a round sends the weights to every client and averages what comes back."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from minilm.errors import ConfigError, InputError
from minilm.federation import flower
from minilm.federation.local_training import fill, to_arrays, trained_parameters
from minilm.federation.update import Array, from_bytes, to_bytes
from minilm.model.transformer import Transformer
from minilm.training.lr_schedule import batch_shape, lr_multiplier
from minilm.training.optimizer_base import Optimizer
from minilm.training.parameter_watch import ParameterWatch
from minilm.training.resume_state import Progress
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import Loss
from minilm.training.signals import StopRequest
from minilm.units import counted

logger = logging.getLogger(__name__)

Weighting = Literal["tokens", "equal"]

MOST_TOKENS = 2**53  # that a client may say it has
GONE = "one is gone, or did not answer in time"


class NoClientError(InputError):
    """No client was left, or none of them answered."""


@dataclass(frozen=True)
class Privacy:
    """Differential privacy of the clients (McMahan et al. 2018, arXiv:1710.06963), kept by the server.

    The update of each client is clipped to the norm ``clip``; their plain mean gets Gaussian noise of
    deviation ``noise`` * clip / clients.
    """

    clip: float
    noise: float

    def __post_init__(self) -> None:
        if not (0 < self.clip < math.inf):
            raise ConfigError("clip_norm", f"{self.clip:g}", "a number above 0")
        if not (0 <= self.noise < math.inf):
            raise ConfigError("noise_multiplier", f"{self.noise:g}", "0 or a number above it")


@dataclass(frozen=True)
class Rounds:
    """How many, of how many steps at each client; how clients weigh; how long a round waits for them."""

    count: int
    local_steps: int
    weighting: Weighting = "tokens"
    privacy: Privacy | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("rounds", self.count), ("local_steps", self.local_steps)):
            if value < 1:
                raise ConfigError(name, f"{value}", "1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError("round_timeout", f"{self.timeout:g}", "a number above 0")


class Averaging:
    """Federated averaging as a strategy of Flower's server, of what passes the checks (`read_result`)."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], rounds: Rounds, setup: str) -> None:
        self.shapes, self.rounds, self.setup = shapes, rounds, setup
        self.step = self.steps = 0
        self.sent: list[Array] = []
        # Clients by the order in which they came, which is their number.
        self.numbers: dict[str, int] = {}
        self.accepted: list[Any] = []
        self.refused: list[str] = []

    def sizes(self) -> list[int]:
        """How many numbers each tensor has."""
        return [math.prod(shape) for shape in self.shapes.values()]

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[Any]:
        """The same weights for every client; for a new one also what they are weights of."""
        from flwr.common import FitIns

        instructions = []
        for cid, client in list(client_manager.all().items()):
            order: dict[str, Any] = {"round": server_round, "step": self.step, "steps": self.steps}
            if cid not in self.numbers:
                self.numbers[cid] = len(self.numbers)
                order |= {"setup": self.setup, "number": self.numbers[cid]}
            instructions.append((client, FitIns(parameters, order)))
        return instructions

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, Any]], failures: list[Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The mean of the accepted updates, as Flower's FedAvg computes it."""
        from flwr.server.strategy import FedAvg

        self.accepted, self.refused = [], [_reason(failure) for failure in failures]
        for client, result in results:
            try:
                read_result(result, self.shapes)
            except InputError as error:
                self.refused.append(str(error))
            else:
                self.accepted.append((client, result))
        # In an order that does not depend on who was faster: sums round alike then.
        self.accepted.sort(key=lambda each: (each[1].num_examples, each[1].parameters.tensors))
        privacy = self.rounds.privacy
        for _, result in self.accepted:
            if privacy is not None:
                result.parameters.tensors = self._clipped(result.parameters.tensors, privacy.clip)
            if privacy is not None or self.rounds.weighting == "equal":
                result.num_examples = 1
        strategy = FedAvg(fit_metrics_aggregation_fn=lambda metrics: {})
        mean, metrics = strategy.aggregate_fit(server_round, self.accepted, [])
        if mean is not None and privacy is not None:
            from flwr.supercore.differential_privacy import add_gaussian_noise_to_params

            mean = add_gaussian_noise_to_params(
                mean, privacy.noise, privacy.clip, len(self.accepted)
            )
        return mean, metrics

    def _clipped(self, tensors: list[bytes], norm: float) -> list[bytes]:
        """The weights with their distance from what was sent clipped to ``norm``."""
        from flwr.supercore.differential_privacy import compute_clip_model_update

        arrays = from_bytes(tensors, self.shapes)
        if all((each == sent).all() for each, sent in zip(arrays, self.sent, strict=True)):
            return tensors  # Flower divides by the distance
        compute_clip_model_update(arrays, self.sent, norm)
        return to_bytes(arrays)


def read_result(result: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
    """The tensors that a client sent (`flwr.common.FitRes`). Raises InputError for what is no update.

    Its names, shapes and values are those of the model, its loss and number of tokens are numbers.
    """
    tokens, metrics = result.num_examples, result.metrics
    if result.parameters.tensor_type != flower.ARRAYS:
        raise InputError("an update", repr(result.parameters.tensor_type), flower.ARRAYS)
    if metrics.get("names") != "\n".join(shapes):
        raise InputError("an update", "other tensors", f"the {len(shapes)} that are trained")
    if type(tokens) is not int or not 0 < tokens <= MOST_TOKENS:
        raise InputError("an update", f"{tokens} tokens", f"1 to {MOST_TOKENS}")
    loss = metrics.get("loss")
    if type(loss) is not float or not math.isfinite(loss):
        raise InputError("an update", f"a loss of {loss!r}", "a number")
    return from_bytes(result.parameters.tensors, shapes)


def _reason(failure: Any) -> str:
    """Why there is no update: what the client said, or what its connection did."""
    if isinstance(failure, tuple):
        return str(failure[1].status.message)
    return GONE


class FederatedStep:
    """A round in place of a step: as the `Trainer` calls it, of a server with its clients.

    ``in_process``: the clients are in this process, so that an exception is no lost connection.
    """

    optimizers: Sequence[Optimizer] = ()  # the clients have them
    evaluation_loss: Loss | None = None
    watch: ParameterWatch | None = None  # of what is averaged there are no gradients

    def __init__(
        self,
        spec: RunSpec,
        progress: Progress,
        stop: StopRequest,
        *,
        server: Any,
        rounds: Rounds,
        in_process: bool,
    ) -> None:
        self.model, self.config, self.progress, self.stop = spec.model, spec.config, progress, stop
        self.server, self.rounds, self.in_process = server, rounds, in_process
        self.strategy: Averaging = server.strategy
        self.parameters = trained_parameters(spec.model)
        self.length = spec.dataset.row_length(spec.model.config.context_length)
        self.loss_sum = torch.zeros(())
        self.learning_rate = 0.0
        self.answered = 0

    def run(self) -> None:
        """One round. Raises NoClientError where no client is left, Interrupted where a signal came."""
        from flwr.common import Parameters

        progress, strategy = self.progress, self.strategy
        number = progress.step // self.rounds.local_steps + 1
        strategy.step = progress.step
        strategy.steps = min(self.rounds.local_steps, self.config.max_steps - progress.step)
        strategy.sent = to_arrays(self.parameters)
        self.learning_rate = self.config.learning_rate * lr_multiplier(progress.step, self.config)
        if not self.server.client_manager().num_available():
            raise NoClientError(f"round {number}", "no client is left", "at least one")
        self.server.parameters = Parameters(to_bytes(strategy.sent), flower.ARRAYS)
        mean, _, (_, failures) = self.server.fit_round(number, self.rounds.timeout)
        self.stop.raise_if_set()
        for failure in failures:
            if self.in_process and isinstance(failure, BaseException):
                raise failure
        answers, reasons = strategy.accepted, strategy.refused
        if mean is None:
            got = f"no client's update ({'; '.join(sorted(set(reasons)))})"
            raise NoClientError(f"round {number}", got, "one or more")
        if not reasons and len(answers) < self.answered:
            reasons = [GONE]  # between two rounds
        for reason in reasons:
            logger.warning(
                f"note: round {number} goes on with {counted(len(answers), 'client')}: {reason}"
            )
        fill(self.parameters, from_bytes(mean.tensors, strategy.shapes))
        for _ in range(strategy.steps):
            rows, length = batch_shape(progress.step, self.config, self.length)
            tokens = rows * length * self.config.gradient_accumulation
            progress.step += 1
            progress.tokens += tokens * len(answers)
        progress.loss_count += 1
        weights = [result.num_examples for _, result in answers]
        losses = [result.metrics["loss"] for _, result in answers]
        mean_loss = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
        self.loss_sum += mean_loss
        self.answered = len(answers)

    def reading(self) -> dict[str, float] | None:
        """The clients' mean training loss, the learning rate at the round's first step, how many answered."""
        loss = self.loss_sum.item() / self.progress.loss_count
        if not math.isfinite(loss):
            return None
        self.progress.loss_count = 0
        self.loss_sum.zero_()
        return {"train_loss": loss, "lr": self.learning_rate, "clients": self.answered}

    def record(self) -> bool:
        """Bring the progress up to date for a save; the values of an accepted update are finite."""
        self.progress.loss_sum = self.loss_sum.item()
        return math.isfinite(self.progress.loss_sum)

    def whole_model(self) -> Transformer:
        """The model that the clients' weights are averaged into."""
        return self.model
