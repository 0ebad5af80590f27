"""Pieces of the terminal report."""

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import minilm
from minilm.architectures import layout_of
from minilm.files import write_json
from minilm.inspection.report import Comparison, Report, TensorRow, Witnesses
from minilm.render.cells import format_shape
from minilm.render.document import Column, Table
from minilm.render.grid import bar, table_lines, wrapped
from minilm.render.terminal import curve
from minilm.safe_text import one_line
from tests.architectures.draws import DRAWS
from tests.render.drawings import printed, squeezed


def with_name(length: int, dtype: str = "bfloat16") -> Report:
    """A small model, one tensor and component of which has a name of ``length`` letters."""
    report = minilm.inspect("nano", live=False)
    name = ("vision_tower.encoder." * length)[:length]
    row = TensorRow(name, (32000, 4096), dtype, 32000 * 4096, name)
    part = replace(report.components[0], name=name, count=row.count, share=0.9)
    return replace(
        report,
        tensors=(row, *report.tensors),
        components=(part, *report.components[1:]),
        tied=((name, name),),
    )


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("length", [8, 27, 75, 900])
def test_a_long_name_gives_way_to_the_numbers(width: int, length: int, full: bool) -> None:
    report = with_name(length)
    text = printed(report, width, full=full, tensors=True)
    assert "…" not in text
    if full:
        for part in (*report.components, *report.conventions):
            assert f" {part.count:,}" in text
        for component in report.components:
            assert f" {component.share:.2%}" in text
    for row in report.tensors:
        assert format_shape(row.shape) in text
        assert f" {row.count:,}" in text
    assert text.count("float32") >= len(report.tensors) - 1
    if width > 40:
        assert re.search(r"32,000 × 4,096 +bfloat16 +131,072,000", text)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


@pytest.mark.parametrize("full", [False, True])
def test_numbers_wider_than_the_terminal_are_whole_too(full: bool) -> None:
    report = with_name(900)
    text = printed(report, 12, full=full, tensors=True)
    for row in report.tensors:
        assert f"{row.count:,}" in text.split()
    assert "bfloat16" in text.split()
    assert "32,000 × 4,096" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_folded_name_is_all_there(width: int) -> None:
    report = with_name(900)
    listed = printed(report, width, tensors=True).partition("\nname ")[2].splitlines()
    parts = itertools.takewhile(lambda line: "32,000 × 4,096" not in line, listed[1:])
    assert "".join(parts) == report.tensors[0].name


def test_a_name_on_a_line_of_its_own_keeps_the_columns() -> None:
    table = Table(
        (Column("name", "code"), Column("count", "number"), Column("kind")),
        (("short", "1", "a"), ("long" * 10, "12,345,678,901,234", "b"), ("total", "2", "")),
        total_last=True,
    )
    assert [line.plain for line in table_lines(table, 32)] == [
        "name                 count  kind",
        "short                    1  a",
        "long" * 8,
        "long" * 2,
        "        12,345,678,901,234  b",
        "total                    2",
    ]


def test_a_dtype_of_any_length_is_one_row() -> None:
    for dtype in ("Q9_X\x1b[31m", "odd" * 100):
        text = printed(with_name(75, dtype), 60, tensors=True)
        assert "131,072,000" in text
        assert "\x1b" not in text
        assert "…" not in text


@pytest.mark.parametrize(("width", "full", "bars"), [(80, True, 0), (100, True, 1), (80, False, 1)])
def test_bars_are_drawn_where_there_is_room(width: int, full: bool, bars: bool) -> None:
    text = printed(minilm.inspect("gpt2", live=False), width, full=full)
    (line,) = (line for line in text.splitlines() if line.endswith("  4Ld² + 4Ld"))
    assert line.startswith("feed-forward up  ")
    assert ("█" in line) == bars


def test_without_room_names_and_formulas_have_lines_of_their_own() -> None:
    report = minilm.inspect("gpt2", live=False)
    text = printed(report, 60, full=True).partition("── Formula")[0]
    assert "feed-forward up\n" in text
    text = printed(report, 40, full=True).partition("── Formula")[0]
    assert re.search(r"^feed-forward up\n +28,348,416 +22\.78% +28,311,552$", text, re.M)
    assert re.search(r"^feed-forward up +36,864  4Ld² \+ 4Ld$", text, re.M)


def test_a_table_too_wide_goes_on_below_with_its_names() -> None:
    columns = (Column("name"), *(Column(f"c{n}", "number") for n in range(6)))
    rows = tuple((name, *(f"{name}{n}" * 4 for n in range(6))) for name in "ab")
    lines = [line.plain for line in table_lines(Table(columns, rows), 40)]
    assert max(map(cell_len, lines)) <= 40
    assert [line.split()[0] for line in lines if line] == ["name", "a", "b"] * 2
    for row in rows:
        assert all(cell in " ".join(lines).split() for cell in row)


