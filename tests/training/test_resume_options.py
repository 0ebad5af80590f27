"""What a run records of its text, so that --resume finds it from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.training.resume_options import absolute_source


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
