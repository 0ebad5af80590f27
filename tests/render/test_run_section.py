"""The facts of a training run in its report: whatever its summary.json holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.render.html import page
from minilm.render.markdown import markdown
from minilm.render.run_section import run_section
from minilm.runs.history import RunHistory, read_history
from tests.render.drawings import printed
from tests.render.reports import HOSTILE

SUMMARY = {
    "steps": 60,
    "tokens": 61440,
    "seconds": 205.0,
    "best_val_loss": 6.90347,
    "best_val_bits_per_byte": 5.11644,
    "stopped_because": "max_steps",
    "device": "cuda",
    "dtype": "bfloat16",
    "tokens_per_second": 16248.1,
    "data": {"source": "/texts/a.txt", "bytes": 6666, "train_tokens": 2215, "val_tokens": 338},
    "minilm": "0.1.0",
    "torch": "2.13.0",
    "seed": 7,
    "val_dtype": "bfloat16",
    "date": "2026-11-27T14:26:33+00:00",
}


def facts(summary: dict[str, Any]) -> dict[str, str]:
    section = run_section(RunHistory(summary=summary))
    return {row[0]: row[1] for row in section.tables()[0].rows} if section is not None else {}


def test_the_facts_of_a_run_are_those_of_its_summary() -> None:
    assert facts(SUMMARY) == {
        "data": "/texts/a.txt, 6.5 KiB",
        "tokens trained on": "61,440, 27.7 epochs",
        "tokens of the text": "2,215 training, 338 validation",
        "steps": "60, stopped by max_steps",
        "time": "3 min 25 s, 16,248 tokens/s",
        "device": "cuda, bfloat16",
        "best validation loss": "6.9035 nats a token, 5.116 bits a byte, in bfloat16",
        "seed": "7",
        "versions": "minilm 0.1.0, torch 2.13.0",
        "finished": "2026-11-27 14:26 UTC",
    }


def test_of_conversations_both_counts_are_told_apart() -> None:
    counts = {"train_answer_tokens": 1000, "val_answer_tokens": 200, "kind": "conversations"}
    rows = facts({"data": SUMMARY["data"] | counts})
    assert rows["tokens of conversations"] == "2,215 training, 338 validation"
    assert rows["tokens of answers"] == "1,000 training, 200 validation"
    assert "tokens of the text" not in rows


WRONG = (None, [], {}, True, "", math.nan, 10**5000, -(10**400), *HOSTILE)


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_a_summary_of_any_values_is_left_out_or_harmless(index: int) -> None:
    value: Any = WRONG[index]
    wrong = dict.fromkeys(SUMMARY, value)
    for summary in (wrong, wrong | {"data": dict.fromkeys(SUMMARY["data"], value)}):  # type: ignore[call-overload]
        assert all(text.isprintable() for text in facts(summary).values())


def test_without_a_summary_there_are_the_findings_alone() -> None:
    assert run_section(RunHistory()) is None
    section = run_section(RunHistory([{"step": 1, "train_loss": 2.0}], findings=["Diverged."]))
    assert section is not None
    assert not section.tables()


def test_all_three_drawings_say_what_a_run_was(tiny_run: Path) -> None:
    history, report = read_history(tiny_run), minilm.inspect(tiny_run)
    known = facts(json.loads((tiny_run / "summary.json").read_text()))
    assert {"data", "time", "device", "best validation loss", "versions", "finished"} <= {*known}
    from io import StringIO

    from rich.console import Console

    from minilm.render.terminal import print_report

    stream = StringIO()
    print_report(report, Console(file=stream, width=300), history=history, full=True)
    for text in (stream.getvalue(), page(report, history=history)):
        assert all(value in text for value in known.values())
    assert "| seed |" in markdown(report, history=history)
    assert "finished" not in printed(report)
