"""README.md as a user reads it: every command, pasted in its order into one shell, in an empty clone.

What is replaced, so that nothing is downloaded and a run takes seconds:

- `make train` makes .venv with the packages of the running interpreter instead of installing them, and
  trains a tiny model on a short text into the folder that the real one leaves; `make test` runs nothing;
- every training from a preset gets the sizes in TINY, and every step count becomes a small one;
- 8 new tokens are generated.

The environment is not active but where a line of README.md activates it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, make_text

README = ROOT / "README.md"
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.S)
TINY = (
    "--tokenizer byte --model.num-layers 1 --model.d-model 16 --model.num-heads 2 "
    "--model.context-length 16 --train.sample-tokens 4"
)
# .venv with the packages of the running interpreter.
MAKE_ENVIRONMENT = (
    f"{shlex.quote(os.path.realpath(sys.executable))} -m venv --without-pip .venv\n"
    f"echo {shlex.quote(sysconfig.get_path('purelib'))} > "
    f".venv/lib/python{sysconfig.get_python_version()}/site-packages/running.pth"
)
NOT_COPIED = (".git", ".venv", ".*_cache", "*.egg-info", ".hypothesis", "tests")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tree as it is in a new clone: no environment, no checkpoints."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    (folder / "story.txt").write_text(make_text(600), encoding="utf-8")
    return folder


def outside_any_environment(tmp_path: Path) -> dict[str, str]:
    """A shell's variables where nothing was activated: its `python` has none of the dependencies."""
    bare = tmp_path / "bin"
    bare.mkdir()
    python = os.path.realpath(sys.executable)
    (bare / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(python)} -S -E -s "$@"\n')
    (bare / "python").chmod(0o755)
    environment = clean_environment(tmp_path / "cache")
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    return environment | {"PATH": f"{bare}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


def test_every_command_works_as_pasted(clone: Path, tmp_path: Path) -> None:
    program = ["set -e -o pipefail"]
    for language, text in BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            program.append(f"python - <<'END'\n{text}END")
        else:
            program += [
                f"echo {shlex.quote(f'$ {line}')}\n{shortened(line)}" for line in text.splitlines()
            ]
    done = bash("\n".join(program), clone, outside_any_environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert commands[:2] == ["$ make train", "$ make test"]
    assert len(commands) > 10


def test_without_the_environment_a_command_says_which_python_to_use(
    clone: Path, tmp_path: Path
) -> None:
    program = f"{MAKE_ENVIRONMENT}\npython scripts/train.py --data story.txt"
    done = bash(program, clone, outside_any_environment(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "error: this Python lacks torch and 9 other dependencies: use .venv/bin/python "
        "scripts/train.py, or run: . .venv/bin/activate\n"
    )


def test_the_commands_without_make_do_what_make_does(clone: Path, tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    train, test = re.findall(r"^\| `make \w+` \| `(.*)` \|$", text, re.M)
    create, activate, install, run = train.split(" && ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert create.replace("python3", "$(PYTHON)") in makefile
    assert re.fullmatch(r"pip install -c constraints.txt -e '\.\[dev\]'", install)
    program = "\n".join(["set -e", MAKE_ENVIRONMENT, activate, f"{run} --data story.txt {TINY}"])
    done = bash(f"{program} --max-steps 2", clone, outside_any_environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (clone / "checkpoints" / "nano-story" / "report.html").is_file()
    assert [part.split()[0] for part in test.split(" && ")] == ["ruff", "ruff", "mypy", "pytest"]


def test_it_has_a_comment_in_no_command() -> None:
    # zsh, the shell of macOS, takes what follows a `#` as arguments when a line is pasted.
    blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
    assert not [text for language, text in blocks if language == "sh" and "#" in text]


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def shortened(line: str) -> str:
    """A line of README.md with what the docstring above says in its place."""
    if line == "make train":
        return (
            f"{MAKE_ENVIRONMENT}\n.venv/bin/python scripts/train.py --data story.txt "
            f"--run-dir checkpoints/nano-stdlib --max-steps 2 {TINY}"
        )
    if line == "make test":
        return ":"
    line = re.sub(
        r"--max-steps (\d+)", lambda steps: f"--max-steps {int(steps[1]) // 100 + 1}", line
    )
    if "train.py" in line and "--resume" not in line and "--init-from" not in line:
        line += f" {TINY}"
    if "generate.py" in line:
        line += " --max-new-tokens 8"
    return line


def bash(program: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", program],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
