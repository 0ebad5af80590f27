"""Every script: as a file, with -m, from another folder, under torchrun, with spawned workers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm.cli.main import VERBS
from scripts import DEPENDENCIES
from tests.conftest import ROOT, clean_environment

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem != "__init__")


def run(command: list[str], cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=clean_environment(cache),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_as_a_file_and_with_m(name: str, cache: Path, tmp_path: Path) -> None:
    """One with the name of a module of the standard library in all four ways, the others in two."""
    as_file = run([str(ROOT / "scripts" / f"{name}.py"), "--help"], tmp_path, cache)
    ways = [as_file, run(["-m", name, "--help"], ROOT / "scripts", cache)]
    if name in sys.stdlib_module_names:
        ways.append(run([f"{name}.py", "--help"], ROOT / "scripts", cache))
        ways.append(run(["-m", f"scripts.{name}", "--help"], ROOT, cache))
    for done in ways:
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage" in done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts in a checkout whose .venv has an interpreter."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").touch()
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interpreter_without_the_dependencies_names_the_one_to_use(
    name: str, checkout: Path, cache: Path
) -> None:
    bare = ["-S", "-E", "-s"]  # no site-packages
    script, python = f"scripts/{name}.py", ".venv/bin/python"
    elsewhere, inside = checkout / ".venv", checkout / "scripts"
    cases = [
        ([script], checkout, f"{python} {script}"),
        (["-m", f"scripts.{name}"], checkout, f"{python} '{checkout / script}'"),
        ([f"../{script}"], elsewhere, f"./bin/python ../{script}"),
        ([f"{name}.py"], inside, f"../{python} {name}.py"),
        (["-m", name], inside, f"../{python} '{checkout / script}'"),
    ]
    for command, cwd, use in cases:
        done = run([*bare, *command, "--help"], cwd, cache)
        activate = use.split()[0].replace("/python", "/activate")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: this Python lacks torch and 9 other dependencies: "
            f"use {use}, or run: . {activate}\n"
        )


PROGRAMS = [
    str(path.relative_to(ROOT))
    for folder in ("tools", "experiments")
    for path in sorted((ROOT / "scripts" / folder).glob("*.py"))
    if "__main__" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_without_the_dependencies_names_the_interpreter_to_use(
    program: str, checkout: Path, cache: Path
) -> None:
    done = run(["-S", "-E", "-s", program], checkout, cache)
    assert (done.returncode, done.stdout) == (2, "")
    python = ".venv/bin/python"
    assert done.stderr == (
        f"error: this Python lacks torch and {len(DEPENDENCIES) - 1} other dependencies: "
        f"use {python} {program}, or run: . .venv/bin/activate\n"
    )


def test_without_an_environment_it_says_how_one_is_made(checkout: Path, cache: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    done = run(["-S", "-E", "-s", "scripts/train.py"], checkout, cache)
    assert done.returncode == 2
    assert done.stderr.endswith("dependencies: run `make train`, which installs them into .venv\n")


def test_the_dependencies_that_scripts_look_for_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)
    assert sorted(DEPENDENCIES) == re.findall(r'"([\w-]+)', block)


def test_every_verb_has_its_script() -> None:
    of_minilm_alone = {"architectures", "cache", "evaluate", "explain"}
    assert set(VERBS) - of_minilm_alone <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_spawned_workers_import_the_script_again(name: str, cache: Path, tmp_path: Path) -> None:
    # What multiprocessing does in a worker: import the main file under another name, then work.
    # The work is done here: see which `inspect` torch and a worker get.
    program = f"""
import multiprocessing, runpy, sys
path = {str(ROOT / "scripts" / f"{name}.py")!r}
if __name__ == "__main__":
    sys.path[0] = {str(ROOT / "scripts")!r}
    sys.modules["__main__"].__file__ = path
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        import inspect
        print(pool.apply(inspect.getsourcefile, (inspect.signature,)))
"""
    (tmp_path / "driver.py").write_text(program)
    done = run(["driver.py"], tmp_path, cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.path.join(os.path.dirname(os.__file__), "inspect.py")


def test_a_program_in_the_scripts_folder_gets_the_standard_inspect(cache: Path) -> None:
    program = (
        "import inspect, torch; assert hasattr(inspect, 'signature'); print(inspect.__file__);"
        "import dataclasses; assert dataclasses.inspect is inspect"
    )
    done = run(["-c", program], ROOT / "scripts", cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.path.join(os.path.dirname(os.__file__), "inspect.py")


def test_under_torchrun(tiny_run: Path, cache: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    done = run(
        [*torchrun, str(ROOT / "scripts" / "inspect.py"), "nano", "--json", "-"], tmp_path, cache
    )
    assert done.returncode == 0, done.stderr
    assert '"verified": true' in done.stdout


def test_half_of_what_torchrun_sets_is_refused(script: Any, tmp_path: Path) -> None:
    done = script("train", "--run-dir", str(tmp_path / "r"), environment={"WORLD_SIZE": "2"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: WORLD_SIZE: 2, without RANK, expected all variables")


def test_the_console_command_is_the_same_code(cache: Path, tmp_path: Path) -> None:
    minilm = Path(sys.executable).parent / "minilm"
    by_command = subprocess.run(
        [minilm, "inspect", "nano"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(cache),
    )
    by_script = run([str(ROOT / "scripts" / "inspect.py"), "nano"], tmp_path, cache)
    assert by_command.stdout == by_script.stdout
    unknown = subprocess.run([minilm, "trian"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: 'trian'")
