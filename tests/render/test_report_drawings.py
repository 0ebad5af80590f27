"""What a Report shows of itself in Python: printed, in a notebook, as a page, as Markdown, as tables."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.errors import InputError
from minilm.render.html import page
from minilm.render.markdown import markdown
from minilm.runs.history import read_history


def test_a_report_prints_as_the_command_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilm.cli.inspect import main

    monkeypatch.setenv("COLUMNS", "80")
    assert main(["gpt2"]) == 0
    assert str(minilm.inspect("gpt2")) + "\n" == capsys.readouterr().out


def test_a_report_is_one_line_in_a_list() -> None:
    text = repr([minilm.inspect("gpt2")])
    assert text.startswith("[<Report of gpt2: 124,439,808 parameters, not cross-checked: ")
    assert "\n" not in text


class Tags(HTMLParser):
    """Checks that every element is closed, and collects the text and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_notebook_shows_the_short_report_as_tables() -> None:
    parser = Tags()
    parser.feed(minilm.inspect("gpt2")._repr_html_())
    assert parser.open == []
    assert {"124,439,808 parameters", "token embedding", "38,597,376", "Vd"} <= {*parser.texts}
    assert parser.tags == {
        "div",
        "p",
        "b",
        "br",
        "code",
        *("table", "thead", "tbody"),
        *("tr", "th", "td"),
    }


def test_a_notebook_gets_names_from_files_as_text() -> None:
    report = minilm.inspect("gpt2")
    hostile = "<script>alert(1)</script>{0}"
    components = (replace(report.components[0], name=hostile), *report.components[1:])
    report = replace(report, target=hostile, components=components, notes=(hostile,))
    html = report._repr_html_()
    assert "<script" not in html
    parser = Tags()
    parser.feed(html)
    assert parser.texts.count(hostile) == 3


def test_a_notebook_is_not_flooded_by_components() -> None:
    report = minilm.inspect("gpt2")
    many = tuple(replace(report.components[0], name=f"part {n}") for n in range(30_000))
    assert len(replace(report, components=many)._repr_html_()) < 20_000


def test_pages_and_markdown_are_those_of_the_command(tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    history = read_history(tiny_run)
    assert report.to_html() == page(report, history=history)
    assert report.to_markdown(tensors=True) == markdown(report, history=history, tensors=True)
    assert report.to_markdown() == markdown(report, history=history)
    assert report.to_dict()["parameters"]["total"] == report.parameters.total
    assert report.to_json(tensors=True) == report.to_dict(tensors=True)


def test_tables_are_records(tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    components = report.rows()
    assert sum(row["count"] for row in components) == report.parameters.total
    assert {type(value) for row in components for value in row.values()} == {str, int, float}
    tensors = report.rows("tensors")
    assert tensors[0]["shape"] == list(report.tensors[0].shape)
    assert report.rows("conventions")[0]["count"] == report.parameters.total
    with pytest.raises(InputError, match="one of components, tensors, conventions"):
        report.rows("layers")  # type: ignore[arg-type]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("table", ["components", "tensors", "conventions"])
def test_dataframes_take_them(library: str, table: Any) -> None:
    frame = pytest.importorskip(library).DataFrame(minilm.inspect("gpt2").rows(table))
    assert frame["count"].sum() == sum(row["count"] for row in minilm.inspect("gpt2").rows(table))


def test_import_of_the_package_alone_is_light() -> None:
    program = (
        "import sys, minilm\n"
        "assert not {'torch', 'numpy', 'jinja2', 'rich', 'minilm.render'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
