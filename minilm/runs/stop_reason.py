"""Why a run stopped: the values of ``stopped_because`` in summary.json."""

from __future__ import annotations

import signal
from enum import Enum


class StopReason(str, Enum):
    """A string, so that it is written to JSON and compared as one."""

    MAX_STEPS = "max_steps"
    MAX_SECONDS = "max_seconds"
    TARGET_VAL_LOSS = "target_val_loss"
    EARLY_STOPPING = "early_stopping"
    NON_FINITE_LOSS = "non_finite_loss"
    NO_CLIENTS = "no_clients"
    PRUNED = "pruned"
    SIGINT = "SIGINT"
    SIGTERM = "SIGTERM"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of_signal(cls, signum: int) -> StopReason:
        """SIGINT or SIGTERM, by its number."""
        return cls(signal.Signals(signum).name)

    @property
    def signum(self) -> int | None:
        """The number of the signal, None for another reason."""
        return signal.Signals[self.value].value if self.value.startswith("SIG") else None

    @property
    def is_final(self) -> bool:
        """Whether the run reached its end, so that nothing is left to resume."""
        return self in _FINAL


_FINAL = (StopReason.MAX_STEPS, StopReason.TARGET_VAL_LOSS, StopReason.EARLY_STOPPING)
