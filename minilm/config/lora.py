"""What a LoRA adapter is: its rank, its scale, and the matrices that have it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minilm.config.validation import LARGEST_DIMENSION, check_range
from minilm.errors import ConfigError
from minilm.ledger.layout_changes import ADAPTER_TARGETS

DEFAULT_TARGETS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class LoraConfig:
    """y = W x + scale * B A x, with A (rank, inputs) and B (outputs, rank): Hu et al. 2021.

    ``targets`` are names of `ADAPTER_TARGETS`. ``rank_stabilised`` divides alpha by the root of the rank
    instead of the rank (Kalajdzievski 2023, arXiv:2312.03732). ``dropout`` is of x, in training only.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        if type(self.rank) is not int:
            raise ConfigError("lora_rank", repr(self.rank), "a whole number")
        for name in ("alpha", "dropout"):
            value = getattr(self, name)
            if type(value) not in (int, float):
                raise ConfigError(f"lora_{name}", repr(value), "a number")
            object.__setattr__(self, name, float(value))
        check_range(self, "rank", 1, LARGEST_DIMENSION)
        check_range(self, "alpha", 0, math.inf, lower_open=True, upper_open=True)
        check_range(self, "dropout", 0, 1, upper_open=True)
        if type(self.rank_stabilised) is not bool:
            raise ConfigError("rank_stabilised", repr(self.rank_stabilised), "true or false")
        if not isinstance(self.targets, (tuple, list)) or not all(
            isinstance(word, str) for word in self.targets
        ):
            raise ConfigError("targets", repr(self.targets), "a list of names")
        targets = tuple(word for word in ADAPTER_TARGETS if word in self.targets)
        for word in self.targets:
            if word not in ADAPTER_TARGETS:
                raise ConfigError("targets", repr(word), f"any of {', '.join(ADAPTER_TARGETS)}")
        if not targets:
            raise ConfigError("targets", "none", f"any of {', '.join(ADAPTER_TARGETS)}")
        object.__setattr__(self, "targets", targets)  # in one order, each once

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def lora_config(
    rank: int | None,
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = DEFAULT_TARGETS,
    rank_stabilised: bool = False,
) -> LoraConfig | None:
    """The adapter that options ask for; None without a rank. ``alpha`` is by default twice the rank.

    Raises ConfigError for options of an adapter where none is asked for.
    """
    if rank is not None:
        if alpha is None and type(rank) is int:
            alpha = 2.0 * rank
        return LoraConfig(rank, alpha or 0.0, dropout, tuple(targets), rank_stabilised)
    given = {
        "lora_alpha": alpha is not None,
        "lora_dropout": dropout != 0,
        "targets": tuple(targets) != DEFAULT_TARGETS,
        "rank_stabilised": rank_stabilised,
    }
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(name, "given without lora_rank", "an adapter", "add --lora-rank")
    return None
