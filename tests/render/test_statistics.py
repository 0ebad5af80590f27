"""Statistics and differences as they are printed: everything said, within 80 columns, no escapes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console, RenderableType

from minilm.formats.header import Header
from minilm.formats.safetensors import read_header
from minilm.render import requested
from minilm.render.statistics import difference_table, statistics_table
from minilm.values.difference import Difference, difference
from minilm.values.statistics import Histogram, Statistics, statistics

HOSTILE = "bad\x1b[31m\nname[red]"


def printed(renderable: RenderableType) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


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
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Statistics, Difference]:
    folder = tmp_path_factory.mktemp("pair")
    a, b = checkpoint(folder / "a", 0.0, 2), checkpoint(folder / "b", 0.5, 3)
    last = replace(a.tensors[-1], name="packed", dtype="iq1_s")
    return statistics((*a.tensors, last)), difference(a, b, ties_a=[("shape", "only2")])


def test_lines_fit_and_names_cannot_escape(found: tuple[Statistics, Difference]) -> None:
    for text in (printed(statistics_table(found[0])), printed(difference_table(found[1]))):
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text


def test_statistics_say_what_is_odd(found: tuple[Statistics, Difference]) -> None:
    text = " ".join(printed(statistics_table(found[0])).split())
    name = "bad\\x1b[31m\\x0aname[red]"
    assert f"{name}: 1 NaN, 1 infinite, 1 zeros (25.00%)" in text
    assert "30 zeros (2.50%), 1 of 40 rows all zero" in text
    assert "packed: iq1_s is not decoded" in text
    assert "largest values (5)" in text
    (row,) = (row for row in found[0].tensors if row.stable_rank is not None)
    assert f"{row.kurtosis:.3g}" in text
    assert f"{row.stable_rank:.3g}" in text


def test_a_histogram_is_drawn_by_its_largest_powers(found: tuple[Statistics, Difference]) -> None:
    total = replace(found[0].total, histogram=Histogram(-20, (9,) * 5 + (0, 1, 8) + (4,) * 9))
    text = printed(statistics_table(replace(found[0], tensors=(), total=total)))
    assert text.splitlines()[1].rstrip().endswith("   ▁█▄▄▄▄▄▄▄▄▄")


def test_differences_are_listed(found: tuple[Statistics, Difference]) -> None:
    text = printed(difference_table(found[1]))
    for part in (
        "added (1)\n  only3\n",
        "removed (1)\n  only2\n",
        "reshaped (1)\n  shape: 2 -> 3\n",
        "tied or untied (1)\n  shape: is only2 -> its own\n",
        "1 of 2 compared tensors are identical",
    ):
        assert part in text
    (change,) = (change for change in found[1].changes if change.identical < 1)
    assert f"{change.norm:.3g}" in text
    (line,) = (line for line in text.splitlines() if line.startswith("model.layers"))
    assert line.split()[-1] == str(change.rank) == "1"


def test_values_that_are_not_finite_are_told(found: tuple[Statistics, Difference]) -> None:
    text = printed(difference_table(found[1]))
    assert "not finite in A or B, and left out (1)\n" in text
    assert ": 2 of 4 values not finite" in text


def test_why_a_rank_is_missing_is_told(found: tuple[Statistics, Difference]) -> None:
    (change,) = (change for change in found[1].changes if change.identical < 1)
    unknown = replace(change, rank=None, rank_exact=False, rank_unknown="below rounding")
    text = printed(difference_table(replace(found[1], changes=(unknown, unknown))))
    assert "2 without a rank: below rounding" in text
    table = requested.difference(replace(found[1], changes=(unknown,)))
    assert table is not None
    assert table.tables[-1].rows[-1][-2] == "below rounding"


def test_a_total_of_a_part_says_of_how_much(found: tuple[Statistics, Difference]) -> None:
    statistics, difference = found
    every = statistics.total.count
    text = " ".join(printed(statistics_table(replace(statistics, values=2 * every))).split())
    assert f"The total is of {every:,} of {2 * every:,} values (50.00%)." in text
    assert "The total is of" not in printed(
        statistics_table(replace(statistics, values=every, unread=()))
    )
    compared = difference.total.count
    partly = replace(difference, values=4 * compared)
    assert "values (25.00%)" in printed(difference_table(partly))
    for section in (
        requested.statistics(replace(statistics, values=2 * every)),
        requested.difference(partly),
    ):
        assert section is not None
        assert section.text[1].startswith("The total is of ")


def test_files_that_share_no_name_are_told_apart(found: tuple[Statistics, Difference]) -> None:
    none = replace(found[1], changes=(), reshaped=(), retied=(), unread=(), values=0)
    none = replace(none, total=replace(none.total, count=0))
    text = printed(difference_table(none))
    assert "no tensor has the same name in both" in text
    assert "0 of 0" not in text


def test_many_lines_are_cut_with_a_count(found: tuple[Statistics, Difference]) -> None:
    many = replace(found[1], added=tuple(f"t{n}" for n in range(1021)))
    text = printed(difference_table(many))
    assert "added (1,021)" in text
    assert "t19\n  and 1,001 more\n" in text
    assert "t20" not in text
