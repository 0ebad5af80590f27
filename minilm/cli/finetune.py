"""`finetune CHECKPOINT --data SOURCE`: a model trained further, or an adapter on it; or --merge."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from minilm.cli.config_options import set_fields
from minilm.cli.entry import (
    DONE,
    parse_arguments,
    process_started,
    refuse_empty,
    run_command,
)
from minilm.cli.train_options import (
    CLEAN_HELP,
    DATA_HELP,
    ModelOverrides,
    Resume,
    TrainOverrides,
    option,
    with_current_names,
)
from minilm.cli.train_results import conclude, show_finished
from minilm.config.lora import DEFAULT_TARGETS, lora_config
from minilm.config.validation import to_dict
from minilm.errors import InputError
from minilm.ledger.layout_changes import ADAPTER_TARGETS, FREEZABLE
from minilm.runs import files as run_files
from minilm.training.messages import messages_on_stderr

if TYPE_CHECKING:
    from minilm.config.lora import LoraConfig
    from minilm.operations.merge import Merged

MEMORY_ADVICE = (
    "lower --train.batch-size (and raise --train.gradient-accumulation as much, for the same step), set "
    "--train.activation-checkpointing true, or train an adapter with --lora-rank"
)
DISK_ADVICE = "free some space, then --resume continues a run that has begun"
_TARGETS_HELP = f"The matrices that get one, of {', '.join(ADAPTER_TARGETS)}."
_FREEZE_HELP = (
    f"Components that stay as they are, without --lora-rank: any of {', '.join(FREEZABLE)}."
)


@dataclass(frozen=True)
class Arguments:
    """Train a model further on another text: all of it, a part of it, or a LoRA adapter on it."""

    checkpoint: Annotated[str | None, tyro.conf.Positional, option("CHECKPOINT")] = None
    """A run, or what convert imports; with --merge, a run that is an adapter."""
    data: Annotated[
        str | None, option("SOURCE", help=DATA_HELP.replace(" (the default:", " ("))
    ] = None
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
    lora_dropout: float = 0.0
    """Dropout of what goes into the adapter."""
    targets: Annotated[str, tyro.conf.arg(metavar="NAMES", help=_TARGETS_HELP)] = ",".join(
        DEFAULT_TARGETS
    )
    rank_stabilised: tyro.conf.FlagCreatePairsOff[bool] = False
    """Multiply by alpha / sqrt(rank) instead."""
    quantize_base: Annotated[Literal["int8", "int4", "nf4"] | None, option("{int8,int4,nf4}")] = (
        None
    )
    """With --lora-rank: the format of the model's matrices while the adapter is trained (QLoRA)."""
    freeze: Annotated[tuple[str, ...], option("NAME [NAME ...]", help=_FREEZE_HELP)] = ()
    merge: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fold the adapter of the run CHECKPOINT into its base, and write that to --out."""
    out: Annotated[str | None, option("DIR")] = None
    """With --merge: the new run; what exists is never overwritten."""
    json: bool = False
    """With --merge: print a JSON object instead of the table."""
    preset: Annotated[str | None, option("NAME")] = None
    """Says how long it is trained and in which batches; by default nano."""
    model: Annotated[Any, tyro.conf.arg(constructor=ModelOverrides)] = ModelOverrides()
    """Fields of ModelConfig that change no tensor, as dropout; the others are those of the base."""
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
        )

    def target_names(self) -> tuple[str, ...]:
        """The names in --targets."""
        return tuple(name.strip() for name in self.targets.split(",") if name.strip())


def main(arguments: Sequence[str] | None = None, program: str = "finetune.py") -> int:
    """Parse, train or merge, show. Exit status as of train."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, with_current_names(command_line), program)
        with messages_on_stderr():
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE, when_full=DISK_ADVICE)


def _run(options: Arguments) -> int:
    refuse_empty(
        options, "--data", "--run-dir", "--out", "--text-field", "--preset", "--chat-template"
    )
    if options.checkpoint == "":
        raise InputError("CHECKPOINT", "an empty name", "a folder")
    if options.merge:
        return _merge(options)
    for name in ("out", "json"):
        if getattr(options, name):
            raise InputError(f"--{name}", "given without --merge", "--run-dir for a new run")
    options.lora()  # wrong options, before any work
    if options.resume:
        if options.run_dir is None:
            raise InputError("--run-dir", "missing beside --resume", "the run to resume")
        if options.resume == "yes" or (Path(options.run_dir) / run_files.CONFIG).is_file():
            return _resume(options, options.run_dir)
    for name, value in (("CHECKPOINT", options.checkpoint), ("--data", options.data)):
        if value is None:
            raise InputError(name, "missing", "a model and a text to train it on")
    from minilm.training.train import finetune  # torch: after what needs none

    outcome = finetune(
        str(options.checkpoint),
        data=str(options.data),
        run_dir=options.run_dir,
        lora_rank=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        targets=options.target_names(),
        rank_stabilised=options.rank_stabilised,
        freeze=options.freeze,
        quantize_base=options.quantize_base,
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


def _resume(options: Arguments, run_dir: str) -> int:
    """Options that the run began with may be repeated."""
    from minilm.training.finish import finished_run
    from minilm.training.resume_options import changed_settings, is_finished

    lora = options.lora()
    beside: dict[str, Any] = {
        "preset": options.preset,
        "text_field": options.text_field,
        "cleaning": list(options.clean) or None,
        "raw_text": options.raw_text or None,
        "chat_template": options.chat_template,
        "init_from": os.path.abspath(options.checkpoint) if options.checkpoint else None,
        "freeze": list(options.freeze) or None,
        "lora": to_dict(lora) if lora else None,
        "quantize_base": options.quantize_base,
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
    for name, value in (("CHECKPOINT", options.checkpoint), ("--out", options.out)):
        if value is None:
            raise InputError(name, "missing beside --merge", "an adapter, and the new run")
    of_training = (
        options.freeze,
        options.run_dir,
        options.resume,
        options.quantize_base,
        options.clean,
        options.chat_template,
    )
    others = [name for name in set_fields(options.train) if name != "device"]
    if options.lora() or any(of_training) or options.preset or others or set_fields(options.model):
        raise InputError("--merge", "given with options of training", "RUN --merge --out DIR")
    from minilm.operations.merge import merge

    merged = merge(
        str(options.checkpoint),
        str(options.out),
        data=options.data,
        text_field=options.text_field,
        device=set_fields(options.train).get("device", "auto"),
    )
    if options.json:
        result = {"out": str(merged.out), "dtype": merged.dtype, **merged.comparison.to_dict()}
        print(json.dumps(result, indent=2))
        return DONE
    _show(merged)
    return DONE


def _show(merged: Merged) -> None:
    from minilm.cli.console import ResultConsole
    from minilm.render.grid import table_lines, wrapped

    console = ResultConsole()
    for line in table_lines(merged.comparison.table(), console.width):
        console.print(line)
    for note in (merged.comparison.note(), f"{merged.out}: a run, in {merged.dtype}"):
        for text in wrapped(note, console.width):
            console.print(text, markup=False)
