"""A text that no recipe was tuned on: Python's standard library by BPE, bits a byte in nanoGPT's own time.

nanoGPT reads the tokens of minilm, each as a character of a text of its own, so that both predict the same;
nanochat's recipe, where there is a checkout, the tokens themselves.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from scripts.benchmarks import nanochat, nanogpt
from scripts.benchmarks.runs import Bench, command_line, medians

# As they are, but for the steps, which end within nanoGPT's time.
PRESETS = ("nano", "nano-fast")
VOCABULARY = 1024  # the presets'
# Of nanoGPT: the presets' context, its README's batch for a CPU, and as many tokens as its run there reads.
CONTEXT, BATCH, STEPS = 128, 12, nanogpt.README_STEPS // 2
FIRST_CHARACTER = (
    0x4E00  # from there on, more than as many characters as tokens, none of which is a line end
)


def default_text(bench: Bench) -> dict[str, Any]:
    """Runs of nanoGPT, of its README's shape, and of each preset in its time: by turns."""
    if bench.peer_folder is None:
        return {}
    dataset = _dataset(bench)
    folder = bench.folder / "default-text"
    folder.mkdir()
    text = folder / "tokens.txt"
    text.write_text(_as_characters(dataset), encoding="utf-8")
    peer = nanogpt.prepare(bench.peer_folder, text, folder)
    flags = nanogpt.README.replace("--block_size=64", f"--block_size={CONTEXT}")
    flags = flags.replace(f"iters={nanogpt.README_STEPS}", f"iters={STEPS}")
    options = {
        preset: {"--data": "stdlib", "--tokenizer": "bpe", "--preset": preset} for preset in PRESETS
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("peer", *PRESETS)}
    for _ in range(bench.repeats):
        runs["peer"].append(bench.train_peer(flags, BATCH * CONTEXT, peer))
        for preset, own in options.items():
            if "--max-steps" not in own:
                own["--max-steps"] = bench.steps_within(own, runs["peer"][0]["seconds"])
            runs[preset].append(bench.ending_within(own, runs["peer"][-1]["seconds"]))
    bits_per_nat = dataset.val_labels / math.log(2) / dataset.val_bytes
    if bench.nanochat is not None:
        tokens = nanochat.write_tokens(
            np.asarray(dataset.train[:]), np.asarray(dataset.val[:]), VOCABULARY, CONTEXT, folder
        )
        seconds = statistics.median(each["seconds"] for each in runs["peer"])
        runs["nanochat"] = [nanochat.best(bench.nanochat, tokens, seconds)]
    for each in (*runs["peer"], *runs.get("nanochat", ())):
        each["bits_per_byte"] = each["loss"] * bits_per_nat
    middle = {name: medians(each) for name, each in runs.items()}
    return {
        "runs": runs,
        "medians": middle,
        "commands": {name: command_line(own) for name, own in options.items()},
        "peer_command": f"train.py config/train_shakespeare_char.py {flags}",
        "peer_tokens": BATCH * CONTEXT * STEPS,
        "train_tokens": dataset.train_tokens,
        "val_tokens": dataset.val_tokens,
        "ratio": {
            name: statistics.median(
                own["bits_per_byte"] / other["bits_per_byte"]
                for own, other in zip(runs[name], runs["peer"], strict=True)
            )
            for name in PRESETS
        },
    }


def _dataset(bench: Bench) -> Any:
    """The tokens that the runs of minilm find in their cache."""
    from minilm.config.presets import find_preset
    from minilm.training.data_source import DataSource

    preset = find_preset(PRESETS[0])
    source = DataSource("stdlib", (), bench.folder / "cache")
    return source.prepare(
        source.open(),
        preset.tokenizer,
        preset.train_config(),
        vocab_size=preset.model_config().vocab_size,
        context_length=CONTEXT,
    )


def _as_characters(dataset: Any) -> str:
    """A character for each token, of which nanoGPT's script takes the last tenth for validation.

    The first training tokens are left out where they are more than nine times the others. nanoGPT's
    vocabulary has only the tokens that occur.
    """
    val = np.asarray(dataset.val[:]).astype(np.int64)
    most = 9 * len(val)
    train = np.asarray(dataset.train[:]).astype(np.int64)[-most:]
    val = val[: len(train) // 9]
    return "".join(chr(FIRST_CHARACTER + token) for token in (*train.tolist(), *val.tolist()))
