"""A training step on CUDA as graphs that are replayed.

The kernels are those of a step without graphs, and so are the numbers, dropout's included: a graph moves the
random generator on as the step did that it was captured from.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minilm.model.cuda_graph import capture, run_on
from minilm.training.resume_state import random_states, restore_random_states

# Steps of a batch shape before it is captured: kernels are compiled, the optimizers have their state.
WARM_UP_STEPS = 2


class StepGraph:
    """The backward pass of a micro-batch and the update, captured for one batch shape at a time.

    ``backward(*batch)`` adds gradients, ``update()`` uses and drops them. Both work in place on
    tensors that stay where they are, and wait for nothing. The first micro-batch of a step writes gradients,
    the later ones add to them, so each is a graph of its own. What cannot be captured runs without graphs,
    with a note.
    """

    def __init__(self, backward: Callable[..., None], update: Callable[[], None]) -> None:
        self._backward, self._update = backward, update
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._can_capture = True
        self._batch: tuple[Tensor, ...] = ()
        self.forget()

    def forget(self) -> None:
        """Begin anew: for another batch shape, or after a step that did not end."""
        self._graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._steps = self._micro_step = 0

    def backward(self, *batch: Tensor) -> None:
        """One micro-batch."""
        if [tensor.shape for tensor in batch] != [tensor.shape for tensor in self._batch]:
            self.forget()
            self._batch = tuple(torch.empty_like(tensor) for tensor in batch)
        for static, tensor in zip(self._batch, batch, strict=True):
            static.copy_(tensor)
        name = "further" if self._micro_step else "first"
        self._run(name, lambda: self._backward(*self._batch))
        self._micro_step += 1

    def update(self) -> None:
        """The end of a step."""
        self._run("update", self._update)
        self._micro_step = 0
        self._steps += 1

    def _run(self, name: str, call: Callable[[], None]) -> None:
        if self._can_capture and self._steps >= WARM_UP_STEPS and name not in self._graphs:
            generators = random_states()
            graph = capture(call, self._stream, self._pool)
            restore_random_states(generators)
            self._can_capture = graph is not None
            if graph is not None:
                self._graphs[name] = graph
        if self._can_capture and name in self._graphs:
            self._graphs[name].replay()
        else:
            run_on(self._stream, call)
