"""torchrun --nproc-per-node 2 scripts/experiments/save_stall.py: how much a save delays training under fsdp.

Windows of steps without a save and with one, begun before the first of them, take turns. What the second
kind takes longer is what saving once a minute costs of that minute; on a busy machine that is noise, and the
processor time of a save alone says more. AdamW: a state is three times the model.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402

from minilm.config import TrainConfig  # noqa: E402
from minilm.config.presets import PRESETS  # noqa: E402
from minilm.model.transformer import Transformer, next_token_loss  # noqa: E402
from minilm.parallel.data_parallel import DataParallel  # noqa: E402
from minilm.parallel.process_group import process_group, world  # noqa: E402
from minilm.training.checkpoint_writer import CheckpointWriter  # noqa: E402
from minilm.training.optimizers import make_optimizers  # noqa: E402
from minilm.training.resume_state import Progress  # noqa: E402

SETTINGS = {"source": "", "cleaning": [], "sha256": "", "train": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--steps", type=int, default=12, help="of a window")
    parser.add_argument("--windows", type=int, default=4, help="of each kind")
    parser.add_argument("--context", type=int, default=64)
    arguments = parser.parse_args()
    with process_group():
        measure(arguments.preset, arguments.steps, arguments.windows, arguments.context)


def measure(preset: str, steps: int, windows: int, context: int) -> None:
    torch.set_num_threads(1)
    fields = PRESETS[preset]
    model = Transformer(fields.model_config(context_length=context)).train()
    parallel = DataParallel(model, next_token_loss, "fsdp", world())
    config = TrainConfig(optimizer="adamw", parallel="fsdp")
    optimizers = make_optimizers(model, config, torch.float32)
    tokens = torch.randint(0, model.config.vocab_size, (1, context))
    run_dir = shared_folder()

    def train() -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        with parallel.micro_batch(is_last=True):
            parallel.loss(model, tokens, tokens).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        world().maximum(0)  # as a trainer's step: all are at the same one
        return time.perf_counter() - began

    train()
    writer = CheckpointWriter(model, optimizers, keep=1)
    writer.save(run_dir, Progress(), SETTINGS, weights_metadata=None)  # memory is allocated
    writer.wait()
    without, within, copying, writing, processor = [], [], [], [], []
    for window in range(windows):
        without.append(sum(train() for _ in range(steps)))
        began = time.perf_counter()
        writer.save(run_dir, Progress(step=window + 1), SETTINGS, weights_metadata=None)
        copying.append(time.perf_counter() - began)
        done = []
        for _ in range(steps):
            train()
            if not done and writer._writing and writer._writing.done():
                done.append(time.perf_counter() - began)
        within.append(time.perf_counter() - began)
        writing += done
        writer.wait()
        began = time.process_time()
        writer.save(run_dir, Progress(step=window + 1), SETTINGS, weights_metadata=None)
        writer.wait()
        processor.append(time.process_time() - began)
    writer.close()
    if world().is_main:
        extra = statistics.median(b - a for a, b in zip(without, within, strict=True))
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{preset}: {count:,} parameters, on {world().size} processes")
        print(f"a step: {statistics.median(without) / steps:.2f} s")
        print(f"a save: {statistics.median(copying):.2f} s of copying, on the disk after ", end="")
        print(f"{statistics.median(writing):.1f} s" if writing else "more than a window")
        cpu = statistics.median(processor)
        print(f"processor time of a save in each process: {cpu:.2f} s, {cpu / 60:.1%} of a minute")
        print(f"training is delayed by {extra:.2f} s, {extra / 60:.1%} of a minute")
        shutil.rmtree(run_dir)


def shared_folder() -> Path:
    """A new folder, of all processes."""
    if world().is_main:
        world().store.set("folder", tempfile.mkdtemp())
    return Path(world().store.get("folder").decode())


if __name__ == "__main__":
    main()
