"""bench.py train, what a run costs besides time: memory, and what saving takes from it."""

from __future__ import annotations

import statistics
import time
from typing import Any

from scripts.benchmarks.runs import Bench, command_line

SAVING_PAIRS = 20


def memory(bench: Bench) -> dict[str, Any]:
    """The largest resident set of runs of `nano` on the default text, which the first of them prepares."""
    options = {"--preset": "nano", "--data": "stdlib", "--tokenizer": "bpe", "--max-steps": 60}
    runs = [bench.train(options) for _ in range(bench.repeats)]
    return {
        "command": command_line(options),
        "runs": runs,
        "peak_mib": max(each["peak_mib"] for each in runs),
    }


def saving(bench: Bench) -> dict[str, Any]:
    """What a save of `nano` costs: intervals of steps with one against intervals without, in turn."""
    loop = _nano_loop(bench)
    steps, pairs, blocked = 12, [], []
    for _ in range(SAVING_PAIRS + 1):
        seconds = []
        for save in (False, True):
            begin = time.perf_counter()
            if save:
                loop.save()
                blocked.append(time.perf_counter() - begin)
            for _ in range(steps):
                loop.train_step.run()
            loop.checkpoints.wait()
            seconds.append(time.perf_counter() - begin)
        pairs.append(seconds)
    loop.checkpoints.close()
    pairs = pairs[1:]  # the first warms up
    milliseconds = 1000 * statistics.median(after - before for before, after in pairs)
    return {
        "pairs": len(pairs),
        "steps_between": steps,
        "step_ms": 1000 * statistics.median(before for before, _ in pairs) / steps,
        "blocked_ms": 1000 * statistics.median(blocked[1:]),
        "milliseconds": milliseconds,
        "share_of_a_minute": milliseconds / 60_000,
    }


def _nano_loop(bench: Bench) -> Any:
    """A loop of the default run, as train() makes it."""
    import torch

    from minilm.config.presets import find_preset
    from minilm.data.shards import prepare
    from minilm.model.transformer import Transformer
    from minilm.training.data_source import DataSource
    from minilm.training.run_spec import RunSpec
    from minilm.training.runtime import resolve
    from minilm.training.signals import StopRequest
    from minilm.training.trainer import Trainer

    nano, cache, folder = find_preset("nano"), bench.folder / "cache", bench.folder / "saving"
    folder.mkdir()
    config, model = nano.train_config(device="cpu"), nano.model_config()
    source = DataSource("stdlib", (), cache)
    data = prepare(
        source.open(),
        tokenizer=nano.tokenizer,
        vocab_size=model.vocab_size,
        val_fraction=config.val_fraction,
        cache=cache,
        context_length=model.context_length,
    )
    network = Transformer(model, torch.Generator().manual_seed(0))
    runtime = resolve(config, 1.0)
    return Trainer(RunSpec(folder, network, config, data, source, runtime), StopRequest())
