"""docs/ablations.md, and a table of docs/parameters.md, from scripts/experiments/ablations.jsonl."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilm import files
from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.costs.flops import flops_per_token
from scripts.experiments.ablation_cases import BASE, CASES, CORPORA, MODEL, SHARED, TOKENS, TRAIN

Rows = Sequence[dict[str, Any]]
SHARING_TABLE = re.compile(r"(<!-- sharing -->\n).*?(<!-- end -->)", re.DOTALL)

HEAD = """# Ablations

What each ingredient of the recipe is worth, the negative results too. Written from
[ablations.jsonl](../scripts/experiments/ablations.jsonl) by

    python scripts/experiments/ablate.py --data tinyshakespeare.txt                # all of it: some two hours
    python scripts/experiments/ablate.py --data tinyshakespeare.txt --cases {example} --seeds 3

The base is {base}:
{layers} layers, {width} wide, {context} tokens of context, {tokens:,} tokens in
{steps} steps on one thread of a CPU in float32: short runs, in which an effect of a hundredth is small. A
case changes one thing in it. Losses are of the whole validation split, in nats a token; columns give the mean
of the seeds and by how much it is above (worse) or below (better) the base of the same seed, with that
difference's standard deviation. **Bold** is better with every seed, and by more than twice the standard
error. CPU is processor time, the base's is 1: it varies by about 10%.
"""

TAIL = """
## What was kept

`nano` and `small` have the base's shape. Of whole stock shapes Llama's, Qwen3's and Nemotron's are behind it.
Persimmon's (QK-norm and ReLU² as well) is ahead after 200 steps and, with one seed, behind after 1,000, about
the length of `nano`'s own run, on both corpora. SwiGLU, better alone, has no stock shape with the base's
biases, which are worth more.

`nano-fast` adds the convolution and the n-gram tables. A growing length pays about what its further steps
cost, and stays an option, as do dropout, BPE-dropout and L1, which pay on a small text alone.

Both have two things more, which take no time and were measured at their own length: windows evenly spread
over the text, and a weight decay of 0.1. Losses by seed, on one thread in bfloat16, over 80,000 validation
tokens: those of `nano` on its own text in 1,200 steps, of `nano-fast` on tinyshakespeare's characters (4
layers of 96, 16 rows) in 440:

| windows, decay | `nano`, seed 0 | 1 | 2 | `nano-fast`, seed 0 | 1 |
|---|---|---|---|---|---|
| random, 0 | 3.1114 | | | 1.5759 | 1.5912 |
| even, 0 | 3.1032 | 3.1089 | 3.1231 | 1.5640 | 1.5557 |
| even, 0.1 | 3.0221 | 3.1037 | 3.1064 | 1.5656 | 1.5562 |
| even, 0.3 | 3.1498 | | | | |

What helps a short run need not help a longer one. Rows of 16 tokens that grow to 128, as many tokens a step,
with momentum 0.9 and AdamW at 0.05, took `nano` in 400 steps from 3.5841 to 3.4393, in 1,200 from 3.1114 to
3.1185. At equal time batches of 4 (3.7250) and of 16 (3.6213) were behind those of 8 (3.5841, 400 steps). In
1,200 steps, with even windows, NorMuon's second moment of each row gained 0.0035, for a slower update. Seeds
disagree on RoPE's base at 100 (-0.020, +0.016) and on Muon at half its rate for queries, keys and values
(+0.017, -0.022, -0.010).