@pytest.mark.parametrize("text", ["", "a b", "word " * 30, "x" * 99, "漢字" * 30, "a  b c  " * 9])
@pytest.mark.parametrize("width", [1, 2, 7, 30])
def test_wrapped_text_is_whole_and_no_wider(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert squeezed("".join(lines)) == squeezed(text)
    if width > 1:
        assert max(map(cell_len, lines)) <= width
    assert len(wrapped("one two", 30)) == 1


def test_double_spaces_are_where_lines_are_broken() -> None:
    assert wrapped("V=1 vocabulary  d=2 model width  L=3 layers", 24) == [
        "V=1 vocabulary",
        "d=2 model width",
        "L=3 layers",
    ]


@pytest.mark.parametrize(
    ("length", "drawn"), [(0.0, ""), (0.5, "█" * 8), (1.0, "█" * 16), (1 / 128, "▏"), (0.03, "▌")]
)
def test_a_bar_is_drawn_in_eighths(length: float, drawn: str) -> None:
    assert bar(length) == drawn


def test_many_mismatches_leave_room_for_the_rest() -> None:
    lines = tuple(f"file: t{n} is missing" for n in range(21))
    report = replace(minilm.inspect("gpt2"), mismatches=lines)
    text = printed(report)
    assert len(text.splitlines()) <= 24
    assert "NOT VERIFIED: 21 mismatches" in text
    assert "t3 is missing\nand 17 more\n" in text
    assert all(line in printed(report, full=True) for line in lines)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("notes", [(), ("a note of a line " * 8,) * 5])
def test_long_mismatches_leave_the_report_on_one_screen(
    tmp_path: Path, name: str, notes: tuple[str, ...]
) -> None:
    config = DRAWS[name](random.Random(1))
    folder = tmp_path / "a-folder-of-some-length"
    folder.mkdir()
    write_json(folder / "config.json", {"model_type": name, **config})
    lines = tuple(
        f"file: {tensor.name} has shape [3, 5], the formula says {list(tensor.shape)}"
        for tensor in layout_of({"model_type": name, **config}).named_tensors()
    )
    assert len(lines) > 5
    report = replace(minilm.inspect(folder), mismatches=lines, notes=notes)
    text = printed(report)
    assert len(text.splitlines()) <= 24
    assert max(map(cell_len, text.splitlines())) <= 80
    assert f"NOT VERIFIED: {len(lines)} mismatches" in text
    if not notes:
        assert squeezed(lines[0]) in squeezed(text)
    assert re.search(r"^and \d+ more$", text, re.M)


@pytest.mark.parametrize("length", [5, 30, 60, 76, 100])
@pytest.mark.parametrize("total", [1_055_488, 671_026_419_200])
@pytest.mark.parametrize("by", ["names", "totals", "both"])
def test_the_verdict_above_what_was_asked_is_one_line(length: int, total: int, by: str) -> None:
    file_by: Any = "totals" if by == "totals" else "names"
    module_by: Any = "names" if by == "names" else "totals"
    report = replace(
        minilm.inspect("nano", live=False),
        target="t" * length,
        witnesses=Witnesses(total, total, total),
        comparisons=(
            Comparison("file", "formula", file_by),
            Comparison("module", "formula", module_by),
        ),
        fits=(),
    )
    heading = printed(report).partition("\n\n")[0].splitlines()
    (verdict,) = (line for line in heading if "verified" in line)
    assert max(map(len, heading)) <= 80
    assert f"{total:,}" in verdict
    assert "formula" in verdict
    assert "module" in verdict
    assert "".join(heading) in (
        f"{report.target}{separator}{text}"
        for separator in (": ", "")
        for text in (report.verdict.text, report.verdict.brief)
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([3.0, 1.0], "3.000 █▁ 1.000"),
        ([1.0, 1.0], "1.000 ▁▁ 1.000"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "0.000 ▁▂▃▄▅▆▇█ 7.000"),
    ],
)
def test_a_curve_runs_from_first_to_last(values: list[float], line: str) -> None:
    assert curve(values) == line


def test_a_long_curve_is_averaged_into_its_width() -> None:
    assert len(curve([float(n) for n in range(1000)]).split()[1]) == 40


def test_a_name_is_one_printable_line() -> None:
    assert one_line("a\nb\x1b[0m") == "a\\x0ab\\x1b[0m"
