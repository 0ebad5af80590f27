"""python scripts/tools/performance.py: fill the documents from the JSON of bench.py train and generate.

    python scripts/bench.py train --peer NANOGPT --data FILE --out scripts/benchmarks/training.json
    python scripts/bench.py generate --repeats 9 --out scripts/benchmarks/generation.json
    python scripts/tools/performance.py

writes what stands between the marks of README.md, docs/comparison.md and docs/performance.md, and draws
docs/images/loss.png: the loss of both against seconds, in a headless Chromium. tests/test_docs.py compares
the texts with the JSON.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.units import counted  # noqa: E402
from scripts.benchmarks.runs import FIXED  # noqa: E402
from scripts.benchmarks.training import (  # noqa: E402
    COMPILATION,
    MOST_PARAMETERS,
    PEER_BATCH,
    REACH,
)
from scripts.benchmarks.training import SHAPES as BENCH_SHAPES  # noqa: E402
from scripts.tools.pictures import IMAGES, screenshot  # noqa: E402

PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "comparison.md",
    ROOT / "docs" / "performance.md",
]
# One file a processor; README.md and docs/comparison.md have the first, training.json.
TRAINING = sorted((ROOT / "scripts" / "benchmarks").glob("training*.json"), reverse=True)
GENERATION = sorted((ROOT / "scripts" / "benchmarks").glob("generation*.json"), reverse=True)
MARKED = re.compile(r"(<!-- (\w+) from \w+\.json -->\n).*?(<!-- end -->)", re.DOTALL)

QUESTIONS = {
    "reach": f"at most {MOST_PARAMETERS['reach'] / 1e6:.2f}M parameters, "
    f"context {REACH['--model.context-length']}",
    "reach_any": "any configuration",
}
PROGRAMS = {
    "peer": "nanoGPT",
    "peer_compiled": "nanoGPT, compiled",
    "minilm": "minilm",
    "minilm_compiled": "minilm, compiled",
}
GENERATORS = {
    "transformers": "transformers' `generate`, float32",
    "llama.cpp": "llama.cpp, F32",
    "minilm_float16": "minilm, `--dtype float16`",
    "minilm_bfloat16": "minilm, `--dtype bfloat16`",
    "minilm_int8": "minilm, quantized to int8",
    "minilm_int4": "minilm, quantized to int4",
}
SHAPES = {
    name: f"{layers} layers, {heads} heads, {width} wide, context {context}"
    for name, (layers, heads, width, context, _) in BENCH_SHAPES.items()
}


def read_figures() -> dict[str, list[dict[str, Any]]]:
    """What both commands measured, on each machine."""
    return {
        name: [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        for name, paths in (("training", TRAINING), ("generation", GENERATION))
    }


def filled(text: str, figures: dict[str, list[dict[str, Any]]]) -> str:
    """The document with every marked part as the figures have it."""
    return MARKED.sub(lambda part: part[1] + _part(part[2], figures) + part[3], text)


def _part(name: str, figures: dict[str, list[dict[str, Any]]]) -> str:
    """Of the first machine alone, or of each under its name."""
    if name in OF_THE_FIRST:
        return OF_THE_FIRST[name](figures["training"][0])
    if name == "generation":
        return "\n".join(map(generation, figures["generation"]))
    measured = [each for each in figures["training"] if each.get(name)]
    return "\n".join(f"{machine(each, name)}\n{OF_EACH[name](each)}" for each in measured)


def machine(figures: dict[str, Any], name: str) -> str:
    """What the figures were measured on; a part that was measured on another day has a date of its own."""
    computer, date = figures["machine"], figures[name].get("date", figures["date"])
    return (
        f"**{computer['cores']} cores of an {computer['processor']}, {computer['instructions']}**, "
        f"{date}, Python {computer['python']}, torch {computer['torch']}:\n"
    )


def quality(figures: dict[str, Any]) -> str:
    """Seconds to the target, and the loss in nanoGPT's own time."""
    part = figures["quality"]
    medians, peer = part["medians"], part["medians"]["peer"]
    lines = [
        "| Question | minilm | parameters | nanoGPT | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, what in QUESTIONS.items():
        run = medians[name]
        lines.append(
            f"| whole process to {part['target']} nats a character, {what} "
            f"| {run['seconds']:.1f} s, to {run['loss']:.4f} | {run['parameters']:,.0f} "
            f"| {peer['seconds']:.1f} s, to {peer['loss']:.4f} | {part[f'times_{name}']:.1f} times faster |"
        )
    best = medians["best"]
    lines.append(
        f"| loss after nanoGPT's own time, at most 2M parameters | {best['loss']:.4f} in "
        f"{best['seconds']:.1f} s | {best['parameters']:,.0f} | {peer['loss']:.4f} in "
        f"{peer['seconds']:.1f} s | {best['loss'] - peer['loss']:+.4f} |"
    )
    commands = "".join(
        f"    python {_complete(part['commands'][n])}\n" for n in (*QUESTIONS, "best")
    )
    return (
        "\n".join(lines) + f"\n\nThe commands, in that order, and nanoGPT's:\n\n{commands}"
        f"    python {part['peer_command']}\n"
    )


def default_text(figures: dict[str, Any]) -> str:
    """Bits a byte of Python's library in nanoGPT's own time."""
    part = figures["default_text"]
    medians, peer = part["medians"], part["medians"]["peer"]
    lines = [
        f"| {part['train_tokens']:,} training tokens | parameters | seconds | tokens read | bits a byte |",
        "|---|---|---|---|---|",
        f"| nanoGPT | {peer['parameters']:,.0f} | {peer['seconds']:.0f} | {part['peer_tokens']:,} "
        f"| {peer['bits_per_byte']:.3f} |",
    ]
    chat = medians.get("nanochat")
    if chat is not None:
        lines.append(
            f"| nanochat's recipe, {chat['batch']:,.0f} tokens a step | {chat['parameters']:,.0f} "
            f"| {chat['trained']:.0f} of training | {chat['tokens']:,.0f} | {chat['bits_per_byte']:.3f}, "
            f"{chat['bits_per_byte'] / peer['bits_per_byte'] - 1:+.1%} |"
        )
    for name, ratio in part["ratio"].items():
        run = medians[name]
        lines.append(
            f"| minilm, `{name}` | {run['parameters']:,.0f} | {run['seconds']:.0f} | {run['tokens']:,.0f} "
            f"| {run['bits_per_byte']:.3f}, {ratio - 1:+.1%} |"
        )
    commands = "".join(
        f"    python {_complete(command)}\n" for command in part["commands"].values()
    )
    runs = counted(len(part["runs"]["peer"]), "run")
    tried = f"\n\n{_nanochat(part['runs']['nanochat'][0])}" if chat is not None else ""
    return (
        "\n".join(lines)
        + f"{tried}\n\n{runs} of each, by:\n\n{commands}    python {part['peer_command']}\n"
    )


def _nanochat(best: dict[str, Any]) -> str:
    others = ", ".join(
        f"{run['batch']:,} tokens a step {run['loss'] * best['bits_per_byte'] / best['loss']:.3f}"
        for run in best["tried"]
    )
    return (
        "nanochat's model and optimizer have the shape of `nano` and its own parts, and the schedule of its "
        f"`base_train.py` for that batch; its start and compiler are not counted. Bits a byte by {others}."
    )


def rates(figures: dict[str, Any]) -> str:
    """Steady tokens a second, and times the peer's."""
    parts = [figures["rates"][name] for name in SHAPES]
    lines = [
        f"| tokens/s, batches of {PEER_BATCH} | {' | '.join(SHAPES.values())} |",
        "|---|" + "---|" * len(parts),
    ]
    for program, name in PROGRAMS.items():
        cells = []
        for part in parts:
            if program not in part["medians"]:
                cells.append("not run")
                continue
            rate = f"{part['medians'][program]['rate']:,.0f}"
            times = part["times_peer"].get(program)
            cells.append(rate if times is None else f"{rate}, {times:.2f} times nanoGPT's")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    large = parts[-1]["medians"]["minilm"]
    dtypes = {run.get("dtype", "float32") for part in parts for run in part["runs"]["minilm"]}
    lines.append(
        f"\nnanoGPT in float32, minilm in {' and '.join(sorted(dtypes))}, as each does by itself. A rate is "
        "the median of the rounds, a ratio the median of those within a round: not the ratio of two medians."
    )
    lines.append(
        f"\nAt the last shape minilm's {large['rate']:,.0f} tokens/s are {large['utilisation']:.0%} of the "
        f"{large['peak_flops'] / 1e9:.0f} GFLOP/s that this machine's matrix products reach in the same "
        "precision, measured in the same process.\n\nThe commands; compiled, minilm ran with "
        f"`{COMPILATION['minilm_compiled']}` and nanoGPT with `{COMPILATION['peer_compiled']}` instead:\n"
    )
    for part in parts:
        lines += [
            f"    python {_complete(part['command'])} {COMPILATION['minilm']}",
            f"    python {part['peer_command']} {COMPILATION['peer']}",
        ]
    return "\n".join(lines) + "\n"


def _complete(command: str) -> str:
    """A command with all that bench.py passes: figures of before a run fitted its text lack these options."""
    missing = {name: value for name, value in FIXED.items() if f"{name} " not in command}
    return " ".join([command, *(f"{name} {value}" for name, value in missing.items())])


def memory(figures: dict[str, Any]) -> str:
    """Memory of the default run, and what saving takes from it."""
    memory, saving = figures["memory"], figures["saving"]
    return f"{machine(figures, 'memory')}\n" + (
        f"The largest resident set of `nano` on the default text, with its cleaning and encoding, "
        f"evaluation, sample and report: "
        f"{memory['peak_mib']:.0f} MiB ({memory['peak_mib'] * 2**20 / 1e6:.0f} MB).\n\n"
        f"A save of `nano` stops the loop for {saving['blocked_ms']:.1f} ms and slows what follows, all "
        f"together {saving['milliseconds']:.1f} ms a save: {saving['share_of_a_minute']:.3%} of the time at "
        f"one save a minute.\n"
    )


def generation(part: dict[str, Any]) -> str:
    """Tokens a second of one text, beside the peers."""
    medians = part["medians"]
    lines = [
        f"Measured on {part['date']} on {part['cores']} cores of an {part['processor']}, "
        f"torch {part['torch']}; medians of {len(part['rates']['minilm'])} rounds, ratios within a round.",
        "",
        "| one text, 256 tokens | tokens/s | minilm in float32 is |",
        "|---|---|---|",
        f"| minilm, float32 | {medians['minilm']:.0f} | |",
    ]
    for name, what in GENERATORS.items():
        if name not in medians:  # not installed there
            continue
        ratio = part[f"minilm_to_{name}"]
        lines.append(f"| {what} | {medians[name]:.0f} | {ratio:.2f} times as fast |")
    milliseconds, in_16_bits = part["milliseconds"], ""
    if "minilm_batch_bfloat16" in medians:
        in_16_bits = (
            f"; in bfloat16, which `--dtype auto` measures too, {medians['minilm_batch_bfloat16']:.0f}, "
            f"{part['times_batch_bfloat16']:.1f} times one in float32"
        )
    lines += [
        "",
        f"The 500th token takes {milliseconds['500th']:.1f} ms, the 10th {milliseconds['10th']:.1f} ms: "
        f"{part['times_late']:.2f} times as long. Sixteen texts at once: "
        f"{medians['minilm_batch']:.0f} tokens/s, {part['times_batch']:.1f} times those of one{in_16_bits}.",
        "",
    ]
    return "\n".join(lines)


def summary(figures: dict[str, Any]) -> str:
    """The README's three rows."""
    part = figures["quality"]
    reach, peer = (part["medians"][name] for name in ("reach", "peer"))
    return (
        "| | minilm | others |\n|---|---|---|\n"
        "| Llama 3 8B in NF4: 8,030,261,248 parameters | 8,030,261,248; formula, file and module agree or "
        "the exit status is 1 | hf-mem: 4,650,157,056, packed bytes and scales |\n"
        f"| To {part['target']} nats a character, 2-core CPU, whole process | {reach['seconds']:.0f} s "
        f"| nanoGPT: {peer['seconds']:.0f} s |\n"
        "| After SIGKILL at any instant | the resumed run ends in the same bytes | nanoGPT: a checkpoint "
        "overwritten in place, another random stream |\n"
    )


def comparison(figures: dict[str, Any]) -> str:
    """The measured rows of the table in docs/comparison.md."""
    part = figures["quality"]
    reach, best, peer = (part["medians"][name] for name in ("reach", "best", "peer"))
    rate = figures["rates"]["small"]
    return (
        "| | minilm | nanoGPT |\n|---|---|---|\n"
        f"| Whole process to {part['target']} nats a character, 2-core CPU | {reach['seconds']:.0f} s, "
        f"{reach['parameters']:,.0f} parameters | {peer['seconds']:.0f} s, to {peer['loss']:.3f} |\n"
        f"| Loss after those {peer['seconds']:.0f} s | {best['loss']:.3f} | {peer['loss']:.3f} |\n"
        f"| Tokens a second, same shape, batch and optimizer, each in its own dtype "
        f"| {rate['medians']['minilm']['rate']:,.0f} | {rate['medians']['peer']['rate']:,.0f} |\n"
    )


OF_THE_FIRST = {"summary": summary, "comparison": comparison, "memory": memory}
OF_EACH = {"quality": quality, "default_text": default_text, "rates": rates}


def draw(figures: dict[str, Any]) -> None:
    """docs/images/loss.png."""
    from plotly.offline import get_plotlyjs

    part = figures["quality"]
    peer = part["runs"]["peer"][0]["curve"]
    reached = [part["medians"][name] for name in QUESTIONS]
    traces = [
        _trace("nanoGPT, its README's run", peer, "#d55e00", "lines+markers"),
        _trace("minilm, nano-fast", part["curve"], "#0072b2", "lines+markers"),
        _trace(
            "minilm, short runs", [(r["seconds"], r["loss"]) for r in reached], "#009e73", "markers"
        ),
    ]
    layout = {
        "width": 900,
        "height": 480,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "xaxis": {"title": {"text": "seconds of the whole process"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "validation loss, nats a character"}, "range": [1.45, 2.6]},
        "legend": {"x": 0.6, "y": 0.95},
        "font": {"family": "system-ui, sans-serif", "size": 14},
    }
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "plot.html"
        page.write_text(
            f"<!DOCTYPE html><body style='margin:0'><div id=p></div><script>{get_plotlyjs()}</script>"
            f"<script>Plotly.newPlot('p', {json.dumps(traces)}, {json.dumps(layout)}, "
            "{staticPlot: true});</script>",
            encoding="utf-8",
        )
        screenshot(page, IMAGES / "loss.png", width=900, height=480)


def _trace(name: str, points: list[Any], colour: str, mode: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": [seconds for seconds, _ in points],
        "y": [loss for _, loss in points],
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 7},
    }


def main() -> int:
    """Fill the documents and draw the plot."""
    if not TRAINING:
        print(
            "error: training.json: no such file, expected what bench.py train writes",
            file=sys.stderr,
        )
        return 2
    figures = read_figures()
    for page in PAGES:
        files.write_bytes(page, filled(page.read_text(encoding="utf-8"), figures).encode())
    draw(figures["training"][0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
