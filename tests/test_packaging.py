"""What is installed: one version, the types, and every file that is read beside the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable

import pytest

from minilm.cli.main import VERBS
from minilm.version import __version__
from tests.conftest import ROOT, clean_environment, make_text


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


@pytest.fixture(scope="module")
def minilm(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run the installed `minilm`, in an environment and a folder that know nothing of the checkout."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    binaries = folder / "venv" / "bin"
    # The dependencies are those of the running interpreter; a path in a .pth file runs no .pth there,
    # so that a checkout which is installed there is not found.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        "--python",
        str(binaries / "python"),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    environment = clean_environment(folder / "cache")
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "pip", *install, str(wheel.filename)]
    subprocess.run(command, env=environment, check=True)

    def run(*arguments: str, program: str = "minilm") -> str:
        done = subprocess.run(
            [str(binaries / program), *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    where = run("-c", "import minilm; print(minilm.__file__)", program="python").strip()
    assert where == str(site / "minilm" / "__init__.py")
    (folder / "story.txt").write_text(make_text(3000), encoding="utf-8")
    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_the_installed_wheel_starts(minilm: Callable[..., str], verb: str) -> None:
    assert minilm("help", verb).startswith(f"usage: minilm {verb}")


def test_the_installed_wheel_trains_inspects_generates_and_converts(
    minilm: Callable[..., str],
) -> None:
    sizes = "--model.num-layers 1 --model.d-model 16 --model.num-heads 2 --model.context-length 16"
    training = f"--tokenizer byte {sizes} --max-steps 4 --eval-every 2 --train.batch-size 4"
    printed = minilm("train", "--data", "story.txt", "--run-dir", "run", *training.split())
    assert "verified, name by name" in printed
    assert "bits a byte" in printed
    assert "<html" in minilm("inspect", "run", "--html", "-")
    assert '"verified": true' in minilm("inspect", "run", "--json", "-")
    assert minilm("generate", "run", "--prompt", "the ", "--max-new-tokens", "8").startswith("the ")
    minilm("convert", "run", "--to", "huggingface", "--out", "exported")
    assert "verified" in minilm("inspect", "exported")
    assert minilm("--version").strip() == __version__


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
        "pip install --disable-pip-version-check --no-compile -c constraints.txt  -e '.[dev]'"
    )
    url = "https://download.pytorch.org/whl/cpu"
    assert f"--extra-index-url {url} -e '.[dev]'" in recipe(f"TORCH_INDEX={url}")
    assert f"make train TORCH_INDEX={url}" in (ROOT / "README.md").read_text(encoding="utf-8")
