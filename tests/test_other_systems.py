"""What Windows does not have is not needed: every verb runs where these attributes and modules are absent."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm import files
from tests.conftest import ROOT, clean_environment, make_text

# Removed once the dependencies are imported, which have their own versions for Windows.
WITHOUT = """
import os, signal, sys, time
import einops, jinja2, numpy, plotly.offline, rich.console, safetensors.torch, tokenizers, torch, tqdm, tyro
import torch.utils.data, torch.optim, multiprocessing.connection, concurrent.futures, tempfile
for module, names in {
    os: "O_CLOEXEC O_NONBLOCK O_DIRECTORY O_NOFOLLOW sysconf sysconf_names register_at_fork fork "
        "sched_getaffinity getuid geteuid getpgid killpg statvfs pread nice mkfifo uname getloadavg",
    signal: "SIGPIPE SIGKILL SIGHUP SIGALRM SIGUSR1 SIGQUIT SIGTSTP SIGCHLD pthread_sigmask sigwait alarm "
            "siginterrupt set_wakeup_fd",
    time: "CLOCK_BOOTTIME clock_gettime",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("readline", "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
open_file = os.open
def open_no_folder(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)  # as on Windows
    return open_file(path, *arguments, **options)
os.open = open_no_folder
from minilm.cli.main import main
for line in sys.stdin:
    sys.argv = ["minilm", *line.split()]
    status = main()
    if status != 0:
        sys.exit(f"{line}{status}")
"""


def test_every_verb_runs_without_them(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(make_text(3000), encoding="utf-8")
    environment = clean_environment(tmp_path / "cache") | {"PYTHONPATH": str(ROOT)}
    sizes = "--model.num-layers 1 --model.d-model 16 --model.num-heads 2 --model.context-length 16"
    training = f"{sizes} --eval-every 2 --train.batch-size 4 --max-steps"
    commands = (
        f"train --data story.txt --run-dir run --tokenizer bpe --vocab-size 300 {training} 4",
        "train --resume --run-dir run --max-steps 6",
        "inspect run --stats",
        "inspect run --html page.html",
        "generate run --prompt the --max-new-tokens 4",
        "convert run --to huggingface --out exported",
    )
    # One after the other in one process: it takes seconds to start one.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input="\n".join(commands),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    for name in ("run/summary.json", "page.html", "exported/config.json"):
        assert (tmp_path / name).is_file()


def test_a_conversation_needs_no_readline(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minilm.cli.generate import main

    class Terminal:
        lines = iter(["a cat", ""])

        def isatty(self) -> bool:
            return True

    monkeypatch.setitem(sys.modules, "readline", None)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: next(Terminal.lines))
    assert main([str(tiny_run), "--interactive", "--max-new-tokens", "2"]) == 0
    assert list(Terminal.lines) == []


def test_a_reader_that_left_gives_the_status_of_a_broken_pipe() -> None:
    program = "import sys; from minilm.cli.main import main; sys.argv[1:] = ['inspect', 'gpt2', '--full']\n"
    program += "import signal; del signal.SIGPIPE; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_folder_that_cannot_be_opened_is_left_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is written all the same; only its folder is not brought to disk."""
    system_open, synced = os.open, list[int]()

    def refuse_folders(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError
        return system_open(path, *arguments, **options)

    monkeypatch.setattr("os.open", refuse_folders)
    monkeypatch.setattr("os.fsync", synced.append)
    files.write_bytes(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert len(synced) == 1, "the file itself"
