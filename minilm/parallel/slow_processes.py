"""A process that computes more slowly than the others, which all wait for it, is named."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence

from minilm.parallel.process_group import World

# Of the others' median, and how many seconds more: a short step takes longer now and then.
RATIO, SECONDS = 1.5, 1.0

logger = logging.getLogger(__name__)


class SlowProcesses:
    """What is said of each process of a ``world`` once, in the main one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._named: set[int] = set()

    def watch(self, seconds: Sequence[float], steps: int) -> None:
        """``seconds`` that each process computed alone in the last ``steps``, by rank."""
        for rank in slow_ranks(seconds):
            if rank not in self._named and self._world.is_main:
                others = statistics.median([*seconds[:rank], *seconds[rank + 1 :]])
                logger.warning(
                    f"note: {self._world.describe(rank)} is slow, and all wait for it: forward passes of "
                    f"{seconds[rank] / steps:.2f} s a step, others {others / steps:.2f} s"
                )
            self._named.add(rank)


def slow_ranks(seconds: Sequence[float]) -> list[int]:
    """Those that take RATIO times the median of the others, and SECONDS more."""
    slow = []
    for rank, own in enumerate(seconds):
        others = statistics.median([*seconds[:rank], *seconds[rank + 1 :]] or [own])
        if own > max(RATIO * others, others + SECONDS):
            slow.append(rank)
    return slow
