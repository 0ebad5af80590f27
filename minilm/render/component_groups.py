"""Components by what they are: attention, feed-forward, norm, ...; and fewer of them for one screen."""

from __future__ import annotations

import functools
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

# A name may have a thousand characters and be searched for every row that a report could have.
SEARCHED_CHARACTERS, REMEMBERED_NAMES = 100, 2**17


@functools.lru_cache(REMEMBERED_NAMES)
def component_group(name: str) -> str:
    """Which kind of component this is: norm, experts, head, attention, feed-forward, embedding, other."""
    lower = name[-SEARCHED_CHARACTERS:].lower()
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
            total = _sum_of(members, _PLURALS.get(group, group))
            position = len(rows) if group == "norm" else rows.index(members[0])
            others = [row for row in rows[position:] if groups.get(row.name) != group]
            rows = [row for row in rows[:position] if groups.get(row.name) != group]
            rows += [total, *others]
    if len(rows) <= most_rows:
        return rows
    by_count = sorted(range(len(rows)), key=lambda number: rows[number].count)
    smallest = set(by_count[: len(rows) - most_rows + 1])
    rest = _sum_of(
        [rows[number] for number in sorted(smallest)], f"other ({len(smallest):,} components)"
    )
    return [*(row for number, row in enumerate(rows) if number not in smallest), rest]


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
