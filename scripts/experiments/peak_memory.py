"""python scripts/experiments/peak_memory.py: peak bytes of live tensors, predicted and measured, by mode.

Fills the table of docs/inspect.md.
"""

import os
import re
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
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
    titles = "".join(f" {shape}: predicted | measured | error |" for shape in SHAPES)
    lines = [f"| Mode |{titles}\n", "|---|" + 3 * len(SHAPES) * "---|" + "\n"]
    for row in _rows():
        print(row, end="", flush=True)
        lines.append(row)
    marked = re.compile(r"(<!-- peak memory -->\n).*?(<!-- end -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    page = marked.sub(lambda part: part[1] + "".join(lines) + part[2], text)
    files.write_bytes(PAGE, page.encode())


def _rows() -> Iterator[str]:
    for precision in ("float32", "bfloat16", "int8", "int4"):
        yield _row(
            f"generation, {precision}",
            partial(predicted_generation, precision=precision),
            partial(measured_generation, precision=precision),
        )
    for name, mode in MODES.items():
        for dtype in ("float32", "bfloat16"):
            for checkpointing in (False, True):
                chosen = replace(mode, dtype=dtype, checkpointing=checkpointing)
                text = f"{name}, {dtype}" + (", checkpointing" if checkpointing else "")
                yield _row(text, chosen.predicted, chosen.measured)


Bytes = Callable[[ModelConfig, int, int], int]


def _row(mode: str, predict: Bytes, measure: Bytes) -> str:
    cells = [mode]
    for config, batch, context in SHAPES.values():
        predicted, measured = predict(config, batch, context), measure(config, batch, context)
        error = predicted / measured - 1
        cells += [format_bytes(predicted), format_bytes(measured), f"{error:+.1%}"]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
