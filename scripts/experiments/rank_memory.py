"""python scripts/experiments/rank_memory.py: the memory of a rank, as `minilm plan` predicts it and as it is.

Two processes with gloo on this machine train a small model under DistributedDataParallel or fully_shard; live
tensors of the first are counted at the peak of a step, as scripts/experiments/live_memory.py counts them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from minilm.architectures.minilm import layout  # noqa: E402
from minilm.config import ModelConfig  # noqa: E402
from minilm.costs.mesh import Mesh  # noqa: E402
from minilm.costs.rank_memory import rank_memory  # noqa: E402
from minilm.model.transformer import Transformer, next_token_loss  # noqa: E402
from minilm.parallel.data_parallel import DataParallel  # noqa: E402
from minilm.parallel.process_group import World  # noqa: E402

WORLD = 2
CONFIG = ModelConfig(vocab_size=1024, context_length=64, num_layers=6, d_model=256, num_heads=4)
# Layout, dtype, sequences of a rank in a micro-step, micro-steps.
CASES = [
    (mesh, dtype, *sizes)
    for mesh in (Mesh("ddp", WORLD), Mesh("fsdp", 1, WORLD))
    for dtype in ("float32", "bfloat16")
    for sizes in ((1, 1), (1, 2), (8, 1))
]


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


def measured(mesh: Mesh, dtype: str, batch: int, micro_steps: int, rank: int) -> int:
    """Bytes at the peak of the third step of this rank."""
    torch.manual_seed(0)
    plain = Transformer(CONFIG).train()
    is_16_bit = dtype != "float32"
    parallel = DataParallel(
        *(plain, next_token_loss, mesh.name, World(rank, WORLD)),
        torch.bfloat16 if is_16_bit else torch.float32,
    )
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, CONFIG.vocab_size, (batch, CONFIG.context_length))

    def step() -> None:
        for _ in range(micro_steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_16_bit):
                loss = parallel.loss(plain, tokens.clone(), tokens.clone())
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    step()
    memory = LiveStorages()
    memory.hold(list(plain.parameters()))
    memory.hold([list(state.values()) for state in optimizer.state.values()])
    with memory:
        step()
    return memory.peak


def _rank(rank: int, rendezvous: str) -> None:
    warnings.filterwarnings("ignore")  # torch, of RMSNorm and of CPU offloading
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=WORLD)
    for mesh, dtype, batch, micro_steps in CASES:
        peak = measured(mesh, dtype, batch, micro_steps, rank)
        predicted = rank_memory(
            mesh,
            layout(CONFIG),
            CONFIG,
            batch=batch,
            context=CONFIG.context_length,
            dtype=dtype,
            accumulating=micro_steps > 1,
            device="cpu",
        ).total
        cells = (mesh.name, dtype, batch, micro_steps, f"{peak / 2**20:.1f}")
        texts = [*map(str, cells), f"{predicted / 2**20:.1f}", f"{predicted / peak - 1:+.1%}"]
        if rank == 0:
            print(f"| {' | '.join(texts)} |", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (str(Path(folder) / "rendezvous"),), nprocs=WORLD)
