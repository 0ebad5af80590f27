"""What the optimizers have in common: groups of parameters, and what is kept of each.

Named as in `torch.optim.Optimizer`, which imports torch's compiler when the first is made. That takes as long
as importing torch itself, and most runs do not compile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class Optimizer(ABC):
    """``param_groups``: each a dictionary with ``params`` and its own settings. ``state``: by parameter."""

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.param_groups = list(groups)
        self.state: defaultdict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)
        self.after_step: list[Callable[[], None]] = []

    def step(self) -> None:
        """Update every parameter from its gradient, then call each of ``after_step``."""
        self.update()
        for action in self.after_step:
            action()

    @abstractmethod
    def update(self) -> None: ...

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
