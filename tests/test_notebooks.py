"""The notebooks of examples/ run as they stand, in one kernel that forgets between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST_BYTES = 20_000  # without outputs

nbformat = pytest.importorskip("nbformat", reason="needs pip install 'minilm[notebooks]'")


def test_they_are_stored_without_outputs() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert path.stat().st_size < MOST_BYTES
        assert [c for c in notebook.cells if c.cell_type == "code" and c.outputs] == []


def test_they_run(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs pip install 'minilm[notebooks]'")
    pytest.importorskip("ipykernel", reason="needs pip install 'minilm[notebooks]'")
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    together = nbformat.v4.new_notebook()
    for path in NOTEBOOKS:
        together.cells += nbformat.read(path, as_version=4).cells
        together.cells.append(nbformat.v4.new_code_cell("%reset -f"))
    client = nbclient.NotebookClient(
        together, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in together.cells for output in cell.get("outputs", [])
    )
    assert "12Ld² + 13Ld + (2V + 2)d" in printed
    assert "8 of 10 parameters are trainable" in printed
    assert "\n2,048 of " in printed
    assert "llama-3-8b has 8,030,261,248 parameters" in printed
    assert "parameters" in printed.splitlines()[-1]
