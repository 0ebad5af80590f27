"""What is searched, and the models and settings that it means.

Learning rates, the batch, depth, and how much of the budget a model takes. The width is not drawn: it is
the largest that the depth and that share of the budget allow, so that what is drawn never costs more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from minilm.config import ModelConfig, TrainConfig
from minilm.config.presets import Preset
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError
from minilm.hyperparameters.budget import Budget, Price, price, widest
from minilm.training.text_size import EVALUATION_SHARE, fit_to_text, step_tokens

if TYPE_CHECKING:
    from optuna import Trial

# How far a search goes from the preset: rates times and by a factor, the batch by halving and doubling.
# Smaller models and batches than these compute the same FLOPs in several times the time.
LEARNING_RATE_FACTOR = 8.0
BATCH_HALVINGS, BATCH_DOUBLINGS = 1, 2
SMALLEST_SHARE = 1 / 8
WIDTH_STEP = 8
# Equal parts of a trial, each of which ends with an evaluation.
EVALUATIONS = 4
FEWEST_EVAL_TOKENS = 4096

LEARNING_RATES = ("learning_rate", "muon_learning_rate")
_SHAPE = ("num_layers", "d_model")


@dataclass(frozen=True)
class Candidate:
    """A point of the space: the options of its run, and what it costs.

    ``tokens`` and ``flops`` are those of its training, ``parameters`` the point itself.
    """

    parameters: dict[str, float]
    model: dict[str, Any]
    settings: dict[str, Any]
    price: Price
    tokens: int
    flops: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Infeasible:
    """A point where no model fits; ``reason`` says why."""

    reason: str


@dataclass(frozen=True)
class Range:
    """Where a parameter is drawn. Whole numbers where ``low`` is one; uniform in the logarithm if ``log``."""

    low: float
    high: float
    log: bool

    def suggest(self, trial: Trial, name: str) -> float:
        """Optuna's next value."""
        if isinstance(self.low, int):
            return float(trial.suggest_int(name, self.low, int(self.high), log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def nearest(self, value: Any) -> float:
        """``value``, or the end of the range that it is beyond; the low one for what is no number."""
        is_above = isinstance(value, (int, float)) and value > self.low
        inside = min(value, self.high) if is_above else self.low
        return round(inside) if isinstance(self.low, int) else float(inside)


@dataclass(frozen=True)
class Space:
    """What is searched on one text. ``model`` and ``settings`` are fixed fields, which are not searched.

    ``base`` is the preset's model for the tokens of ``dataset``. A trial computes as many FLOPs as the first
    one, the preset as far as the budget allows, on ``tokens``.
    """

    preset: Preset
    base: ModelConfig
    dataset: Dataset
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    budget: Budget
    tokens: int
    energy_factor: float = 1.0

    def ranges(self) -> dict[str, Range]:
        """The parameters that are searched. Raises ConfigError where all of them are fixed."""
        train = self.preset.train_config(**self.settings)
        ranges: dict[str, Range] = {}
        for name in LEARNING_RATES:
            if name not in self.settings and (name == "learning_rate" or train.optimizer == "muon"):
                rate, factor = getattr(train, name), LEARNING_RATE_FACTOR
                ranges[name] = Range(rate / factor, rate * factor, True)
        if "batch_size" not in self.settings:
            power = round(math.log2(train.batch_size))
            lowest = max(0, power - BATCH_HALVINGS)
            ranges["log2_batch_size"] = Range(lowest, power + BATCH_DOUBLINGS, False)
        if "num_layers" not in self.model:
            layers = self.base.num_layers
            ranges["num_layers"] = Range(max(1, layers // 4), 2 * layers, True)
        if "d_model" not in self.model:
            ranges["budget_share"] = Range(SMALLEST_SHARE, 1.0, True)
        if not ranges:
            raise ConfigError("model", "every field of the search is set", "one that is not")
        return ranges

    def check(self) -> None:
        """Raises ConfigError where nothing is searched, no model is within the budget, or no step is."""
        if self._first_model() is None:
            limit = next(iter(self.budget.limits()))
            given = " and of the fields that are set" if self.model else ""
            got, expected = f"{self.budget}", f"room for a model of this vocabulary{given}"
            raise ConfigError(limit, got, expected)
        step = step_tokens(self.preset.train_config(**self.settings), self.base)
        if self.tokens < step:
            raise ConfigError("tokens", f"{self.tokens}", f"{step:,}, one step of a trial, or more")

    @cached_property
    def trial_flops(self) -> int:
        """FLOPs of a trial's training."""
        model = self._first_model()
        assert model is not None, "see check"
        train = self.preset.train_config(**self.settings)
        return self.tokens * price(model, train).training_flops

    def _first_model(self) -> ModelConfig | None:
        """That of the first trial."""
        train = self.preset.train_config(**self.settings)
        return self._model(self.preset_parameters(), train, self.base.dropout)

    @property
    def eval_tokens(self) -> int:
        """Validation tokens of an evaluation, the same ones in all trials; 0: all."""
        if "eval_tokens" in self.settings:
            return int(self.settings["eval_tokens"])
        some = max(FEWEST_EVAL_TOKENS, int(EVALUATION_SHARE * self.tokens / EVALUATIONS))
        return some if some < self.dataset.val_places else 0

    def suggest(self, trial: Trial) -> dict[str, float]:
        """The parameters of Optuna's next trial."""
        return {name: range.suggest(trial, name) for name, range in self.ranges().items()}

    def preset_parameters(self) -> dict[str, float]:
        """The preset's own values, as near as ranges and budget have them."""
        train = self.preset.train_config(**self.settings)
        cost = price(self.base, train, energy_factor=self.energy_factor)
        values = {
            "learning_rate": train.learning_rate,
            "muon_learning_rate": train.muon_learning_rate,
            "log2_batch_size": math.log2(train.batch_size),
            "num_layers": self.base.num_layers,
            "budget_share": self.budget.share(cost),
        }
        ranges = self.ranges()
        parameters = {name: range.nearest(values[name]) for name, range in ranges.items()}
        while "num_layers" in ranges and parameters["num_layers"] > ranges["num_layers"].low:
            if self._model(parameters, train, self.base.dropout) is not None:
                break
            parameters["num_layers"] -= 1
        return parameters

    def candidate(self, parameters: Mapping[str, float]) -> Candidate | Infeasible:
        """What the parameters mean. A stored trial is trusted with nothing: outside a range is at its end.

        A model that costs more than the budget is never part of it.
        """
        parameters = {
            name: range.nearest(parameters.get(name)) for name, range in self.ranges().items()
        }
        settings = dict(self.settings)
        for name in LEARNING_RATES:
            if name in parameters:
                settings[name] = float(f"{parameters[name]:.3g}")
        if "log2_batch_size" in parameters:
            settings["batch_size"] = 2 ** int(parameters["log2_batch_size"])
        # A model whose text is seen often has dropout, which moves more bytes.
        candidate = self._candidate(parameters, settings, self.base.dropout)
        if isinstance(candidate, Candidate) and candidate.model["dropout"] != self.base.dropout:
            return self._candidate(parameters, settings, candidate.model["dropout"])
        return candidate

    def _candidate(
        self, parameters: dict[str, float], settings: dict[str, Any], dropout: float
    ) -> Candidate | Infeasible:
        """The widest model with ``dropout``, and the dropout that `fit_to_text` gives it."""
        train = self.preset.train_config(**settings)
        model = self._model(parameters, train, dropout)
        if model is None:
            return Infeasible(f"no model of that depth has {self.budget}")
        cost = price(model, train, energy_factor=self.energy_factor)
        tokens = step_tokens(train, model)
        steps = self.trial_flops // (cost.training_flops * tokens)
        if steps < 1:
            return Infeasible("one step computes more than a trial")
        settings = settings | {
            "max_steps": steps,
            "eval_every": -(-steps // EVALUATIONS),
            "eval_tokens": self.eval_tokens,
            "early_stopping": 0,
            "compile": settings.get("compile", "off"),
        }
        _, fitted = fit_to_text(
            self.preset.train_config(**settings),
            self.base,
            overrides={*settings, *self.model},
            dataset=self.dataset,
        )
        shape = {name: getattr(model, name) for name in (*_SHAPE, "num_heads")}
        for name in ("num_kv_heads", "head_dim", "d_feed_forward", "rotary_dim"):
            if name in self.preset.model or name in self.model:
                shape[name] = getattr(model, name)
        fields = {**self.model, **shape, "dropout": fitted}
        tokens *= steps
        return Candidate(parameters, fields, settings, cost, tokens, tokens * cost.training_flops)

    def _model(
        self, parameters: Mapping[str, float], train: TrainConfig, dropout: float
    ) -> ModelConfig | None:
        """The widest model of such a depth within its share of the budget; None where there is none."""
        layers = int(parameters.get("num_layers", self.base.num_layers))

        def config_of(width: int) -> ModelConfig | None:
            return self._model_of(layers, width, dropout)

        def price_of(config: ModelConfig) -> Price:
            return price(config, train, energy_factor=self.energy_factor)

        if "d_model" in self.model:
            config = config_of(self.base.d_model)
            return config if config and self.budget.allows(price_of(config)) else None
        return widest(
            config_of,
            price_of,
            self.budget,
            share=parameters["budget_share"],
            step=math.lcm(WIDTH_STEP, 2 * self.model.get("num_heads", 1)),
        )

    def _model_of(self, layers: int, width: int, dropout: float) -> ModelConfig | None:
        """The preset's model at another depth and width; None where there is no valid one."""
        fields = {**self._fields(layers, width), "dropout": dropout}
        try:
            return self.preset.model_config(**fields)
        except ConfigError:
            return None

    def _fields(self, layers: int, width: int) -> dict[str, Any]:
        """The preset's fields at another depth and width: heads as wide, ratios as they are."""
        base, heads = self.base, self.model.get("num_heads")
        group = base.num_heads // base.num_kv_heads
        if heads is None:
            heads = _number_of_heads(width, base.head_dim, group)
        fields: dict[str, Any] = {
            "vocab_size": base.vocab_size,
            "context_length": base.context_length,
            "num_layers": layers,
            "d_model": width,
            "num_heads": heads,
        }
        if "num_kv_heads" in self.preset.model:
            fields["num_kv_heads"] = max(1, heads // group)
        if "d_feed_forward" in self.preset.model:
            ratio = base.d_feed_forward / base.d_model
            fields["d_feed_forward"] = max(1, round(ratio * width / WIDTH_STEP)) * WIDTH_STEP
        return fields | dict(self.model) | {"num_layers": layers, "d_model": width}


def _number_of_heads(width: int, head_dim: int, group: int) -> int:
    """Heads of an even width, nearest to ``head_dim``; their number is a multiple of ``group`` if one is."""
    numbers = [n for n in range(1, width // 2 + 1) if width % n == 0 and (width // n) % 2 == 0]
    in_groups = [n for n in numbers if n % group == 0] or [1]
    return min(in_groups, key=lambda n: abs(math.log(width / n / head_dim)))
