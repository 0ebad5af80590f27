"""`federate --data SOURCE --client SOURCE ...`: a model trained by clients that keep their texts."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from minilm.cli.config_options import set_fields
from minilm.cli.entry import (
    CHECK_FAILED,
    DONE,
    naming_options,
    option,
    parse_arguments,
    process_started,
    refuse_empty,
    run_command,
)
from minilm.cli.operation_options import Json, TextField
from minilm.cli.train_options import (
    UNPREFIXED_FIELDS,
    ModelOverrides,
    TrainOverrides,
    with_current_names,
)
from minilm.cli.train_results import conclude
from minilm.config import ModelConfig, TrainConfig
from minilm.errors import InputError
from minilm.runs.history import read_history
from minilm.training.messages import messages_on_stderr

if TYPE_CHECKING:
    from minilm.training.finish import Outcome

MEMORY_ADVICE = "fewer clients in one process, or --processes"


@dataclass(frozen=True)
class Arguments:
    """Train one model with the texts of several clients, which send weights and keep their texts."""

    checkpoint: Annotated[str | None, tyro.conf.Positional, option("CHECKPOINT")] = None
    """The model to start from, a run or what convert imports. Default: a new one of --preset."""
    data: Annotated[str | None, option("SOURCE")] = None
    """The server's own text: its validation split measures each round, the rest makes the tokenizer of a
    new model and, with --clients, is what they divide."""
    client: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, option("SOURCE")] = ()
    """The text of a client, all of which it trains on. Once for each client."""
    clients: Annotated[int | None, option("INT")] = None
    """How many clients divide --data; with --listen how many are waited for."""
    partition: Literal["random", "contiguous"] = "random"
    """How --clients divide a text: its documents at random, or consecutive parts, which are less alike."""
    rounds: int = 10
    """How often the clients' weights are averaged."""
    local_steps: int = 20
    """Steps of each client in a round."""
    weighting: Literal["tokens", "equal"] = "tokens"
    """Clients weigh in the average by the tokens of their text, as they say, or equally."""
    clip_norm: Annotated[float | None, option("FLOAT")] = None
    """Differential privacy, with --noise-multiplier: the largest norm of a client's update."""
    noise_multiplier: Annotated[float | None, option("FLOAT")] = None
    """The deviation of the noise on the average, times clients / clip norm."""
    round_timeout: Annotated[float | None, option("FLOAT")] = None
    """Seconds that a round waits for a client in another process. Default: until it answers or is gone."""
    processes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Each --client in a process of its own, over gRPC."""
    listen: Annotated[int | None, option("PORT")] = None
    """Wait at this port of 127.0.0.1 (0: a free one) for --clients that --join."""
    join: Annotated[str | None, option("HOST:PORT")] = None
    """Be a client of the server there, with one --client; CHECKPOINT is the model that an adapter is on."""
    lora_rank: Annotated[int | None, option("INT")] = None
    """Train a LoRA adapter of this rank on CHECKPOINT: only its weights travel."""
    lora_alpha: Annotated[float | None, option("FLOAT")] = None
    """The adapter's product is multiplied by alpha / rank. Default: twice the rank."""
    preset: Annotated[str | None, option("NAME")] = None
    """The preset of a new model, or of the batches for CHECKPOINT. Default: nano."""
    tokenizer: Annotated[Literal["byte", "char", "bpe"] | None, option("{byte,char,bpe}")] = None
    """Of a new model. Default: the preset's, which is bpe."""
    vocab_size: Annotated[int | None, option("INT")] = None
    """Of a bpe tokenizer. Default: the preset's."""
    text_field: TextField = None
    run_dir: Annotated[str | None, option("DIR")] = None
    """Default: checkpoints/PRESET-DATA, or MODEL-DATA. An existing run is never overwritten."""
    json: Json = False
    model: Annotated[Any, tyro.conf.arg(constructor=ModelOverrides)] = ModelOverrides()
    """Any field of ModelConfig; what is not given comes from the preset, or is CHECKPOINT's."""
    train: Annotated[Any, tyro.conf.arg(constructor=TrainOverrides)] = TrainOverrides()
    """Any field of TrainConfig but those that follow from the rounds."""


