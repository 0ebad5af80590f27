"""`--train.watch`: its lines against the weights of a run, and that the run is the same without it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minilm.architectures.minilm import layout
from minilm.checkpoint import read_run_config
from minilm.errors import ConfigError
from minilm.federation import flower
from minilm.federation.federate import federate
from minilm.parallel.process_group import World
from minilm.runs.logs import HISTOGRAM_BINS, read_metrics, read_parameters
from minilm.training import parameter_watch, run_spec, setup
from minilm.training.parameter_watch import TOKENS_BETWEEN, histogram, is_watched
from minilm.training.runtime import Runtime
from minilm.training.train import finetune, resume
from scripts.experiments import watch_cost
from tests.conftest import TINY_SETTINGS, train_tiny
from tests.fake_graphs import FakeGraph, graphs  # noqa: F401

MODEL = {"dropout": 0.1, "tied_embeddings": True}
# An evaluation saves the state.
SETTINGS = {"gradient_clip": 1.0, "gradient_accumulation": 2, "log_every": 1}
SETTINGS |= {"max_steps": 6, "eval_every": 1, "keep_states": 6}


def parameters(folder: Path) -> list[dict[str, Any]]:
    """The lines, but for how long the run took until then."""
    lines = read_parameters(folder / "parameters.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_watch, "TOKENS_BETWEEN", 1)


def test_a_run_is_the_same_with_it_and_its_lines_are_of_its_weights(
    every_step: None,
    graphs: list[FakeGraph],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    plain = train_tiny(tmp_path / "plain", text_file, cache, MODEL, **SETTINGS)
    watched = train_tiny(tmp_path / "watched", text_file, cache, MODEL, watch=True, **SETTINGS)
    for name in ("model.safetensors", "samples.jsonl"):
        assert (watched / name).read_bytes() == (plain / name).read_bytes()
    assert not (plain / "parameters.jsonl").exists()
    lines = parameters(watched)
    assert [line["step"] for line in lines] == list(range(7))

    declared = {t.name: t.component for t in layout(read_run_config(watched)).named_tensors()}
    norms = {
        line["step"]: line["grad_norm"]
        for line in read_metrics(watched / "metrics.jsonl")
        if "grad_norm" in line
    }
    before: dict[str, torch.Tensor] = {}
    for line in lines[1:]:
        state = load_file(watched / "resume" / f"step-{line['step']:09d}.safetensors")
        now = {name: state[f"model.{name}"] for name in declared}
        components = line["components"]
        assert list(components) == list(dict.fromkeys(declared.values()))
        gradients = [g for each in components.values() for g in each["gradient"]]
        total = math.sqrt(sum(each**2 for each in gradients))
        assert total == pytest.approx(norms[line["step"]], rel=1e-3)
        for component, fields in components.items():
            for number, layer in enumerate(fields.get("layers", [None])):
                names = [
                    name
                    for name in now
                    if declared[name] == component
                    and (layer is None or name.startswith(f"blocks.{layer}."))
                ]
                norm = norm_of([now[name] for name in names])
                assert fields["norm"][number] == pytest.approx(norm, rel=1e-3)
                if before:
                    update = norm_of([now[name] - before[name] for name in names])
                    expected = pytest.approx(update / norm, rel=1e-3, abs=1e-9)
                    assert fields["update"][number] == expected
            values = torch.cat([now[n].flatten() for n in now if declared[n] == component])
            assert histogram(values.numpy()) == {
                key: fields[key] for key in ("limit", "counts", "outside")
            }
        before = now

    monkeypatch.setattr(Runtime, "cuda_graph", True)
    replayed = train_tiny(tmp_path / "graphs", text_file, cache, MODEL, watch=True, **SETTINGS)
    assert any(graph.replays for graph in graphs)
    assert parameters(replayed) == lines


def norm_of(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(each.double().square().sum()) for each in tensors))


def test_a_stopped_run_goes_on_with_the_same_lines(
    every_step: None,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    sigterm_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    few = {"eval_every": 12}
    whole = train_tiny(tmp_path / "whole", text_file, cache, watch=True, **few)
    for step in (0, 7):
        with sigterm_after(step):
            stopped = train_tiny(tmp_path / f"from-{step}", text_file, cache, watch=True, **few)
        resume(stopped, cache=cache)
        assert parameters(stopped) == parameters(whole)
    with sigterm_after(5):
        stopped = train_tiny(tmp_path / "off", text_file, cache, watch=True, **few)
    path = stopped / "parameters.jsonl"
    with path.open("a") as stream:  # of a step that was not saved
        stream.write(json.dumps({"step": 6, "components": {}}) + '\n{"step": 7, "compo')
    resume(stopped, settings={"watch": False}, cache=cache)
    assert parameters(stopped) == parameters(whole)[:6]


def test_what_is_trained_is_watched(
    every_step: None, tiny_run: Path, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    def components(name: str, **options: Any) -> list[str]:
        settings = TINY_SETTINGS | {"max_steps": 2, "watch": True}
        folder = tmp_path / name
        common = {"data": str(text_file), "run_dir": folder, "cache": cache, "settings": settings}
        finetune(tiny_run, **common, **options)
        return list(parameters(folder)[-1]["components"])

    adapted = ["LoRA of attention query", "LoRA of LM head"]
    assert components("dora", lora_rank=2, dora=True, targets=["query", "lm_head"]) == adapted
    assert components("frozen", freeze=["embedding", "attention", "feed_forward", "norm"]) == [
        "LM head"
    ]


def test_the_cost_is_what_watching_adds_to_the_steps_without_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    within = {"begin_update": [0.25], "keep_gradients": [0.25], "end_update": [0.5]}
    outside = {"beginning": [0.5], "parameters": [0.25, 0.25]}
    watch_cost.report(within | outside | {"run": [5.0, 6.0]})
    assert capsys.readouterr().out == (
        "2 steps of 5000.0 ms of processor time each\n2 lines of 1000.0 ms each: 20.00%\n"
    )


@pytest.mark.parametrize("tokens", [64, 1024, 2**20])
def test_long_runs_have_few_lines(tokens: int) -> None:
    """And a line each `TOKENS_BETWEEN` tokens at most, which is what bounds the cost."""
    steps = [step for step in range(1, 200_000) if is_watched(step, tokens)]
    assert len(steps) <= 16 * 18
    gaps = {after: after - before for before, after in itertools.pairwise(steps)}
    assert min(gaps.values()) * tokens >= TOKENS_BETWEEN
    assert all(gap <= max(1, step / 8, TOKENS_BETWEEN / tokens) for step, gap in gaps.items())


@pytest.mark.parametrize("scale", [0.0, 1e-30, 0.02, 1.0, 1e30])
def test_a_histogram_has_every_finite_value_once(scale: float) -> None:
    values = (np.random.default_rng(0).standard_t(3, 10_000) * scale).astype(np.float32)
    fields = histogram(np.append(values, [np.nan, np.inf]).astype(np.float32))
    counts, limit = fields["counts"], fields["limit"]
    assert len(counts) == HISTOGRAM_BINS
    assert sum(counts) + fields["outside"] == 10_000
    assert fields["outside"] == np.sum((values < -limit) | (values >= limit))
    assert math.log2(limit).is_integer()
    assert sum(counts[HISTOGRAM_BINS // 2 :]) == np.sum((values >= 0) & (values < limit))


def test_parts_and_rounds_are_refused(
    monkeypatch: pytest.MonkeyPatch, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(flower, "quiet", lambda: None)  # which is an extra
    with pytest.raises(ConfigError, match="watch: given for rounds"):
        federate(data=str(text_file), clients=2, settings={"watch": True}, cache=cache)
    for module in (run_spec, setup):
        monkeypatch.setattr(module, "world", lambda: World(size=2, store=object()))
    with pytest.raises(ConfigError, match="watch: given with parallel fsdp"):
        train_tiny(tmp_path / "run", text_file, cache, watch=True, parallel="fsdp")
    with pytest.raises(ConfigError, match="watch: given with parallel ddp and tensor_parallel 2"):
        train_tiny(tmp_path / "run", text_file, cache, watch=True, tensor_parallel=2)
    assert not (tmp_path / "run").exists()
