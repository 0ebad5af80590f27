"""python scripts/experiments/fine_tuning_speed.py: processor seconds of a training step of `nano`, by mode.

8 sequences of random tokens, one thread. The rounds of the modes alternate, so that what other programs take
is shared alike: medians, and the ratio to everything trained by AdamW within a round.
"""

import os
import statistics
import sys
import time

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402

from minilm.config.lora import LoraConfig  # noqa: E402
from minilm.config.presets import find_preset  # noqa: E402
from minilm.training.train_step import TrainStep  # noqa: E402
from scripts.experiments.live_memory import Mode  # noqa: E402

STEPS, ROUNDS, BATCH = 10, 8, 8


def main() -> None:
    """Print a row for each mode, by dtype."""
    torch.set_num_threads(1)
    config = find_preset("nano").model_config()
    for dtype in ("bfloat16", "float32"):
        modes = {
            "everything, AdamW": Mode(dtype=dtype),
            "everything, Muon": Mode(optimizer="muon", dtype=dtype),
            "rank 8, default targets": Mode(lora=LoraConfig(), dtype=dtype),
        }
        steps = {
            name: mode.train_step(config, BATCH, config.context_length)
            for name, mode in modes.items()
        }
        rounds = [{name: seconds(each) for name, each in steps.items()} for _ in range(ROUNDS + 1)]
        first = next(iter(modes))
        print(dtype)
        for name in modes:
            median = statistics.median(each[name] for each in rounds[1:])  # the first warms up
            ratio = statistics.median(each[name] / each[first] for each in rounds[1:])
            print(f"  {name:24}{median:8.4f}  {ratio:.2f}", flush=True)


def seconds(step: TrainStep) -> float:
    """Processor seconds a step."""
    begin = time.process_time()
    for _ in range(STEPS):
        step.run()
    return (time.process_time() - begin) / STEPS


if __name__ == "__main__":
    main()
