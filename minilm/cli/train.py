"""`train`: train a model, then show a sample, what the curves say, and every parameter.

Each field of ModelConfig and TrainConfig is an option, --model.FIELD and --train.FIELD, made from the
dataclasses themselves; the commonest training fields also stand alone.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from minilm.cli.entry import (
    CHECK_FAILED,
    DONE,
    parse_arguments,
    process_started,
    refuse_empty,
    run_command,
)
from minilm.config import ModelConfig, TrainConfig
from minilm.config.presets import PRESETS
from minilm.config.validation import LOG_TO, RENAMED
from minilm.errors import InputError
from minilm.runs import files as run_files
from minilm.runs.stop_reason import StopReason
from minilm.training.messages import messages_on_stderr
from minilm.units import format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from minilm.training.finish import Outcome

PRESET, DATA = "nano", "stdlib"  # where they are not given
SAMPLE_TOKENS = 160  # of the one that is printed at the end
MEMORY_ADVICE = (
    "lower --train.batch-size (and raise --train.gradient-accumulation as much, for the same step), set "
    "--train.activation-checkpointing true, or choose a smaller --preset or --model.context-length"
)
RESUMED_MEMORY_ADVICE = (
    "resume with more free memory; a new run may have a lower --train.batch-size"
)
DISK_ADVICE = "free some space, then --resume continues a run that has begun"


# TrainConfig's fields that are options of their own, without the prefix, as well.
UNPREFIXED_FIELDS = (
    "max_steps",
    "max_seconds",
    "target_val_loss",
    "device",
    "dtype",
    "compile",
    "seed",
    "val_fraction",
    "split",
    "eval_every",
    "early_stopping",
    "log_to",
)


# true and false in any case: tyro alone takes only Python's spelling.
_Switch = Annotated[
    bool | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{true,false}",
        instance_from_str=lambda values: _read_switch(values[0]),
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
    ),
]


def _read_switch(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(f"{word!r} is neither true nor false")
    return word.lower() == "true"


# --resume alone, or --resume auto.
_Resume = Annotated[
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


def _overrides(cls: type[ModelConfig] | type[TrainConfig], alone: Sequence[str] = ()) -> Any:
    """A dataclass of the same fields with the same help, each None until it is given."""
    hints, helps = get_type_hints(cls), _field_help(cls)
    configs = {
        name: preset.model_config() if cls is ModelConfig else preset.train_config()
        for name, preset in PRESETS.items()
    }
    fields = []
    for each in dataclasses.fields(cls):
        aliases = (f"--{each.name.replace('_', '-')}",) if each.name in alone else None
        option = tyro.conf.arg(
            help=helps[each.name],
            help_behavior_hint=_defaults(
                {name: getattr(config, each.name) for name, config in configs.items()}
            ),
            metavar=_metavar(hints[each.name]),
            aliases=aliases,
        )
        hint: Any = _Switch if hints[each.name] is bool else hints[each.name] | None
        hint = Annotated[hint, option]
        fields.append((each.name, hint, field(default=None)))
    overrides = dataclasses.make_dataclass(f"{cls.__name__}Overrides", fields, frozen=True)
    overrides.__doc__ = f"Any field of {cls.__name__}; what is not given comes from the preset."
    return overrides


def _defaults(values: Mapping[str, Any]) -> str:
    """A field's value: (default: 0), or in each preset: (by preset: nano* 128, small 256)."""
    texts = {name: _value_text(value) for name, value in values.items()}
    families: dict[str, dict[str, str]] = {}
    for name, text in texts.items():
        families.setdefault(name.partition("-")[0], {})[name] = text
    parts = []
    for family, members in families.items():
        if len(members) > 1 and len(set(members.values())) == 1:
            parts.append(f"{family}* {next(iter(members.values()))}")
        else:
            parts += [f"{name} {text}" for name, text in members.items()]
    if len(set(texts.values())) == 1:
        text = next(iter(texts.values()))
        return f"(default: {text})" if text else ""
    return f"(by preset: {', '.join(parts)})"


def _value_text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _field_help(cls: type) -> dict[str, str]:
    """The docstring below each field, from the class's source."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        entry.target.id: " ".join(str(below.value.value).split())
        for entry, below in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(entry, ast.AnnAssign)
        and isinstance(entry.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "{" + ",".join(get_args(hint)) + "}"
    if hint is bool:
        return "{true,false}"
    return {int: "INT", str: "NAMES"}.get(hint, "FLOAT")


ModelOverrides = _overrides(ModelConfig)
TrainOverrides = _overrides(TrainConfig, UNPREFIXED_FIELDS)


def _option(metavar: str, **how: Any) -> Any:
    """An option whose help says itself what happens where it is not given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="", **how)


