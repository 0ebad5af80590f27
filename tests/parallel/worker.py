"""What each process of tests/parallel does: every case of cases.json, one after the other, in one world."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm.parallel.process_group import process_group, world
from minilm.training.train import finetune, resume, train


def main(folder: Path) -> None:
    per_machine = os.environ.get("LOCAL_WORLD_SIZE", "1")
    with process_group():
        for case in json.loads((folder / "cases.json").read_text()):
            os.environ["LOCAL_WORLD_SIZE"] = case.pop("per_machine", per_machine)
            run(folder, **case)
            world().wait()


def run(
    folder: Path,
    name: str,
    verb: str,
    arguments: dict[str, Any],
    signal_rank: int | None = None,
    signal_step: int = 6,
    copied_to: str = "",
    faults: bool = False,
) -> None:
    """One call; with ``signal_rank`` that process gets SIGTERM at the start of its step ``signal_step``.

    With ``faults`` gradients overflow once, and the last process is slow: `with_faults`.
    """
    if verb == "prepare":
        prepare(folder, name)
        return
    if verb == "accumulate":
        accumulate(**arguments)
        return
    if verb == "save":
        save_and_load(folder / name)
        return
    if signal_rank is not None and world().rank == signal_rank:
        from minilm.training.train_step import TrainStep

        step = TrainStep.run

        def interrupted(self: TrainStep) -> None:
            if self.progress.step == signal_step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            step(self)

        TrainStep.run = interrupted  # type: ignore[method-assign]
    call = {"train": train, "resume": resume, "finetune": finetune}[verb]
    with with_faults(folder / f"{name}.faults") if faults else contextlib.nullcontext():
        outcome = call(run_dir=folder / name, cache=folder / "cache", **arguments)  # type: ignore[operator]
    with (folder / f"{name}.reasons").open("a") as stream:
        print(outcome.stopped_because, file=stream)
    if signal_rank is not None and world().rank == signal_rank:
        TrainStep.run = step  # type: ignore[method-assign]
    world().wait()
    if copied_to and world().is_main:
        shutil.copytree(folder / name, folder / copied_to)


def prepare(folder: Path, name: str) -> None:
    """Rank 0 makes a file, for longer than a collective may take; each process notes what it finds."""
    import torch
    import torch.distributed as dist

    timeout = float(os.environ["MINILM_PROCESS_TIMEOUT"])
    world().wait()
    began = time.monotonic()
    with world().main_first():
        if world().is_main:
            time.sleep(2.5 * timeout)
            (folder / name).write_text("prepared")
    seconds = time.monotonic() - began
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    note = {
        "text": (folder / name).read_text(),
        "seconds": seconds,
        "timeout": backend.options._timeout.total_seconds(),
        "maximum": world().maximum(world().rank),
    }
    (folder / f"{name}.{world().rank}").write_text(json.dumps(note))


@contextlib.contextmanager
def with_faults(notes: Path) -> Iterator[None]:
    """One row of a gradient overflows in the third step, in its process alone; each forward pass of the last
    one takes long. Rank 0's notes on others, and each process's scale at the end, go into the file ``notes``.
    """
    import logging

    from minilm.parallel.sharded import is_shared, local
    from minilm.training import train_step
    from minilm.training.train_step import TrainStep

    update, loss = TrainStep._update, train_step.next_token_loss

    def overflowing(self: TrainStep) -> None:
        if self.progress.step == 2:
            gradient = self.model.embedding.token.weight.grad
            assert gradient is not None
            if world().is_main or not is_shared(gradient):
                local(gradient)[0] = float("inf")
        update(self)
        if self.progress.step == self.config.max_steps - 1:
            with notes.open("a") as stream:
                print("scale", self.scaler.get_scale(), file=stream)

    def slow(*arguments: Any) -> Any:
        if world().size > 1 and world().rank == world().size - 1:
            time.sleep(0.3)
        return loss(*arguments)

    handler = logging.FileHandler(notes)
    handler.addFilter(lambda record: world().is_main and "is slow" in record.getMessage())
    logging.getLogger("minilm").addHandler(handler)
    TrainStep._update = overflowing  # type: ignore[method-assign]
    train_step.next_token_loss = slow
    try:
        yield
    finally:
        TrainStep._update = update  # type: ignore[method-assign]
        train_step.next_token_loss = loss
        logging.getLogger("minilm").removeHandler(handler)
        handler.close()


def accumulate(layout: str) -> None:
    """Three micro-batches of a step: gradients are sent in the backward pass of the last one alone."""
    import torch
    from torch.profiler import profile

    from minilm.config import ModelConfig
    from minilm.model.transformer import Transformer
    from minilm.parallel.data_parallel import DataParallel
    from tests.conftest import TINY_MODEL

    model = Transformer(ModelConfig(vocab_size=11, **TINY_MODEL))
    parallel = DataParallel(model, lambda model, ids: model(ids).square().mean(), layout, world())
    ids = torch.full((2, 8), world().rank + 1)
    shared: list[int] = []
    for is_last in (False, False, True):
        with profile() as events, parallel.micro_batch(is_last):
            parallel.loss(model, ids).backward()
        sent = ("all_reduce", "allreduce", "reduce_scatter")
        names = [event.name for event in events.events() if event.name.startswith("c10d::")]
        shared.append(sum(any(each in name for each in sent) for name in names))
    assert shared[:2] == [0, 0], shared
    assert shared[2] > 0, shared


def save_and_load(folder: Path) -> None:
    """Two saves of tensors that change while they are written: each file has the values of its beginning.

    A third one fails in one process, and so in all.
    """
    import resource

    import pytest
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from minilm.parallel.sharded import local
    from minilm.parallel.sharded_save import ShardedSave, fill_parts, finish
    from minilm.parallel.tensor_parts import read_parts

    whole = {
        "rows": torch.arange(15.0).reshape(5, 3),
        "one row": torch.ones(1, 4),  # of which the others have none
        "int64": torch.tensor([2**62, 3, -1]),
        "bool": torch.tensor([True, False]),
        "bfloat16": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).bfloat16(),
    }
    mesh = init_device_mesh("cpu", (world().size,))
    tensors = {name: distribute_tensor(t.clone(), mesh, [Shard(0)]) for name, t in whole.items()}
    tensors["scalar"] = whole["scalar"] = torch.tensor(7.0)
    save, begun = ShardedSave(), []
    for number in range(2):
        begun.append(save.begin(folder / str(number), tensors))
        expected = {name: t.clone() for name, t in whole.items()}
        for tensor in tensors.values():  # as training does while it is written
            local(tensor).add_(1) if tensor.dtype != torch.bool else local(tensor).logical_not_()
        digests = finish(begun[-1], folder / str(number))
        parts = read_parts(folder / str(number))
        assert digests.keys() == {path.name for path in (folder / str(number)).iterdir()}
        assert all(torch.equal(parts[name], expected[name]) for name in expected)
        whole = {name: getattr(t, "full_tensor", t.clone)() for name, t in tensors.items()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world().rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    with pytest.raises(OSError, match=str(folder / "2")) as raised:
        finish(save.begin(folder / "2", tensors), folder / "2")
    assert raised.value.errno == errno.EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for tensor in tensors.values():
        local(tensor).zero_()
    fill_parts(folder / "1", tensors)
    for name, tensor in tensors.items():
        assert torch.equal(getattr(tensor, "full_tensor", tensor.clone)(), parts[name]), name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