The three ideas of `scripts/experiments/variants.py` have no option. The soft cap and the embedding
shortcut did not pay. The value shortcut did, but a third as much as the n-gram tables or less, which are
looked up likewise.
"""


def write_page(path: Path, rows: Rows) -> None:
    """Write the page; a case without runs is left out."""
    example = "qk-norm relu2"
    text = HEAD.format(
        example=example,
        base=CASES["base"].what,
        layers=MODEL["num_layers"],
        width=MODEL["d_model"],
        context=MODEL["context_length"],
        tokens=TOKENS,
        steps=TRAIN["max_steps"],
    )
    for group in dict.fromkeys(case.group for case in CASES.values()):
        names = [name for name, case in CASES.items() if case.group == group]
        corpora = [
            corpus
            for corpus in CORPORA
            if any(row["corpus"] == corpus and row["case"] in names for row in rows)
        ]
        if group == SHARED:
            continue  # in docs/parameters.md
        if group != BASE and corpora:
            text += f"\n## {group}\n\n" + _table(names, corpora, rows)
        elif corpora:
            text += "\n## Base\n\n" + _base(corpora, rows)
    files.write_bytes(path, (text + TAIL).encode())


def with_sharing_table(page: str, rows: Rows) -> str:
    """docs/parameters.md with what shared layers save and cost: the mean of the seeds that all have."""
    corpus = "stdlib"
    names = ["base", *(name for name, case in CASES.items() if case.group == SHARED)]
    losses = {name: _by_seed(name, corpus, rows) for name in names}
    seeds = set.intersection(*(set(by_seed) for by_seed in losses.values()))
    base = _model_of("base", corpus)
    lines = ["| Model | parameters | FLOPs a token | loss, nats a token |", "|---|---|---|---|"]
    for name in sorted(names, key=lambda name: _model_of(name, corpus)):
        what = f"{MODEL['num_layers']} layers" if name == "base" else CASES[name].what
        parameters, flops = _model_of(name, corpus)
        loss = statistics.mean(losses[name][seed] for seed in seeds) if seeds else float("nan")
        lines.append(f"| {what} | {parameters:,} | {flops / base[1]:.2f} | {loss:.3f} |")
    table = "\n".join(lines) + "\n"
    return SHARING_TABLE.sub(lambda match: match[1] + table + match[2], page)


def _model_of(name: str, corpus: str) -> tuple[int, int]:
    """Parameters, and FLOPs a token forward."""
    fields = {"vocab_size": CORPORA[corpus].vocab_size, **MODEL, **CASES[name].model}
    declared = layout(ModelConfig(**fields))
    context = MODEL["context_length"]
    return declared.count(), flops_per_token(declared, context=context)["forward_per_token"]


def _base(corpora: Sequence[str], rows: Rows) -> str:
    lines = ["| Corpus | loss | bits a byte | seeds |", "|---|---|---|---|"]
    for corpus in corpora:
        losses = _values("base", corpus, rows)
        bits = _values("base", corpus, rows, "bits_per_byte")
        lines.append(
            f"| {corpus}: {CORPORA[corpus].what} | {statistics.mean(losses):.4f} ± {_spread(losses):.4f} "
            f"| {statistics.mean(bits):.4f} | {len(losses)} |"
        )
    return "\n".join(lines) + "\n"


def _table(names: Sequence[str], corpora: Sequence[str], rows: Rows) -> str:
    head = "| Case | what it is |" + "".join(f" {corpus} |" for corpus in corpora) + " CPU |"
    lines = [head, "|---" * (len(corpora) + 3) + "|"]
    for name in names:
        cells = [_cell(name, corpus, rows) for corpus in corpora]
        if any(cells):
            cost = _cost(name, corpora, rows)
            lines.append(f"| {name} | {CASES[name].what} | {' | '.join(cells)} | {cost} |")
    return "\n".join(lines) + "\n"


def _cell(name: str, corpus: str, rows: Rows) -> str:
    losses, base = (_by_seed(each, corpus, rows) for each in (name, "base"))
    changes = [losses[seed] - base[seed] for seed in losses if seed in base]
    if not changes:
        return ""
    change, spread = statistics.mean(changes), _spread(changes)
    text = f"{statistics.mean(losses.values()):.4f} ({change:+.4f} ± {spread:.4f})"
    clear = abs(change) > 2 * spread / len(changes) ** 0.5
    return f"**{text}**" if len(changes) > 1 and clear and max(changes) < 0 else text


def _cost(name: str, corpora: Sequence[str], rows: Rows) -> str:
    ratios = [
        statistics.median(_values(name, corpus, rows, "cpu_seconds"))
        / statistics.median(_values("base", corpus, rows, "cpu_seconds"))
        for corpus in corpora
        if _values(name, corpus, rows) and _values("base", corpus, rows)
    ]
    return f"{statistics.mean(ratios):.2f}" if ratios else ""


def _by_seed(name: str, corpus: str, rows: Rows) -> dict[int, float]:
    return {
        row["seed"]: row["loss"] for row in rows if row["case"] == name and row["corpus"] == corpus
    }


def _values(name: str, corpus: str, rows: Rows, key: str = "loss") -> list[float]:
    return [row[key] for row in rows if row["case"] == name and row["corpus"] == corpus]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
