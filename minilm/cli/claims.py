"""`claims CHECKPOINT`: what is said of parameters, tested on this very model."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from minilm.cli.entry import DONE, option, refuse_empty
from minilm.cli.operation_options import Checkpoint, run_operation
from minilm.cli.outputs import check_outputs
from minilm.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Test what is said of parameters on a model: supported, contradicted or inconclusive, by rules that
    are fixed beforehand."""

    checkpoint: Checkpoint
    """A run, or what convert imports."""
    only: Annotated[
        tuple[str, ...] | None,
        option(
            "NAME [NAME ...]",
            help="The claims to test; by default all. Those that train models need --train-claims.",
        ),
    ] = None
    data: Annotated[
        str | None,
        option(
            "SOURCE",
            help="A text, as train takes it: its last half is tested on, in the first facts are looked for "
            "and small models trained. Default: the run's own text, its validation split tested on.",
        ),
    ] = None
    train_claims: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also those that train many small models; what was trained is kept, and a later run goes on."""
    budget: Annotated[
        str | None,
        option("TIME", help="How long --train-claims may train: 90s, 20m, 2h. Default: 20m."),
    ] = None
    seed: int = 0
    """Of what is drawn: the same seed gives the same numbers."""
    json: Annotated[
        str | None, option("FILE", help="Write a JSON object to FILE, - for standard output.")
    ] = None
    html: Annotated[
        str | None,
        option("FILE", help="Write the report of the model as a page, with a section of claims."),
    ] = None
    markdown: Annotated[
        str | None, option("FILE", help="Write what was found in prose, - for standard output.")
    ] = None


BUDGET = "20m"
OUTPUTS = ("json", "html", "markdown")  # options that name a file, or - for stdout


def main(arguments: Sequence[str] | None = None, program: str = "claims.py") -> int:
    """Parse, test, print."""
    return run_operation(Arguments, _run, arguments, program)


def _run(options: Arguments) -> int:
    refuse_empty(options, "CHECKPOINT", "--data", "--budget", *(f"--{name}" for name in OUTPUTS))
    _check_outputs(options)
    if options.budget is not None and not options.train_claims:
        raise InputError("--budget", "given without --train-claims", "both, or neither")
    from minilm.units import parse_seconds

    budget = parse_seconds(options.budget or BUDGET, "--budget")
    from minilm.claims.check import CLAIMS, check_claims
    from minilm.training.signals import Stopped

    if options.only == ():
        raise InputError("--only", "no name", f"one of {', '.join(CLAIMS)}")
    try:
        report = check_claims(
            options.checkpoint,
            options.only or (),
            data=options.data,
            seed=options.seed,
            train_seconds=budget if options.train_claims else None,
        )
    except KeyboardInterrupt as stopped:
        signum = signal.Signals(getattr(stopped, "signum", signal.SIGINT))
        name = "Ctrl-C" if signum == signal.SIGINT else signum.name
        kept = "; the same command goes on with what was trained" if options.train_claims else ""
        raise Stopped(
            signum, f"{name}: stopped before the verdicts, nothing was written{kept}"
        ) from None
    from minilm.claims.report import claims_section, introduction, verdict_table

    section = claims_section(report)
    if options.json is not None:
        _write(options.json, json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    if options.markdown is not None:
        from minilm.render.markdown import section_lines

        _write(options.markdown, "\n".join(section_lines(section, level=1)) + "\n")
    if options.html is not None:
        from minilm.inspection.inspector import inspect
        from minilm.render.html import page
        from minilm.render.report_drawings import run_history

        inspected = inspect(options.checkpoint)
        _write(options.html, page(inspected, history=run_history(inspected), more=(section,)))
    if "-" not in (options.json, options.html, options.markdown):
        from minilm.cli.console import ResultConsole
        from minilm.render.grid import table_lines, wrapped

        console = ResultConsole()
        for line in table_lines(verdict_table(report), console.width):
            console.print(line)
        console.print()
        for text in wrapped(introduction(report), console.width):
            console.print(text, markup=False)
    return DONE


def _check_outputs(options: Arguments) -> None:
    """Raise InputError where an output cannot be written, or would replace what is needed."""
    outputs = {name: getattr(options, name) for name in OUTPUTS}
    for name, value in outputs.items():
        path = Path(value or "-")
        if value not in (None, "-") and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise InputError(
                f"--{name}", f"{value}, where nothing can be written", "a file in a folder"
            )
    check_outputs(outputs, filter(None, (options.checkpoint, options.data)))


def _write(file: str, text: str) -> None:
    if file == "-":
        sys.stdout.write(text)
        return
    from minilm import files

    files.write_bytes(Path(file), text.encode("utf-8", "replace"))
