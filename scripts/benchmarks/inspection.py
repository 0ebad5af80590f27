"""bench.py inspect: minilm's inspector and other counters on the same targets, as whole processes.

The programs run in turn, several times; seconds are wall time with start-up included, memory is the
largest resident set of any one process: statistics of a large file are read by two beside the first.
Prints JSON: machine, commands, runs, medians and ratios.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.cli.entry import OneLineParser
from scripts.benchmarks import checkpoints
from scripts.benchmarks.counters import PROGRAMS
from scripts.benchmarks.process import Run, check_out, machine, run, write_results

ROOT = Path(__file__).resolve().parent.parent.parent
INSPECT = ROOT / "scripts" / "inspect.py"
PEAK = "resident set of the largest process, not the sum of a program's processes"


@dataclass(frozen=True)
class Case:
    """One target, who else counts it, and what is asked of minilm beside the count."""

    what: str
    make: Callable[[Path, argparse.Namespace], Path]
    peers: tuple[str, ...]
    flags: tuple[str, ...] = ()


MODELS = ("transformers", "torchinfo", "accelerate", "calflops")
CASES = {
    "gpt2": Case(
        "config.json of GPT-2",
        lambda folder, _: checkpoints.write_config(folder, checkpoints.GPT2),
        MODELS,
    ),
    "405b": Case(
        "config.json of Llama 3.1 405B",
        lambda folder, _: checkpoints.write_config(folder, checkpoints.LLAMA_405B),
        MODELS,
    ),
    "8b": Case(
        "config.json of Llama 3 8B",
        lambda folder, _: checkpoints.write_config(folder, checkpoints.LLAMA_3_8B),
        MODELS,
    ),
    "mixtral": Case(
        "config.json of Mixtral 8x7B",
        lambda folder, _: checkpoints.write_config(folder, checkpoints.MIXTRAL),
        MODELS,
    ),
    "nf4": Case(
        "Llama 3 8B in bitsandbytes' NF4",
        lambda folder, _: checkpoints.write_nf4(folder, checkpoints.LLAMA_3_8B),
        ("safetensors", "hf-mem"),
    ),
    "gptq": Case(
        "Llama 3 8B in GPTQ, 4 bits in groups of 128",
        lambda folder, _: checkpoints.write_gptq(folder, checkpoints.LLAMA_3_8B),
        ("safetensors", "hf-mem"),
    ),
    "header": Case(
        "one safetensors file of Llama 3 8B",
        lambda folder, _: checkpoints.write_header(folder, checkpoints.LLAMA_3_8B),
        ("safetensors", "hf-mem"),
    ),
    "shards": Case(
        "191 safetensors files of Llama 3.1 405B",
        lambda folder, _: checkpoints.write_shards(folder, checkpoints.LLAMA_405B, 191),
        ("safetensors", "hf-mem"),
    ),
    "gguf": Case(
        "a GGUF file with a vocabulary of 200,000",
        lambda folder, _: checkpoints.write_gguf(folder, checkpoints.LLAMA_3_8B, 200_000),
        ("gguf",),
    ),
    "stats": Case(
        "statistics of all values in bfloat16",
        lambda folder, options: checkpoints.write_values(folder, int(options.gigabytes * 1e9)),
        (),
        ("--stats",),
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run the comparisons that the arguments name."""
    parser = OneLineParser(prog="bench.py inspect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter that has the others installed"
    )
    parser.add_argument("--peers", nargs="*", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument(
        "--gigabytes", type=float, default=1.0, help="size of the file for the statistics"
    )
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args(arguments)
    if not check_out(options.out):
        return 2
    if options.repeats < 1 or not 0.001 <= options.gigabytes <= 1000:
        print("error: --repeats, --gigabytes: expected at least 1, 0.001 to 1000", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        results = {name: compare(name, options, Path(folder)) for name in options.cases}
    write_results({"machine": machine(), "peak_mib": PEAK, "results": results}, options.out)
    return 0


def compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One case: minilm and each peer in turn, ``repeats`` times each."""
    case = CASES[name]
    missing = [flag for flag in case.flags if flag not in run([*minilm(), "--help"]).output]
    if missing:
        return {"what": case.what, "not available": f"inspect.py has no {' '.join(missing)}"}
    target = case.make(folder / name, options)
    commands = {"minilm": [*minilm(), str(target), "--json", "-", *case.flags]}
    for peer in case.peers:
        if peer in options.peers:
            commands[peer] = [options.python, "-c", PROGRAMS[peer], str(target)]
    tools: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in commands}
    for repeat in range(options.repeats):
        for tool, command in commands.items():
            if "count" not in tools.setdefault(tool, {"count": None}):
                continue  # absent, or it failed: once is enough
            done = run(command)
            tools[tool] = result_of(tool, done)
            if "count" in tools[tool]:
                figures = {"seconds": done.seconds, "cpu_seconds": done.cpu_seconds}
                runs[tool].append(figures | {"peak_mib": done.peak_mib})
        print(f"{name} {repeat + 1}/{options.repeats}", file=sys.stderr)
    for tool, each in runs.items():
        # The programs stand in counters.py.
        parts = [part if part != PROGRAMS.get(tool) else tool.upper() for part in commands[tool]]
        tools[tool]["command"] = shlex.join(parts)
        tools[tool]["runs"] = each
        for key in each[0] if each else ():
            tools[tool][f"median_{key}"] = statistics.median(figures[key] for figures in each)
    result: dict[str, Any] = {"what": case.what, "tools": tools}
    seconds = tools["minilm"].get("median_seconds")
    if seconds:
        result["times_minilm"] = {
            tool: each["median_seconds"] / seconds
            for tool, each in tools.items()
            if tool != "minilm" and "median_seconds" in each
        }
        if case.flags == ("--stats",):
            result["gigabytes_per_second"] = target.stat().st_size / 1e9 / seconds
    return result


def result_of(tool: str, done: Run) -> dict[str, Any]:
    """What a tool printed: its version and count, or that it is absent or failed."""
    try:
        if tool == "minilm":
            report = json.loads(done.output)
            return {"count": report["parameters"]["total"], "verified": report["verified"]}
        value: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return value
    except (ValueError, KeyError, IndexError):
        return {"failed": f"exit {done.status}: {done.errors.strip()[-300:]}"}


def minilm() -> list[str]:
    """The command that inspects."""
    return [sys.executable, str(INSPECT)]
