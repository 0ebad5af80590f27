"""Federated averaging with Flower, clients in one process: identities, what is averaged, who is left out."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minilm
from minilm.checkpoint import load
from minilm.cli.entry import parse_arguments
from minilm.cli.federate import Arguments, main
from minilm.errors import ConfigError, InputError
from minilm.federation.client import FlowerClient, Setup, client_spec
from minilm.federation.local_training import LocalTraining, trained_parameters
from minilm.federation.server import Averaging, NoClientError, Privacy, Rounds
from minilm.federation.update import from_bytes, to_bytes
from minilm.runs.base_run import lora_of
from minilm.runs.files import read_record
from minilm.runs.logs import read_metrics
from minilm.runs.stop_reason import StopReason
from minilm.training.data_source import DataSource
from minilm.training.train import finetune, resume, train
from minilm.training.train_step import TrainStep
from tests.conftest import ROOT, TINY_MODEL, make_text
from tests.federation.conftest import (
    CENTRALISED,
    LOCAL_STEPS,
    MODEL,
    ROUNDS,
    SETTINGS,
    Federate,
)


def test_one_client_is_a_centralised_run(
    federate: Federate, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    """Three rounds of four steps at one client end in the bytes of twelve steps in one place."""
    outcome = federate(clients=1)
    central = train(
        data=str(text_file),
        run_dir=tmp_path / "central",
        tokenizer="byte",
        model=MODEL,
        settings=SETTINGS | CENTRALISED,
        cache=cache,
    )
    weights = [tmp_path / name / "model.safetensors" for name in ("run", "central")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert outcome.summary["best_val_loss"] == central.summary["best_val_loss"]
    # An ordinary run: every part of it is there, and other verbs read it.
    assert outcome.report is not None
    assert outcome.report.verified
    assert (outcome.run_dir / "report.html").is_file()
    lines = read_metrics(outcome.run_dir / "metrics.jsonl")
    assert [line["step"] for line in lines if "val_loss" in line] == [4, 8, 12]
    assert [line["clients"] for line in lines if "train_loss" in line] == [1, 1, 1]
    losses = [
        [line["train_loss"] for line in read_metrics(run / "metrics.jsonl") if "train_loss" in line]
        for run in (outcome.run_dir, central.run_dir)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert outcome.summary["tokens"] == central.summary["tokens"]
    evaluation = minilm.evaluate(outcome.run_dir, dtype="float32", cache=cache)
    assert evaluation.loss == pytest.approx(outcome.summary["best_val_loss"], abs=1e-5)
    assert outcome.summary["federation"] == {
        "clients": 1,
        "rounds": ROUNDS,
        "local_steps": LOCAL_STEPS,
        "weighting": "tokens",
        "privacy": None,
        "timeout": None,
    }


def test_one_client_s_adapter_is_that_of_fine_tuning(
    federate: Federate, tiny_run: Path, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    outcome = federate(tiny_run, clients=1, lora_rank=2)
    finetune(
        tiny_run,
        data=str(text_file),
        run_dir=tmp_path / "central",
        lora_rank=2,
        settings=SETTINGS | CENTRALISED,
        cache=cache,
    )
    name = "adapter/adapter_model.safetensors"
    assert (outcome.run_dir / name).read_bytes() == (tmp_path / "central" / name).read_bytes()
    assert outcome.summary["trainable"] < outcome.summary["parameters"] / 10
    assert load(outcome.run_dir).model.config.d_model == TINY_MODEL["d_model"]


def capturing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[Any]]]:
    """What each client sends, with the number of its tokens, in the order of the calls."""
    sent: list[tuple[int, list[Any]]] = []
    original = LocalTraining.train

    def train(self: LocalTraining, arrays: Any, **order: int) -> Any:
        result = original(self, arrays, **order)
        sent.append((self.tokens, [array.copy() for array in result[0]]))
        return result

    monkeypatch.setattr(LocalTraining, "train", train)
    return sent


@pytest.mark.parametrize("weighting", ["tokens", "equal"])
def test_the_server_s_weights_are_the_weighted_mean(
    federate: Federate,
    client_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    weighting: str,
) -> None:
    sent = capturing(monkeypatch)
    outcome = federate(client=client_texts, rounds=1, weighting=weighting)
    (small, first), (large, second) = sent
    assert [small, large] == [Path(path).stat().st_size for path in client_texts]
    share = small / (small + large) if weighting == "tokens" else 0.5
    for parameter, one, two in zip(
        load(outcome.run_dir).model.parameters(), first, second, strict=True
    ):
        assert not np.array_equal(one, two)
        mean = share * one.astype(np.float64) + (1 - share) * two.astype(np.float64)
        assert np.allclose(parameter.numpy(), mean, rtol=0, atol=1e-6)


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[LocalTraining, int], bool]) -> None:
    """Clients that do not train where ``fails`` (client, step) says so."""
    original = LocalTraining.train

    def train(self: LocalTraining, arrays: Any, *, step: int, steps: int) -> Any:
        if fails(self, step):
            raise InputError("its power", "out", "on")
        return original(self, arrays, step=step, steps=steps)

    monkeypatch.setattr(LocalTraining, "train", train)


def test_a_round_goes_on_without_a_client(
    federate: Federate,
    client_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    second = Path(client_texts[1]).stat().st_size
    failing(monkeypatch, lambda client, step: client.tokens == second and step == LOCAL_STEPS)
    sent = capturing(monkeypatch)
    steps: list[int] = []
    run = TrainStep.run

    def counting(self: TrainStep) -> None:
        run(self)
        steps.append(self.progress.step)

    monkeypatch.setattr(TrainStep, "run", counting)
    with caplog.at_level(logging.WARNING, "minilm"):
        outcome = federate(client=client_texts)
    lines = read_metrics(outcome.run_dir / "metrics.jsonl")
    assert [line["clients"] for line in lines if "clients" in line] == [2, 1, 2]
    assert caplog.messages == ["note: round 2 goes on with 1 client: its power: out, expected on"]
    assert len(sent) == 5
    # Who was away goes on where the others are.
    assert steps[-2 * LOCAL_STEPS :] == [9, 10, 11, 12] * 2
    assert outcome.summary["tokens"] == 5 * LOCAL_STEPS * 4 * 16


def test_a_client_that_left_between_two_rounds_is_missed_once(
    federate: Federate,
    client_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    original = Averaging.configure_fit

    def configure_fit(
        self: Averaging, server_round: int, parameters: Any, client_manager: Any
    ) -> Any:
        if server_round == 2:
            client_manager.unregister(client_manager.all()["1"])
        return original(self, server_round, parameters, client_manager)

    monkeypatch.setattr(Averaging, "configure_fit", configure_fit)
    with caplog.at_level(logging.WARNING, "minilm"):
        outcome = federate(client=client_texts)
    lines = read_metrics(outcome.run_dir / "metrics.jsonl")
    assert [line["clients"] for line in lines if "clients" in line] == [2, 1, 1]
    assert caplog.messages == [
        "note: round 2 goes on with 1 client: one is gone, or did not answer in time"
    ]


@pytest.mark.parametrize("lost_after", [0, LOCAL_STEPS])
def test_without_any_client_it_ends(
    federate: Federate,
    client_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    tmp_path: Path,
    lost_after: int,
) -> None:
    failing(monkeypatch, lambda client, step: step >= lost_after)
    reason = r"round \d: no client's update \(its power: out, expected on\), expected one or more"
    with pytest.raises(NoClientError, match=reason):
        federate(client=client_texts)
    run = tmp_path / "run"
    if not lost_after:  # nothing was learned
        assert not run.exists()
        return
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["stopped_because"], summary["steps"]) == ("no_clients", lost_after)
    assert minilm.inspect(str(run)).verified
    with pytest.raises(InputError, match="a federated run, whose optimizers are with its clients"):
        resume(run, cache=cache)
    failing(monkeypatch, lambda client, step: False)
    monkeypatch.undo()
    again = federate(run, client=client_texts, run_dir=tmp_path / "again", rounds=1)
    assert again.summary["best_val_loss"] < summary["best_val_loss"]


def test_where_all_have_left_the_command_ends(
    flwr: Any,
    client_texts: list[str],
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = Averaging.configure_fit

    def configure_fit(
        self: Averaging, server_round: int, parameters: Any, client_manager: Any
    ) -> Any:
        orders = original(self, server_round, parameters, client_manager)
        client_manager.clients.clear()
        return orders

    monkeypatch.setattr(Averaging, "configure_fit", configure_fit)
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    small = [f"--model.{name.replace('_', '-')}={size}" for name, size in TINY_MODEL.items()]
    arguments = ["--data", str(text_file), "--client", client_texts[0], "--run-dir"]
    run = tmp_path / "run"
    sizes = ["--tokenizer=byte", "--local-steps=1", "--train.sample-tokens=0", *small]
    assert main([*arguments, str(run), *sizes]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: round 2: no client is left, expected at least one"
    assert json.loads((run / "summary.json").read_text())["stopped_because"] == "no_clients"


def test_a_signal_ends_it_between_two_rounds(
    federate: Federate, client_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LocalTraining.train

    def train(self: LocalTraining, arrays: Any, *, step: int, steps: int) -> Any:
        if step == LOCAL_STEPS:
            self.step.stop.signum = signal.SIGTERM
        return original(self, arrays, step=step, steps=steps)

    monkeypatch.setattr(LocalTraining, "train", train)
    outcome = federate(client=client_texts)
    assert outcome.stopped_because is StopReason.SIGTERM
    assert outcome.summary["steps"] == LOCAL_STEPS
    assert minilm.inspect(str(outcome.run_dir)).verified


def test_a_fault_of_the_program_is_no_lost_client(
    federate: Federate, client_texts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(self: LocalTraining, arrays: Any, **order: int) -> Any:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(LocalTraining, "train", train)
    with pytest.raises(ZeroDivisionError):
        federate(client=client_texts)
    assert not (tmp_path / "run").exists()


SHAPES = {"weight": (400, 250), "bias": (3,)}


def averaging(rounds: Rounds | None = None) -> Averaging:
    strategy = Averaging(SHAPES, rounds or Rounds(1, 1), "")
    strategy.sent = [np.ones(shape, np.float32) for shape in SHAPES.values()]
    return strategy


def result_of(arrays: list[Any], tokens: Any = 1, **metrics: Any) -> tuple[Any, Any]:
    from minilm.federation.flower import fit_result

    files = [each if isinstance(each, bytes) else to_bytes([each])[0] for each in arrays]
    usual = {"loss": 1.0, "names": "\n".join(SHAPES)}
    return None, fit_result(files, tokens, usual | metrics)


def test_privacy_clips_each_update_and_adds_noise_once(flwr: Any) -> None:
    """Updates of zero: the deviation is noise * clip / clients. Large ones: each becomes clip long."""
    sent = averaging().sent
    for clients in (1, 4):
        private = averaging(Rounds(1, 1, privacy=Privacy(clip=2.0, noise=0.5)))
        mean, _ = private.aggregate_fit(1, [result_of(sent, 10**6)] * clients, [])
        noise = from_bytes(mean.tensors, SHAPES)[0] - 1
        assert noise.std() == pytest.approx(0.5 * 2.0 / clients, rel=0.02)
        assert abs(noise.mean()) < 0.02
    noiseless = averaging(Rounds(1, 1, privacy=Privacy(clip=2.0, noise=0.0)))
    far, near = ([each + distance for each in sent] for distance in (5.0, 1e-4))
    # Equal weights, whatever the clients say: the noise is for that.
    mean, _ = noiseless.aggregate_fit(1, [result_of(far, 1), result_of(near, 10**9)], [])
    update = np.concatenate([each.ravel() for each in from_bytes(mean.tensors, SHAPES)]) - 1
    length = np.sqrt(update.size)
    assert update == pytest.approx((2.0 / length + 1e-4) / 2, abs=1e-6)


class Unpickled:
    """Something that must never be made."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def object_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Unpickled()]), allow_pickle=True)
    return stream.getvalue()


