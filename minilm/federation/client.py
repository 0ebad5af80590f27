"""A client as Flower calls it: in the server's process, or joined to it over gRPC."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minilm.checkpoint import load_record
from minilm.config import ModelConfig, TrainConfig, from_dict, to_dict
from minilm.config.lora import LoraConfig
from minilm.data.dataset import Dataset, with_document_attention
from minilm.data.shards import prepare
from minilm.errors import CorpusError, InputError
from minilm.federation import flower
from minilm.federation.local_training import LocalTraining
from minilm.federation.update import from_bytes, to_bytes
from minilm.interop.convert import as_run
from minilm.model.transformer import Transformer
from minilm.runs import base_run
from minilm.runs import files as run_files
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer
from minilm.training.data_source import DataSource
from minilm.training.preconditions import refuse_too_large
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import resolve_for_run
from minilm.training.signals import StopRequest
from minilm.transforms.lora import apply

logger = logging.getLogger(__name__)

ALL = 1.0  # as val_fraction: a client trains on its whole text


class FlowerClient:
    """A client: weights in, trained weights, a loss and the number of its tokens out."""

    def __init__(self, training: LocalTraining) -> None:
        self.training = training

    def fit(self, ins: Any) -> Any:
        """Some steps from the server's weights (`flwr.common.FitIns` -> `FitRes`)."""
        training, order = self.training, ins.config
        shapes = {name: tuple(each.shape) for name, each in training.parameters.items()}
        try:
            arrays, loss = training.train(
                from_bytes(ins.parameters.tensors, shapes),
                step=int(order["step"]),
                steps=int(order["steps"]),
            )
        except InputError as error:
            return flower.fit_result([], 0, {}, failure=str(error))
        metrics = {"loss": loss, "names": "\n".join(shapes)}
        return flower.fit_result(to_bytes(arrays), training.tokens, metrics)


