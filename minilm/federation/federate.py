"""federate(): one model trained by clients that keep their texts, and an ordinary run of it."""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minilm.config.lora import LoraConfig, lora_config
from minilm.data.cache import default_cache
from minilm.data.conversations import Conversations
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError, CorpusError
from minilm.federation import flower
from minilm.federation.client import Setup, client_dataset
from minilm.federation.local_training import LocalTraining, trained_parameters
from minilm.federation.partition import Partition, divide
from minilm.federation.server import (
    Averaging,
    FederatedStep,
    NoClientError,
    Privacy,
    Rounds,
    Weighting,
)
from minilm.federation.transport import in_process, over_grpc
from minilm.runs.stop_reason import StopReason
from minilm.training.data_source import DataSource
from minilm.training.finetune import run_from_checkpoint
from minilm.training.finish import Outcome, finish
from minilm.training.messages import messages_shown
from minilm.training.run_spec import RunSpec
from minilm.training.setup import new_run
from minilm.training.signals import StopRequest, stop_request
from minilm.training.train import start
from minilm.training.trainer import Trainer
from minilm.transforms.quantize import parameter_count
from minilm.units import counted, format_bytes

logger = logging.getLogger(__name__)

# Fields of TrainConfig that follow from the rounds.
OF_ROUNDS = ("max_steps", "eval_every", "log_every")


def federate(
    checkpoint: str | Path | None = None,
    *,
    data: str,
    client: Sequence[str] = (),
    clients: int | None = None,
    partition: Partition = "random",
    rounds: int = 10,
    local_steps: int = 20,
    weighting: Weighting = "tokens",
    clip_norm: float | None = None,
    noise_multiplier: float | None = None,
    round_timeout: float | None = None,
    processes: bool = False,
    listen: int | None = None,
    preset: str = "nano",
    run_dir: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    text_field: str | None = None,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    targets: Sequence[str] | None = None,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    started: float | None = None,
) -> Outcome:
    """Train a new model, or ``checkpoint``, or with ``lora_rank`` an adapter on it, by federated averaging.

    In each of the ``rounds`` every client trains for ``local_steps`` from the server's weights, and the
    server's new weights are the mean of theirs, by their numbers of tokens or with ``weighting`` equal.
    The clients' texts are ``client``, a source each, or ``data``'s training part divided into ``clients``
    parts (`divide`). ``data`` is the server's own text: its validation split measures every round, and its
    training part makes the tokenizer of a new model. ``clip_norm`` with ``noise_multiplier`` is
    differential privacy of the clients (`Privacy`).

    Clients are in this process; with ``processes`` each is one of its own, and with ``listen``, a port of
    this machine or 0 for a free one, ``clients`` are waited for there (`minilm federate --join`). All other
    arguments are those of `train` and `finetune`. Raises InputError before anything is written, and
    NoClientError where no client is left. Needs the extra 'federate'.
    """
    started = time.monotonic() if started is None else started
    flower.quiet()
    lora = _lora(checkpoint, lora_rank, lora_alpha, targets)
    privacy = _privacy(clip_norm, noise_multiplier)
    plan = Rounds(rounds, local_steps, weighting, privacy, round_timeout)
    number = _number_of_clients(client, clients, processes, listen)
    with (
        messages_shown(),
        stop_request() as stop,
        tempfile.TemporaryDirectory() as temporary,
    ):
        source = DataSource(data, (), cache or default_cache(), text_field)
        spec = _spec(
            checkpoint,
            preset,
            vocabulary={"tokenizer": tokenizer, "vocab_size": vocab_size},
            lora=lora,
            temporary=Path(temporary),
            source=source,
            run_dir=None if run_dir is None else Path(run_dir),
            model=dict(model or {}),
            settings=_settings(plan, settings or {}),
        )
        if partition != "random" and (client or listen is not None):
            logger.warning("note: no partition: clients have texts of their own")
        if round_timeout is not None and not processes and listen is None:
            logger.warning("note: no time-out of rounds: clients are in this process")
        spec = replace(spec, began_with={**spec.began_with, "federation": _record(plan, number)})
        if processes or listen is not None:
            commands = {
                f"{n}, {name}": _command(spec, checkpoint, name) for n, name in enumerate(client)
            }
            return _with_clients_elsewhere(
                spec, plan, number, stop, started, commands=commands, port=listen or 0
            )
        datasets = _datasets(spec, client, number, partition)
        return _with_clients_here(spec, plan, datasets, stop, started)


