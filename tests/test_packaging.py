"""What is installed: one version, the types, and every file that is read beside the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from minilm.version import __version__
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the tree, without a network."""
    tree = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "minilm", tree / "minilm", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    program = "from setuptools import build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True
    )
    return zipfile.ZipFile(tree / done.stdout.splitlines()[-1])


def test_the_wheel_has_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "minilm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "minilm/py.typed" in files
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files


def test_the_version_is_said_once(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    assert re.findall(r"^Version: (.*)$", wheel.read(metadata).decode(), re.M) == [__version__]
    sources = [*(ROOT / "minilm").rglob("*.py"), ROOT / "pyproject.toml"]
    assert [path for path in sources if f'"{__version__}"' in path.read_text(encoding="utf-8")] == [
        ROOT / "minilm" / "version.py"
    ]


def test_the_workflow_runs_the_pythons_that_are_supported() -> None:
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (oldest,) = re.findall(r'requires-python = ">=(.*)"', project)
    (pythons,) = re.findall(r"python: \[(.*)\]", workflow)
    assert pythons.split(", ")[0] == f'"{oldest}"'
    assert "run: make test" in workflow


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_shows_what_it_downloads_and_takes_another_index_for_torch() -> None:
    def recipe(*variables: str) -> str:
        command = ["make", "--dry-run", "--always-make", "train", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    (install,) = [line for line in recipe().splitlines() if "pip install" in line]
    assert install.endswith(
        "pip install --disable-pip-version-check -c constraints.txt  -e '.[dev]'"
    )
    url = "https://download.pytorch.org/whl/cpu"
    assert f"--extra-index-url {url} -e '.[dev]'" in recipe(f"TORCH_INDEX={url}")
    assert f"make train TORCH_INDEX={url}" in (ROOT / "README.md").read_text(encoding="utf-8")
