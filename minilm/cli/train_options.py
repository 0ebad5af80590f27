"""The options of `train`: each field of ModelConfig and TrainConfig as --model.FIELD and --train.FIELD.

They are made from the dataclasses themselves; the commonest training fields also stand alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minilm.cli.config_options import overrides_of, set_fields
from minilm.cli.entry import option, parse_arguments
from minilm.config import ModelConfig, TrainConfig
from minilm.config.validation import LOG_TO, RENAMED
from minilm.errors import InputError
from minilm.parallel.launcher import is_of_this_launch
from minilm.runs import files as run_files

# TrainConfig's fields that are options of their own, without the prefix, as well.
UNPREFIXED_FIELDS = (
    "max_steps",
    "max_seconds",
    "target_val_loss",
    "device",
    "dtype",
    "compile",
    "tune",
    "parallel",
    "tensor_parallel",
    "seed",
    "val_fraction",
    "split",
    "eval_every",
    "early_stopping",
    "log_to",
)


ModelOverrides = overrides_of(ModelConfig)
TrainOverrides = overrides_of(TrainConfig, UNPREFIXED_FIELDS)


DATA_HELP = (
    "stdlib (the default: Python's own library), a file, a folder, a glob, shakespeare, "
    "hf:DATASET[:CONFIG][,split=SPLIT][,rows=N]; several with weights, as A=0.7 B=0.3 or "
    "'mix:A=0.7;B=0.3'."
)
CLEAN_HELP = (
    "Any of: encoding (repairs cafÃ©, and bytes of Windows-1252), html (tags removed), control (control "
    "characters removed), nfc, nfkc (Unicode normalization), whitespace (ends of lines, blank lines)."
)


# --resume alone, or --resume auto.
Resume = Annotated[
    Literal["", "yes", "auto"],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[auto]",
        instance_from_str=lambda values: _read_resume(values),
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value] if value == "auto" else [],
    ),
    tyro.conf.arg(help_behavior_hint=""),
]


def _read_resume(values: list[str]) -> Literal["yes", "auto"]:
    if values in ([], ["auto"]):
        return "auto" if values else "yes"
    raise ValueError(f"{' '.join(values)!r} after --resume, expected auto or nothing")


@dataclass(frozen=True)
class Arguments:
    """Train a small transformer on text and account for every parameter in it."""

    preset: Annotated[str | None, option("NAME")] = None
    """Name of a preset, by default nano; `list` prints them with exact counts."""
    data: Annotated[str | None, option("SOURCE", help=DATA_HELP)] = None
    text_field: Annotated[str | None, option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    raw_text: tyro.conf.FlagCreatePairsOff[bool] = False
    r"""Read each file as one text as it is: no records, no <|endoftext|> between documents, \r\n kept."""
    tokenizer: Annotated[Literal["byte", "char", "bpe"] | None, option("{byte,char,bpe}")] = None
    """Default: the preset's, which is bpe."""
    vocab_size: Annotated[int | None, option("INT")] = None
    """Of a bpe tokenizer. Default: the preset's."""
    clean: Annotated[tuple[str, ...], option("NAME [NAME ...]", help=CLEAN_HELP)] = ()
    dedup: Annotated[Literal["exact", "near"] | None, option("{exact,near}")] = None
    """Leave out documents that are there before: the same text, or one of which 80% is the same."""
    run_dir: Annotated[str | None, option("DIR")] = None
    """Default: checkpoints/PRESET-DATA, with --init-from MODEL-DATA. An existing run is never overwritten."""
    resume: Resume = ""
    """Resume the run in --run-dir, bit for bit; auto: start it where there is none yet."""
    init_from: Annotated[str | None, option("MODEL")] = None
    """Start from the weights and the tokenizer of a run, or of a Hugging Face folder (fine-tuning)."""
    model: Annotated[Any, tyro.conf.arg(constructor=ModelOverrides)] = ModelOverrides()
    """Any field of ModelConfig; what is not given comes from the preset."""
    train: Annotated[Any, tyro.conf.arg(constructor=TrainOverrides)] = TrainOverrides()
    """Any field of TrainConfig; what is not given comes from the preset."""


def parse_options(command_line: Sequence[str], program: str) -> Arguments:
    """Raises what `parse_arguments` does, and InputError for a field under its old and its new name."""
    return parse_arguments(Arguments, with_current_names(command_line), program)


def continues(run_dir: Path, resume: str) -> bool:
    """Whether the run in the folder is to go on: it is asked for, or this torchrun has begun it."""
    config = run_dir / run_files.CONFIG
    return resume == "yes" or (bool(resume) and config.is_file()) or is_of_this_launch(config)


def beside_resume(options: Arguments) -> dict[str, Any]:
    """Options that --resume compares with those that the run began with; None where not given."""
    beside = {
        name: getattr(options, name)
        for name in ("preset", "tokenizer", "vocab_size", "text_field", "init_from", "dedup")
    }
    beside["cleaning"] = options.clean or None
    beside["raw_text"] = options.raw_text or None
    return beside | {f"model.{name}": value for name, value in set_fields(options.model).items()}


def with_current_names(arguments: Sequence[str]) -> list[str]:
    """The command line with fields under their current names, and a note on each old one.

    A field that is true or false may stand alone: it is true then.
    """
    current: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            _complete(current)
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--train.").replace("-", "_")
        if option.startswith("--train.") and name in RENAMED:
            new = f"--train.{RENAMED[name].replace('_', '-')}"
            if any(each.partition("=")[0].replace("_", "-") == new for each in arguments):
                raise InputError(option, f"given beside {new}", "one of the two names of a field")
            print(f"note: {option} is now {new}", file=sys.stderr)
            argument = f"{new}{equals}{_log_to(value) if name == 'tensorboard' else value}"
        elif current[-1:] == ["--train.log-to"]:
            argument = _log_to(argument)
        current.append(argument)
    _complete(current)
    return current


_SWITCHES = {
    f"--{group}.{field.name}"
    for group, cls in (("model", ModelConfig), ("train", TrainConfig))
    for field in fields(cls)
    if field.type == "bool"
}


def _complete(arguments: list[str]) -> None:
    if arguments and "--" + arguments[-1][2:].replace("-", "_") in _SWITCHES:
        arguments.append("true")


def _log_to(value: str) -> str:
    """The value of --train.log-to for one of its old name, true or false."""
    return {"true": LOG_TO[True], "false": LOG_TO[False]}.get(value.lower(), value)
