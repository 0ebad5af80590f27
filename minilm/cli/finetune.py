"""`finetune CHECKPOINT --data SOURCE`: a model trained further, or an adapter on it; or --merge."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from minilm.cli.config_options import overrides_of, set_fields
from minilm.cli.entry import (
    DONE,
    naming_options,
    option,
    option_names,
    parse_arguments,
    process_started,
    refuse_empty,
    run_command,
)
from minilm.cli.operation_options import show_comparison
from minilm.cli.train_options import (
    CLEAN_HELP,
    DATA_HELP,
    UNPREFIXED_FIELDS,
    Resume,
    TrainOverrides,
    continues,
    with_current_names,
)
from minilm.cli.train_results import conclude, show_finished
from minilm.config import ModelConfig, TrainConfig
from minilm.config.lora import DEFAULT_TARGETS, lora_config
from minilm.errors import ConfigError, InputError
from minilm.ledger.layout_changes import ADAPTER_TARGETS, FREEZABLE
from minilm.runs import files as run_files
from minilm.training.messages import messages_on_stderr

if TYPE_CHECKING:
    from minilm.config.lora import LoraConfig

MEMORY_ADVICE = (
    "lower --train.batch-size (and raise --train.gradient-accumulation as much, for the same step, with "
    "--tune off, which merges nothing), set "
    "--train.activation-checkpointing true, or train an adapter with --lora-rank"
)
DISK_ADVICE = "free some space, then --resume continues a run that has begun"
# The fields of ModelConfig that change no tensor, and so may differ from the base's.
BASE_FIELDS = (
    *("dropout", "context_length", "sliding_window", "rope_theta", "rope_scaling", "rope_factor"),
    *("rope_low_factor", "rope_high_factor", "rope_original_context"),
)
BaseOverrides = overrides_of(ModelConfig, only=BASE_FIELDS, default="the base's")
_TARGETS_HELP = (
    f"The matrices that get one, of {', '.join(ADAPTER_TARGETS)}. Default: "
    f"{','.join(DEFAULT_TARGETS)}."
)
_FREEZE_HELP = (
    f"Components that stay as they are, without --lora-rank: any of {', '.join(FREEZABLE)}."
)


@dataclass(frozen=True)
class Arguments:
    """Train a model further on another text: all of it, a part of it, or a LoRA adapter on it."""

    checkpoint: Annotated[tuple[str, ...], tyro.conf.Positional, option("CHECKPOINT")] = ()
    """A run, or what convert imports; with --merge, a run that is an adapter, or several of one base."""
    data: Annotated[str | None, option("SOURCE", help=DATA_HELP.replace("the default: ", ""))] = (
        None
    )
    text_field: Annotated[str | None, option("FIELD")] = None
    """Where the text is in JSON, CSV, Parquet and datasets. Default: text, or the only field of text."""
    raw_text: tyro.conf.FlagCreatePairsOff[bool] = False
    r"""Read each file as one text as it is: no records, no <|endoftext|> between documents, \r\n kept."""
    chat_template: Annotated[str | None, option("FILE|plain")] = None
    """How conversations are written, in Jinja. Default: as the base has it, or plain where it has none."""
    clean: Annotated[tuple[str, ...], option("NAME [NAME ...]", help=CLEAN_HELP)] = ()
    run_dir: Annotated[str | None, option("DIR")] = None
    """Default: checkpoints/BASE-DATA. An existing run is never overwritten."""
    resume: Resume = ""
    """Resume the run in --run-dir, bit for bit; auto: start it where there is none yet."""
    lora_rank: Annotated[int | None, option("INT")] = None
    """Train a LoRA adapter of this rank; the model itself stays as it is."""
    lora_alpha: Annotated[float | None, option("FLOAT")] = None
    """The adapter's product is multiplied by alpha / rank. Default: twice the rank."""
    lora_dropout: Annotated[float | None, option("FLOAT")] = None
    """Dropout of what goes into the adapter. Default: 0."""
    targets: Annotated[str | None, option("NAMES", help=_TARGETS_HELP)] = None
    rank_stabilised: tyro.conf.FlagCreatePairsOff[bool] = False
    """Multiply by alpha / sqrt(rank) instead."""
    dora: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train the length of each row of the adapted matrices, too (DoRA)."""
    quantize_base: Annotated[Literal["int8", "int4", "nf4"] | None, option("{int8,int4,nf4}")] = (
        None
    )
    """With --lora-rank: the format of the model's matrices while the adapter is trained (QLoRA)."""
    double_quantization: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --quantize-base nf4: its scales are rounded to 8 bits, too."""
    freeze: Annotated[tuple[str, ...], option("NAME [NAME ...]", help=_FREEZE_HELP)] = ()
    merge: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fold the adapter of the run CHECKPOINT, or the sum of several, into its base, which --out becomes."""
    out: Annotated[str | None, option("DIR")] = None
    """With --merge: the new run; what exists is never overwritten."""
    json: bool = False
    """With --merge: print a JSON object instead of the table."""
    preset: Annotated[str | None, option("NAME")] = None
    """Says how long it is trained and in which batches; by default nano."""
    model: Annotated[Any, tyro.conf.arg(constructor=BaseOverrides)] = BaseOverrides()
    """Fields of ModelConfig that change no tensor; all others are the base's."""
    train: Annotated[Any, tyro.conf.arg(constructor=TrainOverrides)] = TrainOverrides()
    """Any field of TrainConfig; what is not given comes from the base or the preset."""

    def lora(self) -> LoraConfig | None:
        """The adapter that is asked for. Raises ConfigError."""
        return lora_config(
            self.lora_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            targets=self.target_names(),
            rank_stabilised=self.rank_stabilised,
            dora=self.dora,
        )

    def target_names(self) -> tuple[str, ...] | None:
        """The names in --targets, None where that is not given."""
        if self.targets is None:
            return None
        return tuple(name.strip() for name in self.targets.split(",") if name.strip())


