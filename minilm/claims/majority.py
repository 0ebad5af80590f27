"""Claim 7: the feed-forward holds the majority of the parameters; a model has 2Vd + 12Ld² of them.

Counted by the ledger, of the model at hand and of the published ones in published_models.json: every one
whose configuration the ledger is tested with, with the source of its count, and those that are left out, with
the reason. Of all parameters and of those that are no embedding, apart. With a feed-forward of 4d the layers
have 12d², 8d² of them in it: a majority of all if 4Ld > V where the head is tied, 4Ld > 2V where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, NamedTuple

from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.ledger import components
from minilm.ledger.approximation import textbook
from minilm.ledger.layout import Layout
from minilm.render.line_chart import line_chart

FEED_FORWARD = (
    *(components.FEED_FORWARD_GATE, components.FEED_FORWARD_UP, components.FEED_FORWARD_GATE_UP),
    *(components.FEED_FORWARD_DOWN, components.SHARED_EXPERT),
    *(components.EXPERTS_GATE, components.EXPERTS_UP, components.EXPERTS_GATE_UP),
    components.EXPERTS_DOWN,
)

ALL = Rule(
    name="majority/all",
    statement="the feed-forward of this model holds the majority of its parameters",
    statistic="share of the feed-forward in all parameters, counted",
    unit="share",
    supported=Region(low=0.5),
    contradicted=Region(high=0.5),
)
NON_EMBEDDING = Rule(
    name="majority/non-embedding",
    statement="the feed-forward holds the majority of what is no embedding",
    statistic="share of the feed-forward in the parameters that are neither embedding nor head, counted",
    unit="share",
    supported=Region(low=0.5),
    contradicted=Region(high=0.5),
)
FORMULA = Rule(
    name="majority/formula",
    statement="this model has 2Vd + 12Ld² parameters",
    statistic="relative error of 2Vd + 12Ld²",
    unit="of the exact count",
    supported=Region(0, 0.02),
    contradicted=Region(0.05),
)
RULES = (ALL, NON_EMBEDDING, FORMULA)


class Shares(NamedTuple):
    """The feed-forward's share of all parameters and of the non-embedding ones; the formula's error."""

    of_all: float
    of_non_embedding: float
    error: float
    has_predicted_majority: bool | None
    """What 4Ld > V or 2V predicts, where the feed-forward has 8d² a layer."""


def measure(subject: Subject) -> list[Finding]:
    """The three findings of the model, with the published ones beside them."""
    own = shares_of(minilm_layout(subject.model.config))
    published = {name: shares_of(layout_of(config)) for name, config in published_models().items()}
    n = len(published)
    with_majority = sum(each.of_all > 0.5 for each in published.values())
    non_embedding = sum(each.of_non_embedding > 0.5 for each in published.values())
    close = sum(abs(each.error) <= FORMULA.supported.high for each in published.values())
    predicted = [e for e in published.values() if e.has_predicted_majority is not None]
    right = sum(e.has_predicted_majority == (e.of_all > 0.5) for e in predicted)
    rows = [(name, *_cells(each)) for name, each in {"this model": own, **published}.items()]
    far = max(published, key=lambda name: abs(published[name].error))
    return [
        Finding(
            ALL,
            Interval.exact(own.of_all),
            n=1,
            text=(
                f"In {with_majority} of {n} published models it does: where the vocabulary is small beside "
                f"depth and width. With a feed-forward of 4d that is 4Ld > V for a tied head and 4Ld > 2V "
                f"for another, which is right for {right} of the {len(predicted)} models that have one."
            ),
            details={"published": n, "published_majority": with_majority}
            | {"models": {name: list(each[:3]) for name, each in published.items()}},
            tables=(
                table(
                    "The feed-forward's share, and the error of 2Vd + 12Ld²",
                    {
                        "model": "code",
                        "of all": "number",
                        "of non-embedding": "number",
                        "error": "number",
                    },
                    rows,
                ),
            ),
            charts=(
                line_chart(
                    "share of the feed-forward in percent, published models in order",
                    "models",
                    {
                        "of all": _in_order(each.of_all for each in published.values()),
                        "of non-embedding": _in_order(
                            each.of_non_embedding for each in published.values()
                        ),
                        "this model, of all": [(0, 100 * own.of_all), (n, 100 * own.of_all)],
                    },
                ),
            ),
        ),
        Finding(
            NON_EMBEDDING,
            Interval.exact(own.of_non_embedding),
            n=1,
            text=f"In {non_embedding} of {n} published models it does.",
        ),
        Finding(
            FORMULA,
            Interval.exact(abs(own.error)),
            n=1,
            text=(
                f"It is within {FORMULA.supported.high:.0%} for {close} of {n} published models, and off by "
                f"{published[far].error:+.0%} for {far}. It counts two tables of the vocabulary, a tied head "
                "has one; heads that share keys have fewer than 4d² in attention, and heads wider than d/h "
                "more; gated feed-forwards and experts have another width than 4d."
            ),
        ),
    ]


def _in_order(shares: Iterable[float]) -> list[tuple[float, float]]:
    return [(rank, 100 * share) for rank, share in enumerate(sorted(shares), 1)]


def published_models() -> Mapping[str, Mapping[str, Any]]:
    """By name the configurations, with the number of ``parameters`` and its ``source``."""
    file = resources.files("minilm.claims").joinpath("published_models.json")
    models: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["models"]
    return models


def shares_of(layout: Layout) -> Shares:
    """What the claim says of one layout."""
    total, feed_forward = layout.count(), layout.count(components=FEED_FORWARD)
    embedding = layout.count(components=(*components.EMBEDDINGS, components.LM_HEAD))
    approximation = textbook(layout)
    assert approximation is not None, "a decoder has V, L and d"
    depth, width, vocabulary = (layout.symbols[each] for each in ("L", "d", "V"))
    predicted = None
    if abs(feed_forward / (8 * depth * width**2) - 1) < 0.02:
        predicted = 4 * depth * width > vocabulary * (1 if layout.ties else 2)
    return Shares(
        feed_forward / total,
        feed_forward / max(1, total - embedding),
        approximation.relative_error,
        predicted,
    )


def _cells(shares: Shares) -> tuple[str, str, str]:
    return f"{shares.of_all:.1%}", f"{shares.of_non_embedding:.1%}", f"{shares.error:+.1%}"
