"""The steps of a run: batch, forward, backward, update; log, evaluate and save when due.

Nothing in a step waits for the device: the loss stays there until a line of metrics.jsonl is due. (Only
float16, whose gradients may overflow, has to look at them.)
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from minilm.config import TrainConfig
from minilm.data.shards import Dataset
from minilm.model.transformer import Transformer, next_token_loss
from minilm.text.tokenizers import Tokenizer
from minilm.training.batch_loader import BatchLoader
from minilm.training.checkpoint_writer import CheckpointWriter
from minilm.training.evaluation import Validation, evaluate
from minilm.training.loggers import Logs
from minilm.training.lr_schedule import batch_shape
from minilm.training.optimizers import add_l1_gradient, make_optimizers, matrices, set_rates
from minilm.training.resume_state import Progress, SavedState, restore_state
from minilm.training.runtime import Runtime
from minilm.training.signals import StopRequest
from minilm.training.throughput import Throughput, seconds_since_process_start

STOP_SIGNALS = {2: "SIGINT", 15: "SIGTERM"}

# A logged loss this much above the usual one is a spike: in proportion, and in nats.
SPIKE_RATIO, SPIKE_NATS = 1.3, 0.5
USUAL_DECAY = 0.9  # of the running mean of logged losses

# Text of the model as it is, for samples.jsonl.
Sampler = Callable[[Transformer, Tokenizer, int], str]


@dataclass
class Trainer:
    """One run in this process. `run()` returns why it stopped; everything is saved by then."""

    model: Transformer
    config: TrainConfig
    data: Dataset
    run_dir: Path
    runtime: Runtime
    settings: dict[str, Any]
    saved: SavedState | None
    stop: StopRequest
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        self.context_length = self.model.config.context_length
        self.model.to(self.runtime.device).train()
        self.runtime.prepare(self.model)
        self.optimizers = make_optimizers(self.model, self.config, self.runtime.muon_dtype)
        # float16 alone needs its loss scaled to keep small gradients from vanishing.
        self.scaler = torch.amp.GradScaler(
            self.runtime.device.type, enabled=self.runtime.dtype == torch.float16
        )
        self.loss = self.runtime.compiled(next_token_loss)
        self.matrices = matrices(self.model)
        self.feed = BatchLoader(self.data, self.config, self.runtime.device)
        self.saver = CheckpointWriter(self.model, self.optimizers, self.config.keep_last)
        self.progress = Progress()
        torch.manual_seed(self.config.seed)  # dropout; weights and batches have their own
        if self.saved is not None:
            restore_state(self.saved, self.model, self.optimizers)
            self.progress = self.saved.progress
            if self.progress.scaler:
                self.scaler.load_state_dict(self.progress.scaler)
        self.loss_sum = torch.tensor(self.progress.loss_sum, device=self.runtime.device)
        self.norm = torch.zeros((), device=self.runtime.device)
        self.learning_rate = 0.0
        self.meters = Throughput(self.model.config, self.runtime, self.progress)
        self.last_save = time.monotonic()

    def run(self) -> str:
        """Train until a limit, a goal, a signal or a loss that is not finite; say which."""
        evaluated = self.progress.evaluated_step == self.progress.step
        with (
            self.stop.deferring(),
            contextlib.closing(self.saver),
            contextlib.closing(
                Logs(
                    self.run_dir,
                    self.progress.step,
                    evaluated=evaluated,
                    tensorboard=self.config.tensorboard,
                )
            ) as logs,
            self._bar() as bar,
        ):
            return self._run(logs, bar)

    def _run(self, logs: Logs, bar: tqdm[Any]) -> str:
        progress, config = self.progress, self.config
        while True:
            reason = self._limit_reached()
            ending = reason in ("max_steps", "max_seconds")
            due = ending or (reason is None and progress.step % config.eval_every == 0)
            if due and (progress.step > 0 or ending) and progress.evaluated_step != progress.step:
                if not self._evaluate_and_save(logs, bar):
                    return "non_finite_loss"
                reason = self._goal_reached() or self._limit_reached()
            if reason is not None:
                return reason if self.save() else "non_finite_loss"
            if self._save_due() and not self.save():
                return "non_finite_loss"  # what was saved last is the last known to be good
            self._step()
            bar.update(1)
            if progress.step % config.log_every == 0 or progress.step == config.max_steps:
                line = self._reading()
                if line is None:
                    return "non_finite_loss"
                logs.metrics(self._stamp() | line | self.meters.reading(progress.tokens))
                self._watch_for_spikes(line["train_loss"], bar)
                bar.set_postfix_str(self._postfix(line["train_loss"]))

    def _step(self) -> None:
        """One update, of which nothing is read back."""
        config, progress = self.config, self.progress
        self.learning_rate = set_rates(self.optimizers, progress.step, config)
        rows, length = batch_shape(progress.step, config, self.context_length)
        for micro_step in range(config.gradient_accumulation):
            inputs, targets = self.feed.batch(progress.step, micro_step, rows, length)
            with self.runtime.autocast():
                loss = self.loss(self.model, inputs, targets) / config.gradient_accumulation
            torch.autograd.backward(self.scaler.scale(loss))
            self.loss_sum += loss.detach()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if config.l1:
            add_l1_gradient(self.matrices, config.l1)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norm = nn.utils.get_total_norm(gradients)
        if config.gradient_clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), config.gradient_clip, self.norm)
        # Where float16 gradients overflowed no optimizer steps, and the scaler lowers its scale.
        overflowed = self.scaler.is_enabled() and not self.norm.isfinite()
        for optimizer in self.optimizers:
            if not overflowed:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        progress.step += 1
        progress.tokens += rows * length * config.gradient_accumulation
        progress.loss_count += 1

    def _reading(self) -> dict[str, float] | None:
        """What the last steps were like, the loss as their mean; None when it is not finite."""
        progress = self.progress
        loss, norm = self.loss_sum.item() / progress.loss_count, self.norm.item()
        if not (math.isfinite(loss) and self._norm_is_good(norm)):
            return None
        progress.loss_count = 0
        self.loss_sum.zero_()
        line = {"train_loss": loss, "lr": self.learning_rate}
        return line | ({"grad_norm": norm} if math.isfinite(norm) else {})

    def _norm_is_good(self, norm: float) -> bool:
        return math.isfinite(norm) or self.scaler.is_enabled()  # which leaves such an update out

    def _watch_for_spikes(self, loss: float, bar: tqdm[Any]) -> None:
        """Say when the loss jumps. The best weights and the last states are kept in any case."""
        progress, usual = self.progress, self.progress.usual_loss
        if usual is not None and loss > max(usual * SPIKE_RATIO, usual + SPIKE_NATS):
            progress.loss_spikes += 1
            _say(bar, f"step {progress.step:>6}   loss spike: {loss:.3f} after {usual:.3f}")
        share = USUAL_DECAY if usual is not None else 0.0
        progress.usual_loss = share * (usual or 0.0) + (1 - share) * loss

    def _evaluate_and_save(self, logs: Logs, bar: tqdm[Any]) -> bool:
        """Whether the losses are finite; when one is not, what was saved before stays."""
        progress = self.progress
        with self.meters.paused(progress.tokens):
            validation = evaluate(self.model, self.data, self.context_length, self.runtime)
            if not math.isfinite(validation.loss):
                return False
            progress.evaluated_step = progress.step
            line = {"val_loss": validation.loss, "val_bits_per_byte": validation.bits_per_byte}
            logs.metrics(self._stamp() | line)
            if self.sampler is not None and self.config.sample_tokens:
                text = self.sampler(self.model, self.data.tokenizer, self.config.sample_tokens)
                logs.sample({"step": progress.step, "text": text})
            if not self.save(f"{validation.loss:.6f}" if self._record(validation) else None):
                return False
        _say(
            bar,
            f"step {progress.step:>6}   validation loss {validation.loss:.4f}   "
            f"{validation.bits_per_byte:.3f} bits a byte   {self.meters.rate:,.0f} tokens/s",
        )
        return True

    def _record(self, validation: Validation) -> bool:
        """Remember a validation loss; whether it is the best so far."""
        progress = self.progress
        if progress.best_val_loss is not None and validation.loss >= progress.best_val_loss:
            progress.evaluations_since_best += 1
            return False
        progress.best_val_loss = validation.loss
        progress.best_val_bits_per_byte = validation.bits_per_byte
        progress.best_step = progress.step
        progress.evaluations_since_best = 0
        return True

    def save(self, val_loss: str | None = None) -> bool:
        """Begin to write the state, and the weights if ``val_loss`` or no evaluation has chosen any.

        False, with nothing written, when the losses since the last reading or the last gradient are not
        finite: the weights are not either.
        """
        progress = self.progress
        progress.loss_sum = self.loss_sum.item()
        if not (math.isfinite(progress.loss_sum) and self._norm_is_good(self.norm.item())):
            return False
        if val_loss is None and progress.best_val_loss is None:
            val_loss = "not evaluated"
        validation = None
        if val_loss is not None:
            validation = {"val_loss": val_loss, "val_dtype": self.runtime.dtype_name}
        progress.seconds = self._stamp()["seconds"]
        progress.joules = self.meters.joules()
        progress.scaler = self.scaler.state_dict()
        self.saver.save(self.run_dir, progress, self.settings, validation=validation)
        self.last_save = time.monotonic()
        return True

    def _save_due(self) -> bool:
        every = self.config.save_seconds
        return bool(every) and time.monotonic() - self.last_save >= every

    def _limit_reached(self) -> str | None:
        if self.stop.signum is not None:
            return STOP_SIGNALS[self.stop.signum]
        if self.progress.step >= self.config.max_steps:
            return "max_steps"
        limit = self.config.max_seconds
        if limit is not None and seconds_since_process_start() >= limit:
            return "max_seconds"
        return None

    def _goal_reached(self) -> str | None:
        best, patience = self.progress.best_val_loss, self.config.early_stopping
        target = self.config.target_val_loss
        if target is not None and best is not None and best <= target:
            return "target_val_loss"
        if patience and self.progress.evaluations_since_best >= patience:
            return "early_stopping"
        return None

    def _stamp(self) -> dict[str, Any]:
        return {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(self.meters.seconds(), 3),
        }

    def _bar(self) -> tqdm[Any]:
        return tqdm(
            total=self.config.max_steps,
            initial=self.progress.step,
            unit="step",
            disable=None,  # silent unless stderr is a terminal
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
        )

    def _postfix(self, loss: float) -> str:
        best, utilisation = self.progress.best_val_loss, self.meters.utilisation()
        parts = [f"loss {loss:.3f}"]
        parts += [] if best is None else [f"best val {best:.3f}"]
        parts += [f"{self.meters.rate / 1000:.1f}k tok/s"]
        parts += [] if utilisation is None else [f"MFU {utilisation:.0%}"]
        return " ".join(parts)


def _say(bar: tqdm[Any], text: str) -> None:
    bar.clear()
    print(text, file=sys.stderr)
