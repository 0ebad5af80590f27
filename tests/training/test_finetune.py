"""finetune(): an adapter or a part of a model, trained, stopped, resumed and merged."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from minilm.checkpoint import load
from minilm.errors import ConfigError, FormatError, InputError
from minilm.inspection.inspector import inspect
from minilm.interop.convert import convert
from minilm.operations.evaluate import evaluate
from minilm.operations.merge import merge
from minilm.runs import files as run_files
from minilm.training.finish import Outcome
from minilm.training.train import finetune, resume
from minilm.transforms.lora import is_adapter
from tests.conftest import TINY_SETTINGS, make_text

SETTINGS = TINY_SETTINGS | {"max_steps": 8, "eval_every": 4, "sample_tokens": 4}


@pytest.fixture(scope="module")
def other_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "upper.txt"
    path.write_text(make_text(3000, seed=4).upper(), encoding="utf-8")
    return path


@pytest.fixture
def tune(tiny_run: Path, other_text: Path, cache: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(name: str, base: Path = tiny_run, settings: Any = None, **options: Any) -> Outcome:
        options.setdefault("lora_rank", None if "freeze" in options else 3)
        return finetune(
            base,
            data=str(other_text),
            run_dir=tmp_path / name,
            settings=SETTINGS | (settings or {}),
            cache=cache,
            **options,
        )

    return run


def files_of(run: Path) -> dict[str, bytes]:
    """What must be equal to the byte: weights, adapter and states."""
    paths = [*run.glob("*.safetensors"), *run.glob("adapter/*"), *run.glob("resume/*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load(run).model.named_parameters())


def test_an_adapter_learns_and_its_base_stays(tune: Any, tiny_run: Path, cache: Path) -> None:
    before = (tiny_run / "model.safetensors").read_bytes()
    outcome = tune("run", settings={"max_steps": 40})
    run, report = outcome.run_dir, outcome.report
    assert not (run / "model.safetensors").exists()
    assert (tiny_run / "model.safetensors").read_bytes() == before
    losses = [
        json.loads(line)["val_loss"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "val_loss" in line
    ]
    assert losses[-1] < losses[0] - 0.1
    assert report is not None
    assert report.verified
    assert outcome.summary["parameters"] == report.parameters.total
    assert (
        outcome.summary["trainable"] == report.parameters.trainable < 0.2 * report.parameters.total
    )
    result = evaluate(run, device="cpu", dtype="float32", cache=cache)
    assert result.loss == pytest.approx(outcome.summary["best_val_loss"], abs=1e-6)
    base, adapted = weights_of(tiny_run), weights_of(run)
    for name, parameter in adapted.items():
        if is_adapter(name):
            assert parameter.count_nonzero() > 0
        else:
            assert torch.equal(parameter, base[name.replace(".base.", ".")])


def test_a_state_holds_what_is_trained_alone(tune: Any) -> None:
    run = tune("run").run_dir
    with safe_open(max((run / "resume").iterdir()), framework="pt") as stream:
        names = set(stream.keys())
        settings = json.loads(stream.metadata()["settings"])
    assert settings["base"] == json.loads((run / "config.json").read_text())["base"]
    parameters = {name for name in names if name.startswith("model.")}
    assert parameters
    assert all(is_adapter(name) for name in parameters)
    moments = {name for name in names if name.endswith(".exp_avg")}
    assert len(moments) == len(parameters)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.3}, {"freeze": ["attention"]}])
def test_a_stopped_run_resumes_bit_for_bit(
    tune: Any, cache: Path, options: Any, sigterm_after: Any
) -> None:
    whole = tune("whole", **options).run_dir
    with sigterm_after(5):
        stopped = tune("stopped", **options)
    assert (stopped.stopped_because, stopped.summary["steps"]) == ("SIGTERM", 5)
    resume(stopped.run_dir, cache=cache)
    assert weights_equal(stopped.run_dir, whole)
    newest = "resume/step-000000008.safetensors"
    states = [load_file(run / newest) for run in (stopped.run_dir, whole)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def weights_equal(one: Path, other: Path) -> bool:
    weights = weights_of(other)
    return all(torch.equal(p, weights[name]) for name, p in weights_of(one).items())


def test_one_seed_gives_the_same_bytes(tune: Any) -> None:
    one, other = (files_of(tune(name).run_dir) for name in ("one", "other"))
    key = "adapter/adapter_model.safetensors"
    assert one[key] == other[key]
    assert files_of(tune("third", settings={"seed": 5}).run_dir)[key] != one[key]


def test_lost_weights_are_made_anew_from_the_state(tune: Any, cache: Path) -> None:
    run = tune("run", settings={"max_steps": 4}).run_dir
    before = weights_of(run)
    shutil.rmtree(run / "adapter")
    resume(run, settings={"max_steps": 5}, cache=cache)
    assert weights_of(run).keys() == before.keys()
    assert (run / "adapter" / "adapter_config.json").is_file()


def test_a_resume_beside_another_base_is_refused(
    tune: Any, tiny_run: Path, cache: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_run, tmp_path / "base")
    run = tune("run", base=base, settings={"max_steps": 4}).run_dir
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected those that the adapter"):
        resume(run, settings={"max_steps": 8}, cache=cache)
    record = json.loads((run / "config.json").read_text())
    record["base"]["sha256"] = "0" * 64
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError):
        resume(run, settings={"max_steps": 8}, cache=cache)


def test_an_imported_base_is_kept_in_the_run(
    tune: Any, tiny_run: Path, cache: Path, tmp_path: Path
) -> None:
    convert(tiny_run, "huggingface", tmp_path / "hf")
    run = tune("run", base=tmp_path / "hf", settings={"max_steps": 4}).run_dir
    shutil.rmtree(tmp_path / "hf")
    moved = shutil.move(run, tmp_path / "moved")
    assert inspect(moved).verified
    resume(moved, settings={"max_steps": 6}, cache=cache)
    merge(moved, tmp_path / "merged", device="cpu", cache=cache)
    assert inspect(tmp_path / "merged").verified


def test_what_is_frozen_stays(tune: Any, tiny_run: Path) -> None:
    run = tune("run", freeze=["attention", "embedding"]).run_dir
    base = weights_of(tiny_run)
    for name, parameter in weights_of(run).items():
        frozen = ".attention." in name or name.startswith("embedding.")
        assert torch.equal(parameter, base[name]) == frozen, name


def test_gradients_under_activation_checkpointing_are_the_same(tune: Any) -> None:
    plain = tune("plain").run_dir
    checkpointed = tune("checkpointed", settings={"activation_checkpointing": True}).run_dir
    assert weights_equal(plain, checkpointed)
    b = [p for name, p in weights_of(plain).items() if name.endswith("lora_B.weight")]
    assert all(each.count_nonzero() > 0 for each in b)


def test_a_merged_adapter_has_its_loss(tune: Any, cache: Path, tmp_path: Path) -> None:
    outcome = tune("run")
    result = merge(outcome.run_dir, tmp_path / "merged", device="cpu", cache=cache)
    before, after = result.comparison.before, result.comparison.after
    assert before.evaluation is not None
    assert after.evaluation is not None
    assert before.trainable == outcome.summary["trainable"]
    # The next tool finds the split in the merged run.
    adapted, merged = (
        evaluate(run, device="cpu", dtype="float32", cache=cache)
        for run in (outcome.run_dir, tmp_path / "merged")
    )
    assert merged.loss == pytest.approx(adapted.loss, abs=1e-5)
    assert merged.text == before.evaluation.text == after.evaluation.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": 17}, "lora_rank: 17, expected from 1 to 16"),
        ({"targets": ["query", "gate"]}, "targets: 'gate'"),
        ({"lora_rank": None, "lora_alpha": 4.0}, "lora_alpha: given without lora_rank"),
        ({"freeze": ["attention"], "lora_rank": 2}, "freeze: given with lora_rank"),
        ({"freeze": ["atention"]}, "freeze: 'atention'"),
        ({"settings": {"optimizer": "muon"}}, "optimizer: muon, expected adamw"),
        ({"settings": {"muon_learning_rate": 0.1}}, r"muon_learning_rate: 0\.1 for an adapter"),
        ({"targets": "query"}, "targets: 'query', expected a list of names"),
        ({"freeze": "attention", "lora_rank": None}, "freeze: 'attention', expected a list"),
        ({"quantize_base": "int3"}, "quantize_base: 'int3', expected one of int8"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tune: Any, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune("run", **options)
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_not_tuned_again_before_it_is_merged(tune: Any, tmp_path: Path) -> None:
    run = tune("run", settings={"max_steps": 2}).run_dir
    with pytest.raises(InputError, match="an adapter, expected a whole model"):
        tune("again", base=run)
    merge(run, tmp_path / "merged", device="cpu")
    assert tune("again", base=tmp_path / "merged", settings={"max_steps": 2}).report.verified


def test_a_start_that_fails_leaves_nothing(
    tune: Any, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(tiny_run, "huggingface", tmp_path / "hf")

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_files, "write_record", functools.partial(fail))
    with pytest.raises(OSError, match="No space"):
        tune("run", base=tiny_run)
    assert not (tmp_path / "run").exists()


def test_a_state_of_another_base_is_refused(tune: Any, cache: Path, tmp_path: Path) -> None:
    run = tune("run", settings={"max_steps": 4}).run_dir
    record = json.loads((run / "config.json").read_text())
    record["base"]["path"] += "/."
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(FormatError, match="a state beside another base"):
        resume(run, settings={"max_steps": 8}, cache=cache)
