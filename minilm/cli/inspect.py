"""`inspect TARGET...`: print the report of each target; exit 1 when a count is not verified.

argparse and not tyro: this command answers in a quarter of a second, and tyro takes most of that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from minilm.cli.edge import BAD_INPUT, CHECK_FAILED, DONE, guarded
from minilm.errors import InputError
from minilm.inspection.inspector import inspect


class Parser(argparse.ArgumentParser):
    """One `error:` line instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise what `guarded` prints."""
        raise InputError("arguments", message, f"what {self.prog} --help lists")


def main(arguments: Sequence[str] | None = None, program: str = "inspect.py") -> int:
    """Parse, inspect, print. Exit status: 0 verified, 1 a mismatch, 2 bad usage or input."""
    return guarded(lambda: _run(arguments, program))


def _run(arguments: Sequence[str] | None, program: str) -> int:
    options = _parser(program).parse_args(arguments)
    reports, status = [], DONE
    for target in options.targets:
        try:
            reports.append(
                inspect(target, live=options.live, context=options.context, batch=options.batch)
            )
        except InputError as error:
            if len(options.targets) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)  # the other targets still have their say
            status = BAD_INPUT
    values = [report.to_json(tensors=options.tensors) for report in reports]
    text = json.dumps(values[0] if len(options.targets) == 1 else values, indent=2)
    if options.json == "-":
        print(text)
    else:
        from rich.console import Console

        from minilm.render.terminal import print_report

        console = Console(highlight=False, width=None if sys.stdout.isatty() else _columns())
        for report in reports:
            print_report(report, console, tensors=options.tensors)
            console.print()
        if options.json is not None:
            from minilm import files

            files.write_bytes(Path(options.json), (text + "\n").encode())
    if not all(report.verified for report in reports):
        return max(status, CHECK_FAILED)
    return status


def _columns() -> int:
    """A file or a pipe has no width of its own; tables must not be cut to 80 columns there."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else 100


def _parser(program: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program,
        description="Count every parameter of a model and prove the count.",
        epilog="Exit status: 0 verified, 1 a witness disagrees, 2 bad usage or input.",
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="a run folder, *.safetensors, config.json, or the name of a preset",
    )
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - is stdout")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="build the module on the meta device as a third witness (default: for run folders)",
    )
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens in the KV cache (default: the model's)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="sequences in the KV cache (default: 1)"
    )
    return parser
