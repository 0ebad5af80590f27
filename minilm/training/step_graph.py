"""A training step on CUDA as graphs that are replayed: the card does not wait for Python between kernels.

The kernels are those of a step without graphs, and so are the numbers, dropout's included: a graph moves the
random generator on as the step did that it was captured from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minilm.training.resume_state import random_states, restore_random_states

logger = logging.getLogger(__name__)

# Steps of a batch shape before it is captured: kernels are compiled, the optimizers have their state.
WARM_UP_STEPS = 2


class StepGraph:
    """The backward pass of a micro-batch and the update, captured for one batch shape at a time.

    ``backward(inputs, targets)`` adds gradients, ``update()`` uses and drops them. Both work in place on
    tensors that stay where they are, and wait for nothing. The first micro-batch of a step writes gradients,
    the later ones add to them, so each is a graph of its own. What cannot be captured runs without graphs,
    with a note.
    """

    def __init__(
        self, backward: Callable[[Tensor, Tensor], None], update: Callable[[], None]
    ) -> None:
        self._backward, self._update = backward, update
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._can_capture = True
        self._inputs = self._targets = torch.empty(0)
        self.forget()

    def forget(self) -> None:
        """Begin anew: for another batch shape, or after a step that did not end."""
        self._graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._steps = self._micro_step = 0

    def backward(self, inputs: Tensor, targets: Tensor) -> None:
        """One micro-batch."""
        if inputs.shape != self._inputs.shape:
            self.forget()
            self._inputs, self._targets = torch.empty_like(inputs), torch.empty_like(targets)
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        name = "further" if self._micro_step else "first"
        self._run(name, lambda: self._backward(self._inputs, self._targets))
        self._micro_step += 1

    def update(self) -> None:
        """The end of a step."""
        self._run("update", self._update)
        self._micro_step = 0
        self._steps += 1

    def _run(self, name: str, call: Callable[[], None]) -> None:
        if self._can_capture and self._steps >= WARM_UP_STEPS and name not in self._graphs:
            self._capture(name, call)
        if name in self._graphs:
            self._graphs[name].replay()
            return
        with self._on_stream():
            call()

    def _capture(self, name: str, call: Callable[[], None]) -> None:
        """Record what ``call`` launches; nothing of it is computed."""
        generators, graph = random_states(), torch.cuda.CUDAGraph()
        try:
            # Other threads, as that which saves, may use the card meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                call()
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            logger.warning(f"without CUDA graphs: {reason}")
            self._can_capture = False
            self._graphs.clear()
        else:
            self._graphs[name] = graph
        restore_random_states(generators)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """The stream that is captured later: what autograd keeps between steps belongs to it."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)
