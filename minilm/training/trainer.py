"""The training loop: step after step; log, evaluate, save and stop when due.

What is on the device is read where a line of metrics.jsonl is due, not before.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from minilm.checkpoint import load_adapter, parameter_shapes, read_one_by_one
from minilm.config import to_dict
from minilm.model.device import keep_freed_memory, map_large_tensors
from minilm.parallel.process_group import share_rows
from minilm.parallel.sharded import fill
from minilm.runs import files as run_files
from minilm.runs.stop_reason import StopReason
from minilm.training.checkpoint_writer import CheckpointWriter
from minilm.training.evaluation import Validation, evaluate, rounded, sample
from minilm.training.loggers import Logs, Trackers
from minilm.training.loss_spikes import watch_for_spikes
from minilm.training.optimizers import hold_zeros
from minilm.training.progress_bar import progress_bar, show_readings
from minilm.training.resume_state import Progress, restore_state
from minilm.training.run_spec import RunSpec
from minilm.training.signals import Interrupted, StopRequest
from minilm.training.text_size import final_eval_tokens
from minilm.training.throughput import Throughput
from minilm.training.time_left import TimeLeft
from minilm.training.train_step import Step, TrainStep
from minilm.transforms.quantize import QuantizedLinear
from minilm.units import counted

logger = logging.getLogger(__name__)


class Trainer:
    """One run in this process. `run()` returns why it stopped; everything is saved by then."""

    def __init__(
        self,
        spec: RunSpec,
        stop: StopRequest,
        started: float | None = None,
        *,
        step: Callable[[RunSpec, Progress, StopRequest], Step] = TrainStep,
        prune: Callable[[int, float], bool] | None = None,
    ) -> None:
        """``prune`` makes the run a trial among others, which is not evaluated over the whole split.

        It is told the step and the best validation loss after each evaluation, perhaps twice, and says
        whether the run ends there.
        """
        self.spec, self.stop, self.world = spec, stop, share_rows(spec.config.tensor_parallel)
        stop.shared = self.world.is_parallel
        self.model, self.config, self.runtime = spec.model, spec.config, spec.runtime
        self.run_dir, self.context_length = spec.run_dir, spec.model.config.context_length
        if any(isinstance(module, QuantizedLinear) for module in self.model.modules()):
            map_large_tensors()
        else:
            keep_freed_memory()
        self.model.to(self.runtime.device).train()
        self.runtime.prepare(self.model)
        self.progress = Progress() if spec.saved is None else spec.saved.progress
        self.train_step = step(spec, self.progress, stop)
        self.prune = prune
        self.checkpoints = CheckpointWriter(
            self.model,
            self.train_step.optimizers,
            self.config.keep_states,
            weights_dtype=spec.weights_dtype,
            adapters=spec.adapter.map if spec.adapter else None,
        )
        torch.manual_seed(self.config.seed)  # dropout; weights and batches have their own
        if spec.saved is not None:
            restore_state(spec.saved, self.model, self.train_step.optimizers)
        if self.config.hold_zeros:
            hold_zeros(self.model, self.train_step.optimizers)
        self.time_left = TimeLeft(spec)
        # Step and loss of the best weights at the end, where evaluations before are over fewer tokens.
        self.at_the_end: tuple[int, Validation] | None = None
        self.throughput = Throughput(
            self.model.config,
            self.runtime,
            self.progress,
            time.monotonic() if started is None else started,
            spec.dataset.row_length(self.context_length),
        )
        self.last_save = time.monotonic()
        self._save_due = self._time_is_up = False

    def run(self) -> StopReason:
        """Train until a limit, a goal, a signal or a loss that is not finite; say which."""
        evaluated = self.progress.evaluated_step == self.progress.step
        with (
            self.stop.deferring(),
            contextlib.closing(self.checkpoints),
            contextlib.closing(self._trackers()) as trackers,
            contextlib.closing(
                Logs(
                    self.run_dir,
                    self.progress.step,
                    evaluated=evaluated,
                    trackers=trackers,
                    written=self.world.is_main,
                    watched=self.train_step.watch is not None,
                )
            ) as logs,
            progress_bar(self.config.max_steps, self.progress.step) as self.bar,
        ):
            return self._train(logs)

    def _train(self, logs: Logs) -> StopReason:
        progress, config = self.progress, self.config
        compiles = self.runtime.compile
        watch = self.train_step.watch
        if watch is not None and progress.step == 0:
            logs.parameters(self._stamp() | watch.beginning())
        while True:
            reason = self._limit_reached()
            if reason is None and progress.evaluated_step == progress.step:
                reason = self._goal_reached()  # a signal may have ended what follows an evaluation
            ending = reason in (StopReason.MAX_STEPS, StopReason.MAX_SECONDS)
            due = ending or (reason is None and progress.step % config.eval_every == 0)
            # The weights that fine-tuning begins with are the first best.
            first = progress.step > 0 or ending or self.spec.is_fine_tuning
            if due and first and progress.evaluated_step != progress.step:
                if not self._evaluate_and_save(logs):
                    return StopReason.NON_FINITE_LOSS
                reason = self._goal_reached() or self._limit_reached()
            if reason is not None:
                if not self.save():
                    return StopReason.NON_FINITE_LOSS
                if reason.signum is None and self.prune is None:
                    self._evaluate_best()
                if reason.is_final:
                    self.checkpoints.end(self.run_dir)
                return StopReason.of_signal(self.stop.signum) if self.stop.signum else reason
            if self._save_due and not self.save():
                # What was saved last is the last known to be good.
                return StopReason.NON_FINITE_LOSS
            if compiles:
                show_readings(self.bar, ["compiling"])
            began, steps_before = time.perf_counter(), progress.step
            try:
                self.train_step.run()
            except Interrupted:
                continue
            steps = progress.step - steps_before
            if self.time_left.needs_steps():
                self._time_steps(began, steps)
            if compiles:
                show_readings(self.bar, [])
                compiles = False
            self.bar.update(steps)
            if watch is not None and (parameters := watch.take_line()) is not None:
                logs.parameters(self._stamp() | parameters)
            if progress.step % config.log_every == 0 or progress.step == config.max_steps:
                line = self.train_step.reading()
                if line is None:
                    return StopReason.NON_FINITE_LOSS
                logs.metrics(self._stamp() | line | self.throughput.reading(progress.tokens))
                watch_for_spikes(progress, line["train_loss"])
                self._show_readings(line["train_loss"])

    def _time_steps(self, began: float, steps: int) -> None:
        """Some of the first steps: they are waited for, and after the last of them the time left is said."""
        self.train_step.loss_sum.item()
        text = self.time_left.add_step(
            (time.perf_counter() - began) / steps,
            step=self.progress.step,
            elapsed=self.throughput.elapsed(),
        )
        if text is not None:
            logger.info(text)

    def _evaluate_and_save(self, logs: Logs) -> bool:
        """Return whether the losses are finite; when one is not, what was saved before stays.

        An evaluation that a signal ended is as if it had not begun: the resumed run makes it whole.
        """
        progress = self.progress
        show_readings(self.bar, ["evaluating"])
        begin = time.monotonic()
        with self.throughput.paused(progress.tokens):
            validation = self._evaluate(self.config.eval_tokens)
            if validation is None:
                return True
            if not math.isfinite(validation.loss):
                return False
            try:
                text = self._sample()
            except Interrupted:
                return True
            self.time_left.evaluation_seconds = time.monotonic() - begin
            progress.evaluated_step = progress.step
            line = {"val_loss": validation.loss, "val_bits_per_byte": validation.bits_per_byte}
            logs.metrics(self._stamp() | line | {"val_tokens": validation.tokens})
            if self.config.sample_tokens:
                logs.sample({"step": progress.step, "text": text})
            if not self.save(validation if self._record(validation) else None):
                return False
        self._show_readings()
        rate = f"   {self.throughput.rate:,.0f} tokens/s" if self.throughput.rate else ""
        logger.info(
            f"step {progress.step:>6}   validation loss {validation.loss:.4f}   "
            f"{validation.bits_per_byte:.3f} bits a byte{rate}"
        )
        return True

    def _evaluate(self, at_most: int) -> Validation | None:
        """Over so many tokens of the validation split; 0: over all. None where a signal came.

        The weights are those that model.safetensors would have.
        """
        with (
            self.throughput.paused(self.progress.tokens),
            rounded(self.model, self.checkpoints.weights_dtype),
        ):
            return evaluate(
                self.model,
                self.spec.dataset,
                self.context_length,
                self.runtime,
                at_most=at_most,
                stop=self.stop,
                loss=self.train_step.evaluation_loss,
            )

    def _sample(self) -> str:
        """A text of the model as it is now. Raises Interrupted where a signal came."""
        count = self.config.sample_tokens
        model = self.train_step.whole_model()
        if not self.world.is_main:
            return ""
        return sample(model, self.spec.dataset.tokenizer, count, stop=self.stop)

    def _evaluate_best(self) -> None:
        """Evaluate the best weights over `final_eval_tokens`, where fewer chose them; they stay in."""
        progress = self.progress
        if progress.best_val_loss is None or self._covers_split():
            return
        if self.at_the_end is None or self.at_the_end[0] != progress.best_step:
            at_most = final_eval_tokens(progress.tokens, self.spec.dataset)
            if 0 < at_most <= self.config.eval_tokens:
                return
            self.checkpoints.wait()
            if progress.best_step != progress.step:
                self._load_best()
            validation = self._evaluate(at_most)
            if validation is None:
                return
            self.at_the_end = (progress.best_step, validation)
        self.checkpoints.describe_weights(self.run_dir, self._weights_metadata(*self.at_the_end))

    def _load_best(self) -> None:
        """Put the weights in that the run has written, by the main process."""
        self.world.wait()
        if self.spec.adapter is not None:
            load_adapter(self.run_dir / run_files.ADAPTER, self.model, self.spec.adapter.lora)
            return
        parameters = dict(self.model.named_parameters())
        path = self.run_dir / run_files.WEIGHTS
        for name, values in read_one_by_one(path, parameter_shapes(self.model)):
            fill(parameters[name], values)

    def best(self) -> Validation | None:
        """The validation loss of the best weights, that of the end if it was computed."""
        progress = self.progress
        if self.at_the_end is not None and self.at_the_end[0] == progress.best_step:
            return self.at_the_end[1]
        if progress.best_val_loss is None or progress.best_val_bits_per_byte is None:
            return None
        # States of before `eval_tokens` do not say it: evaluations were over the whole split.
        tokens = progress.best_val_tokens or self.spec.dataset.val_labels
        return Validation(progress.best_val_loss, progress.best_val_bits_per_byte, tokens)

    def _covers_split(self) -> bool:
        """Whether an evaluation during the run is over the whole validation split."""
        at_most = self.config.eval_tokens
        return at_most == 0 or at_most >= self.spec.dataset.val_places

    def _weights_metadata(self, step: int, validation: Validation) -> dict[str, str]:
        return {
            "format": "pt",
            "step": str(step),
            "val_loss": f"{validation.loss:.6f}",
            "val_tokens": str(validation.tokens),
            "val_dtype": self.runtime.dtype_name,
        }

    def _record(self, validation: Validation) -> bool:
        """Record a validation loss; return whether it is the best so far."""
        progress = self.progress
        if progress.best_val_loss is not None and validation.loss >= progress.best_val_loss:
            progress.evaluations_since_best += 1
            return False
        progress.best_val_loss = validation.loss
        progress.best_val_bits_per_byte = validation.bits_per_byte
        progress.best_val_tokens = validation.tokens
        progress.best_step = progress.step
        progress.evaluations_since_best = 0
        return True

    def save(self, validation: Validation | None = None) -> bool:
        """Begin to write the state, and the weights if ``validation`` or no evaluation has chosen any.

        False, with nothing written, when losses or weights are not finite.
        """
        progress = self.progress
        if not self.train_step.record():
            return False
        metadata = None
        if validation is not None:
            metadata = self._weights_metadata(progress.step, validation)
        elif progress.best_val_loss is None:
            metadata = {"format": "pt", "step": str(progress.step), "val_loss": "not evaluated"}
        progress.seconds = self._stamp()["seconds"]
        progress.joules = self.throughput.joules()
        settings = self.spec.state_settings()
        self.checkpoints.save(self.run_dir, progress, settings, weights_metadata=metadata)
        self.last_save = time.monotonic()
        return True

    def _settle(self) -> None:
        """What the clock says in the main process, and a signal in any, in all processes."""
        self.world.report(self.progress.step)
        every, limit = self.config.save_every_seconds, self.config.max_seconds
        save_due = bool(every) and time.monotonic() - self.last_save >= every
        time_is_up = limit is not None and self.throughput.elapsed() >= limit
        by_clock = (save_due, time_is_up) if self.world.is_main else (False, False)
        signum, *due = self.world.maximum(self.stop.received or 0, *by_clock)
        if self.stop.shared:
            self.stop.signum = signum or None
        self._save_due, self._time_is_up = map(bool, due)

    def _limit_reached(self) -> StopReason | None:
        self._settle()
        if self.stop.signum is not None:
            return StopReason.of_signal(self.stop.signum)
        if self.progress.step >= self.config.max_steps:
            return StopReason.MAX_STEPS
        if self._time_is_up:
            return StopReason.MAX_SECONDS
        return None

    def _goal_reached(self) -> StopReason | None:
        progress = self.progress
        best, patience = progress.best_val_loss, self.config.early_stopping
        target = self.config.target_val_loss
        if target is not None and best is not None and best <= target:
            if self._covers_split():
                return StopReason.TARGET_VAL_LOSS
            whole = self._evaluate(0) if progress.best_step == progress.step else None
            if whole is not None:
                self.at_the_end = (progress.step, whole)
                if whole.loss <= target:
                    return StopReason.TARGET_VAL_LOSS
        if self.prune is not None and best is not None and self.prune(progress.step, best):
            return StopReason.PRUNED
        if patience and progress.evaluations_since_best >= patience:
            logger.info(
                f"early stopping: {counted(patience, 'evaluation')} without a better loss than "
                f"{best:.4f}, of step {progress.best_step}"
            )
            return StopReason.EARLY_STOPPING
        return None

    def _stamp(self) -> dict[str, Any]:
        return {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(self.throughput.seconds(), 3),
        }

    def _trackers(self) -> Trackers:
        hyperparameters = {"model": to_dict(self.model.config), "train": to_dict(self.config)}
        names = self.config.trackers if self.world.is_main else ()
        return Trackers(names, self.run_dir, self.progress.step, hyperparameters)

    def _show_readings(self, loss: float | None = None) -> None:
        """Show the latest values in the bar; after an evaluation there is no loss of later steps yet."""
        best, rate = self.progress.best_val_loss, self.throughput.rate
        utilisation = self.throughput.utilisation() if rate else None
        readings = [] if loss is None else [f"loss {loss:.3f}"]
        readings += [] if best is None else [f"best val {best:.3f}"]
        readings += [f"{rate / 1000:.1f}k tok/s"] if rate else []
        readings += [] if utilisation is None else [f"MFU {utilisation:.0%}"]
        show_readings(self.bar, readings)