# Every option by its name on the command line: an error names it so.
_OPTIONS = (
    *(f"--model.{name.replace('_', '-')}" for name in BASE_FIELDS),
    *(f"--train.{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainConfig)),
    *(f"--{name.replace('_', '-')}" for name in UNPREFIXED_FIELDS),
    *(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Arguments)[1:]),
)


def main(arguments: Sequence[str] | None = None, program: str = "finetune.py") -> int:
    """Parse, train or merge, show. Exit status as of train."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        current = with_current_names(command_line)
        _refuse_fields_of_base(current)
        _refuse_runs_apart(current)
        options = parse_arguments(Arguments, current, program)
        with (
            messages_on_stderr(),
            naming_options(*_OPTIONS, init_from="CHECKPOINT", cleaning="--clean"),
        ):
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE, when_full=DISK_ADVICE)


def _run(options: Arguments) -> int:
    refuse_empty(
        options, "--data", "--run-dir", "--out", "--text-field", "--preset", "--chat-template"
    )
    if "" in options.checkpoint:
        raise InputError("CHECKPOINT", "an empty name", "a folder")
    if options.merge:
        return _merge(options)
    if len(options.checkpoint) > 1:
        got = f"{' and '.join(options.checkpoint)}, without --merge"
        raise InputError("CHECKPOINT", got, "one of them")
    for name in ("out", "json"):
        if getattr(options, name):
            raise InputError(f"--{name}", "given without --merge", "--run-dir for a new run")
    if options.resume and options.run_dir is None:
        raise InputError("--run-dir", "missing beside --resume", "the run to resume")
    if options.run_dir is not None and continues(Path(options.run_dir), options.resume):
        return _resume(options, options.run_dir)
    _refuse_missing(options, "--data", "CHECKPOINT --data SOURCE")
    options.lora()  # wrong options, before any work
    from minilm.training.train import finetune  # torch: after what needs none

    outcome = finetune(
        options.checkpoint[0],
        data=str(options.data),
        run_dir=options.run_dir,
        lora_rank=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        targets=options.target_names(),
        rank_stabilised=options.rank_stabilised,
        dora=options.dora,
        freeze=options.freeze,
        quantize_base=options.quantize_base,
        double_quantization=options.double_quantization,
        preset=options.preset or "nano",
        cleaning=options.clean,
        text_field=options.text_field,
        raw_text=options.raw_text,
        chat_template=options.chat_template,
        model=set_fields(options.model),
        settings=set_fields(options.train),
        started=process_started(),
    )
    return conclude(outcome)


def _refuse_missing(options: Arguments, other: str, usage: str, beside: str = "") -> None:
    """Raises InputError where CHECKPOINT or the option ``other`` is not given."""
    given = {
        "CHECKPOINT": options.checkpoint or None,
        other: getattr(options, other.removeprefix("--")),
    }
    if missing := [name for name, value in given.items() if value is None]:
        raise InputError(" and ".join(missing), f"missing{beside}", f"finetune {usage}")


def _refuse_fields_of_base(command_line: Sequence[str]) -> None:
    """Raises InputError for a field of ModelConfig that a base has already."""
    for argument in command_line:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--model.") and name not in _OPTIONS:
            fields = ", ".join(each for each in _OPTIONS if each.startswith("--model."))
            raise InputError(name, "not to be chosen: the base has it", f"any of {fields}")


def _refuse_runs_apart(command_line: Sequence[str]) -> None:
    """Raises InputError for runs to merge on both sides of --merge, of which the parser takes one side."""
    before = list(itertools.takewhile(_is_positional, command_line))
    if "--merge" in command_line:
        rest = command_line[command_line.index("--merge") + 1 :]
        after = list(itertools.takewhile(_is_positional, rest))
        if before and after:
            usage = f"finetune --merge {shlex.join([*before, *after])} --out DIR"
            got = f"{' '.join(before)} before it, {' '.join(after)} after it"
            raise InputError("--merge", got, "all runs after it", usage)


def _is_positional(argument: str) -> bool:
    return not argument.startswith("-")


def _resume(options: Arguments, run_dir: str) -> int:
    """Options that the run began with may be repeated."""
    from minilm.training.finish import finished_run
    from minilm.training.resume_options import changed_settings, is_finished

    beside: dict[str, Any] = {
        "preset": options.preset,
        "text_field": options.text_field,
        "cleaning": list(options.clean) or None,
        "raw_text": options.raw_text or None,
        "chat_template": options.chat_template,
        "init_from": os.path.abspath(options.checkpoint[0]) if options.checkpoint else None,
        "freeze": list(options.freeze) or None,
        "lora_rank": options.lora_rank,
        "lora_alpha": options.lora_alpha,
        "lora_dropout": options.lora_dropout,
        "targets": options.target_names(),
        "rank_stabilised": options.rank_stabilised or None,
        "dora": options.dora or None,
        "quantize_base": options.quantize_base,
        "double_quantization": options.double_quantization or None,
    }
    beside |= {f"model.{name}": value for name, value in set_fields(options.model).items()}
    settings = set_fields(options.train)
    if (Path(run_dir) / run_files.CONFIG).is_file():
        changed = changed_settings(Path(run_dir), beside, settings)
        if is_finished(Path(run_dir), options.data, changed):
            show_finished(finished_run(Path(run_dir)))
            return DONE
    from minilm.training.train import resume

    return conclude(
        resume(
            run_dir,
            data=options.data,
            options=beside,
            settings=settings,
            started=process_started(),
        )
    )


def _merge(options: Arguments) -> int:
    _refuse_missing(options, "--out", "RUN --merge --out DIR", " beside --merge")
    other = [
        field.name
        for field in dataclasses.fields(options)
        if field.name not in ("checkpoint", "merge", "out", "json", "data", "text_field")
        and field.name not in ("model", "train")
        and getattr(options, field.name) != field.default
    ]
    other += [f"model.{name}" for name in set_fields(options.model)]
    other += [name for name in set_fields(options.train) if name != "device"]
    if other:
        names = option_names(_OPTIONS)
        got = f"given with {', '.join(names[name] for name in other)}"
        raise ConfigError("merge", got, "no options of training", "RUN --merge --out DIR")
    from minilm.operations.merge import merge

    merged = merge(
        options.checkpoint,
        str(options.out),
        data=options.data,
        text_field=options.text_field,
        device=set_fields(options.train).get("device", "auto"),
    )
    if options.json:
        result = {"out": str(merged.out), "dtype": merged.dtype, **merged.comparison.to_dict()}
        print(json.dumps(result, indent=2))
        return DONE
    show_comparison(merged.comparison, [f"{merged.out}: a run, in {merged.dtype}"])
    return DONE
