"""The bar: in a terminal and in a notebook, silent in a pipe; a run in a pipe prints its losses."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minilm.progress import progress_bar
from tests.conftest import clean_environment

FORMAT = "{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt}"


def drawn(capsys: Any, **options: Any) -> str:
    with progress_bar(FORMAT, total=2, mininterval=0, **options) as bar:
        bar.update(1)
        bar.update(1)
    return str(capsys.readouterr().err)


def test_a_pipe_gets_no_bar(capsys: Any) -> None:
    assert drawn(capsys) == ""


def test_a_terminal_gets_one(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "100%|████████| 2/2" in drawn(capsys)


@pytest.mark.parametrize(
    ("applications", "shown"), [({"IPKernelApp": {}}, True), ({"TerminalIPythonApp": {}}, False)]
)
def test_a_notebook_gets_one_though_it_is_no_terminal(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, applications: dict[str, Any], shown: bool
) -> None:
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(config=applications))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    text = drawn(capsys, ncols=60)
    assert ("2/2" in text) == shown
    assert ("|████████|" in text) is False  # as wide as there is room


def test_a_run_in_a_pipe_prints_its_losses(text_file: Path, cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys, minilm\n"
        "from tests.conftest import TINY_MODEL, TINY_SETTINGS\n"
        "minilm.train(data=sys.argv[1], run_dir=sys.argv[2], tokenizer='byte', model=TINY_MODEL,\n"
        "             settings=TINY_SETTINGS)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(text_file), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=clean_environment(cache),
        timeout=120,
        check=True,
    )
    assert done.stdout == ""
    assert done.stderr.count("validation loss") == 3
    assert "%|" not in done.stderr