def _with_clients_here(
    spec: RunSpec, plan: Rounds, datasets: Sequence[Dataset], stop: StopRequest, started: float
) -> Outcome:
    """The rounds of clients that train one after another, one for each of the ``datasets``."""
    _announce(spec, plan, len(datasets))
    trainings = [local_training(spec, dataset, n, stop) for n, dataset in enumerate(datasets)]
    server = in_process(averaging_of(spec, plan), trainings)
    return run_rounds(spec, stop, started, server, plan)


def _with_clients_elsewhere(
    spec: RunSpec,
    plan: Rounds,
    number: int,
    stop: StopRequest,
    started: float,
    *,
    commands: Mapping[str, list[str]],
    port: int,
) -> Outcome:
    """The rounds of ``number`` clients that join at ``port``, processes of these ``commands`` if any."""
    _announce(spec, plan, number)
    with over_grpc(
        averaging_of(spec, plan), number, port=port, commands=commands, cache=spec.source.cache
    ) as server:
        return run_rounds(spec, stop, started, server, plan, in_process=False)


def _lora(
    checkpoint: str | Path | None,
    rank: int | None,
    alpha: float | None,
    targets: Sequence[str] | None,
) -> LoraConfig | None:
    """The adapter that is trained, if any. Raises ConfigError where there is no model for it."""
    lora = lora_config(
        rank, alpha=alpha, dropout=None, targets=targets, rank_stabilised=False, dora=False
    )
    if lora is not None and checkpoint is None:
        raise ConfigError("lora_rank", "given without a model", "one for the adapter to be on")
    return lora


def _spec(
    checkpoint: str | Path | None,
    preset: str,
    *,
    vocabulary: dict[str, Any],
    lora: LoraConfig | None,
    temporary: Path,
    source: DataSource,
    **common: Any,
) -> RunSpec:
    """The server's run: a new model, or one that begins with ``checkpoint``; ``common`` is for both."""
    if checkpoint is None:
        spec = new_run(preset, source=source, announced=False, **vocabulary, **common)
    else:
        spec = run_from_checkpoint(
            Path(checkpoint),
            preset,
            source=source,
            vocabulary=vocabulary,
            lora=lora,
            temporary=temporary,
            announced=False,
            **common,
        )
    if isinstance(spec.dataset, Conversations):
        raise ConfigError("data", f"{source.name}, conversations", "a text")
    return spec


def averaging_of(spec: RunSpec, plan: Rounds) -> Averaging:
    """The strategy of a run's server."""
    shapes = {name: tuple(each.shape) for name, each in trained_parameters(spec.model).items()}
    return Averaging(shapes, plan, Setup.of(spec).to_json())


def local_training(
    spec: RunSpec, dataset: Dataset, number: int, stop: StopRequest
) -> LocalTraining:
    """Client ``number`` of a run, in this process. The first draws what a run of one place would."""
    config = replace(spec.config, seed=spec.config.seed + number)
    model = copy.deepcopy(spec.model)
    return LocalTraining(
        RunSpec(spec.run_dir, model, config, dataset, spec.source, spec.runtime), stop
    )


def run_rounds(
    spec: RunSpec,
    stop: StopRequest,
    started: float,
    server: Any,
    plan: Rounds,
    *,
    in_process: bool = True,
) -> Outcome:
    """Train and finish. A run that has lost its clients keeps the weights of its last rounds."""
    step = functools.partial(FederatedStep, server=server, rounds=plan, in_process=in_process)
    trainer = Trainer(spec, stop, started, step=step)
    try:
        return start(trainer)
    except NoClientError:
        if trainer.progress.step:
            finish(trainer, StopReason.NO_CLIENTS)
        raise