_DATA_HELP = (
    "stdlib (the default: Python's own library), a file, a folder, a glob, shakespeare, or "
    "hf:DATASET[:CONFIG][,split=SPLIT][,rows=N]."
)
_CLEAN_HELP = (
    "Any of: encoding (repairs cafÃ©, and bytes of Windows-1252), html (tags removed), control (control "
    "characters removed), nfc, nfkc (Unicode normalization), whitespace (ends of lines, blank lines)."
)


@dataclass(frozen=True)
class Arguments:
    """Train a small transformer on text and account for every parameter in it."""

    preset: Annotated[str | None, _option("NAME")] = None
    """Name of a preset, by default nano; `list` prints them with exact counts."""
    data: Annotated[str | None, _option("SOURCE", help=_DATA_HELP)] = None
    text_field: Annotated[str | None, _option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    raw_text: tyro.conf.FlagCreatePairsOff[bool] = False
    r"""Read each file as one text as it is: no records, no <|endoftext|> between documents, \r\n kept."""
    tokenizer: Annotated[Literal["byte", "char", "bpe"] | None, _option("{byte,char,bpe}")] = None
    """Default: the preset's, which is bpe."""
    vocab_size: Annotated[int | None, _option("INT")] = None
    """Of a bpe tokenizer. Default: the preset's."""
    clean: Annotated[tuple[str, ...], _option("NAME [NAME ...]", help=_CLEAN_HELP)] = ()
    run_dir: Annotated[str | None, _option("DIR")] = None
    """Default: checkpoints/PRESET-DATA. An existing run is never overwritten."""
    resume: _Resume = ""
    """Resume the run in --run-dir, bit for bit; auto: start it where there is none yet."""
    init_from: Annotated[str | None, _option("RUN")] = None
    """Start from the weights and the tokenizer of this run (fine-tuning)."""
    model: Annotated[Any, tyro.conf.arg(constructor=ModelOverrides)] = ModelOverrides()
    """Any field of ModelConfig; what is not given comes from the preset."""
    train: Annotated[Any, tyro.conf.arg(constructor=TrainOverrides)] = TrainOverrides()
    """Any field of TrainConfig; what is not given comes from the preset."""


def main(arguments: Sequence[str] | None = None, program: str = "train.py") -> int:
    """Parse, train, show. Exit status: 0 done, 1 diverged, 2 bad input, 130/143 stopped and saved."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, _with_current_names(command_line), program)
        with messages_on_stderr():
            return _run(options)

    resumes = any(argument.partition("=")[0] == "--resume" for argument in command_line)
    return run_command(
        command,
        memory_advice=RESUMED_MEMORY_ADVICE if resumes else MEMORY_ADVICE,
        when_full=DISK_ADVICE,
    )


def _run(options: Arguments) -> int:
    if options.preset == "list":
        return _list_presets()
    refuse_empty(options, "--preset", "--data", "--run-dir", "--init-from", "--text-field")
    settings = _set_fields(options.train)
    run_dir = options.run_dir
    resumes = options.resume == "yes"
    if options.resume:
        run_dir = run_dir or _default_run_dir(options)
        resumes = resumes or (Path(run_dir) / run_files.CONFIG).is_file()
    if resumes:
        finished = _finished(Path(str(run_dir)), options, settings)
        if finished is not None:
            return _show_finished(finished)
    from minilm.training.train import resume, train  # torch: after what needs none

    if resumes:
        outcome = resume(
            str(run_dir),
            data=options.data,
            options=_beside_resume(options),
            settings=settings,
            started=process_started(),
        )
    else:
        outcome = train(
            options.preset or PRESET,
            data=options.data or DATA,
            run_dir=run_dir,
            tokenizer=options.tokenizer,
            vocab_size=options.vocab_size,
            cleaning=options.clean,
            text_field=options.text_field,
            raw_text=options.raw_text,
            init_from=options.init_from,
            model=_set_fields(options.model),
            settings=settings,
            started=process_started(),
        )
    reason = outcome.stopped_because
    if reason.signum is not None:
        print(f"stopped and saved: --resume --run-dir {outcome.run_dir} continues", file=sys.stderr)
        return 128 + reason.signum
    if reason is StopReason.NON_FINITE_LOSS:
        print(
            f"error: {outcome.run_dir}: the loss is not finite after step "
            f"{outcome.summary['steps']}, expected a number; the weights last saved are kept: start a "
            "new run with a lower --train.learning-rate or a longer --train.warmup-steps, from "
            "scratch or with --init-from this run",
            file=sys.stderr,
        )
        return CHECK_FAILED
    from minilm.cli.console import ResultConsole

    return DONE if show(outcome, ResultConsole()) else CHECK_FAILED


def _with_current_names(arguments: Sequence[str]) -> list[str]:
    """The command line with fields under their current names, and a note on each old one."""
    current: list[str] = []
    for argument in arguments:
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
    return current


def _log_to(value: str) -> str:
    """The value of --train.log-to for one of its old name, true or false."""
    return {"true": LOG_TO[True], "false": LOG_TO[False]}.get(value.lower(), value)


def _set_fields(overrides: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(overrides).items() if value is not None}


def _beside_resume(options: Arguments) -> dict[str, Any]:
    """Options that --resume compares with those that the run began with; None where not given."""
    beside = {
        name: getattr(options, name) for name in ("preset", "tokenizer", "vocab_size", "text_field")
    }
    beside["cleaning"] = list(options.clean) or None
    beside["raw_text"] = options.raw_text or None
    beside["init_from"] = os.path.abspath(options.init_from) if options.init_from else None
    return beside | {f"model.{name}": value for name, value in _set_fields(options.model).items()}


def _finished(run_dir: Path, options: Arguments, settings: dict[str, Any]) -> Outcome | None:
    """The outcome of a run that is at its end, found without torch; None for any other."""
    from minilm.training.finish import finished_run
    from minilm.training.resume_options import changed_settings, is_finished

    if not (run_dir / run_files.CONFIG).is_file():
        return None
    changed = changed_settings(run_dir, _beside_resume(options), settings)
    return finished_run(run_dir) if is_finished(run_dir, options.data, changed) else None


def _default_run_dir(options: Arguments) -> str:
    from minilm.data.cache import default_cache
    from minilm.text.corpora import open_corpus

    corpus = open_corpus(options.data or DATA, cleaning=(), cache=default_cache())
    base = options.preset or PRESET
    if options.init_from:
        base = Path(options.init_from).name
    return f"checkpoints/{base}-{corpus.name}"


def _show_finished(outcome: Outcome) -> int:
    """Print the report again, without torch; the run itself is left as it is."""
    from minilm.cli.console import ResultConsole
    from minilm.render.terminal import print_report

    assert outcome.report is not None, "of a run that reached its end"
    print(f"{outcome.run_dir} is finished: {outcome.stopped_because}", file=sys.stderr)
    print_report(outcome.report, ResultConsole())
    return DONE


def show(outcome: Outcome, console: Console) -> bool:
    """Print a sample, the curves and what they say, and every parameter; whether it is verified."""
    from minilm.checkpoint import load
    from minilm.render.terminal import curve, print_report
    from minilm.runs.history import read_history
    from minilm.safe_text import running_text
    from minilm.training.evaluation import sample

    run_dir, summary, report = outcome.run_dir, outcome.summary, outcome.report
    assert report is not None, "of a run that was not interrupted"
    history = read_history(run_dir)
    console.rule("a sample")
    console.print(running_text(sample(*load(run_dir), SAMPLE_TOKENS)), markup=False)
    console.rule("the run")
    console.print(
        f"{summary['steps']} steps, {summary['tokens']:,} tokens in "
        f"{format_seconds(summary['seconds'])}, {summary['tokens_per_second']:,.0f} tokens/s; "
        f"best validation loss {summary['best_val_loss']:.4f}, "
        f"{summary['best_val_bits_per_byte']:.3f} bits a byte, over {summary['best_val_tokens']:,} tokens "
        f"in {summary['val_dtype']}; "
        f"stopped by {summary['stopped_because']}"
    )
    for name, label in (("train_loss", "training loss  "), ("val_loss", "validation loss")):
        losses = [line[name] for line in history.metrics if name in line]
        if len(losses) > 1:
            console.print(f"{label} {curve(losses)}")
    for finding in history.findings:
        console.print(finding)
    console.rule("every parameter")
    print_report(report, console)
    console.print()
    console.print(
        f"run folder: {run_dir}, and all of this as {run_dir / run_files.REPORT}", markup=False
    )
    return report.verified


def _list_presets() -> int:
    """Each preset with its exact count, its shape and how it is trained."""
    from minilm.architectures.minilm import layout

    for name, preset in PRESETS.items():
        model, train = preset.model_config(), preset.train_config()
        rates = f"AdamW {train.learning_rate:g}"
        if train.optimizer == "muon":
            rates = f"Muon {train.muon_learning_rate:g}, {rates}"
        sequences = train.batch_size * train.gradient_accumulation
        print(f"{name:<12} {layout(model).count():>14,}  {preset.summary}")
        print(
            f"{'':14}{model.num_layers} layers, width {model.d_model:,}, {model.num_heads} heads, "
            f"{preset.tokenizer} vocabulary {model.vocab_size:,}"
        )
        print(
            f"{'':14}{rates}; {train.max_steps:,} steps of {sequences} x "
            f"{model.context_length:,} tokens"
        )
    return DONE
