"""The answer as it is printed."""

from __future__ import annotations

import io

from rich.console import Console

from minilm.inspection.inspector import inspect_with_sources
from minilm.inspection.reconciliation.numbers import parse_number
from minilm.inspection.reconciliation.reconcile import reconcile
from minilm.render.reconcile import render


def printed(number: str) -> str:
    inspection = inspect_with_sources("gpt2")
    answer = reconcile(inspection.report, inspection.layout, parse_number(number))
    stream = io.StringIO()
    Console(file=stream, width=200).print(render(answer))
    return stream.getvalue()


def test_explained_and_not() -> None:
    exact = printed("163037184")
    assert exact.startswith("163037184 is explained to the last one\n  163,037,184 = 124,439,808 +")
    rounded = printed("117M")
    assert "117M is explained within its rounding" in rounded
    assert "chance alone would explain 20." in rounded
    assert printed("99M").startswith("99M is NOT explained; the nearest:\n")
