"""The processes of a run, as torchrun starts them. A process alone is a world of one, and sends nothing.

Rank 0 writes and prints; the others compute. What depends on a clock or a signal is decided once, for all.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore

from minilm.errors import InputError
from minilm.parallel.joining import (
    agreed_prefix,
    joining,
    launcher_ended,
    launcher_text,
    lost,
    store_of_all,
    watching,
)
from minilm.parallel.launcher import nowhere, silence_all_but_first, started_by_torchrun
from minilm.safe_text import short_repr

STEP_SECONDS = 600.0  # unless MINILM_PROCESS_TIMEOUT says how long one waits for another
STORE_SECONDS = 5.0  # for an answer of the store once a process has failed
NOTICE_SECONDS = 2.0  # in which all that live notice that one does not
UNKNOWN = "-"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class World:
    """How many processes there are, and which of them this one is.

    ``store`` is what they share beside tensors; ``control`` and ``saving`` are groups on the CPU whatever the
    device, the second for what is saved beside the training, in another thread. ``waits`` numbers the calls
    of `wait`, alike in all. So many consecutive processes as ``tensor`` says have the same rows of a batch.
    ``local_rank`` is this one's among those of its machine.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    control: Any = None
    saving: Any = None
    waits: Iterator[int] = field(default_factory=itertools.count)
    tensor: int = 1
    local_rank: int = 0

    @property
    def is_parallel(self) -> bool:
        """Whether torchrun started this process, be it alone."""
        return self.store is not None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which of the ``data_size`` parts of a batch this process has."""
        return self.rank // self.tensor

    @property
    def data_size(self) -> int:
        """How many parts a batch has."""
        return self.size // self.tensor

    def rows(self, total: int) -> slice:
        """This process's of ``total`` rows: consecutive, as many as another's or one more or less."""
        rank, size = self.data_rank, self.data_size
        return slice(total * rank // size, total * (rank + 1) // size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, *values: int) -> tuple[int, ...]:
        """The largest of each over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return tuple(tensor.tolist())

    def wait(self) -> None:
        """Go on when every process is here; unlike a step, that may take long.

        Raises DistError where one is known to have been killed, or where torchrun has ended.
        """
        if self.size == 1:
            return
        # Asked for, since in a collective the time-out of a step holds, and no signal is noticed.
        name = f"wait/{next(self.waits)}"
        if self.store.add(name, 1) == self.size:
            self.store.set(f"{name}/over", "")
        pause, asked = 0.01, time.monotonic()
        while not self.store.check([f"{name}/over"]):
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
            if time.monotonic() - asked > NOTICE_SECONDS:
                asked = time.monotonic()
                if launcher_ended() or self.killed():
                    raise dist.DistError("a process that is waited for ended")

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The block runs in rank 0, then in the others: they find what it has prepared, or fail as it did.

        Where a machine does not see the files of the first, the first of its processes prepares them, and all
        go on when every one has them.
        """
        if not self.is_parallel:
            yield
            return
        turn = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        error: Exception | None = None  # a signal, which is none of them, is every process's own
        try:
            with watching(launcher_ended, _stop):
                yield
        except Exception as raised:
            error = raised
        for _ in range(turn, 3):
            self.wait()
        if error is not None:
            raise error

    def claims(self, what: str) -> bool:
        """Whether this process is the first to say so: what all would print is printed once.

        Where they cannot ask, it is the first of each machine.
        """
        first = self.local_rank == 0
        return self.size == 1 or _answered(lambda: self.store.add(what, 1) == 1, otherwise=first)

    def report(self, step: int) -> None:
        """Say how far this process is, for the message of one that waits in vain."""
        if self.size > 1:
            where = f"{step} {socket.gethostname()} {os.getpid()} {_pid_space()}"
            self.store.set(f"step/{self.rank}", where)

    def lost(self) -> list[str]:
        """The other processes that do not notice, as this one did, that one is lost: one text each.

        Empty where none can be asked for. All that are lost call it.
        """
        return _answered(self._lost, otherwise=[])

    def describe(self, rank: int) -> str:
        """Where a process that has reported is, and in which step."""
        step, host, pid, _ = self.store.get(f"step/{rank}").decode().split()
        return f"process {rank} (pid {pid} on {host}, in step {step})"

    def leave(self) -> None:
        """Say that this process ends by itself, whatever the reason."""
        if self.size > 1:
            _answered(self._notice, otherwise=None)

    def killed(self) -> bool:
        """Whether another process is known to have ended, and not by itself."""

        def any_ended() -> bool:
            return any(
                not self.store.check([f"noticed/{rank}"]) and self._has_ended(rank)
                for rank in range(self.size)
                if rank != self.rank and self.store.check([f"step/{rank}"])
            )

        return self.size > 1 and _answered(any_ended, otherwise=False)

    def _notice(self) -> None:
        self.store.set(f"noticed/{self.rank}", "")

    def _lost(self) -> list[str]:
        self._notice()
        silent = [r for r in range(self.size) if r != self.rank and self.store.check([f"step/{r}"])]
        deadline = time.monotonic() + NOTICE_SECONDS
        while not (ended := [rank for rank in silent if self._has_ended(rank)]):
            silent = [rank for rank in silent if not self.store.check([f"noticed/{rank}"])]
            if len(silent) < 2 or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return [self.describe(rank) for rank in ended or silent]

    def _has_ended(self, rank: int) -> bool:
        """Whether the process is known to have: one on this machine, where the system tells."""
        _, _, pid, space = self.store.get(f"step/{rank}").decode().split()
        if space != _pid_space() or space == UNKNOWN:
            return False
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
                return stream.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True


def _stop() -> None:
    """End what this process does for others that are gone."""
    os.kill(os.getpid(), signal.SIGTERM)


def _pid_space() -> str:
    """Where process numbers are those of this process: two containers may have one host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return UNKNOWN


