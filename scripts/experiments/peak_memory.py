"""python scripts/experiments/peak_memory.py: peak bytes of live tensors, predicted and measured, by mode.

Fills the table of docs/inspect.md.
"""

import os
import re
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

from minilm import files  # noqa: E402
from minilm.config import ModelConfig  # noqa: E402
from minilm.config.lora import LoraConfig  # noqa: E402
from minilm.config.presets import find_preset  # noqa: E402
from minilm.units import format_bytes  # noqa: E402
from scripts.experiments.live_memory import (  # noqa: E402
    Mode,
    measured_generation,
    predicted_generation,
)

PAGE = Path(sys.path[0]) / "docs" / "inspect.md"

WIDE = ModelConfig(vocab_size=2048, context_length=256, num_layers=6, d_model=384, num_heads=6)
SHAPES = {"nano": (find_preset("nano").model_config(), 8, 128), "wide": (WIDE, 2, 256)}

DEFAULT = LoraConfig()
EVERY = LoraConfig(targets=("query", "key", "value", "output", "up", "down", "lm_head"))
MODES = {
    "AdamW": Mode(),
    "Muon": Mode(optimizer="muon"),
    "Muon, `--freeze attention`": Mode(optimizer="muon", freeze=("attention",)),
    "LoRA, rank 8": Mode(lora=DEFAULT),
    "LoRA, rank 8, every matrix": Mode(lora=EVERY),
    "LoRA on int8": Mode(lora=DEFAULT, packing="int8"),
    "LoRA on nf4": Mode(lora=DEFAULT, packing="nf4"),
}


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(1)
    lines = [
        "| Mode | shape | predicted | measured | error |\n",
        "|---|---|---|---|---|\n",
    ]
    for row in _rows():
        print(row, end="", flush=True)
        lines.append(row)
    marked = re.compile(r"(<!-- peak memory -->\n).*?(<!-- end -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    page = marked.sub(lambda part: part[1] + "".join(lines) + part[2], text)
    files.write_bytes(PAGE, page.encode())


def _rows() -> Iterator[str]:
    for shape, (config, batch, context) in SHAPES.items():
        for precision in ("float32", "bfloat16", "int8", "int4"):
            predicted = predicted_generation(config, batch, context, precision)
            measured = measured_generation(config, batch, context, precision)
            yield _row(f"generation, {precision}", shape, predicted, measured)
    for shape, (config, batch, context) in SHAPES.items():
        for name, mode in MODES.items():
            for dtype in ("float32", "bfloat16"):
                for checkpointing in (False, True):
                    chosen = Mode(
                        mode.optimizer, dtype, checkpointing, mode.freeze, mode.lora, mode.packing
                    )
                    text = f"{name}, {dtype}" + (", checkpointing" if checkpointing else "")
                    predicted = chosen.predicted(config, batch, context)
                    measured = chosen.measured(config, batch, context)
                    yield _row(text, shape, predicted, measured)


def _row(mode: str, shape: str, predicted: int, measured: int) -> str:
    error = predicted / measured - 1
    return f"| {mode} | {shape} | {format_bytes(predicted)} | {format_bytes(measured)} | {error:+.1%} |\n"


if __name__ == "__main__":
    main()
