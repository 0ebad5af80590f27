"""`explain TARGET`: what the parameters of a model are, in plain sentences. No torch for a config.

argparse and not tyro, as `inspect` has it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from minilm.cli.entry import CHECK_FAILED, DONE, OneLineParser, run_command
from minilm.cli.outputs import check_outputs
from minilm.errors import InputError

OUTPUTS = ("json", "markdown", "html")  # options that name a file, or - for stdout


def main(arguments: Sequence[str] | None = None, program: str = "minilm explain") -> int:
    """Parse, explain, print. Exit status: 0 done, 1 the count does not hold, 2 bad usage or input."""
    return run_command(lambda: _run(arguments, program))


def _run(arguments: Sequence[str] | None, program: str) -> int:
    from minilm import files
    from minilm.render.explanation import explain

    options = _parser(program).parse_args(arguments)
    named = {name: getattr(options, name) for name in OUTPUTS if getattr(options, name) is not None}
    check_outputs(named, (options.target,))
    for option, name in named.items():
        if name != "-" and _is_report_of_run(Path(name).resolve()):
            text = f"{name}, which is the report of a run"
            raise InputError(f"--{option}", text, "a file of its own")
    if not options.target:
        raise InputError("TARGET", "an empty name", "a run, a model's folder or file, or a preset")
    explanation = explain(
        options.target, context=options.context, batch=options.batch, state_dict=options.state_dict
    )
    for option, name in named.items():
        if option == "json":
            text = json.dumps(explanation.to_dict(), indent=2, allow_nan=False) + "\n"
        else:
            text = explanation.to_html() if option == "html" else explanation.to_markdown()
        if name == "-":
            sys.stdout.write(text)
        else:
            files.write_bytes(Path(name), text.encode("utf-8", "replace"))
    if "-" not in named.values():
        print(explanation)
    return DONE if explanation.report.verified else CHECK_FAILED


def _is_report_of_run(path: Path) -> bool:
    """What training wrote, and inspect writes anew: an explanation is another page."""
    from minilm.runs import files as run_files

    return (
        path.name == run_files.REPORT
        and path.exists()
        and (path.parent / run_files.CONFIG).exists()
    )


def _parser(program: str) -> OneLineParser:
    parser = OneLineParser(
        prog=program, description="What the parameters of a model are, in plain sentences."
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a run or Hugging Face folder, *.safetensors or its index, *.gguf, *.pt, *.pth, *.bin, "
        "config.json, or the name of a preset",
    )
    for option, what in (
        ("--json", "write the same as JSON; - is stdout"),
        ("--markdown", "write it as Markdown; - is stdout"),
        ("--html", "write it as one page with a calculator and a glossary; - is stdout"),
    ):
        parser.add_argument(option, metavar="FILE", help=what)
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens for the KV cache and FLOPs (default: the model's)",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="sequences for the KV cache (default: 1)"
    )
    parser.add_argument(
        "--state-dict", metavar="KEY", help="which part of a torch.save checkpoint is the model"
    )
    return parser