class LocalClient:
    """A client in the server's process, as Flower's server calls it: a `ClientProxy`."""

    def __init__(self, cid: str, client: FlowerClient) -> None:
        self.cid, self.client = cid, client

    def fit(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Call the client."""
        return self.client.fit(ins)


def client_dataset(
    source: DataSource, tokenizer: Tokenizer, config: TrainConfig, model: ModelConfig
) -> Dataset:
    """All of a client's text, for training. Raises CorpusError where it is too short, or no plain text."""
    corpus = source.open()
    if corpus.has_conversations() or corpus.parts:
        kind = "a mixture" if corpus.parts else "conversations"
        raise CorpusError(source.name, kind, "a text")
    dataset = prepare(
        corpus,
        tokenizer=tokenizer,
        vocab_size=None,
        val_fraction=ALL,
        cache=source.cache,
        context_length=model.context_length,
    )
    if len(dataset.val) <= model.context_length:
        raise CorpusError(
            source.name,
            f"{len(dataset.val)} tokens",
            f"at least {model.context_length + 1}, one more than the context length",
        )
    dataset = replace(dataset, train=dataset.val, train_bytes=dataset.val_bytes)
    return with_document_attention(dataset, config)


@dataclass(frozen=True)
class Setup:
    """What a client needs beside the weights and its text, as the server sends it: JSON, and no code."""

    model: ModelConfig
    train: TrainConfig
    tokenizer: str
    end_of_text: int | None
    lora: LoraConfig | None
    base_sha256: str | None

    @classmethod
    def of(cls, spec: RunSpec) -> Setup:
        """That of a run."""
        adapter = spec.adapter
        return cls(
            spec.model.config,
            spec.config,
            spec.dataset.tokenizer.to_json(),
            spec.dataset.tokenizer.end_of_text,
            adapter.lora if adapter else None,
            adapter.base["sha256"] if adapter else None,
        )

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        return json.dumps(
            {
                "model": to_dict(self.model),
                "train": to_dict(self.train),
                "tokenizer": self.tokenizer,
                "end_of_text": self.end_of_text,
                "lora": None if self.lora is None else to_dict(self.lora),
                "base_sha256": self.base_sha256,
            }
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> Setup:
        """Raises InputError for what is no setup, ConfigError for a value that is out of range."""
        try:
            value = json.loads(text)
            lora, sha256, end_of_text = (
                value[key] for key in ("lora", "base_sha256", "end_of_text")
            )
            setup = cls(
                from_dict(ModelConfig, value["model"], where),
                from_dict(TrainConfig, value["train"], where),
                str(value["tokenizer"]),
                None if end_of_text is None else int(end_of_text),
                None if lora is None else from_dict(LoraConfig, lora, where),
                None if sha256 is None else str(sha256),
            )
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(where, "no setup", "a server of minilm federate") from None
        if setup.end_of_text is not None and not 0 <= setup.end_of_text < setup.model.vocab_size:
            raise InputError(where, f"end_of_text {setup.end_of_text}", "a token")
        return setup


class JoinedClient(FlowerClient):
    """A client in a process of its own, which learns from the server what is to be trained."""

    def __init__(self, make: Callable[[str, int], LocalTraining]) -> None:
        self.make = make
        self.context: Any = None
        self.is_set_up = False

    def fit(self, ins: Any) -> Any:
        """Set up on the first call, and when a server asks for it again."""
        order: Mapping[str, Any] = ins.config
        if "setup" in order:
            self.training = self.make(str(order["setup"]), int(order["number"]))
            self.is_set_up = True
        if not self.is_set_up:
            raise InputError("the server", "weights without a setup", "one of minilm federate")
        result = super().fit(ins)
        if result.status.message:
            logger.warning(f"round {order['round']}: {result.status.message}")
        else:
            logger.info(f"round {order['round']}: training loss {result.metrics['loss']:.4f}")
        return result

    def set_context(self, context: Any) -> None:
        """Flower's own state, which is not used."""
        self.context = context


def join(
    address: str, source: DataSource, *, base: Path | None, device: str, stop: StopRequest
) -> None:
    """Train on ``source`` for the server at ``address`` until it is done.

    ``base`` is the model that an adapter is trained on, which the server does not send. Raises InputError
    where no server is there, or it goes away.
    """
    flower.quiet()
    import grpc
    from flwr.client import start_client

    def make(setup: str, number: int) -> LocalTraining:
        spec = client_spec(Setup.from_json(setup, address), source, base, device, number)
        logger.info(f"{source.name}: {spec.dataset.train_tokens:,} tokens to train on")
        return LocalTraining(spec, stop)

    source.open()  # a text that is not there, before the server waits for it
    try:
        start_client(server_address=address, client=JoinedClient(make), insecure=True)
    except grpc.RpcError as error:
        details = getattr(error, "details", lambda: "")() or "no reason given"
        raise InputError(
            f"the server {address}", details, "one that runs until the last round"
        ) from None


def client_spec(
    setup: Setup, source: DataSource, base: Path | None, device: str, number: int
) -> RunSpec:
    """What client ``number`` trains. Raises InputError where its text, or its base, is not usable."""
    config = from_dict(
        TrainConfig,
        to_dict(setup.train) | {"device": device, "seed": setup.train.seed + number},
        "seed",
    )
    refuse_too_large(setup.model, config, setup.lora)
    model = _base_model(setup, base) if setup.lora else Transformer(setup.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / run_files.TOKENIZER
        path.write_bytes(setup.tokenizer.encode())
        tokenizer = load_tokenizer(path, setup.model.vocab_size)
    tokenizer.end_of_text = setup.end_of_text
    dataset = client_dataset(source, tokenizer, config, setup.model)
    runtime = resolve_for_run(config, setup.model, dataset, {})
    return RunSpec(Path(), model, config, dataset, source, runtime)


def _base_model(setup: Setup, base: Path | None) -> Transformer:
    """The base with an adapter that has no values of its own yet."""
    assert setup.lora is not None
    if base is None:
        raise InputError("CHECKPOINT", "missing", "the model that the adapter is trained on")
    with as_run(base) as run:
        sha256 = base_run.weights_sha256(run / run_files.WEIGHTS)
        if sha256 != setup.base_sha256:
            got = f"weights with SHA-256 {sha256[:12]}"
            raise InputError(base, got, f"those of the server, {str(setup.base_sha256)[:12]}")
        record = replace(run_files.read_record(run / run_files.CONFIG), model=setup.model)
        model = load_record(run, record, keep_packed=True)
    return apply(model, setup.lora, torch.Generator().manual_seed(0))
