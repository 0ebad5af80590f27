"""Statistics and differences as they are printed: everything said, within 80 columns, no escapes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import minilm
from minilm.formats.header import Header
from minilm.formats.safetensors import read_header
from minilm.render.cells import format_number
from minilm.render.document import Paragraph, Section
from minilm.render.value_sections import difference_section, statistics_section
from minilm.values.difference import Difference, difference
from minilm.values.statistics import Histogram, Statistics, statistics
from tests.render.drawings import printed, printed_rows

HOSTILE = "bad\x1b[31m\nname[red]"


def printed_statistics(values: Statistics, *, full: bool = False) -> str:
    return printed(replace(minilm.inspect("nano"), statistics=values), full=full)


def printed_difference(values: Difference, *, full: bool = False) -> str:
    return printed(replace(minilm.inspect("nano"), difference=values), full=full)


def coverage(section: Section) -> str:
    return [block.text for block in section.blocks if isinstance(block, Paragraph)][1]


def checkpoint(path: Path, change: float, rows: int) -> Header:
    from safetensors.torch import save_file

    values = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    values[7] = 0
    tensors = {
        "model.layers.0.self_attention.query_projection.weight": values + change,
        HOSTILE: torch.tensor([float("nan"), float("inf"), 2.0, 0.0]),
        "shape": torch.ones(rows),
        f"only{rows}": torch.ones(1),
    }
    save_file(tensors, path)
    return read_header(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Statistics, Difference]:
    folder = tmp_path_factory.mktemp("pair")
    a, b = checkpoint(folder / "a", 0.0, 2), checkpoint(folder / "b", 0.5, 3)
    last = replace(a.tensors[-1], name="packed", dtype="q8_k")
    return statistics((*a.tensors, last)), difference(a, b, ties_a=[("shape", "only2")])


@pytest.mark.parametrize("full", [False, True])
def test_lines_fit_and_names_cannot_escape(
    results: tuple[Statistics, Difference], full: bool
) -> None:
    for text in (
        printed_statistics(results[0], full=full),
        printed_difference(results[1], full=full),
    ):
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text


def test_statistics_say_what_is_odd(results: tuple[Statistics, Difference]) -> None:
    text = " ".join(printed_statistics(results[0]).split())
    name = "bad\\x1b[31m\\x0aname[red]"
    assert f"{name}: 1 NaN, 1 infinite, 1 zeros (25.00%)" in text
    assert "30 zeros (2.50%), 1 of 40 rows all zero" in text
    assert "packed: q8_k is not decoded" in text
    assert "largest values" in text
    (row,) = (row for row in results[0].tensors if row.stable_rank is not None)
    assert format_number(row.kurtosis) in text
    assert format_number(row.stable_rank) in text


def test_a_histogram_is_drawn_by_its_largest_powers(results: tuple[Statistics, Difference]) -> None:
    total = replace(results[0].total, histogram=Histogram(-20, (9,) * 5 + (0, 1, 8) + (4,) * 9))
    text = printed_statistics(replace(results[0], tensors=(), total=total))
    (line,) = (line for line in text.splitlines() if line.startswith("total  "))
    assert line.endswith("  ▁█▄▄▄▄▄▄▄▄▄")


def test_differences_are_listed(results: tuple[Statistics, Difference]) -> None:
    text = printed_difference(results[1])
    for part in (
        "They differ; 1 of 2 compared tensors are identical.\n",
        "added (1)\n  only3\n",
        "removed (1)\n  only2\n",
    ):
        assert part in text
    assert printed_rows(text, "reshaped")[1:] == [["shape", "2", "3"]]
    assert printed_rows(text, "tied or untied")[1:] == [["shape", "only2", "its own"]]
    (change,) = (change for change in results[1].changes if change.identical < 1)
    assert format_number(change.norm) in text
    lines = text.splitlines()
    line = lines[lines.index("model.layers.0.self_attention.query_projection.weight") + 1]
    assert line.split()[-1] == str(change.rank) == "1"


def test_values_that_are_not_finite_are_told(results: tuple[Statistics, Difference]) -> None:
    text = printed_difference(results[1])
    assert "not finite in either, and left out (1)\n" in text
    assert ": 2 of 4 values" in text


def test_why_a_rank_is_missing_is_told(results: tuple[Statistics, Difference]) -> None:
    (change,) = (change for change in results[1].changes if change.identical < 1)
    unknown = replace(change, rank=None, rank_exact=False, rank_unknown="below rounding")
    text = printed_difference(replace(results[1], changes=(unknown, unknown)))
    assert "2 without a rank: below rounding." in text
    section = difference_section(replace(results[1], changes=(unknown,)))
    assert section.tables()[-1].rows[0][-1] == "below rounding"


def test_a_total_of_a_part_says_of_how_much(results: tuple[Statistics, Difference]) -> None:
    statistics, difference = results
    every = statistics.total.count
    half = replace(statistics, values=2 * every)
    text = " ".join(printed_statistics(half).split())
    assert f"The total is of {every:,} of {2 * every:,} values (50.00%)." in text
    assert "The total is of" not in printed_statistics(replace(statistics, values=every, unread=()))
    compared = difference.total.count
    partly = replace(difference, values=4 * compared)
    assert "values (25.00%)" in printed_difference(partly)
    for section in (statistics_section(half), difference_section(partly)):
        assert coverage(section).startswith("The total is of ")


def test_files_that_share_no_name_are_told_apart(results: tuple[Statistics, Difference]) -> None:
    none = replace(results[1], changes=(), reshaped=(), retied=(), unread=(), values=0)
    none = replace(none, total=replace(none.total, count=0))
    text = printed_difference(none)
    assert "No tensor has the same name in both" in text
    assert "0 of 0" not in text


def test_many_lines_are_cut_with_a_count(results: tuple[Statistics, Difference]) -> None:
    many = replace(results[1], added=tuple(f"t{n}" for n in range(1021)))
    text = printed_difference(many)
    assert "added (1,021)" in text
    assert "t19\n  and 1,001 more\n" in text
    assert "t20" not in text
    assert "t1020" in printed_difference(many, full=True)
