"""docs/python.md: its code runs as it stands, with a small model in place of nano."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT, TINY_MODEL, make_text

SMALLER = {
    "200": "4",
    "400": "6",
    '"seed": 1}': '"seed": 1, "batch_size": 4, "compile": "off"}',
    '{"dropout": 0.1}': repr(TINY_MODEL | {"dropout": 0.1, "context_length": 32}),
    "max_new_tokens=100": "max_new_tokens=8",
}


def test_the_code_runs(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    (tmp_path / "my.txt").write_text(make_text(6000), encoding="utf-8")
    code = "".join(
        re.findall(
            r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S
        )
    )
    for given, smaller in SMALLER.items():
        assert given in code
        code = code.replace(given, smaller)
    frames = SimpleNamespace(DataFrame=list)
    names: dict[str, Any] = {"pandas": frames, "polars": frames}
    exec(compile(code, "docs/python.md", "exec"), names)
    assert names["outcome"].summary["steps"] == 6
    assert names["report"].verified
    assert "parameters" in capsys.readouterr().out
