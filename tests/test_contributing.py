"""CONTRIBUTING.md as pasted: its architecture and its training option, put into a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, make_text

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE, OPTION = (re.split(r"^## ", TEXT, flags=re.M)[number] for number in (2, 3))


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def insert_before(path: Path, line: str, text: str) -> None:
    """Put ``text`` before the line that begins so."""
    content = path.read_text(encoding="utf-8")
    assert len(re.findall(rf"^{re.escape(line)}", content, re.M)) == 1
    path.write_text(content.replace(f"\n{line}", f"\n{text}{line}"), encoding="utf-8")


def remove(path: Path, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(text) == 1
    path.write_text(content.replace(text, ""), encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("minilm", "scripts", "tests"):
        ignored = shutil.ignore_patterns("fixtures")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(command: list[str], tree: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run with the interpreter of the tests as `python`, and with the tree's own package."""
    shown = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=tree,
        env=clean_environment(tmp_path / "cache") | {"PATH": shown, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_architecture(tree: Path, tmp_path: Path) -> None:
    module, table, draws = blocks(ARCHITECTURE, "python")
    folder = tree / "minilm" / "architectures"
    assert (folder / "arcee.py").read_text(encoding="utf-8") == module
    (folder / "arcee.py").unlink()
    path = tree / "tests" / "architectures" / "draws_decoders.py"
    remove(folder / "model_types.py", table)
    remove(path, draws)
    (program,) = blocks(ARCHITECTURE, "sh")
    assert run(["bash", "-ec", program], tree, tmp_path).returncode != 0
    (folder / "arcee.py").write_text(module, encoding="utf-8")
    insert_before(folder / "model_types.py", '    "bloom":', table)
    insert_before(path, '    "cwm":', draws)
    done = run(["bash", "-ec", program], tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "arcee" in done.stdout
    checked = run(
        [sys.executable, "-m", "ruff", "check", "--select", "E,F,I,UP", str(folder / "arcee.py")],
        tree,
        tmp_path,
    )
    assert checked.returncode == 0, checked.stdout
    tests = [f"tests/architectures/test_{of}.py" for of in ("recorded", "transformers_agreement")]
    tests += ["-k", "arcee", "-p", "no:cacheprovider", "-o", "addopts="]
    tested = run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *tests], tree, tmp_path
    )
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"[1-9]\d* passed", tested.stdout)


def test_the_training_option(tree: Path, tmp_path: Path) -> None:
    (field,) = blocks(OPTION, "python")
    path = tree / "minilm" / "config" / "training.py"
    insert_before(path, "    gradient_clip:", field)
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            '"gradient_clip"', '"gradient_clip", "gradient_noise"'
        ),
        encoding="utf-8",
    )
    (program,) = blocks(OPTION, "sh")
    done = run(["bash", "-ec", program], tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--train.gradient-noise FLOAT" in done.stdout
    assert "Standard deviation of the normal noise" in " ".join(done.stdout.split())
    (tree / "story.txt").write_text(make_text(600), encoding="utf-8")
    command = [sys.executable, "scripts/train.py", "--data", "story.txt", "--tokenizer", "byte"]
    sizes = ["--model.num-layers", "1", "--model.d-model", "16", "--model.num-heads", "2"]
    command += [*sizes, "--max-steps", "1", "--train.gradient-noise"]
    assert run([*command, "-1"], tree, tmp_path).stderr.startswith("error: ")
    done = run([*command, "0.5"], tree, tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tree / "checkpoints" / "nano-story" / "config.json").read_text(encoding="utf-8")
    assert '"gradient_noise": 0.5' in text
    assert json.loads(text)


def test_its_commands_are_real() -> None:
    setup = re.split(r"^## ", TEXT, flags=re.M)[1]
    for line in "".join(blocks(setup, "sh")).splitlines():
        assert line.startswith(("make ", ". .venv/bin/activate", "pytest tests/"))
    for name in re.findall(r"`(tests/[\w/]+)`|pytest (tests/[\w/]+)", TEXT):
        assert (ROOT / "".join(name)).exists()
