"""The steps of a run: batch, forward, backward, update; log, evaluate and save when due."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minilm import run
from minilm.checkpoint import save_weights
from minilm.config import ModelConfig, TrainConfig
from minilm.data.batches import training_batch
from minilm.data.shards import Dataset
from minilm.model.transformer import next_token_loss
from minilm.training.evaluation import Validation, evaluate
from minilm.training.metrics import MetricsLog, seconds_since_process_start
from minilm.training.optimizer import add_l1_gradient, make_optimizer, matrices
from minilm.training.runtime import Runtime
from minilm.training.schedule import learning_rate
from minilm.training.state import Progress, SavedState, restore_state, save_state
from minilm.training.stopping import StopRequest

STOP_SIGNALS = {2: "SIGINT", 15: "SIGTERM"}


@dataclass
class Loop:
    """One run in this process. `run()` returns why it stopped; everything is saved by then."""

    model: nn.Module
    model_config: ModelConfig
    config: TrainConfig
    data: Dataset
    run_dir: Path
    runtime: Runtime
    settings: dict[str, Any]
    saved: SavedState | None
    stop: StopRequest

    def __post_init__(self) -> None:
        self.model.to(self.runtime.device).train()
        self.optimizer = make_optimizer(self.model, self.config)
        # float16 alone needs its loss scaled to keep small gradients from vanishing.
        self.scaler = torch.amp.GradScaler(
            self.runtime.device.type, enabled=self.runtime.dtype == torch.float16
        )
        self.loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = next_token_loss
        if self.runtime.compile:
            self.loss = torch.compile(next_token_loss)
        self.matrices = matrices(self.model)
        self.progress = Progress()
        torch.manual_seed(self.config.seed)  # dropout; weights and batches have their own
        if self.saved is not None:
            restore_state(self.saved, self.model, self.optimizer, self.run_dir / run.RESUME)
            self.progress = self.saved.progress
            if self.progress.scaler:
                self.scaler.load_state_dict(self.progress.scaler)
        self.seconds_before = self.progress.seconds
        self.rate = Rate(self.progress.tokens)

    def run(self) -> str:
        """Train until a limit, a goal, a signal or a loss that is not finite; say which."""
        metrics = MetricsLog(self.run_dir / run.METRICS, self.progress.step)
        try:
            with self.stop.deferring(), self._bar() as bar:
                return self._run(metrics, bar)
        finally:
            metrics.close()

    def _run(self, metrics: MetricsLog, bar: tqdm[Any]) -> str:
        progress, config = self.progress, self.config
        while True:
            reason = self._limit_reached()
            ending = reason in ("max_steps", "max_seconds")
            due = ending or (reason is None and progress.step % config.eval_every == 0)
            if due and (progress.step > 0 or ending) and progress.evaluated_step != progress.step:
                if not self._evaluate_and_save(metrics, bar):
                    return "non_finite_loss"
                reason = self._goal_reached() or self._limit_reached()
            if reason is not None:
                self.save()
                return reason
            step_metrics = self._step()
            if step_metrics is None:
                return "non_finite_loss"  # what was saved last is the last known to be good
            if progress.step % config.log_every == 0 or progress.step == config.max_steps:
                metrics.write(self._stamp() | step_metrics | self.rate.reading(progress.tokens))
            bar.update(1)
            if progress.step % config.log_every == 0:
                bar.set_postfix_str(self._postfix(step_metrics["train_loss"]))

    def _step(self) -> dict[str, float] | None:
        """One update; None, with the weights untouched, when the loss or gradient is not finite."""
        config, progress = self.config, self.progress
        rate = learning_rate(progress.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for micro_step in range(config.gradient_accumulation):
            inputs, targets = self._batch(micro_step)
            with self.runtime.autocast():
                loss = self.loss(self.model, inputs, targets) / config.gradient_accumulation
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        if config.l1:
            add_l1_gradient(self.matrices, config.l1)
        clip = config.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip, foreach=True).item()
        # The scaler skips an update whose float16 gradients overflowed and lowers its scale.
        if not math.isfinite(total) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            self.optimizer.zero_grad(set_to_none=True)
            return None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += self.tokens_per_step
        return {"train_loss": total, "lr": rate, "grad_norm": norm if math.isfinite(norm) else 0.0}

    @property
    def tokens_per_step(self) -> int:
        """Targets that one update learns from."""
        per_pass = self.config.batch_size * self.model_config.context_length
        return per_pass * self.config.gradient_accumulation

    def _batch(self, micro_step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = training_batch(
            self.data.train,
            context_length=self.model_config.context_length,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            step=self.progress.step,
            micro_step=micro_step,
        )
        device = self.runtime.device
        return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)

    def _evaluate_and_save(self, metrics: MetricsLog, bar: tqdm[Any]) -> bool:
        """Whether the validation loss is finite; when it is not, what was saved before stays."""
        progress = self.progress
        self.rate.pause(progress.tokens)
        validation = evaluate(self.model, self.data, self.model_config.context_length, self.runtime)
        if not math.isfinite(validation.loss):
            return False
        progress.evaluated_step = progress.step
        line = {"val_loss": validation.loss, "val_bits_per_byte": validation.bits_per_byte}
        metrics.write(self._stamp() | line)
        self._keep_best(validation)
        self.save()
        bar.clear()
        print(
            f"step {progress.step:>6}   validation loss {validation.loss:.4f}   "
            f"{validation.bits_per_byte:.3f} bits a byte   {self.rate.last:,.0f} tokens/s",
            file=sys.stderr,
        )
        self.rate.go_on(progress.tokens)
        return True

    def _keep_best(self, validation: Validation) -> None:
        progress = self.progress
        if progress.best_val_loss is not None and validation.loss >= progress.best_val_loss:
            progress.evaluations_since_best += 1
            return
        progress.best_val_loss = validation.loss
        progress.best_val_bits_per_byte = validation.bits_per_byte
        progress.best_step = progress.step
        progress.evaluations_since_best = 0
        self._write_weights(f"{validation.loss:.6f}")

    def _write_weights(self, val_loss: str) -> None:
        metadata = {"format": "pt", "step": str(self.progress.step), "val_loss": val_loss}
        save_weights(self.run_dir / run.WEIGHTS, self.model, metadata)

    def save(self) -> None:
        """Write the whole state; and the weights, while no evaluation has chosen any."""
        # The weights go first: a crash in between leaves a state that writes them again.
        if self.progress.best_val_loss is None:
            self._write_weights("not evaluated")
        self.progress.seconds = self._stamp()["seconds"]
        self.progress.scaler = self.scaler.state_dict()
        save_state(self.run_dir, self.model, self.optimizer, self.progress, self.settings)

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
        seconds = self.seconds_before + seconds_since_process_start()
        return {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(seconds, 3),
        }

    def _bar(self) -> tqdm[Any]:
        return tqdm(
            total=self.config.max_steps,
            initial=self.progress.step,
            unit="step",
            disable=None,  # silent unless stderr is a terminal
            dynamic_ncols=True,
        )

    def _postfix(self, loss: float) -> str:
        best = self.progress.best_val_loss
        best_text = "" if best is None else f" best val {best:.3f}"
        return f"loss {loss:.3f}{best_text} {self.rate.last:,.0f} tokens/s"


class Rate:
    """Tokens a second of training, evaluation and saving left out."""

    def __init__(self, tokens: int) -> None:
        self.last = 0.0
        self._training_seconds = 0.0
        self._first_tokens = tokens
        self.go_on(tokens)

    def go_on(self, tokens: int) -> None:
        """Start a stretch of training."""
        self._tokens, self._since = tokens, time.perf_counter()

    def pause(self, tokens: int) -> None:
        """End a stretch of training."""
        if tokens > self._tokens:
            self.reading(tokens)

    def reading(self, tokens: int) -> dict[str, float]:
        """The rate since the last reading, which begins the next stretch."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        self.last = (tokens - self._tokens) / elapsed
        self._training_seconds += elapsed
        self._tokens, self._since = tokens, now
        return {"tokens_per_second": round(self.last, 1)}

    def average(self, tokens: int) -> float:
        """The rate of this process's whole training; 0.0 before the first reading."""
        seconds = self._training_seconds
        return (tokens - self._first_tokens) / seconds if seconds else 0.0
