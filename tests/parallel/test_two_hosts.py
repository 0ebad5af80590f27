"""Two hosts, which are network namespaces of this machine: the link between them is cut, and healed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.parallel.processes import (
    ODD,
    SETTINGS,
    command_line,
    end,
    environment,
    losses,
    torchrun,
)

pytestmark = pytest.mark.distributed

ADDRESSES = ("10.77.0.1", "10.77.0.2")
TIMEOUT = 5.0  # seconds that one process waits for another
TRAIN = str(ROOT / "scripts" / "train.py")


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces with a link between them, where they may be made."""
    if shutil.which("ip") is None:
        pytest.skip("no ip command")
    first, second = names = (f"minilm-{os.getpid()}-0", f"minilm-{os.getpid()}-1")
    link = ("link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", second)
    commands = [
        *(("netns", "add", name) for name in names),
        ("-n", first, *link),
        *(
            ("-n", name, "addr", "add", f"{address}/24", "dev", "link0")
            for name, address in zip(names, ADDRESSES, strict=True)
        ),
        *(("-n", name, "link", "set", each, "up") for name in names for each in ("lo", "link0")),
    ]
    try:
        for command in commands:
            made = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces: ip {' '.join(command)}: {made.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Host:
    """torchrun in a namespace, its ``lines`` as they come."""

    def __init__(self, number: int, name: str, arguments: list[str], cache: Path) -> None:
        rendezvous = f"is_host={int(number == 0)},join_timeout=120,read_timeout=10"
        launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29500"]
        launcher += [f"--rdzv-conf={rendezvous},keep_alive_interval=1", "--rdzv-id=run"]
        launcher += [f"--local-addr={ADDRESSES[number]}", "--max-restarts=3", TRAIN, *arguments]
        variables = {"GLOO_SOCKET_IFNAME": "link0", "MINILM_PROCESS_TIMEOUT": str(TIMEOUT)}
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *launcher],
            env=environment(cache) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if line.startswith("error: ")]

    def close(self) -> None:
        end(self.process)
        self.reader.join()
        assert self.process.stdout
        self.process.stdout.close()


def test_a_link_is_cut_and_healed(
    hosts: tuple[str, str], text_file: Path, tmp_path: Path, cache: Path
) -> None:
    """Each host says so in one line and stops; when the link is back both go on, to the same weights."""
    settings = SETTINGS | {"parallel": "fsdp", "save_every_seconds": 0.5, "max_steps": 400}
    settings |= {"eval_every": 200, "log_every": 10}
    options = ["--data", str(text_file), "--tokenizer=byte", *command_line(ODD, settings)]
    run, whole = tmp_path / "run", tmp_path / "whole"
    done = subprocess.run(
        torchrun(TRAIN, *options, "--run-dir", str(whole)),
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with contextlib.ExitStack() as stack:
        both = []
        for number, name in enumerate(hosts):
            arguments = [*options, "--run-dir", str(run)]
            both.append(Host(number, name, arguments, cache))
            stack.callback(both[-1].close)
        wait_for(both, lambda: any((run / "resume").glob("step-0000000[1-9]*/state.json")), 120)
        switch(hosts[0], "down")
        cut = time.monotonic()
        wait_for(both, lambda: all(host.errors for host in both), 60)
        assert time.monotonic() - cut < TIMEOUT + 25
        assert not (run / "summary.json").exists(), "it had ended before"
        switch(hosts[0], "up")
        for host in both:
            host.process.wait(300)
            host.reader.join()
            assert host.process.returncode == 0, host.lines
            (error,) = host.errors
            assert "does not answer, expected all of them; the run is as last saved, " in error
    assert "process 1 (pid " in both[0].errors[0], "the one that hosts the store can name it"
    expected, weights = (load_file(each / "model.safetensors") for each in (whole, run))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in weights)
    torch.testing.assert_close(losses(run), losses(whole), rtol=0, atol=1e-5)


def switch(host: str, state: str) -> None:
    subprocess.run(["ip", "-n", host, "link", "set", "link0", state], check=True)


def wait_for(both: list[Host], condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        for host in both:
            assert host.process.poll() is None, host.lines
        assert time.monotonic() < deadline, [host.lines for host in both]
        time.sleep(0.05)
