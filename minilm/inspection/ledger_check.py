"""Compare the formula's tensors with a witness's, name by name and shape by shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minilm.ledger.layout import Layout

Shapes = Mapping[str, tuple[int, ...]]

# A file that shares nothing with the formula would list every tensor; this many names say it.
LONGEST_LIST = 20


def expected_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that the formula declares."""
    return {tensor.name: tensor.shape for tensor in layout.named_tensors()}


def compare(expected: Shapes, actual: Shapes, witness: str) -> list[str]:
    """One line for each tensor that is missing, unexpected, or of another shape."""
    lines = []
    for name in expected.keys() - actual.keys():
        lines.append(f"{witness}: {name} {list(expected[name])} is missing")
    for name in actual.keys() - expected.keys():
        lines.append(f"{witness}: {name} {list(actual[name])} is not in the formula")
    for name in expected.keys() & actual.keys():
        if expected[name] != actual[name]:
            lines.append(
                f"{witness}: {name} has shape {list(actual[name])}, "
                f"the formula says {list(expected[name])}"
            )
    return _shortened(sorted(lines), witness)


def compare_totals(formula: int, total: int, witness: str) -> list[str]:
    """One line when the totals differ."""
    if formula == total:
        return []
    return [f"{witness}: {total:,} parameters, the formula says {formula:,} ({total - formula:+,})"]


def _shortened(lines: Iterable[str], witness: str) -> list[str]:
    listed = list(lines)
    rest = len(listed) - LONGEST_LIST
    if rest > 0:
        return [*listed[:LONGEST_LIST], f"{witness}: and {rest} more differences"]
    return listed
