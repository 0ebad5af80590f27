"""The Markdown report: complete, and nothing in it is read as anything but text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

import minilm
from minilm.inspection.report import Report
from minilm.render.markdown import code, markdown, text
from minilm.safe_text import one_line
from tests.render.drawings import MARKDOWN, markdown_rows
from tests.render.reports import HOSTILE, hostile_report


def cells(report: Report, *, tensors: bool = False) -> list[list[str]]:
    return markdown_rows(markdown(report, tensors=tensors))


def test_it_says_the_verdict_the_counts_and_the_formula() -> None:
    report = minilm.inspect("gpt2")
    lines = markdown(report).splitlines()
    assert lines[0] == "# gpt2"
    assert "**124,439,808 parameters** (124.4M), minilm." in lines
    assert "**not cross-checked: only the formula is available (124,439,808).**" in lines
    assert f"    {report.formula.symbolic}" in lines  # type: ignore[union-attr]
    assert ["attention query", "7,087,104", "5.70%", "7,077,888", "9,216", "Ld² + Ld"] in cells(
        report
    )
    rows = [row[:4] for row in cells(report)]
    assert ["non-embedding", "85,056,000", "85.1M", "68.35%"] in rows
    assert ["float32", "474.7 MiB", "497,759,232"] in cells(report)
    assert ["lm_head.weight", "embedding.token.weight"] in cells(report)


def test_every_tensor_is_listed_on_request() -> None:
    report = minilm.inspect("gpt2")
    assert [row.name for row in report.tensors] == [row[0] for row in cells(report, tensors=True)][
        -196:
    ]
    assert "wpe" not in markdown(report)
    assert "## Tensors" not in markdown(report)


def test_a_mismatch_is_said_first() -> None:
    report = replace(minilm.inspect("nano"), mismatches=("file: lm_head.weight is missing",))
    lines = markdown(report).splitlines()
    assert lines.index("**NOT VERIFIED: 1 mismatch.**") < 6
    assert "- file: lm_head.weight is missing" in lines


def test_a_module_has_no_formula() -> None:
    written = markdown(minilm.inspect(nn.Linear(4, 2)))
    assert "**10 parameters**" in written
    assert "## Formula" not in written


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_itself_and_nothing_else(name: str) -> None:
    for written in (text(name), code(name)):
        assert "\n" not in written
        tokens = [t for t in MARKDOWN.parse(f"| {written} | x |\n| - | - |") if t.type == "inline"]
        assert [t.content for t in tokens][1:] == ["x"]
        assert tokens[0].children is not None
        kinds = {child.type for child in tokens[0].children}
        assert kinds <= {"text", "text_special", "code_inline", "html_inline"}
        html = [c.content for c in tokens[0].children if c.type == "html_inline"]
        assert html in ([], ["<code>", "</code>"])
        shown = "".join(c.content for c in tokens[0].children if c.type != "html_inline")
        assert shown == one_line(name).strip()


def test_a_report_of_hostile_text_keeps_its_tables() -> None:
    report = hostile_report()
    written = cells(report, tensors=True)
    assert [row[0] for row in written[-len(HOSTILE) :]] == [
        one_line(r.name) for r in report.tensors
    ]
    assert [row[-1] for row in written[-len(HOSTILE) :]] == [
        one_line(r.component) for r in report.tensors
    ]
    kinds = {t.type for t in MARKDOWN.parse(markdown(report))}
    assert "html_block" not in kinds
    items = [t for t in MARKDOWN.parse(markdown(report)) if t.type == "list_item_open"]
    assert len(items) == len(report.mismatches) + len(report.notes)


@pytest.mark.parametrize("line", ["- a", "1. a", "12) a", "---", "===", "+ a", "# a", "> a", "* a"])
def test_a_line_begins_no_block(line: str) -> None:
    tokens = MARKDOWN.parse(f"{text(line)}\n")
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert tokens[1].children is not None
    assert "".join(c.content for c in tokens[1].children) == line


@pytest.mark.parametrize("name", ["31.02%", "-0.65%", "q_proj", "1.9 GiB", "+30.29%", "3 tensors"])
def test_ordinary_text_stays_readable(name: str) -> None:
    assert text(name) == name
