"""What a shape costs, computed from the ledger before anything is trained, and the most that it may cost.

Joules are an estimate: FLOPs and bytes moved, each times what one took in a chip of 45 nm (Horowitz 2014,
"Computing's energy problem", ISSCC; the table in Han et al. 2016, arXiv:1602.01528). Newer chips take less,
and real programs more than their products: shapes are compared by it. Where the energy of this machine can
be measured, the estimate is multiplied by what was measured on one model, divided by its estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, TrainConfig
from minilm.costs.activations import activations
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import kv_cache_bytes
from minilm.costs.training_step import TrainingStep
from minilm.dtypes import storage_bytes
from minilm.errors import ConfigError
from minilm.units import format_bytes, format_count

# A float32 product and a sum are 2 FLOPs; DRAM is read and written in words of 4 bytes.
JOULES_PER_FLOP = (3.7e-12 + 0.9e-12) / 2
JOULES_PER_BYTE = 640e-12 / 4


@dataclass(frozen=True)
class Price:
    """What a model costs; all but ``params`` and ``bytes`` are for a token."""

    params: int
    bytes: int
    """float32 weights, and the KV cache of one full context: what generation holds."""
    flops: int
    """Of a forward pass at the end of a full context."""
    training_flops: int
    bytes_moved: float
    """By training: weights, gradients and the optimizer's state a step, activations."""
    joules: float
    """Of training, estimated."""


@dataclass(frozen=True)
class Budget:
    """The most that a shape may cost, in units of `Price`; None: no limit. At least one is set."""

    params: int | None = None
    bytes: int | None = None
    flops: int | None = None
    joules: float | None = None

    def __post_init__(self) -> None:
        if not self.limits():
            raise ConfigError("params", "no budget", "one of params, bytes, flops, joules")
        for name, limit in self.limits().items():
            if not 0 < limit < math.inf:
                raise ConfigError(name, f"{limit}", "a number above 0")

    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def share(self, price: Price) -> float:
        """How much of the budget that takes: of the limit that is nearest to being reached."""
        return max(float(getattr(price, name)) / limit for name, limit in self.limits().items())

    def allows(self, price: Price) -> bool:
        """Whether no limit is exceeded."""
        return all(getattr(price, name) <= limit for name, limit in self.limits().items())

    def to_dict(self) -> dict[str, Any]:
        """Every limit by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return ", ".join(format_cost(name, limit) for name, limit in self.limits().items())


def price(model: ModelConfig, train: TrainConfig, *, energy_factor: float = 1.0) -> Price:
    """What the model costs, trained in such batches.

    ``energy_factor``: measured joules for each that is estimated.
    """
    whole = layout(model)
    context = model.context_length
    flops = flops_per_token(whole, context=context)
    moved = bytes_moved(model, train)
    count = whole.count()
    joules = JOULES_PER_FLOP * flops["training_per_token"] + JOULES_PER_BYTE * moved
    return Price(
        params=count,
        bytes=storage_bytes(count, "float32")
        + kv_cache_bytes(whole, context=context, batch=1)["float32"],
        flops=flops["forward_per_token"],
        training_flops=flops["training_per_token"],
        bytes_moved=moved,
        joules=energy_factor * joules,
    )


def bytes_moved(model: ModelConfig, train: TrainConfig) -> float:
    """Bytes that a training step reads and writes, for each of its tokens. An estimate.

    Each of float32 weights and gradients, and of the optimizer's state, goes through memory whole, what is
    saved for the backward pass is written once and read once, and nothing stays in a cache between.
    """
    step = TrainingStep(model, layout(model), optimizer=train.optimizer)
    passes = train.gradient_accumulation
    # Weights: read forward and backward; gradients: written, and added to from the second pass on.
    of_passes = passes * 2 * step.weights + (2 * passes - 1) * step.weights
    # The update reads gradients and weights and writes weights; the state is read and written.
    of_update = 3 * step.weights + 2 * step.optimizer_bytes
    tokens = train.batch_size * model.context_length
    saved = activations(model, batch=train.batch_size, context=model.context_length).total()
    return (of_passes + of_update) / (tokens * passes) + 2 * saved / tokens


def widest(
    config_of: Callable[[int], ModelConfig | None],
    price_of: Callable[[ModelConfig], Price],
    budget: Budget,
    *,
    share: float,
    step: int,
) -> ModelConfig | None:
    """The widest model that takes at most ``share`` of the budget, else the narrowest that the budget allows.

    None where it allows none. Widths are multiples of ``step``; ``config_of`` gives None for one that is no
    valid model.
    """

    def fits(number: int) -> bool:
        config = config_of(number * step)
        if config is None:
            return False
        cost = price_of(config)
        # The preset's own share, divided and multiplied again, is the preset.
        return budget.allows(cost) and budget.share(cost) <= share * (1 + 1e-9)

    narrowest = config_of(step)
    if narrowest is None or not budget.allows(price_of(narrowest)):
        return None
    fitting, too_wide = 1, 2
    while fits(too_wide):
        fitting, too_wide = too_wide, 2 * too_wide
    while too_wide - fitting > 1:
        middle = (fitting + too_wide) // 2
        if fits(middle):
            fitting = middle
        else:
            too_wide = middle
    return config_of(fitting * step)


def format_cost(name: str, value: float) -> str:
    """A cost with its unit: 1.06M parameters."""
    if name == "params":
        return f"{format_count(value)} parameters"
    if name == "bytes":
        return f"{format_bytes(value)} of weights and KV cache"
    if name == "flops":
        return f"{format_count(value)} FLOPs a token"
    return f"{value:.3g} J a token"
