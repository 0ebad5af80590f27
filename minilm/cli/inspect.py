"""`inspect TARGET...`: print the report of each target; exit 1 when a count is not verified.

argparse and not tyro, whose import takes longer than a whole inspection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.cli.entry import BAD_INPUT, CHECK_FAILED, DONE, OneLineParser, run_command
from minilm.cli.outputs import check_outputs
from minilm.errors import InputError
from minilm.inspection import extras
from minilm.inspection.inspector import Inspection, inspect_with_sources
from minilm.inspection.report import Report

if TYPE_CHECKING:
    from minilm.runs.history import RunHistory


OUTPUTS = ("json", "markdown", "html")  # options that name a file, or - for stdout
MEMORY_ADVICE = (
    "--no-live builds no module; without --stats, --stable-rank and --diff no value is read"
)


def main(arguments: Sequence[str] | None = None, program: str = "inspect.py") -> int:
    """Parse, inspect, print. Exit status: 0 verified, 1 a mismatch, 2 bad usage or input."""
    return run_command(lambda: _run(arguments, program), memory_advice=MEMORY_ADVICE)


def _run(arguments: Sequence[str] | None, program: str) -> int:
    command_line = sys.argv[1:] if arguments is None else arguments
    options = _parser(program).parse_args(_with_negative_size(command_line))
    if len(options.targets) > 1 and (options.html or options.diff):
        raise InputError("arguments", f"{len(options.targets)} targets", "one for --html or --diff")
    if options.fits is None and (options.lora_rank is not None or options.kv_cache is not None):
        raise InputError("arguments", "--lora-rank or --kv-cache alone", "--fits SIZE beside it")
    outputs = {name: getattr(options, name) for name in OUTPUTS}
    check_outputs(outputs, (*options.targets, *([options.diff] if options.diff else ())))
    inspections, status = [], DONE
    for target in options.targets:
        try:
            inspections.append(_inspect(target, options))
        except InputError as error:
            if len(options.targets) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)  # the other targets are reported all the same
            status = BAD_INPUT
    _write_reports(inspections, options)
    if not all(_passed(inspection.report) for inspection in inspections):
        return max(status, CHECK_FAILED)
    return status


def _with_negative_size(command_line: Sequence[str]) -> list[str]:
    """The arguments with --fits -5GiB as --fits=-5GiB: else argparse takes the size for an option."""
    joined: list[str] = []
    for argument in command_line:
        if joined[-1:] == ["--fits"] and argument[:1] == "-" and argument[1:2].isdecimal():
            argument = f"{joined.pop()}={argument}"
        joined.append(argument)
    return joined


def _inspect(target: str, options: argparse.Namespace) -> Inspection:
    """One target, whose report has everything that was asked for."""
    sizes = {"context": options.context, "batch": options.batch}
    files_with_layers = (options.html, options.markdown)
    listed = options.tensors or options.full or any(file is not None for file in files_with_layers)
    inspection = inspect_with_sources(
        target,
        live=options.live,
        state_dict=options.state_dict,
        model_type=options.model_type,
        tensors=listed,
        **sizes,
    )
    if options.fits is not None:
        inspection = inspection.with_report(
            extras.with_fits(
                inspection,
                options.fits,
                lora_rank=options.lora_rank,
                cache_dtype=options.kv_cache,
                **sizes,
            )
        )
    if options.reconcile is not None:
        inspection = inspection.with_report(
            extras.with_reconciliation(inspection, options.reconcile)
        )
    if options.stats or options.stable_rank:
        with _progress("reading") as progress:
            report = extras.with_statistics(inspection, progress, stable_rank=options.stable_rank)
        inspection = inspection.with_report(report)
    if options.diff is not None:
        other = inspect_with_sources(options.diff, live=False, **sizes)
        with _progress("comparing") as progress:
            inspection = inspection.with_report(extras.with_difference(inspection, other, progress))
    return inspection


def _passed(report: Report) -> bool:
    explained = report.reconciliation is None or report.reconciliation.explained
    return report.verified and explained


def _write_reports(inspections: Sequence[Inspection], options: argparse.Namespace) -> None:
    """Write each file that was asked for; print for the terminal unless one of them is stdout."""
    reports = [inspection.report for inspection in inspections]
    if options.json is not None:
        values = [report.to_dict(tensors=options.tensors) for report in reports]
        value = values[0] if len(options.targets) == 1 else values
        _write_text(options.json, json.dumps(value, indent=2, allow_nan=False) + "\n")
    if options.markdown is not None:
        from minilm.render.markdown import markdown

        text = "\n".join(
            markdown(report, history=_history(report), tensors=options.tensors)
            for report in reports
        )
        _write_text(options.markdown, text)
    if options.html is not None:
        from minilm.inspection.weight_maps import weight_maps
        from minilm.render.html import page

        weights = weight_maps(inspections[0]) if options.stats or options.stable_rank else ()
        text = page(reports[0], history=_history(reports[0]), weights=weights)
        _write_text(options.html, text)
    if "-" not in (getattr(options, name) for name in OUTPUTS):
        from minilm.cli.console import ResultConsole
        from minilm.render.terminal import print_report

        console = ResultConsole()
        for number, report in enumerate(reports):
            if number:
                console.print()
            history = _history(report) if options.full else None
            print_report(
                report, console, history=history, full=options.full, tensors=options.tensors
            )


def _history(report: Report) -> RunHistory | None:
    from minilm.render.report_drawings import run_history
    from minilm.training.messages import messages_on_stderr

    with messages_on_stderr():
        return run_history(report)


def _write_text(file: str, text: str) -> None:
    if file == "-":
        sys.stdout.write(text)
        return
    from minilm import files

    files.write_bytes(Path(file), text.encode("utf-8", "replace"))


@contextlib.contextmanager
def _progress(activity: str) -> Iterator[extras.Progress | None]:
    """A bar on stderr while values are read, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=0, unit="B", unit_scale=True, desc=activity, leave=False) as bar:

        def update(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


def _nonempty(name: str) -> str:
    """The name itself; an empty one, mostly an unset variable, would mean the current folder."""
    if not name:
        raise argparse.ArgumentTypeError("an empty name")
    return name


def _parser(program: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=program,
        description="Count every parameter of a model and verify the count.",
        epilog="Exit status: 0 verified, 1 a witness disagrees or a number is not explained, "
        "2 bad usage or input.",
    )
    parser.add_argument(
        "targets",
        nargs="+",
        type=_nonempty,
        metavar="TARGET",
        help="a run or Hugging Face folder, *.safetensors or its index, *.gguf, *.pt, *.pth, *.bin, "
        "config.json, or the name of a preset",
    )
    _add_outputs(parser)
    _add_comparisons(parser)
    _add_costs(parser)
    _add_sources(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    parser.add_argument(
        "--full", action="store_true", help="print the whole report instead of one screen of it"
    )
    parser.add_argument(
        "--json", type=_nonempty, metavar="FILE", help="write the report as JSON; - is stdout"
    )
    parser.add_argument(
        "--markdown", type=_nonempty, metavar="FILE", help="write it as Markdown; - is stdout"
    )
    parser.add_argument(
        "--html", type=_nonempty, metavar="FILE", help="write it as one page that needs no network"
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor as well")


def _add_comparisons(parser: argparse.ArgumentParser) -> None:
    """What is read beside names and shapes, and compared."""
    parser.add_argument("--stats", action="store_true", help="read all values and describe them")
    parser.add_argument(
        "--stable-rank",
        action="store_true",
        help="--stats with the stable ranks of large files too",
    )
    parser.add_argument(
        "--diff",
        type=_nonempty,
        metavar="OTHER",
        help="compare names, shapes and values with OTHER",
    )
    parser.add_argument(
        "--reconcile", metavar="N", help="explain a count from elsewhere: 163037184, 117M, 8.03B"
    )


def _add_costs(parser: argparse.ArgumentParser) -> None:
    """Memory and FLOPs."""
    parser.add_argument(
        "--fits",
        metavar="SIZE",
        help="what fits in 24GB, 80GiB, two cards as 2x48GB, an H100, ...; RAM: in this machine",
    )
    parser.add_argument(
        "--lora-rank", type=int, metavar="R", help="the rank of LoRA for --fits (default: 16)"
    )
    parser.add_argument(
        "--kv-cache",
        metavar="DTYPE",
        help="the KV cache for --fits: bfloat16, fp8, q8_0, q4_0, ... (default: that of the arithmetic)",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens for memory and FLOPs (default: the model's)",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="sequences for memory (default: 1)"
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """Which part of a target is the model, how it is read, and whether its module is built as well."""
    parser.add_argument(
        "--as",
        type=_nonempty,
        metavar="TYPE",
        dest="model_type",
        help="read config.json as this model_type: llama, ... (minilm architectures lists them)",
    )
    parser.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="build the module on the meta device as a third witness (default: for run folders)",
    )
    parser.add_argument(
        "--state-dict",
        type=_nonempty,
        metavar="KEY",
        help="which part of a torch.save checkpoint is the model: student, model.state_dict, ...; "
        ". is all of them together",
    )