def test_a_hostile_client_s_update_is_left_out(flwr: Any) -> None:
    good = [each + 1 for each in averaging().sent]
    bad = [
        result_of([object_array(), good[1]]),
        result_of([good[0], np.full(3, np.nan)]),
        result_of([good[0]]),
        result_of([good[1], good[0]]),
        result_of(good, names="weight\nother"),
        result_of(good, names=None),
        result_of(good, loss=float("inf")),
        result_of(good, loss="low"),
        *(result_of(good, tokens) for tokens in (0, -1, 2**60, True)),
    ]
    other_type = result_of(good)
    other_type[1].parameters.tensor_type = "pickle"
    strategy = averaging()
    mean, _ = strategy.aggregate_fit(1, [*bad, other_type, result_of(good)], [])
    assert len(strategy.refused) == len(bad) + 1
    assert from_bytes(mean.tensors, SHAPES)[0] == pytest.approx(2.0)
    mean, _ = strategy.aggregate_fit(1, [*bad, other_type], [])
    assert mean is None


def test_a_client_sends_weights_a_loss_and_a_count(
    federate: Federate, client_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else: and what the server sends has the tokenizer, but no text."""
    replies: list[Any] = []
    orders: list[dict[str, Any]] = []
    original = FlowerClient.fit

    def fit(self: FlowerClient, ins: Any) -> Any:
        orders.append(dict(ins.config))
        replies.append(original(self, ins))
        return replies[-1]

    monkeypatch.setattr(FlowerClient, "fit", fit)
    outcome = federate(client=client_texts)
    model = load(outcome.run_dir).model
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
    for reply in replies:
        from_bytes(reply.parameters.tensors, shapes)
        assert set(vars(reply)) == {"status", "parameters", "num_examples", "metrics"}
        assert set(reply.metrics) == {"loss", "names"}
        assert reply.metrics["names"] == "\n".join(shapes)
    assert [set(order) for order in orders[2:]] == [{"round", "step", "steps"}] * 4
    setup = Setup.from_json(orders[0]["setup"], "the server")
    assert setup.model == model.config
    assert setup.to_json() == orders[0]["setup"]
    assert "the cat sees" not in orders[0]["setup"]


def test_what_has_no_effect_is_said(
    federate: Federate, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "minilm"):
        federate(client=[str(text_file)], partition="contiguous", round_timeout=9.0, rounds=1)
    assert caplog.messages == [
        "note: no partition: clients have texts of their own",
        "note: no time-out of rounds: clients are in this process",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "clients: neither client nor clients"),
        ({"client": ["a"], "clients": 2}, "clients: client and clients"),
        ({"clients": 0}, "clients: 0"),
        ({"clients": 2, "rounds": 0}, "rounds: 0"),
        ({"clients": 2, "local_steps": 0}, "local_steps: 0"),
        ({"clients": 2, "clip_norm": 1.0}, "clip_norm: given without noise_multiplier"),
        ({"clients": 2, "clip_norm": 0.0, "noise_multiplier": 1.0}, "clip_norm: 0"),
        ({"clients": 2, "noise_multiplier": -1.0, "clip_norm": 1.0}, "noise_multiplier: -1"),
        ({"clients": 2, "processes": True}, "processes: given without client"),
        ({"client": ["a"], "listen": 0}, "listen: given with client"),
        ({"clients": 2, "listen": 70000}, "listen: 70000"),
        ({"clients": 2, "round_timeout": 0.0}, "round_timeout: 0"),
        ({"clients": 2, "lora_rank": 2}, "lora_rank: given without a model"),
        ({"clients": 2, "settings": {"max_steps": 5}}, "max_steps: 5"),
        ({"clients": 2000}, "tokens for a client"),
        ({"client": ["nowhere.txt"]}, "nowhere.txt"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(":")[0],
)
def test_bad_options_are_one_line_and_leave_nothing(
    federate: Federate, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        federate(**arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "2"], "--data: missing"),
        (["--data", "a", "--clip-norm", "1", "--clients", "2"], "--clip-norm: given without"),
        (["--join", "127.0.0.1:1"], "--client: 0 of them"),
        (
            ["--join", "127.0.0.1:1", "--client", "a", "--rounds", "3"],
            "--join: given with --rounds",
        ),
        (["--join", "127.0.0.1:1", "--client", "nowhere.txt"], "nowhere.txt: "),
        (["--join", "example.org:80", "--client", "a"], "--join: example.org:80, expected a port"),
        (["--join", "8765", "--client", "a"], "--join: 8765, expected a port"),
        (
            ["--join", "127.0.0.1:99999", "--client", "a"],
            "--join: 127.0.0.1:99999, expected a port",
        ),
    ],
    ids=range(8),
)
def test_the_command_names_its_options(
    flwr: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_the_setup_of_a_server_is_not_trusted() -> None:
    for text in ("", "[]", "{}", '{"model": 1}', "[" * 100_000):
        with pytest.raises(InputError, match="no setup"):
            Setup.from_json(text, "the server")
    fields = {"tokenizer": "", "end_of_text": None, "lora": None, "base_sha256": None}
    with pytest.raises(ConfigError, match="d_model"):
        Setup.from_json(json.dumps({"model": {"d_model": -1}, "train": {}, **fields}), "the server")


def test_a_joined_client_has_the_base_of_the_adapter(
    federate: Federate, tiny_run: Path, client_texts: list[str], cache: Path, tmp_path: Path
) -> None:
    outcome = federate(tiny_run, clients=1, lora_rank=2, rounds=1)
    run, tokenizer = load(outcome.run_dir)
    record = read_record(outcome.run_dir / "config.json")
    lora = lora_of(outcome.run_dir, record)
    sha256 = record.base["sha256"]
    setup = Setup(run.config, record.train, tokenizer.to_json(), None, lora, sha256)
    setup = Setup.from_json(setup.to_json(), "the server")
    source = DataSource(client_texts[0], (), cache)
    spec = client_spec(setup, source, tiny_run, "cpu", number=3)
    sent = {name: each.shape for name, each in trained_parameters(spec.model).items()}
    assert sent == {name: each.shape for name, each in run.named_parameters() if "lora" in name}
    assert spec.config.seed == record.train.seed + 3
    assert spec.dataset.train_tokens == Path(client_texts[0]).stat().st_size
    with pytest.raises(InputError, match="CHECKPOINT: missing"):
        client_spec(setup, source, None, "cpu", number=0)
    other = replace(setup, base_sha256="0" * 64)
    with pytest.raises(InputError, match="those of the server, 000000000000"):
        client_spec(other, source, tiny_run, "cpu", number=0)


def test_the_commands_of_the_page_run(
    flwr: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a smaller model and fewer steps; those of several processes are read, and run elsewhere."""
    page = (ROOT / "docs" / "federate.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    minilm federate (.*?)(?: &)?$", page, re.M)
    assert len(commands) == 8
    for number, name in enumerate(("server", "a", "b")):
        (tmp_path / f"{name}.txt").write_text(make_text(3000, seed=number), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    small = [f"--model.{name.replace('_', '-')}={size}" for name, size in TINY_MODEL.items()]
    short = ["--rounds=1", "--local-steps=1", "--train.batch-size=2", "--train.sample-tokens=0"]
    for command in commands:
        arguments = command.split()
        parse_arguments(Arguments, arguments, "minilm federate")
        if {"--processes", "--listen", "--join"}.isdisjoint(arguments):
            new = [] if arguments[0].startswith("checkpoints/") else small
            assert main([*arguments, *short, *new]) == 0
