"""python scripts/experiments/rank_memory.py: the memory of a rank, as `minilm plan` predicts it and as it is.

Two or four processes with gloo on this machine train small models under each layout of the ranks, as
`minilm train` does; live tensors of each are counted at the peak of a step, as
scripts/experiments/live_memory.py counts them. Prints a table.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from minilm.architectures.minilm import layout  # noqa: E402
from minilm.config import ModelConfig, TrainConfig  # noqa: E402
from minilm.costs.mesh import Mesh, part_of  # noqa: E402
from minilm.costs.rank_memory import rank_memory  # noqa: E402
from minilm.model.transformer import Transformer, next_token_loss  # noqa: E402
from minilm.parallel import process_group  # noqa: E402
from minilm.parallel.data_parallel import DataParallel  # noqa: E402
from minilm.parallel.process_group import World  # noqa: E402
from minilm.training.optimizers import make_optimizers  # noqa: E402
from minilm.training.runtime import Runtime  # noqa: E402

# A block without gates, with biases; one with gates, grouped heads and a tied head; blocks that are too large
# to be gathered together; a vocabulary that is most of the model.
PLAIN = ModelConfig(vocab_size=1024, context_length=64, num_layers=6, d_model=256, num_heads=4)
GATED = ModelConfig(
    vocab_size=2048,
    context_length=128,
    num_layers=4,
    d_model=256,
    num_heads=8,
    num_kv_heads=4,
    d_feed_forward=768,
    norm="rmsnorm",
    norm_bias=False,
    feed_forward="swiglu",
    qkv_bias=False,
    attention_output_bias=False,
    feed_forward_bias=False,
    tied_embeddings=True,
)
WIDE = ModelConfig(vocab_size=1024, context_length=64, num_layers=3, d_model=640, num_heads=10)
TABLE = ModelConfig(
    vocab_size=16384,
    context_length=32,
    num_layers=2,
    d_model=128,
    num_heads=4,
    tied_embeddings=True,
)
CONFIGS = {"plain": PLAIN, "gated": GATED, "wide": WIDE, "table": TABLE}
MESHES = (
    Mesh("ddp", 2),
    Mesh("fsdp", 1, 2),
    Mesh("tp 2", tensor=2),
    Mesh("hsdp 2x2", 2, 2, gpus_per_server=2),
    Mesh("tp 2 fsdp 2", 1, 2, 2),
)


class Case(NamedTuple):
    """A step: a key of CONFIGS, sequences of a rank in a micro-step, micro-steps."""

    mesh: Mesh
    config: str
    dtype: str
    batch: int
    micro_steps: int
    checkpointing: bool = False
    optimizer: str = "adamw"

    def predicted(self) -> int:
        """Bytes at the peak of a rank."""
        config = part_of(CONFIGS[self.config], self.mesh.tensor)
        return rank_memory(
            self.mesh,
            layout(config),
            config,
            batch=self.batch,
            context=config.context_length,
            optimizer=self.optimizer,
            dtype=self.dtype,
            checkpointing=self.checkpointing,
            accumulating=self.micro_steps > 1,
            device="cpu",
        ).total


# Dtype, sequences of a rank in a micro-step, micro-steps, activation checkpointing.
STEPS = (
    ("float32", 1, 1, False),
    ("float32", 8, 3, False),
    ("bfloat16", 1, 2, False),
    ("bfloat16", 8, 1, False),
    ("bfloat16", 8, 2, True),
)


class LiveStorages(TorchDispatchMode):
    """The ``peak`` of the bytes of all storages, which fully_shard resizes while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def hold(self, tensors: Any) -> None:
        """Count the tensors in ``tensors`` from now on."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
                continue
            storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
            if storage._cdata not in self._storages:
                self._storages[storage._cdata] = weakref.ref(storage)
                weakref.finalize(storage, self._storages.pop, storage._cdata, None)
        alive = [reference() for reference in list(self._storages.values())]
        self.peak = max(self.peak, sum(x.nbytes() for x in alive if x is not None))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.hold(result)
        return result


def measured(case: Case) -> int:
    """Bytes at the peak of the second step of this process."""
    torch.manual_seed(0)
    mesh, config = case.mesh, CONFIGS[case.config]
    plain = Transformer(config).train()
    is_16_bit = case.dtype != "float32"
    dtype = torch.bfloat16 if is_16_bit else torch.float32
    runtime = Runtime(
        torch.device("cpu"), dtype, False, activation_checkpointing=case.checkpointing
    )
    runtime.prepare(plain)
    os.environ["LOCAL_WORLD_SIZE"] = str(mesh.world // mesh.replicas)
    parallel = DataParallel(
        plain,
        next_token_loss,
        _layout_name(mesh),
        process_group.world(),
        dtype,
    )
    config_of_run = TrainConfig(optimizer=case.optimizer)
    optimizers = make_optimizers(plain, config_of_run, runtime.muon_dtype)
    tokens = torch.randint(0, config.vocab_size, (case.batch, config.context_length))

    def step() -> None:
        for number in range(case.micro_steps):
            with parallel.micro_batch(number == case.micro_steps - 1):
                with torch.autocast("cpu", torch.bfloat16, enabled=is_16_bit):
                    loss = parallel.loss(plain, tokens.clone(), tokens.clone())
                loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    step()
    memory = LiveStorages()
    memory.hold(list(plain.parameters()))
    for optimizer in optimizers:
        memory.hold([list(state.values()) for state in optimizer.state.values()])
    with memory:
        step()
    return memory.peak


def _layout_name(mesh: Mesh) -> str:
    if mesh.replicas > 1:
        return "hsdp" if mesh.shards > 1 else "ddp"
    return "fsdp"


def _rank(rank: int, rendezvous: str, cases: Sequence[Case], peaks: Any) -> None:
    warnings.filterwarnings("ignore")  # torch, of RMSNorm and of CPU offloading
    torch.set_num_threads(1)
    world = cases[0].mesh.world
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    for case in cases:
        store = dist.distributed_c10d._get_default_store()
        process_group._world = World(rank, world, store, tensor=case.mesh.tensor)
        (peak,) = process_group.world().maximum(measured(case))
        if rank == 0:
            peaks.put(peak)
    dist.destroy_process_group()


def measure(cases: Sequence[Case]) -> list[int]:
    """The largest peak of a rank in each of the cases, whose worlds have one size."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = torch.multiprocessing.get_context("spawn")
    peaks = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = str(Path(folder) / "rendezvous")
        processes = torch.multiprocessing.spawn(
            _rank, (rendezvous, cases, peaks), nprocs=cases[0].mesh.world, join=False
        )
        assert processes is not None
        while not processes.join():
            pass
    return [peaks.get() for _ in cases]


def main() -> None:
    """Print the table in docs/scaling.md: measured MiB, and by how much the prediction is off."""
    for mesh in MESHES:
        cases = [Case(mesh, config, *step) for config in CONFIGS for step in STEPS]
        peaks = dict(zip(cases, measure(cases), strict=True))
        for config in CONFIGS:
            cells = [mesh.name, config]
            for step in STEPS:
                case = Case(mesh, config, *step)
                peak = peaks[case]
                cells.append(f"{peak / 2**20:.1f} ({case.predicted() / peak - 1:+.1%})")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
