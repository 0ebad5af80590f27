"""What the documents print, name and promise is so."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = runpy.run_path(str(ROOT / "scripts" / "tools" / "docs.py"))
DOCUMENTS: list[Path] = DOCS["DOCUMENTS"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_printed_output_is_what_the_command_prints(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert DOCS["refreshed"](text) == text, "run: python scripts/tools/docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", text) if not x.startswith("http")]
    named = re.findall(r"`((?:minilm|scripts|tests|docs)/[\w./]+\.\w+)`", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_measured_figures_are_those_of_the_benchmark() -> None:
    performance = runpy.run_path(str(ROOT / "scripts" / "tools" / "performance.py"))
    figures = performance["read_figures"]()
    for page in performance["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert "from training.json -->" in text
        assert performance["filled"](text, figures) == text, (
            "run: python scripts/tools/performance.py"
        )


def test_the_ablations_are_those_of_the_runs(tmp_path: Path) -> None:
    ablate = runpy.run_path(str(ROOT / "scripts" / "experiments" / "ablate.py"))
    ablate["write_page"](tmp_path / "page.md", ablate["read_results"]())
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert ablate["PAGE"].read_text(encoding="utf-8") == written, "run: ablate.py --write-only"


def test_the_parts_named_in_the_architecture_exist_and_none_is_left_out() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| `([^`]+)` \|", text, re.M)
    named = {part for row in rows for part in row.split()}
    present = {path.stem for path in (ROOT / "minilm").iterdir() if path.name[0] not in "_."}
    assert named == present - {"__init__", "py"}


def test_the_declaration_in_the_architecture_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (promised,) = re.findall(r"It prints `([^`]+)`", text)
    (tmp_path / "example.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == promised


def test_the_readme_has_one_short_printed_example() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^```console$", text, re.M)) == 1


def test_the_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make (\w+)", text, re.M):
            assert f"\n{target}:" in makefile, f"{document.name}: make {target}"
