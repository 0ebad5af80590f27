"""A reconciliation as it is printed."""

from __future__ import annotations

from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from tests.render.drawings import printed


def answer(number: str) -> str:
    text = printed(extras.with_reconciliation(inspect_with_sources("gpt2"), number), 200)
    verdict, _, rest = text.partition("\n\n")
    assert verdict == "gpt2: not cross-checked: only the formula is available (124,439,808)"
    return rest


def test_explained_and_not() -> None:
    exact = answer("163037184")
    assert exact == (
        "163037184 is explained exactly:\n\n"
        "163,037,184 = 124,439,808 + 38,597,376 (the tied head counted twice)\n"
    )
    rounded = answer("117M")
    assert "117M is explained within its rounding:\n" in rounded
    assert "(+70,464)" in rounded
    assert "By chance alone, 20.3% of such numbers would be explained." in rounded
    assert answer("99M").startswith("99M is NOT explained; the nearest:\n\n99M ~ 96,119,040 = ")
    assert "2,880,960 more" in answer("99M")
    possible = answer("100000000")
    assert possible.startswith(
        "100000000 is possible, but so are most numbers of so few digits:\n\n"
    )
    assert "within the rounding" in possible
    assert "% of such numbers would be explained." in possible
