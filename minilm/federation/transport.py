"""How the server reaches its clients: in its own process, or over gRPC on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minilm.errors import InputError
from minilm.federation.client import FlowerClient, LocalClient
from minilm.federation.local_training import LocalTraining
from minilm.federation.server import Averaging
from minilm.safe_text import one_line

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"  # what travels is not encrypted
# Of a message, beside tensors and setup: names, numbers, the headers of .npy files.
OTHER_BYTES = 2**20
SECONDS_TO_LEAVE = 5  # for a client to answer that it leaves
SECONDS_TO_END = 60  # for its process: on a busy machine torch takes several


def in_process(averaging: Averaging, clients: Sequence[LocalTraining]) -> Any:
    """A Flower server whose clients train one after another in this process."""
    from flwr.server import Server, SimpleClientManager

    manager = SimpleClientManager()
    for number, training in enumerate(clients):
        manager.register(LocalClient(f"{number}", FlowerClient(training)))
    server = Server(client_manager=manager, strategy=averaging)
    server.set_max_workers(1)
    return server


def invite(address: str) -> None:
    """Say how to join."""
    logger.info(f"waiting for clients: minilm federate --join {address} --client SOURCE")


@contextlib.contextmanager
def over_grpc(
    averaging: Averaging,
    number: int,
    *,
    port: int = 0,
    commands: Mapping[str, Sequence[str]] | None = None,
    cache: Path | None = None,
    invite: Callable[[str], None] = invite,
) -> Iterator[Any]:
    """A Flower server that ``number`` clients have joined; at the end of the block they are told to leave.

    With ``commands`` they are processes, by name, of these arguments of minilm, after which comes the
    address, with tokens in ``cache``; else ``invite`` is called with the address. Messages are as large as
    the model's, and no larger. Raises InputError where the port is taken, or a process ends.
    """
    from flwr.server import Server, SimpleClientManager
    from flwr.server.superlink.fleet.grpc_bidi.grpc_server import start_grpc_server

    manager = SimpleClientManager()
    tensors = sum(4 * size for size in averaging.sizes())
    try:
        grpc_server: Any = start_grpc_server(
            manager,
            f"{HOST}:{port}",
            max_message_length=tensors + len(averaging.setup.encode()) + OTHER_BYTES,
        )
    except SystemExit:
        raise InputError("--listen", f"port {port} is in use", "a free one, or 0") from None
    server = Server(client_manager=manager, strategy=averaging)
    processes: list[_Process] = []
    try:
        if commands:
            for name, command in commands.items():
                # One after another, so that each has the same number in every run.
                arguments = [*command, grpc_server.bound_address]
                processes.append(_Process.start(name, arguments, cache))
                while not manager.wait_for(len(processes), timeout=1):
                    processes[-1].raise_if_ended()
        else:
            invite(grpc_server.bound_address)
            while not manager.wait_for(number, timeout=1):
                pass
        yield server
    finally:
        server.disconnect_all_clients(timeout=SECONDS_TO_LEAVE)
        grpc_server.stop(grace=1).wait()
        for process in processes:
            process.end()


@dataclass
class _Process:
    """A client in a process of its own, and what it writes."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    name: str

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], cache: Path | None) -> _Process:
        output = tempfile.TemporaryFile()  # noqa: SIM115  # closed at its end
        process = subprocess.Popen(
            [sys.executable, "-m", "minilm", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # The same modules, from a checkout too.
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            | ({} if cache is None else {"MINILM_CACHE": str(cache)}),
        )
        return cls(process, output, f"client {name}")

    def raise_if_ended(self) -> None:
        if self.process.poll() is not None:
            raise InputError(self.name, self._ending(), "a client that joins")

    def end(self) -> None:
        """Wait; a note where it did not end well."""
        try:
            status = self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status:
            logger.warning(f"note: {self.name}: {self._ending()}")
        self.output.close()

    def _ending(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode("utf-8", "replace").strip().splitlines()
        text = f"ended with status {self.process.returncode}"
        return one_line(f"{text}: {lines[-1]}" if lines else text)
