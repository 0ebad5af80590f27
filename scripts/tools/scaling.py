"""python scripts/tools/scaling.py: fill the tables of docs/scaling.md with what `minilm plan` computes.

tests/test_docs.py does the same and compares.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.operations.plan import plan  # noqa: E402
from minilm.operations.plan_result import Plan  # noqa: E402
from minilm.operations.plan_text import duration_text  # noqa: E402
from minilm.units import format_count  # noqa: E402

PAGE = ROOT / "docs" / "scaling.md"
EXAMPLES = runpy.run_path(str(ROOT / "scripts" / "tools" / "examples.py"))

MODELS: dict[str, Any] = {
    "GPT-2 124M": "gpt2",
    "GPT-2 1558M": "gpt2-xl",
    "Llama 2 7B": EXAMPLES["LLAMA_2_7B"],
    "Llama 2 70B": EXAMPLES["LLAMA_2_70B"],
    "Llama 3 8B": "llama-3-8b",
    "Llama 3 70B": "llama-3-70b",
}
# Model, tokens; on 8, 64 and 1,024 H100.
PLANNED = (("GPT-2 124M", 10**10), ("Llama 2 7B", 2 * 10**12), ("Llama 2 70B", 2 * 10**12))
GPUS = (8, 64, 1024)


@dataclass(frozen=True)
class Run:
    """A published run: its card, tokens and GPU hours; the tokens of a step and the MFU, where stated."""

    model: str
    gpu: str
    gpus: int
    tokens: int
    hours: float
    step_tokens: int | None = None
    stated_mfu: float | None = None

    def plan(self, **options: Any) -> Plan:
        """The run as minilm plans it."""
        return plan_of(
            self.model,
            gpu=self.gpu,
            gpus=self.gpus,
            tokens=self.tokens,
            batch_tokens=self.step_tokens,
            **options,
        )

    def reached(self, result: Plan) -> tuple[float, float]:
        """The MFU that the hours are, with full attention and with causal attention."""
        peak = self.hours * 3600 * result.job.machines.flops
        flops = (result.flops_per_token, result.causal_flops_per_token)
        return flops[0] * self.tokens / peak, flops[1] * self.tokens / peak


# karpathy/llm.c, scripts/run_gpt2_124M.sh (18,865 steps of 300 ms) and run_gpt2_1558M.sh (32,000 steps, 24
# hours; announced with about 50% MFU); the model cards of Llama 2 and 3, which do not say how many cards.
PUBLISHED = (
    Run("GPT-2 124M", "A100-80GB", 8, 18_865 * 2**19, 8 * 18_865 * 0.3 / 3600, step_tokens=2**19),
    Run("GPT-2 1558M", "H100", 8, 32_000 * 2**20, 8 * 24, step_tokens=2**20, stated_mfu=0.50),
    Run("Llama 2 7B", "A100-80GB", 1024, 2 * 10**12, 184_320, step_tokens=4 * 10**6),
    Run("Llama 2 70B", "A100-80GB", 1024, 2 * 10**12, 1_720_320, step_tokens=4 * 10**6),
    Run("Llama 3 8B", "H100", 1024, 15 * 10**12, 1.3e6),
    Run("Llama 3 70B", "H100", 1024, 15 * 10**12, 6.4e6),
)


def plan_of(model: str, **options: Any) -> Plan:
    """A plan of one of MODELS."""
    target = MODELS[model]
    if isinstance(target, str):
        return plan(target, **options)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(target), encoding="utf-8")
        return plan(config, **options)


def filled(text: str) -> str:
    """The page with its tables as they are now."""
    for mark, table in (("planned", planned_table()), ("published", published_table())):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
            lambda match, table=table: match[1] + table + match[2],  # type: ignore[misc]
            text,
            flags=re.S,
        )
    return text


def planned_table() -> str:
    rows = []
    for model, tokens in PLANNED:
        for gpus in GPUS:
            result = plan_of(model, gpu="H100", gpus=gpus, tokens=tokens)
            best = result.best
            head = f"{model}, {format_count(tokens)} tokens | {gpus:,}"
            if best is None:
                least = min(each.required for each in result.layouts) / 2**30
                rows.append(f"{head} | nothing fits: at least {least:,.0f} GiB a card |||||||")
                continue
            energy = result.kilowatt_hours(best)
            assert energy is not None
            cells = (
                best.mesh.name,
                f"{best.micro_batch} x {best.micro_steps}{' *' if best.checkpointing else ''}",
                f"{best.required / 2**30:,.1f} GiB",
                f"{best.time.traffic / 1e9:,.1f} GB",
                f"{best.time.exposed / best.time.seconds:.0%}",
                f"{best.tokens_per_second:,.0f}",
                duration_text(best.seconds),
                f"{energy:,.1f} kWh",
            )
            rows.append(f"{head} | {' | '.join(cells)}")
    return _table(
        "model | H100s | layout | micro-batch | memory | sent a step | waits | tokens/s | time | "
        "energy",
        rows,
    )


def published_table() -> str:
    rows = []
    for run in PUBLISHED:
        result = run.plan()
        assert result.best is not None
        full, causal = run.reached(result)
        hours = result.gpu_hours(result.best)
        cells = [
            run.model,
            f"{run.gpus:,} {run.gpu}",
            format_count(run.tokens),
            f"{run.hours:,.0f}",
            f"{full:.1%} ({causal:.1%})",
            f"{hours:,.0f}, {result.best.mesh.name}{' *' if result.best.checkpointing else ''}",
            f"{hours / run.hours - 1:+.0%}",
        ]
        at_stated = ""
        if run.stated_mfu is not None:
            other = run.plan(mfu=run.stated_mfu)
            assert other.best is not None
            off = other.gpu_hours(other.best) / run.hours - 1
            at_stated = f"{run.stated_mfu:.0%}: {off:+.0%}"
        rows.append(" | ".join([*cells, at_stated]))
    return _table(
        "run | cards | tokens | GPU hours | which are an MFU of | planned at 37% | off by | "
        "at the stated MFU",
        rows,
    )


def _table(titles: str, rows: list[str]) -> str:
    rule = "|---" * (titles.count("|") + 1) + "|"
    return "\n".join([f"| {titles} |", rule, *(f"| {row} |" for row in rows)]) + "\n"


if __name__ == "__main__":
    files.write_bytes(PAGE, filled(PAGE.read_text(encoding="utf-8")).encode())
