"""How long a run will take, estimated from the first steps of the process."""

from __future__ import annotations

from minilm.training.run_spec import RunSpec
from minilm.training.text_size import final_eval_tokens, step_tokens
from minilm.units import counted, format_seconds

# Steps that are timed one by one; the first one warms up.
TIMED_STEPS = 3


class TimeLeft:
    """Takes the seconds of the first steps, and of an evaluation where there was one among them."""

    def __init__(self, spec: RunSpec) -> None:
        self._config = spec.config
        self._dataset = spec.dataset
        self._step_tokens = step_tokens(spec.config, spec.model.config, spec.dataset)
        self._steps: list[float] = []
        self.evaluation_seconds: float | None = None

    def needs_steps(self) -> bool:
        """Whether the next step is still to be timed."""
        return len(self._steps) < TIMED_STEPS

    def add_step(self, seconds: float, *, step: int, elapsed: float) -> str | None:
        """The estimate after ``step``, with the last of the timed steps; None before, and at the end.

        ``elapsed``: seconds since this process began, as max_seconds counts them.
        """
        self._steps.append(seconds)
        last, every = self._config.max_steps, self._config.eval_every
        if self.needs_steps() or step == last:
            return None
        mean = sum(self._steps[1:]) / (TIMED_STEPS - 1)
        forward = mean / 3 / self._step_tokens  # a pass without its gradients, seconds a token
        places, some = self._dataset.val_places, self._config.eval_tokens
        evaluation = self.evaluation_seconds
        if evaluation is None:
            evaluation = forward * (some or places)
        evaluations = last // every - step // every + bool(last % every)
        left = (last - step) * mean + evaluations * evaluation
        final = final_eval_tokens(last * self._step_tokens, self._dataset) or places
        if 0 < some < final:
            left += forward * final
        steps = counted(last - step, "step")
        text = f"about {format_seconds(left)} for the {steps} left, evaluations included"
        limit = self._config.max_seconds
        if limit is not None and limit - elapsed < left:
            text += f"; max_seconds ends the steps after {format_seconds(limit)}"
        return text