_world = World()


def world() -> World:
    """The processes of this run."""
    return _world


def share_rows(tensor: int) -> World:
    """The world, in which so many consecutive processes have the same rows of a batch from now on."""
    global _world
    _world = replace(_world, tensor=tensor if _world.is_parallel else 1)
    return _world


@contextlib.contextmanager
def process_group() -> Iterator[World]:
    """Join the processes that torchrun has started, for the block; without torchrun a process is alone.

    Raises InputError where the environment says half of it.
    """
    global _world
    if _world.is_parallel or not started_by_torchrun():
        yield _world
        return
    _world = _joined(_timeout())
    _world.report(0)
    silence_all_but_first()
    with contextlib.ExitStack() as stack:
        stack.enter_context(watching(_launcher_ended_long_ago(), _stop))
        try:
            yield _world
        except BaseException as error:
            _ignore_sigterm()
            is_lost = _is_of_communication(error) or (
                isinstance(error, KeyboardInterrupt) and (launcher_ended() or _world.killed())
            )
            _say_once(_world)
            if not is_lost:
                raise
            raise _lost_process(_world, error) from None
        finally:
            _world.leave()
            _world = World()
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _joined(timeout: timedelta) -> World:
    """Raises InputError where the others, or the store by which they find each other, cannot be reached."""
    rank, size, local_rank = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    with joining(rank, size, timeout):
        store, rank, size = store_of_all(timeout)
        # The agent's store outlives processes that are started again: what the last ones wrote is not for
        # these.
        store = PrefixStore(agreed_prefix(store, rank, size, timeout), store)
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=timeout)
        control, saving = (dist.new_group(backend="gloo", timeout=timeout) for _ in range(2))
    return World(rank, size, PrefixStore("run", store), control, saving, local_rank=local_rank)


def _say_once(world: World) -> None:
    """What all fail of is said by the first of them."""
    sys.stderr = sys.__stderr__ if world.claims("failure") else nowhere()


def _launcher_ended_long_ago() -> Callable[[], bool]:
    """Whether torchrun did, and its store, with which its processes end at once, is another one's."""
    since: list[float] = []

    def ended() -> bool:
        if launcher_ended():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > STORE_SECONDS

    return ended


def _ignore_sigterm() -> None:
    """From now on: torchrun ends a process with it while that says what it ends of, in the command too."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _is_of_communication(error: BaseException) -> bool:
    """Whether another process ended or did not answer: gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _lost_process(world: World, error: BaseException) -> InputError:
    others = " or ".join(world.lost()) or "another one, or the torchrun of the first machine,"
    reason = "does not answer" if "imed out" in str(error) else "ended"
    if launcher_ended():  # seen later than what it held
        others, reason = launcher_text(), "ended"
    return lost(
        f"process {world.rank} of {world.size}",
        f"{others} {reason}",
        "the run is as last saved, if it was: --resume auto continues it",
    )


def _answered(question: Callable[[], Answer], otherwise: Answer) -> Answer:
    """What the store says; ``otherwise`` where it is gone, or its machine is: `add` has no time-out."""
    answers: list[Answer] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            answers.append(question())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STORE_SECONDS)
    return answers[0] if answers else otherwise


def _timeout() -> timedelta:
    """Raises InputError for one that is no number of seconds."""
    text = os.environ.get("MINILM_PROCESS_TIMEOUT", str(STEP_SECONDS))
    try:
        timeout = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        timeout = timedelta()
    if timeout < timedelta(seconds=1):
        raise InputError("MINILM_PROCESS_TIMEOUT", short_repr(text), "at least a second")
    return timeout
