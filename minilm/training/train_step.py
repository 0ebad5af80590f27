"""One update of the model: forward and backward passes over its micro-batches, then its optimizers.

A step never waits for the device: the loss stays there until it is read. (float16 is the exception: its
gradients may overflow, so they are looked at.)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from minilm.data.batches import Batch, joined
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer, next_token_loss
from minilm.parallel.dropout import RowsOfDropout
from minilm.parallel.process_group import world
from minilm.parallel.sharded import whole
from minilm.parallel.slow_processes import SlowProcesses
from minilm.training.batch_loader import BatchLoader
from minilm.training.lr_schedule import batch_shape
from minilm.training.optimizer_base import Optimizer
from minilm.training.optimizers import add_l1_gradient, make_optimizers, matrices, set_rates
from minilm.training.parameter_watch import ParameterWatch, is_watched
from minilm.training.resume_state import Progress, random_states, restore_random_states
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import Loss
from minilm.training.signals import Interrupted, StopRequest
from minilm.training.step_graph import StepGraph

if TYPE_CHECKING:
    from minilm.parallel.data_parallel import DataParallel


class Step(Protocol):
    """What the `Trainer` needs of its steps: each call of ``run`` makes one or several, and counts them."""

    loss_sum: Tensor
    watch: ParameterWatch | None

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """Whose state is saved."""

    @property
    def evaluation_loss(self) -> Loss | None:
        """What takes the model and a batch; None: `next_token_loss`."""

    def run(self) -> None:
        """Raises Interrupted where a signal came: then it is as if not begun."""

    def reading(self) -> dict[str, float] | None:
        """What a line of metrics.jsonl has of the steps since the last; None where a loss is not finite."""

    def record(self) -> bool:
        """Bring the progress up to date for a save; whether losses and weights are finite."""

    def whole_model(self) -> Transformer:
        """The model with all of its tensors in the main process."""


class TrainStep:
    """The steps of a run, each counted in its ``progress``. The model is on its device by then."""

    def __init__(self, spec: RunSpec, progress: Progress, stop: StopRequest) -> None:
        self.model, self.config, self.runtime = spec.model, spec.config, spec.runtime
        self.progress, self.stop, self.world = progress, stop, world()
        if self.world.tensor > 1 and self.runtime.compile_required:
            raise ConfigError("compile", "on with tensor_parallel", "auto or off")
        self.parallel: DataParallel | None = None
        if self.world.is_parallel:
            from minilm.parallel.data_parallel import DataParallel  # seconds of importing

            # A DoRA adapter computes with its matrices in float32.
            is_bfloat16 = self.runtime.dtype == torch.bfloat16 and spec.adapter is None
            self.parallel = DataParallel(
                *(self.model, next_token_loss, self.config.parallel, self.world),
                torch.bfloat16 if is_bfloat16 else torch.float32,
            )
        self.optimizers = make_optimizers(self.model, self.config, self.runtime.muon_dtype)
        self.runtime.compile_updates(self.optimizers, stop)
        # float16 alone needs its loss scaled to keep small gradients from vanishing.
        self.scaler = torch.amp.GradScaler(
            self.runtime.device.type, enabled=self.runtime.dtype == torch.float16
        )
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        self.loss = self.parallel.loss if self.parallel else next_token_loss
        if self.world.tensor == 1:
            self.loss = self.runtime.compiled(self.loss, stop, self.model.config.dropout)
        self.matrices = matrices(self.model)
        self.batches = BatchLoader(spec.dataset, self.config, self.runtime.device)
        self.length = spec.dataset.row_length(self.model.config.context_length)
        # Written in place, as a graph does.
        self.loss_sum = torch.tensor(progress.loss_sum, device=self.runtime.device)
        self.own_seconds = 0.0  # in which this process waits for no other
        self.slow = SlowProcesses(self.world)
        self.norm = torch.zeros((), device=self.runtime.device)
        self.learning_rate = 0.0
        watched = self.config.watch and self.world.is_main
        self.watch = ParameterWatch(self.model) if watched else None
        self._is_watched = False  # the update that is made
        self.graph = StepGraph(self._backward, self._update) if self.runtime.cuda_graph else None

    def run(self) -> None:
        """One update. Nothing is read back from the device.

        Raises Interrupted where a signal came before its last gradient: then it is as if not begun.
        """
        progress = self.progress
        self.learning_rate = set_rates(self.optimizers, progress.step, self.config)
        began = time.perf_counter()
        micro_batches = self._micro_batches()
        self.own_seconds += time.perf_counter() - began
        self._accumulate_gradients(micro_batches)
        tokens = sum(batch.tokens for batch in micro_batches)
        update = self.graph.update if self.graph else self._update
        if self.watch is not None and self._watches(progress.step + 1, tokens):
            self._update_watched(self.watch, update)
        else:
            update()
        progress.step += 1
        progress.tokens += tokens
        progress.loss_count += 1

    def _watches(self, step: int, tokens: int) -> bool:
        return step == self.config.max_steps or is_watched(step, tokens)

    def _update_watched(self, watch: ParameterWatch, update: Callable[[], None]) -> None:
        watch.begin_update()
        self._is_watched = True
        update()
        self._is_watched = False
        watch.end_update()

    def _micro_batches(self) -> list[Batch]:
        """Those of the next step, of which several may be one pass."""
        step, at_once = self.progress.step, self.runtime.micro_batches_at_once
        rows, length = batch_shape(step, self.config, self.length)
        every = [
            self.batches.arrays(step, micro_step, rows, length)
            for micro_step in range(self.config.gradient_accumulation)
        ]
        return [joined(every[k : k + at_once]) for k in range(0, len(every), at_once)]

    def _accumulate_gradients(self, micro_batches: Sequence[Batch]) -> None:
        """Backward passes over the micro-batches of a step; their mean loss is added to ``loss_sum``.

        The gradient is that of the mean over all their labels, however many each has. Where a signal came: no
        gradients, sum of losses and random generators as before, Interrupted.
        """
        loss_sum, generators = self.loss_sum.clone(), random_states()
        total = sum(batch.labels for batch in micro_batches)
        backward = self.graph.backward if self.graph else self._backward
        try:
            for number, batch in enumerate(micro_batches):
                if number:
                    self.stop.raise_if_set()
                own = batch.rows(self.world.rows(len(batch)))
                # The mean over the processes, which gradients become, is that of all labels so.
                parts = self.batches.to_device(
                    torch.tensor(
                        total / (own.labels * self.world.data_size) if own.labels else math.inf
                    )
                )
                with self._micro_batch(len(batch), is_last=number == len(micro_batches) - 1):
                    backward(parts, *self.batches.tensors(own.with_a_label()))
        except Interrupted:
            self._drop_gradients()
            if self.graph:
                self.graph.forget()
            self.loss_sum.copy_(loss_sum)
            restore_random_states(generators)
            raise

    @contextlib.contextmanager
    def _micro_batch(self, rows: int, *, is_last: bool) -> Iterator[None]:
        """What a pass over this process's part of so many rows is within."""
        if self.parallel is None:
            yield
            return
        with self.parallel.micro_batch(is_last), RowsOfDropout(self.world.rows(rows), rows):
            yield

    def _backward(self, parts: Tensor, *batch: Tensor) -> None:
        """Add gradients and loss of one micro-batch, of which a step has so many ``parts``."""
        # Of the backward pass too, which may recompute the forward pass.
        with self.runtime.attention(is_staged=batch[0].shape[1] < self.length):
            with self.runtime.autocast():
                loss = self.loss(self.model, *batch) / parts
            torch.autograd.backward(self.scaler.scale(loss))
        self.loss_sum += loss.detach()

    def _update(self) -> None:
        """The optimizers' steps with the gradients that are there, which are dropped."""
        config = self.config
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)  # type: ignore[arg-type]
        if config.l1_weight:
            add_l1_gradient(self.matrices, config.l1_weight)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norm.copy_(whole(nn.utils.get_total_norm(gradients)))
        # What a graph replays is the same in every step.
        if self.watch is not None and (self._is_watched or self.graph is not None):
            self.watch.keep_gradients()
        if config.gradient_clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), config.gradient_clip, self.norm)
        # Where float16 gradients overflowed no optimizer steps, and the scaler lowers its scale.
        overflowed = self.scaler.is_enabled() and not self.norm.isfinite()
        before = self.scaler.state_dict() if overflowed else {}
        for optimizer in self.optimizers:
            if not overflowed:
                self.scaler.step(optimizer)  # type: ignore[arg-type]
        self._drop_gradients()
        self.scaler.update()
        if overflowed:  # a process has seen its own parts alone, of which all may be finite
            lower = {"scale": before["scale"] * before["backoff_factor"], "_growth_tracker": 0}
            self.scaler.load_state_dict(before | lower)

    def _drop_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    @property
    def evaluation_loss(self) -> Loss | None:
        """What takes the model and a batch, where the processes share the model's tensors."""
        return self.parallel.loss if self.parallel else None

    def whole_model(self) -> Transformer:
        """The model with all of its tensors in the main process; every process calls this together."""
        return self.parallel.whole_model() if self.parallel else self.model

    def reading(self) -> dict[str, float] | None:
        """The mean loss since the last reading, learning rate and norm; None when the loss is not finite."""
        progress = self.progress
        loss, norm = (
            self._mean_loss_sum(progress.loss_count) / progress.loss_count,
            self.norm.item(),
        )
        if not (math.isfinite(loss) and self._norm_is_usable(norm)):
            return None
        progress.loss_count = 0
        self.loss_sum.zero_()
        line = {"train_loss": loss, "lr": self.learning_rate}
        return line | ({"grad_norm": norm} if math.isfinite(norm) else {})

    def record(self) -> bool:
        """Bring the progress up to date for a save; whether losses and weights are finite.

        The losses are those since the last reading. Where the last gradient is not finite, neither are
        the weights.
        """
        progress = self.progress
        progress.loss_sum = self._mean_loss_sum()
        progress.scaler = self.scaler.state_dict()
        return math.isfinite(progress.loss_sum) and self._norm_is_usable(self.norm.item())

    def _mean_loss_sum(self, steps: int = 0) -> float:
        """Over the processes, each of which has the sum of its own rows' share.

        After so many ``steps`` since the last reading; the seconds of each process go along with it.
        """
        size = self.world.size
        if size == 1:
            return self.loss_sum.item()
        sums = self.loss_sum.new_zeros(1 + size)
        sums[0] = self.loss_sum
        if steps:
            passes = self.parallel.seconds if self.parallel else 0.0
            sums[1 + self.world.rank] = self.own_seconds + passes
        loss_sum, *seconds = self.world.sum(sums).tolist()
        if steps:
            self.slow.watch(seconds, steps)
            self.own_seconds = 0.0
            if self.parallel:
                self.parallel.seconds = 0.0
        return float(loss_sum) / size

    def _norm_is_usable(self, norm: float) -> bool:
        return math.isfinite(norm) or self.scaler.is_enabled()  # which leaves such an update out