def _privacy(clip_norm: float | None, noise_multiplier: float | None) -> Privacy | None:
    if clip_norm is None and noise_multiplier is None:
        return None
    if clip_norm is None or noise_multiplier is None:
        given = "clip_norm" if noise_multiplier is None else "noise_multiplier"
        other = "noise_multiplier" if noise_multiplier is None else "clip_norm"
        raise ConfigError(given, f"given without {other}", "both, or neither")
    return Privacy(clip_norm, noise_multiplier)


def _number_of_clients(
    client: Sequence[str], clients: int | None, processes: bool, listen: int | None
) -> int:
    """Raises ConfigError where it is not said who trains, or twice."""
    if (clients is None) == (not client):
        got = "neither client nor clients" if clients is None else "client and clients"
        raise ConfigError("clients", got, "the clients' texts, or their number")
    if clients is not None and clients < 1:
        raise ConfigError("clients", f"{clients}", "1 or more")
    if processes and (not client or listen is not None):
        got = "given with listen" if client else "given without client"
        raise ConfigError("processes", got, "the clients' texts, and no other clients")
    if listen is not None:
        if clients is None:
            raise ConfigError("listen", "given with client", "clients, how many are to join")
        if not 0 <= listen < 2**16:
            raise ConfigError("listen", f"{listen}", "a port, or 0 for a free one")
    return clients or len(client)


def _settings(plan: Rounds, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run in which an evaluation is a round. Not compiled: each client has a model of its own."""
    for name in OF_ROUNDS:
        if name in settings:
            got, expected = f"{settings[name]}", "rounds and local_steps, from which it follows"
            raise ConfigError(name, got, expected)
    if settings.get("watch"):
        raise ConfigError("watch", "given for rounds", "a run of one place", "leave it out")
    steps = plan.local_steps
    of_rounds = {"max_steps": plan.count * steps, "eval_every": steps, "log_every": steps}
    return {"compile": "off", "early_stopping": 0, **settings, **of_rounds}


def _record(plan: Rounds, number: int) -> dict[str, Any]:
    """What config.json and summary.json say of the federation."""
    fields = asdict(plan)
    return {"clients": number, "rounds": fields.pop("count"), **fields}


def _datasets(
    spec: RunSpec, client: Sequence[str], number: int, partition: Partition
) -> list[Dataset]:
    """The text of each client in this process."""
    if not client:
        datasets = divide(spec.dataset, number, partition, spec.config.seed)
        context = spec.model.config.context_length
        fewest = min(len(dataset.train) for dataset in datasets)
        if fewest <= context:
            expected = f"at least {context + 1}, one more than the context length"
            raise CorpusError(spec.source.name, f"{fewest} tokens for a client", expected)
        return datasets
    return [
        client_dataset(
            replace(spec.source, name=name), spec.dataset.tokenizer, spec.config, spec.model.config
        )
        for name in client
    ]


def _command(spec: RunSpec, checkpoint: str | Path | None, name: str) -> list[str]:
    """The arguments of a client's process, but for the address at the end."""
    base = [] if spec.adapter is None else [str(checkpoint)]
    field = [] if spec.source.text_field is None else ["--text-field", spec.source.text_field]
    device = ["--train.device", spec.config.device]
    return ["federate", *base, "--client", name, *field, *device, "--join"]


def _announce(spec: RunSpec, plan: Rounds, number: int) -> None:
    for note in spec.runtime.notes:
        logger.warning(note)
    sent = sum(each.numel() for each in trained_parameters(spec.model).values())
    logger.info(
        f"{parameter_count(spec.model):,} parameters on {spec.runtime.device.type} in "
        f"{spec.runtime.dtype_name}; {sent:,} of them travel to each client and back in a round, "
        f"{format_bytes(4 * sent)}"
    )
    logger.info(
        f"{counted(plan.count, 'round')} of {counted(plan.local_steps, 'step')} at each of "
        f"{counted(number, 'client')}"
    )
