"""All three drawings show every cell of the sections, and what they print adds up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from safetensors.torch import load_file, save_file
from torch import nn

import minilm
from minilm.architectures.model_types import MODEL_TYPES
from minilm.config.presets import PRESETS
from minilm.inspection.report import Report
from minilm.ledger.symbols import letter_meaning
from minilm.render.sections import build_document
from minilm.render.terminal import SHORT_LINES, report_lines
from tests.architectures.required import shallow
from tests.render.drawings import (
    every_text,
    html_text,
    markdown_rows,
    markdown_text,
    number,
    printed,
    printed_rows,
    squeezed,
)
from tests.render.reports import complete_report


@pytest.fixture(scope="module")
def complete(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    other = tmp_path_factory.mktemp("other") / "other.safetensors"
    tensors = load_file(tiny_run / "model.safetensors")
    name, *_, last = sorted(tensors)
    tensors[name] = tensors[name] + 1
    tensors["added"] = torch.tensor([1.0, float("nan")])
    tensors[last] = tensors[last][:1]
    save_file(tensors, other)
    return complete_report(tiny_run, other)


@pytest.fixture(scope="module", params=[*MODEL_TYPES, *PRESETS, "tiny run", "one layer"])
def report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_run: Path
) -> Report:
    """Of every architecture, every preset, a run, and a module without a formula."""
    kind = request.param
    if kind == "tiny run":
        return minilm.inspect(tiny_run)
    if kind == "one layer":
        return minilm.inspect(nn.Linear(4, 2))
    if kind not in MODEL_TYPES:
        return minilm.inspect(kind)
    # A configuration that says no more than its type has the defaults of its architecture.
    folder = tmp_path_factory.mktemp(kind)
    (folder / "config.json").write_text(json.dumps(shallow(kind)))
    return minilm.inspect(folder)


def test_the_short_report_is_one_screen_its_components_are_the_total_its_letters_explained(
    report: Report,
) -> None:
    lines = [line.plain for line in report_lines(report, 80)]
    assert len(lines) <= SHORT_LINES == 24
    assert max(map(cell_len, lines)) <= 80
    assert "--full" in lines[-1]
    assert report.verdict.text in lines
    rows = printed_rows("\n".join(lines), "component")
    titles, *components, total = rows
    assert total[:2] == ["total", f"{report.parameters.total:,}"]
    assert sum(number(row[1]) for row in components) == report.parameters.total
    assert sum(float(row[2].rstrip("%")) for row in components) == pytest.approx(100, abs=0.1)
    if report.formula is not None:
        assert titles[-1] == "formula"
        (formula,) = (n for n, line in enumerate(lines) if line.startswith("formula  "))
        assert squeezed(report.formula.pretty) in squeezed("".join(lines[formula:]))
        text = " ".join(" ".join(lines).split())
        for letter, value in report.formula.symbols.items():
            meaning = letter_meaning(letter, report.architecture)
            assert meaning
            if letter in report.formula.pretty:
                assert f"{letter}={value} {meaning}" in text


def test_the_printed_columns_of_the_whole_report_add_up(report: Report) -> None:
    text = printed(report, 200, full=True)
    _, *components, total = printed_rows(text, "component")
    for column in (1, 3, 4):  # parameters, weights, biases
        assert sum(number(row[column]) for row in components) == number(total[column])
    assert number(total[3]) + number(total[4]) == number(total[1]) == report.parameters.total
    _, *parts, whole = printed_rows(text, "part")
    assert [row[0] for row in parts] == ["weights", "gradients", "optimizer"]
    assert sum(number(row[-1]) for row in parts) == number(whole[-1])
    _, *rows = printed_rows(text, "convention")
    conventions = {row[0]: number(row[1]) for row in rows}
    assert conventions["embedding"] + conventions["non-embedding"] == conventions["total"]


def test_the_training_states_add_up_as_they_are_printed(tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    _, *rows = printed_rows(printed(report, full=True), "method")
    assert len(rows) == len(report.memory["training"]["variants"]) == 7
    for _, *sizes in rows:
        *parts, total = (float(size.removesuffix(" KiB")) for size in sizes)
        assert sum(parts) == pytest.approx(total, abs=0.3)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 500])
def test_the_terminal_shows_every_text(complete: Report, width: int) -> None:
    text = printed(complete, width, full=True, tensors=True)
    shown = squeezed(text)
    document = build_document(complete, tensors=True)
    assert [each for each in every_text(document) if squeezed(each) not in shown] == []
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    if width == 500:
        for section in document.sections:
            for table in section.tables():
                for row in table.rows:
                    assert squeezed("".join(row)) in shown or table.bars, row


def test_markdown_and_html_show_every_text(complete: Report) -> None:
    texts = every_text(build_document(complete, tensors=True))
    for shown in (markdown_text(complete), html_text(complete)):
        # A code block is indented, and a label begins with a capital there.
        assert [each for each in texts if squeezed(each) not in squeezed(shown)] == []


def test_a_row_stands_as_a_row_in_markdown(complete: Report) -> None:
    from minilm.render.markdown import markdown

    rows = markdown_rows(markdown(complete, tensors=True))
    for section in build_document(complete, tensors=True).sections:
        for table in section.tables():
            for row in table.rows:
                assert [cell.strip() for cell in row] in rows


def test_what_was_asked_stands_alone_below_one_line(complete: Report) -> None:
    lines = printed(complete).splitlines()
    assert squeezed("".join(lines[: lines.index("")])) == squeezed(
        f"{complete.target}: NOT VERIFIED: 2 mismatches"
    )
    text = "\n".join(lines)
    for part in ("14.8K is explained", "22.4 GiB of memory", "kurtosis", "They differ"):
        assert part in text
    for part in ("component  ", "formula  ", "KV cache   ", "a is missing", "--full"):
        assert part not in text
    full = printed(complete, full=True)
    for part in ("14.8K is explained", "component  ", "formula  ", "KV cache   ", "a is missing"):
        assert part in full
    assert full.index("14.8K is explained") < full.index("component  ")


def test_only_the_whole_report_has_the_details(complete: Report, tiny_run: Path) -> None:
    short, full = printed(minilm.inspect(tiny_run)), printed(minilm.inspect(tiny_run), full=True)
    for part in ("for programs", "textbook rule", "Hyperparameters", "FLOPs", "gradients"):
        assert part in full
        assert part not in short


def test_no_drawing_calls_a_comparison_of_totals_name_by_name(tiny_run: Path) -> None:
    from dataclasses import replace

    report = minilm.inspect(tiny_run)
    by_totals = tuple(replace(each, by="totals") for each in report.comparisons)
    report = replace(report, comparisons=by_totals)
    for text in (printed(report), markdown_text(report), html_text(report)):
        assert "verified by totals: formula" in text
        assert "name by name" not in text
