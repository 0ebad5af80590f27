"""What a LoRA adapter is: its rank, its scale, and the matrices that have it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minilm.config.validation import LARGEST_DIMENSION, check_range, names_of
from minilm.errors import ConfigError
from minilm.ledger.layout_changes import ADAPTER_TARGETS

DEFAULT_TARGETS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class LoraConfig:
    """y = W x + scale * B A x, with A (rank, inputs) and B (outputs, rank): Hu et al. 2021.

    ``targets`` are names of `ADAPTER_TARGETS`. ``rank_stabilised`` divides alpha by the root of the rank
    instead of the rank (Kalajdzievski 2023, arXiv:2312.03732). ``dropout`` is of x, in training only.
    ``dora``: the rows of W + scale * B A have a length that is trained apart (Liu et al. 2024,
    arXiv:2402.09353).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    rank_stabilised: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        if type(self.rank) is not int:
            raise ConfigError("lora_rank", repr(self.rank), "a whole number")
        for name in ("alpha", "dropout"):
            value = getattr(self, name)
            if type(value) not in (int, float):
                raise ConfigError(f"lora_{name}", repr(value), "a number")
            object.__setattr__(self, name, float(value))
        try:
            check_range(self, "rank", 1, LARGEST_DIMENSION)
            check_range(self, "alpha", 0, math.inf, lower_open=True, upper_open=True)
            check_range(self, "dropout", 0, 1, upper_open=True)
        except ConfigError as error:  # by the names of the arguments that they come from
            raise ConfigError(f"lora_{error.where}", error.got, error.expected) from None
        for name in ("rank_stabilised", "dora"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(name, repr(getattr(self, name)), "true or false")
        if not isinstance(self.targets, (tuple, list)) or not all(
            isinstance(word, str) for word in self.targets
        ):
            raise ConfigError("targets", repr(self.targets), "a list of names")
        for word in self.targets:
            if word not in ADAPTER_TARGETS:
                raise ConfigError("targets", repr(word), f"any of {', '.join(ADAPTER_TARGETS)}")
        if not self.targets:
            raise ConfigError("targets", "none", f"any of {', '.join(ADAPTER_TARGETS)}")
        object.__setattr__(self, "targets", tuple(in_order(self.targets)))

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    @property
    def description(self) -> str:
        """In a few words."""
        what = (
            f"a {'DoRA' if self.dora else 'LoRA'} adapter of rank {self.rank}, alpha {self.alpha:g}"
        )
        what += " (rank-stabilised)" if self.rank_stabilised else ""
        what += f", dropout {self.dropout:g}" if self.dropout else ""
        return f"{what} of {', '.join(self.targets)}"


def lora_config(
    rank: int | None,
    *,
    alpha: float | None = None,
    dropout: float | None = None,
    targets: Sequence[str] | None = None,
    rank_stabilised: bool = False,
    dora: bool = False,
) -> LoraConfig | None:
    """The adapter that options ask for; None without a rank. ``alpha`` is by default twice the rank.

    Raises ConfigError for options of an adapter where none is asked for.
    """
    if rank is not None:
        if alpha is None:
            alpha = 2.0 * rank if type(rank) is int else 0.0
        names = DEFAULT_TARGETS if targets is None else names_of("targets", targets)
        return LoraConfig(rank, alpha, dropout or 0.0, names, rank_stabilised, dora)
    given = {
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "targets": targets,
        "rank_stabilised": rank_stabilised or None,
        "dora": dora or None,
    }
    for name, value in given.items():
        if value is not None:
            raise ConfigError(name, "given without lora_rank", "an adapter", "add lora_rank")
    return None


def in_order(targets: Sequence[str]) -> list[str]:
    """Names of matrices as they are recorded: in the order of a block, each once."""
    order = list(ADAPTER_TARGETS)
    return sorted(set(targets), key=lambda name: order.index(name) if name in order else -1)


def lora_options(lora: LoraConfig) -> dict[str, Any]:
    """The arguments of `lora_config` that ask for this adapter, by their names in `finetune`."""
    return {
        "lora_rank": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "targets": list(lora.targets),
        "rank_stabilised": lora.rank_stabilised,
        "dora": lora.dora,
    }
