"""The edge: what a script arranges for its imports is undone, advice fits the command, options exist."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minilm.cli import generate, inspect, train
from minilm.cli.entry import run_command, with_mixture
from minilm.cli.main import VERBS, main
from minilm.training.signals import Stopped
from minilm.version import __version__
from tests.conftest import ROOT

# Of minilm itself; the options made from fields, as they are written about, and their beginnings.
NOT_OF_A_VERB = {"--version", "--help", "--model.FIELD", "--train.FIELD", "--train", "--model"}


def test_a_command_hears_interrupts_that_its_script_let_pass() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert run_command(lambda: int(signal.getsignal(signal.SIGINT) is before)) == 1
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_interrupts_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command(lambda: int(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)) == 1
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "memory: not enough of it, expected"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 8589934592 bytes. Error code 12"
            ),
            "memory: not enough of it for 8.0 GiB more, expected",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total ..."),
            "GPU memory: not enough of it for 20.00 MiB more, expected",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            "GPU memory: not enough of it, expected",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory: not enough of it, expected"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "memory: not enough of it, expected",
        ),
    ],
)
def test_out_of_memory_is_one_line_with_what_to_change(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert run_command(command, memory_advice="lower --this") == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {message} ")
    assert text.endswith("; lower --this\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ImportError("no module")])
def test_any_other_error_keeps_its_traceback(error: Exception) -> None:
    def command() -> int:
        raise error

    with pytest.raises(type(error)):
        run_command(command)


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (train, train.MEMORY_ADVICE),
        (train, train.RESUMED_MEMORY_ADVICE),
        (generate, generate.MEMORY_ADVICE),
        (inspect, inspect.MEMORY_ADVICE),
    ],
)
def test_the_advice_names_options_that_the_command_has(
    command: ModuleType, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    options = capsys.readouterr().out
    names = re.findall(r"--[\w.-]*\w", advice)
    assert names
    assert [name for name in names if name not in options] == []


def test_a_full_disk_is_told_with_what_the_command_can_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "model.gguf")

    text = "error: model.gguf: No space left on device, expected room to write; "
    assert run_command(command) == run_command(command, when_full=train.DISK_ADVICE) == 2
    assert capsys.readouterr().err == f"{text}free some space\n{text}{train.DISK_ADVICE}\n"


def minilm(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `minilm ARGUMENTS`."""
    monkeypatch.setattr("sys.argv", ["minilm", *arguments])
    try:
        return main()
    except SystemExit as stop:  # after a help text
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help text of each verb."""
    texts = {}
    for verb in VERBS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            lines: list[str] = []
            monkeypatch.setattr("sys.stdout.write", lambda text, lines=lines: lines.append(text))
            assert minilm(monkeypatch, "help", verb) == 0
        texts[verb] = "".join(lines)
    return texts


def test_a_signal_is_told_with_its_note_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise Stopped(signal.SIGTERM, "stopped before training began: nothing was saved")

    assert run_command(command) == 128 + signal.SIGTERM
    captured = capsys.readouterr()
    assert captured.err == "stopped before training began: nothing was saved\n"


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert minilm(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_is_a_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert minilm(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert minilm(monkeypatch, "help") == 0
    assert capsys.readouterr().out == text
    assert minilm(monkeypatch, "help", "help") == 0
    assert capsys.readouterr().out == text
    assert minilm(monkeypatch, "help", "plants") == 2
    assert capsys.readouterr().err.startswith("error: 'plants': no such verb, expected train, ")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_reader_that_is_gone_is_no_traceback(argument: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "minilm", argument],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_each_verb_has_a_help_text(helps: dict[str, str]) -> None:
    for verb, text in helps.items():
        assert text.startswith(f"usage: minilm {verb} ")
        assert [line for line in text.split("\n\n")[1].splitlines() if len(line) > 80] == []


def test_no_option_is_negated_twice(helps: dict[str, str]) -> None:
    assert "--no-cache" in helps["generate"]
    assert [verb for verb, text in helps.items() if "--no-no-" in text] == []


def test_messages_name_options_that_exist(helps: dict[str, str]) -> None:
    option = r"(?<![\w-])--[a-z][\w.-]*\w"
    known = set(re.findall(option, "".join(helps.values()))) | NOT_OF_A_VERB
    named = [
        (name, path.name)
        for path in (ROOT / "minilm").rglob("*.py")
        for text in strings(path)
        for name in re.findall(option, text)
    ]
    assert "--train.learning-rate" in {name for name, _ in named}
    assert [each for each in named if each[0] not in known] == []


def strings(path: Path) -> list[str]:
    """Every text in a source file, docstrings and parts of f-strings too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_the_advice_on_a_full_disk_fits_the_command(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/file")

    module = import_module(f"minilm.cli.{verb}")
    monkeypatch.setattr(module, "_run", full)
    required = {
        "generate": ["run"],
        "evaluate": ["run"],
        "explain": ["run"],
        "claims": ["run"],
        "search": ["--data", "x", "--study", "s"],
        "convert": ["run", "--to", "gguf", "--out", "x"],
        "prune": ["run", "--sparsity", "0.5", "--out", "x"],
        "share": ["run", "--out", "x"],
        "quantize": ["run", "--format", "int8", "--out", "x"],
        "plan": ["nano", "--gpus", "1", "--gpu", "T4", "--tokens", "1M"],
    }
    assert module.main(required.get(verb, [])) == 2
    advice = "free some space"
    if verb in ("train", "finetune"):
        advice += ", then --resume continues a run that has begun"
    assert capsys.readouterr().err == (
        f"error: run/file: No space left on device, expected room to write; {advice}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *((["train", option, ""], option) for option in ("--run-dir", "--data", "--init-from")),
        (["train", "--resume", "--run-dir", ""], "--run-dir"),
        (["convert", "", "--to", "gguf", "--out", "x"], "SOURCE"),
        (["convert", "x", "--to", "gguf", "--out", ""], "--out"),
        (["generate", ""], "CHECKPOINT"),
        (["explain", ""], "TARGET"),
    ],
)
def test_an_empty_name_is_not_the_default(
    arguments: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert minilm(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {name}: an empty name, expected ")


@pytest.mark.parametrize(
    ("given", "spin"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_spin_shortly_unless_it_is_set(
    given: dict[str, str], spin: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run_command(lambda: 0) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spin


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["generate"], "CHECKPOINT"),
        (["generate", "--seed", "1"], "CHECKPOINT"),
        (["convert"], "SOURCE, --to, --out"),
        (["convert", "run", "--to", "gguf"], "--out"),
    ],
)
def test_what_is_missing_is_named_as_the_help_has_it(
    arguments: list[str],
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert minilm(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == (
        f"error: arguments: {missing} missing, expected what minilm {arguments[0]} --help lists\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--data a=0.7 b=.3 --seed 1", "--data mix:a=0.7;b=.3 --seed 1"),
        ("--data a=1e-05 b=2.5E3", "--data mix:a=1e-05;b=2.5E3"),
        ("--seed 1 --data a/*.txt=2 hf:x=1 c=1", "--seed 1 --data mix:a/*.txt=2;hf:x=1;c=1"),
        ("--data a=0.7 --seed 1", "--data a=0.7 --seed 1"),
        ("--data a=-1 b=nan c=1", "--data mix:a=-1;b=nan;c=1"),  # refused as weights
        ("--data mix:a=1;b=2 --seed 1", "--data mix:a=1;b=2 --seed 1"),
        ("run=1 b=2 --data a", "run=1 b=2 --data a"),
        ("", ""),
    ],
)
def test_sources_with_weights_are_a_mixture(arguments: str, expected: str) -> None:
    assert with_mixture(arguments.split()) == expected.split()