_OPTIONS = (
    *(f"--model.{field.name.replace('_', '-')}" for field in dataclasses.fields(ModelConfig)),
    *(f"--train.{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainConfig)),
    *(f"--{name.replace('_', '-')}" for name in UNPREFIXED_FIELDS),
    *(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Arguments)[1:]),
)


def main(arguments: Sequence[str] | None = None, program: str = "federate.py") -> int:
    """Parse, train or join, show. Exit status as of train; 2 where no client is left."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, with_current_names(command_line), program)
        with messages_on_stderr(), naming_options(*_OPTIONS, init_from="CHECKPOINT"):
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    from minilm.federation import flower

    refuse_empty(options, "--data", "--run-dir", "--text-field", "--preset", "--join")
    flower.check_installed()
    if options.join is not None:
        return _join(options, options.join)
    if options.data is None:
        raise InputError("--data", "missing", "the server's own text, to measure the rounds with")
    from minilm.federation.federate import federate

    outcome = federate(
        options.checkpoint,
        data=options.data,
        client=options.client,
        clients=options.clients,
        partition=options.partition,
        rounds=options.rounds,
        local_steps=options.local_steps,
        weighting=options.weighting,
        clip_norm=options.clip_norm,
        noise_multiplier=options.noise_multiplier,
        round_timeout=options.round_timeout,
        processes=options.processes,
        listen=options.listen,
        preset=options.preset or "nano",
        run_dir=options.run_dir,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        text_field=options.text_field,
        lora_rank=options.lora_rank,
        lora_alpha=options.lora_alpha,
        model=set_fields(options.model),
        settings=set_fields(options.train),
        started=process_started(),
    )
    signum = outcome.stopped_because.signum
    if signum is not None:
        text = f"stopped and saved: `minilm federate {outcome.run_dir}` goes on from its weights"
        print(text, file=sys.stderr)
        return 128 + signum
    if options.json and outcome.report is not None:
        return _print_json(outcome)
    return conclude(outcome)


# What travels is not encrypted: to another machine through a tunnel that is.
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})", re.ASCII)


def _join(options: Arguments, address: str) -> int:
    match = _LOOPBACK.fullmatch(address)
    if match is None or not 0 < int(match[1]) < 2**16:
        expected = "a port of this machine, as 127.0.0.1:8765"
        raise InputError("--join", address, expected, "to another machine: ssh -L")
    if len(options.client) != 1:
        got = f"{len(options.client)} of them beside --join"
        raise InputError("--client", got, "the text of this client")
    device = set_fields(options.train).get("device", "auto")
    allowed = {"checkpoint", "client", "join", "text_field", "model", "train"}
    other = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(options)
        if field.name not in allowed and getattr(options, field.name) != field.default
    ]
    others = {name for name in set_fields(options.train) if name != "device"}
    other += [f"--train.{name.replace('_', '-')}" for name in sorted(others)]
    other += [f"--model.{name.replace('_', '-')}" for name in set_fields(options.model)]
    if other:
        raise InputError("--join", f"given with {', '.join(other)}", "what the server decides")
    from minilm.data.cache import default_cache
    from minilm.federation.client import join
    from minilm.training.data_source import DataSource
    from minilm.training.signals import StopRequest

    source = DataSource(options.client[0], (), default_cache(), options.text_field)
    base = None if options.checkpoint is None else Path(options.checkpoint)
    join(address, source, base=base, device=device, stop=StopRequest())
    return DONE


def _print_json(outcome: Outcome) -> int:
    """The run's summary, and what each round logged."""
    rounds: dict[int, dict[str, Any]] = {}
    for line in read_history(outcome.run_dir).metrics:
        rounds.setdefault(line["step"], {}).update(line)
    result = {
        "run_dir": str(outcome.run_dir),
        "summary": outcome.summary,
        "rounds": list(rounds.values()),
    }
    print(json.dumps(result, indent=2, allow_nan=False))
    return DONE if outcome.report is not None and outcome.report.verified else CHECK_FAILED
