"""What a run records of its text, so that --resume finds it from any folder, and when it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.errors import CorpusError
from minilm.text.corpora import absolute_source, is_same_source, parse_mixture


def test_a_path_becomes_absolute_and_a_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("stdlib", "shakespeare", "hf:user/stories,rows=3"):
        assert absolute_source(name) == name
    (tmp_path / "rows").mkdir()
    assert absolute_source("hf:rows,split=val") == f"hf:{tmp_path / 'rows'},split=val"
    assert absolute_source("texts/*.txt") == str(tmp_path / "texts" / "*.txt")
    assert absolute_source("~/a.txt") == str(tmp_path / "home" / "a.txt")


def test_the_weights_of_a_mixture_are_recorded_exactly(tmp_path: Path) -> None:
    source = f"mix:{tmp_path / 'a'}=1;{tmp_path / 'b'}={1 / 3!r};stdlib=0.5"
    assert absolute_source(source) == source
    assert parse_mixture(absolute_source(source)) == parse_mixture(source)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "./a", True),
        ("a", "b", False),
        ("mix:a=0.7;b=0.3", "mix:./b=0.3;a=0.7", True),
        ("mix:a=0.7;b=0.3", "mix:a=7;b=3", True),
        ("mix:a=0.7;b=0.3", "mix:a=0.3;b=0.7", False),
        ("mix:a=0.7;b=0.3", "mix:a=0.7;c=0.3", False),
        ("mix:a=1;b=1", "mix:a=1;b=1;c=1", False),
        ("mix:a=1", "a", False),
    ],
)
def test_mixtures_are_the_same_in_any_order(one: str, other: str, same: bool) -> None:
    assert is_same_source(one, other) == is_same_source(other, one) == same


@pytest.mark.parametrize("again", ["a.txt", "./a.txt", "../{folder}/a.txt"])
def test_a_source_that_is_there_twice_is_refused(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"/a\.txt twice, expected each source once"):
        parse_mixture(f"mix:a.txt=1;b.txt=1;{again.format(folder=tmp_path.name)}=2")
    assert (
        len(parse_mixture("mix:hf:name,split=train=1;hf:name,split=test=1;./stdlib=1;stdlib=1"))
        == 4
    )
