"""How a claim is decided: a rule that is written down before anything is measured, and an interval.

A rule has two regions of one statistic. A claim is *supported* if the interval lies wholly in the one,
*contradicted* if it lies wholly in the other, else *inconclusive*. Intervals are of `LEVEL`: the 16 verdicts
of a default run are then wrong together in one run of twelve at most (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from minilm.render.document import Table
from minilm.render.line_chart import LineChart

LEVEL = 0.995
FEWEST_BLOCKS = 30  # of the model's context
WIDEST_HALF = 0.03  # nats: an interval of a loss that is wider says too little

Verdict = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Region:
    """Numbers from ``low`` to ``high``."""

    low: float = -math.inf
    high: float = math.inf

    def text(self, *, is_open: bool = False) -> str:
        """In words, without its bounds if it ``is_open``."""
        if self.low == self.high:
            return f"{self.low:g}"
        if self.low == -math.inf:
            return f"{'below' if is_open else 'at most'} {self.high:.3g}"
        if self.high == math.inf:
            return f"{'above' if is_open else 'at least'} {self.low:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; of what is counted and not sampled, all three are equal."""

    estimate: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        return cls(value, value, value)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Rule:
    """``statistic`` is what is measured, in ``unit``; ``least``: of fewer ``units``, nothing is decided.

    ``margin`` is the half-width that a mean is to have to be told from none, or where the regions do not meet
    half of what is between them; 0 where no such is stated. Where nothing is decided by a wider one, the
    finding says how many ``units`` it would take.

    ``contradicted`` is an open region, ``supported`` a closed one: where they overlap, as "none" and "at
    least one" do, the former is looked at first.
    """

    name: str
    statement: str
    statistic: str
    unit: str
    supported: Region
    contradicted: Region
    least: int = 1
    units: str = "parameters"
    margin: float = 0.0

    def decide(self, interval: Interval) -> Verdict:
        """The verdict of an interval."""
        above = interval.low > self.contradicted.low or self.contradicted.low == -math.inf
        below = interval.high < self.contradicted.high or self.contradicted.high == math.inf
        if above and below:
            return "contradicted"
        if interval.low >= self.supported.low and interval.high <= self.supported.high:
            return "supported"
        return "inconclusive"

    def lies_between(self, estimate: float) -> bool:
        """Whether it is in neither region."""
        regions = (self.supported, self.contradicted)
        return not any(each.low <= estimate <= each.high for each in regions)

    def text(self) -> str:
        """Both regions in words."""
        contradicted = self.contradicted.text(is_open=True)
        return f"supported {self.supported.text()}, contradicted {contradicted}"

    def measured(self) -> str:
        """The statistic, with its unit where that says more."""
        if not self.unit or self.unit in self.statistic:
            return self.statistic
        return f"{self.statistic} ({self.unit})"

    def to_dict(self) -> dict[str, Any]:
        regions = {"supported": self.supported, "contradicted": self.contradicted}
        return {
            "statistic": self.statistic,
            "unit": self.unit,
            **{name: [_finite(each.low), _finite(each.high)] for name, each in regions.items()},
            "least": self.least,
            "units": self.units,
            "level": LEVEL,
        }


@dataclass(frozen=True)
class Finding:
    """What was measured for a rule. ``reason`` says why there is no interval, or what it does not say.

    ``trials`` are changed models, ``n`` the units that the interval is over; where that joins several,
    ``half_width`` is of the widest. ``details`` goes into the JSON;
    ``text``, ``tables`` and ``charts`` into the page. ``seconds`` are another time others.
    """

    rule: Rule
    interval: Interval | None = None
    n: int = 0
    half_width: float | None = None
    trials: int = 0
    reason: str = ""
    text: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    charts: tuple[LineChart, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.interval is None or self.n < self.rule.least:
            return "inconclusive"
        return self.rule.decide(self.interval)

    def to_dict(self) -> dict[str, Any]:
        interval = self.interval
        effect = None
        if interval is not None:
            bounds = (interval.estimate, interval.low, interval.high)
            names = ("estimate", "low", "high")
            effect = {name: _finite(value) for name, value in zip(names, bounds, strict=True)}
        return {
            "name": self.rule.name,
            "statement": self.rule.statement,
            "verdict": self.verdict,
            "effect": effect,
            "n": self.n,
            "trials": self.trials,
            "reason": self.why,
            "rule": self.rule.to_dict(),
            "details": dict(self.details),
        }

    @property
    def why(self) -> str:
        """The reason, or that there are too few units."""
        if self.reason or self.n >= self.rule.least:
            return self.reason
        return f"needs {self.rule.least} {self.rule.units}, there are {self.n}"


def not_run(rule: Rule, reason: str) -> Finding:
    """The finding where nothing was measured."""
    return Finding(rule, reason=f"not run: {reason}")


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(value) else None
