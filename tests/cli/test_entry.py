"""The edge: what a script arranges for its imports is undone while its command runs."""

import errno
import re
import signal
from types import ModuleType

import pytest

from minilm.cli import generate, inspect, train
from minilm.cli.entry import run_command


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
    assert run_command(command) == run_command(command, disk_advice=train.DISK_ADVICE) == 2
    assert capsys.readouterr().err == f"{text}free some space\n{text}{train.DISK_ADVICE}\n"
