"""The server and its clients over gRPC on this machine: real processes, one killed, one hostile."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilm.errors import InputError
from minilm.federation.client import FlowerClient, LocalTraining, join
from minilm.federation.federate import averaging_of, local_training, run_rounds
from minilm.federation.server import Rounds
from minilm.runs.logs import read_metrics
from minilm.training.data_source import DataSource
from minilm.training.setup import new_run
from minilm.training.signals import StopRequest
from tests.conftest import ROOT, clean_environment
from tests.federation.conftest import CENTRALISED, LOCAL_STEPS, MODEL, ROUNDS, SETTINGS, Federate

# gRPC's thread that watches a channel may find it closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
TIMEOUT = 120  # seconds, of a machine that others use


def test_processes_end_in_the_same_bytes_as_one_process(
    federate: Federate, client_texts: list[str], tmp_path: Path
) -> None:
    one = federate(client=client_texts, run_dir=tmp_path / "one")
    several = federate(client=client_texts, run_dir=tmp_path / "several", processes=True)
    weights = [run.run_dir / "model.safetensors" for run in (one, several)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    losses = [
        [line["train_loss"] for line in read_metrics(run.run_dir / "metrics.jsonl") if "lr" in line]
        for run in (one, several)
    ]
    assert losses[0] == losses[1]


@contextlib.contextmanager
def minilm(log: Path, cache: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of minilm, whose messages go to ``log``; it ends with the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "minilm", *arguments],
            cwd=ROOT,
            env=clean_environment(cache),
            stdout=stream,
            stderr=stream,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(log: Path, pattern: str) -> str:
    """What the first group of ``pattern`` is in a log, once it is there."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if match := re.search(pattern, log.read_text(errors="replace")):
            return match[1]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {log.read_text(errors='replace')}")


def test_a_killed_client_is_left_out(
    flwr: Any, client_texts: list[str], text_file: Path, cache: Path, tmp_path: Path
) -> None:
    options = {**MODEL, "num_layers": 1}
    arguments = [f"--model.{name.replace('_', '-')}={value}" for name, value in options.items()]
    server_log = tmp_path / "server.log"
    run = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            minilm(
                server_log,
                cache,
                *("federate", f"--data={text_file}", "--listen=0", "--clients=2", "--rounds=20"),
                *("--local-steps=20", "--tokenizer=byte", f"--run-dir={run}", *arguments),
                *("--train.batch-size=4", "--train.dtype=float32", "--train.sample-tokens=0"),
            )
        )
        address = wait_for(server_log, r"--join (127\.0\.0\.1:\d+)")
        clients = [
            stack.enter_context(
                minilm(
                    tmp_path / f"client-{number}.log",
                    cache,
                    *("federate", f"--join={address}", f"--client={text}"),
                )
            )
            for number, text in enumerate(client_texts)
        ]
        wait_for(tmp_path / "client-1.log", r"(round 1): training loss")
        clients[1].send_signal(signal.SIGKILL)
        assert server.wait(TIMEOUT) == 0
        assert clients[0].wait(TIMEOUT) == 0
    note = r"note: (round \d+) goes on with 1 client: one is gone, or did not answer in time"
    wait_for(server_log, note)
    counts = [line["clients"] for line in read_metrics(run / "metrics.jsonl") if "clients" in line]
    assert len(counts) == 20
    assert counts[0] == 2
    assert counts[-1] == 1
    assert counts == sorted(counts, reverse=True)


class Flooding(FlowerClient):
    """A client that answers with far more bytes than the model has."""

    def fit(self, ins: Any) -> Any:
        result = super().fit(ins)
        result.parameters.tensors[0] = bytes(10_000_000)
        return result

    def set_context(self, context: Any) -> None:
        """Flower's own state."""


class Honest(FlowerClient):
    """A client as it is, whose process is this one."""

    def set_context(self, context: Any) -> None:
        """Flower's own state."""


class Silent(Honest):
    """A client that does not answer in time."""

    def fit(self, ins: Any) -> Any:
        time.sleep(8)
        return super().fit(ins)


@pytest.mark.parametrize(("other", "timeout"), [(Flooding, None), (Silent, 4.0)])
def test_a_client_cannot_flood_or_stop_the_server(
    flwr: Any,
    other: type[FlowerClient],
    timeout: float | None,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from flwr.client import start_client

    from minilm.federation import flower
    from minilm.federation.transport import over_grpc

    flower.quiet()
    spec = new_run(
        "nano",
        source=DataSource(str(text_file), (), cache),
        run_dir=tmp_path / "run",
        tokenizer="byte",
        vocab_size=None,
        model=MODEL,
        settings={**SETTINGS, **CENTRALISED, "compile": "off"},
    )
    plan = Rounds(ROUNDS, LOCAL_STEPS, timeout=timeout)
    stop = StopRequest()
    trainings: list[LocalTraining] = [
        local_training(spec, spec.dataset, number, stop) for number in range(2)
    ]

    def client(address: str, kind: type[FlowerClient], training: LocalTraining) -> None:
        with contextlib.suppress(Exception):
            start_client(server_address=address, client=kind(training), insecure=True)  # type: ignore[arg-type]

    threads: list[threading.Thread] = []

    def invite(address: str) -> None:
        for kind, training in zip((Honest, other), trainings, strict=True):
            threads.append(threading.Thread(target=client, args=(address, kind, training)))
            threads[-1].start()

    with (
        caplog.at_level(logging.INFO, "minilm"),
        over_grpc(averaging_of(spec, plan), 2, invite=invite) as server,
    ):
        outcome = run_rounds(spec, stop, time.monotonic(), server, plan, in_process=False)
    for thread in threads:
        thread.join()
    lines = read_metrics(outcome.run_dir / "metrics.jsonl")
    assert [line["clients"] for line in lines if "clients" in line] == [1, 1, 1]
    assert sum("one is gone, or did not answer" in text for text in caplog.messages) == 1


def test_no_server_and_a_taken_port_are_one_line(
    flwr: Any, client_texts: list[str], federate: Federate, cache: Path
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        source = DataSource(client_texts[0], (), cache)
        with pytest.raises(InputError, match=f"the server 127.0.0.1:{port}: "):
            join(f"127.0.0.1:{port}", source, base=None, device="cpu", stop=StopRequest())
        taken.listen()
        with pytest.raises(InputError, match=f"--listen: port {port} is in use"):
            federate(clients=2, listen=port)
