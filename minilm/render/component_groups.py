"""Components by what they are: attention, feed-forward, norm, ...; and fewer of them for one screen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from minilm.inspection.report import Component

# The first group whose pattern is in a component's name is its own.
_GROUPS = (
    ("norm", r"norm|(^|\W)ln(\W|_|$)"),
    ("experts", r"expert|router|moe"),
    ("head", r"lm.?head|multi-token|^output$"),
    ("attention", r"att"),
    ("feed-forward", r"feed.?forward|mlp|ffn|(^|\W)fc"),
    ("embedding", r"embed|wte|wpe"),
)
OTHER = "other"
_PLURALS = {"norm": "norms", "head": "heads", "embedding": "embeddings"}


def component_group(name: str) -> str:
    """Which kind of component this is: norm, experts, head, attention, feed-forward, embedding, other."""
    lower = name.lower()
    for group, pattern in _GROUPS:
        if re.search(pattern, lower):
            return group
    return OTHER


def fold_components(components: Sequence[Component], most_rows: int) -> list[Component]:
    """At most ``most_rows`` (2 or more) components with the same sums.

    The norms become one row, at the end; then whole groups do, the smallest first; then the smallest
    rows are put together.
    """
    rows = list(components)
    groups = {component.name: component_group(component.name) for component in components}
    by_size = sorted(
        {*groups.values()} - {"norm", OTHER},
        key=lambda group: sum(c.count for c in components if groups[c.name] == group),
    )
    for group in ("norm", *by_size):
        members = [row for row in rows if groups.get(row.name) == group]
        if len(rows) > most_rows and len(members) > 1:
            position = len(rows) if group == "norm" else rows.index(members[0])
            rows.insert(position, _sum_of(members, _PLURALS.get(group, group)))
            rows = [row for row in rows if row not in members]
    if len(rows) <= most_rows:
        return rows
    smallest = sorted(rows, key=lambda row: row.count)[: len(rows) - most_rows + 1]
    rest = _sum_of(smallest, f"other ({len(smallest):,} components)")
    return [*(row for row in rows if row not in smallest), rest]


def _sum_of(components: Sequence[Component], name: str) -> Component:
    return Component(
        name,
        count=sum(component.count for component in components),
        share=sum(component.share for component in components),
        formula="",
        pretty="",
        weights=sum(component.weights for component in components),
        biases=sum(component.biases for component in components),
    )
