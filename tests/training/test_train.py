"""train() and resume(): what a run leaves, when it ends, and that it always resumes."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

import minilm
from minilm.checkpoint import load
from minilm.cli import convert
from minilm.data.batches import Batch, training_batch
from minilm.errors import ConfigError
from minilm.generation.generate import Generation
from minilm.parallel.process_group import World
from minilm.parallel.tensor_parts import write_tensors
from minilm.runs.logs import read_metrics, read_samples
from minilm.training.batch_loader import BatchLoader
from minilm.training.evaluation import Validation
from minilm.training.resume_state import read_state
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text, train_tiny

pytestmark = pytest.mark.usefixtures("auto_dtype")

SETTINGS = TINY_SETTINGS | {"dtype": "auto"}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_folder_holds_what_is_documented(auto_run: Path, text_file: Path) -> None:
    assert sorted(path.name for path in auto_run.iterdir()) == [
        "attention.json",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "resume",
        "samples.jsonl",
        "summary.json",
        "tokenizer.json",
    ]
    summary = json.loads((auto_run / "summary.json").read_text())
    assert summary["steps"] == 12
    assert summary["tokens"] == 12 * 4 * 16
    assert summary["stopped_because"] == "max_steps"
    assert summary["data"]["bytes"] == text_file.stat().st_size
    assert summary["parameters"] == minilm.inspect(str(auto_run)).parameters.total
    assert set(summary) == {
        *("steps", "tokens", "seconds", "best_val_loss", "best_val_bits_per_byte"),
        *("stopped_because", "parameters", "device", "dtype", "tokens_per_second", "data"),
        *("model_flops_utilisation", "peak_flops", "energy_joules", "loss_spikes"),
        *("minilm", "torch", "seed", "val_dtype", "best_val_tokens", "best_step", "date"),
        "tuned",
    }
    assert set(summary["data"]) == {"source", "bytes", "sha256", "train_tokens", "val_tokens"}


def test_python_leaves_samples_and_a_page_as_the_shell_does(auto_run: Path) -> None:
    samples = read_samples(auto_run / "samples.jsonl")
    assert [line["step"] for line in samples] == [4, 8, 12]
    assert all(line["text"] for line in samples)
    page = (auto_run / "report.html").read_text(encoding="utf-8")
    assert "Samples through time" in page
    summary = json.loads((auto_run / "summary.json").read_text())
    assert f">{summary['parameters']:,}</output>" in page
    assert "Statistics" in page
    assert f"{summary['best_val_loss']:.4f} nats a token" in page
    assert summary["date"][:10] in page


def test_metrics_have_the_documented_fields_and_the_loss_falls(auto_run: Path) -> None:
    lines = read_metrics(auto_run / "metrics.jsonl")
    logged = [line for line in lines if "train_loss" in line]
    evaluated = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in logged] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in evaluated] == [4, 8, 12]
    assert set(logged[0]) == {
        *("step", "tokens", "seconds", "train_loss", "lr", "grad_norm", "tokens_per_second")
    }
    assert set(evaluated[0]) == {
        *("step", "tokens", "seconds", "val_loss", "val_bits_per_byte", "val_tokens")
    }
    # A byte tokenizer: bits a byte are the loss in bits.
    ratio = evaluated[0]["val_bits_per_byte"] / evaluated[0]["val_loss"]
    assert ratio == pytest.approx(1 / math.log(2), rel=1e-3)
    losses = [line["val_loss"] for line in evaluated]
    assert losses[-1] < losses[0] < math.log(256) * 1.01
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_validation_is_the_mean_over_every_target(
    auto_run: Path, auto_dtype: str, text_file: Path
) -> None:
    text = text_file.read_bytes()
    split = torch.tensor(list(text[int(len(text) * (1 - 0.1)) :]))
    model, _ = load(auto_run)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=auto_dtype == "bfloat16")
    losses = []
    for start in range(0, len(split) - 1, 16):
        window = split[start : start + 17]
        with autocast, torch.no_grad():  # with gradients attention is computed otherwise
            logits = model(window[None, :-1])[0].float()
        losses += F.cross_entropy(logits, window[1:], reduction="none").tolist()
    with safe_open(auto_run / "model.safetensors", "pt") as stream:
        metadata = stream.metadata()
    summary = json.loads((auto_run / "summary.json").read_text())
    assert metadata["val_dtype"] == summary["val_dtype"] == auto_dtype
    assert len(losses) == len(split) - 1
    mean = pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert float(metadata["val_loss"]) == mean
    assert summary["best_val_loss"] == mean


def test_load_is_frozen_in_eval_mode_and_thaws(auto_run: Path) -> None:
    model, tokenizer = minilm.load(auto_run)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer.vocab_size == 256
    thawed = minilm.load(auto_run, trainable=True).model
    assert thawed.training
    assert all(parameter.requires_grad for parameter in thawed.parameters())


def test_one_seed_gives_the_same_bytes_and_another_does_not(go: Any) -> None:
    first, second = go("a", seed=7), go("b", seed=7)
    assert weights(first.run_dir) == weights(second.run_dir)
    assert weights(first.run_dir) != weights(go("c", seed=8).run_dir)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_stopped_run_resumes_bit_for_bit(go: Any, cache: Path, dropout: float) -> None:
    whole = go("whole", model={"dropout": dropout})
    part = go("part", model={"dropout": dropout}, max_seconds=0.001).run_dir
    # Stopped by its time limit before the first step; tests/cli/test_crash.py stops runs in the middle.
    assert resume(part, settings={"max_seconds": None}, cache=cache).stopped_because == "max_steps"
    assert weights(part) == weights(whole.run_dir)
    same = [
        [
            {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
            for line in x
            if line["step"] > 0  # where the time limit made it evaluate
        ]
        for x in (read_metrics(folder / "metrics.jsonl") for folder in (part, whole.run_dir))
    ]
    assert same[0] == same[1]


def test_resuming_a_finished_run_changes_nothing(go: Any, cache: Path) -> None:
    folder = go().run_dir
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert resume(folder, cache=cache).stopped_because == "max_steps"
    assert {path: path.read_bytes() for path in before} == before
    assert resume(folder, settings={"max_steps": 16}, cache=cache).summary["steps"] == 16


def test_a_step_is_adamw_on_the_mean_of_its_micro_batches(
    go: Any, text_file: Path, cache: Path
) -> None:
    outcome = go(
        dtype="float32",
        gradient_accumulation=3,
        max_steps=1,
        eval_every=1,
        gradient_clip=0.5,
        optimizer="adamw",
        learning_rate=2e-3,
        beta1=0.9,
        weight_decay=0.1,
        windows="random",
        seed=2,
    )
    assert outcome.summary["tokens"] == 3 * 4 * 16

    trained = load(outcome.run_dir).model
    model = minilm.Transformer(trained.config, torch.Generator().manual_seed(2))
    text = text_file.read_bytes()
    split = np.frombuffer(text[: int(len(text) * 0.9)], dtype=np.uint8)
    losses = []
    for micro_step in range(3):
        inputs, targets = training_batch(
            split, context_length=16, batch_size=4, seed=2, step=0, micro_step=micro_step
        )
        logits = model(torch.from_numpy(inputs)).flatten(0, 1)
        losses.append(F.cross_entropy(logits, torch.from_numpy(targets).flatten()))
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim == 1 or "embedding" in n]
    torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=2e-3 / 2,  # the first of two warm-up steps
        betas=(0.9, 0.95),
    ).step()
    for (name, expected), actual in zip(
        model.named_parameters(), trained.parameters(), strict=True
    ):
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-4, atol=1e-6, msg=name)


def test_early_stopping_counts_evaluations_without_progress(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.trainer as trainer

    losses = iter([3.0, 2.0, 2.5, 2.1, 1.9, 2.0, 2.1, 2.2, 0.1])
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Validation(next(losses), 1.0, 100))
    outcome = go(eval_every=1, early_stopping=3)
    assert outcome.stopped_because == "early_stopping"
    assert outcome.summary["steps"] == 8
    assert outcome.summary["best_val_loss"] == 1.9


def test_patience_is_kept_over_a_stop(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.trainer as trainer

    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Validation(next(losses), 1.0, 100))
    folder = go(eval_every=1, early_stopping=4, max_steps=3).run_dir
    outcome = resume(folder, settings={"max_steps": 12}, cache=cache)
    assert outcome.stopped_because == "early_stopping"
    assert outcome.summary["steps"] == 5
    assert outcome.summary["best_val_loss"] == 1.0


def test_the_best_weights_are_kept_not_the_last(
    go: Any, auto_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.trainer as trainer

    best = go("best", max_steps=8)  # the same steps, ending where the other run is best
    losses = iter([3.0, 2.0, 4.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Validation(next(losses), 1.0, 100))
    outcome = go("all", schedule="constant")
    assert outcome.summary["steps"] == 12
    with safe_open(outcome.run_dir / "model.safetensors", "pt") as stream:
        assert stream.metadata() == {
            "format": "pt",
            "step": "8",
            "val_loss": "2.000000",
            "val_tokens": "100",
            "val_dtype": auto_dtype,
        }
    monkeypatch.undo()
    same = go("same", max_steps=8, schedule="constant")
    assert weights(same.run_dir)[-4000:] == weights(outcome.run_dir)[-4000:]
    assert weights(best.run_dir)[-4000:] != weights(outcome.run_dir)[-4000:]


def test_target_and_time_end_a_run(go: Any) -> None:
    reached = go("target", target_val_loss=100.0)
    assert reached.stopped_because == "target_val_loss"
    assert reached.summary["steps"] == 4
    timed = go("time", max_seconds=0.001)
    assert timed.stopped_because == "max_seconds"


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilm.training import train_step

    true_loss, calls = train_step.next_token_loss, []

    def broken(model: Any, inputs: Any, targets: Any) -> torch.Tensor:
        calls.append(1)
        loss = true_loss(model, inputs, targets)
        return loss * float("nan") if len(calls) > 6 else loss

    monkeypatch.setattr(train_step, "next_token_loss", broken)
    outcome = go("broken")
    assert outcome.stopped_because == "non_finite_loss"
    assert outcome.summary["steps"] == 8  # where the next line of metrics was due
    # The last evaluation was at step 4: weights and state are those, not the step that went wrong.
    monkeypatch.undo()
    good = go("good", max_seconds=None).run_dir
    state = read_state(outcome.run_dir)
    assert state.progress.step == 4
    assert state.progress.best_step == 4
    first, second = (read_metrics(x / "metrics.jsonl") for x in (outcome.run_dir, good))
    assert [x["val_loss"] for x in first if "val_loss" in x] == [
        x["val_loss"] for x in second if x["step"] == 4 and "val_loss" in x
    ]
    with safe_open(outcome.run_dir / "model.safetensors", "pt") as stream:
        assert stream.metadata()["step"] == "4"


def test_fine_tuning_never_ends_worse_than_its_base(
    auto_run: Path, cache: Path, tmp_path: Path
) -> None:
    """The weights it begins with are evaluated too, and kept where no later ones are better."""
    text = tmp_path / "other.txt"
    text.write_text(make_text(3000, seed=3))
    outcome = train(
        data=str(text),
        run_dir=tmp_path / "tuned",
        init_from=auto_run,
        settings=SETTINGS | {"learning_rate": 10.0, "muon_learning_rate": 10.0},
        cache=cache,
    )
    lines = read_metrics(tmp_path / "tuned" / "metrics.jsonl")
    losses = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
    assert losses[0] == min(losses.values()) == outcome.summary["best_val_loss"]
    base, tuned = load(auto_run).model, load(tmp_path / "tuned").model
    for a, b in zip(base.parameters(), tuned.parameters(), strict=True):
        assert torch.equal(a, b)


def test_fine_tuning_takes_optimizer_and_lower_rates_of_its_base(
    text_file: Path, cache: Path, tmp_path: Path
) -> None:
    rates = {"optimizer": "adamw", "learning_rate": 0.002, "beta1": 0.7}
    base = train_tiny(tmp_path / "base", text_file, cache, **rates)
    tuned = train(
        data=str(text_file),
        run_dir=tmp_path / "tuned",
        init_from=base,
        settings={"max_steps": 2},
        cache=cache,
    ).run_dir
    settings = json.loads((tuned / "config.json").read_text())["train"]
    assert (settings["optimizer"], settings["beta1"]) == ("adamw", 0.7)
    assert settings["learning_rate"] == pytest.approx(0.0006)


def test_init_from_goes_on_from_trained_weights(go: Any, auto_run: Path, cache: Path) -> None:
    data = Path(str(auto_run) + "-other.txt")
    data.write_text(make_text(3000, seed=3))
    folder = auto_run.parent / "tuned"
    outcome = train(
        data=str(data),
        run_dir=folder,
        init_from=auto_run,
        model={"dropout": 0.1},
        settings=SETTINGS | {"learning_rate": 1e-9, "muon_learning_rate": 1e-9},
        cache=cache,
    )
    base, tuned = load(auto_run).model, load(folder).model
    assert tuned.config.dropout == 0.1
    for (name, a), b in zip(base.named_parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=0, atol=1e-6)
    assert outcome.summary["steps"] == 12
    with pytest.raises(ConfigError, match=r"model.num_layers: 3, expected 2, that of the run"):
        train(
            data=str(data),
            run_dir=auto_run.parent / "no",
            init_from=auto_run,
            model={"num_layers": 3},
            settings=SETTINGS,
            cache=cache,
        )
    shutil.rmtree(folder)


def test_a_damaged_state_is_set_aside_and_the_run_ends_the_same(go: Any, cache: Path) -> None:
    whole, folder = (
        go("whole", max_steps=16).run_dir,
        go("run", keep_states=2, max_steps=16).run_dir,
    )
    for name in ("model.safetensors", "summary.json"):  # as they were at the older state's step
        (folder / name).unlink()
    older, newest = sorted((folder / "resume").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert resume(folder, settings={"keep_states": 1}, cache=cache).summary["steps"] == 16
    names = sorted(path.name for path in (folder / "resume").iterdir())
    assert names == [newest.name, f"{newest.name}.damaged-1"]
    assert read_state(folder).tensors.keys() == read_state(whole).tensors.keys()
    for name, tensor in read_state(folder).tensors.items():
        assert torch.equal(tensor, read_state(whole).tensors[name])
    assert not older.exists()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_lost_weights_are_made_anew_from_the_state(
    go: Any, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = go().run_dir
    before, summary = weights(folder), json.loads((folder / "summary.json").read_text())
    path = folder / "model.safetensors"
    path.unlink()
    if damage == "cut":
        path.write_bytes(before[:-1])
    outcome = resume(folder, cache=cache)
    assert "model.safetensors is made anew from the training state of step 12" in caplog.text
    assert weights(folder) == before  # the last evaluation was the best
    assert outcome.summary["best_val_loss"] == summary["best_val_loss"]
    assert outcome.report.verified
    assert (folder / "model.safetensors.damaged-1").exists() == (damage == "cut")


@pytest.mark.parametrize("other", ["bfloat16", "float32"])
def test_the_dtype_may_be_changed_knowingly(
    go: Any, auto_dtype: str, cache: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    folder = go().run_dir
    outcome = resume(folder, settings={"max_steps": 16, "dtype": other}, cache=cache)
    assert outcome.summary["dtype"] == outcome.summary["val_dtype"] == other
    note = f"the run continues in {other}, after {auto_dtype} so far"
    assert (note in caplog.text) == (other != auto_dtype)
    assert read_state(folder).settings["train"]["dtype"] == other


@pytest.mark.parametrize("steps_before", [4, 12])
def test_a_signal_in_an_evaluation_saves_and_the_resumed_run_makes_it_whole(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, steps_before: int
) -> None:
    import minilm.training.trainer as trainer

    whole = go("whole").run_dir
    evaluate = trainer.evaluate

    def interrupted(*arguments: Any, **options: Any) -> Validation | None:
        if steps() == steps_before:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    def steps() -> int:
        lines = read_metrics(folder / "metrics.jsonl")
        return lines[-1]["step"] if lines else 0

    folder = whole.parent / "run"
    monkeypatch.setattr(trainer, "evaluate", interrupted)
    outcome = go()
    assert outcome.stopped_because == "SIGTERM"
    assert outcome.summary["steps"] == steps_before
    assert read_state(folder).progress.step == steps_before
    assert [line["step"] for line in read_samples(folder / "samples.jsonl")] == [
        step for step in (4, 8) if step < steps_before
    ]
    monkeypatch.undo()
    assert resume(folder, cache=cache).stopped_because == "max_steps"
    assert weights(folder) == weights(whole)
    for name in ("metrics.jsonl", "samples.jsonl"):
        steps_of = [
            [json.loads(line)["step"] for line in (each / name).read_text().splitlines()]
            for each in (folder, whole)
        ]
        assert steps_of[0] == steps_of[1]


def test_a_run_that_a_goal_ended_is_continued_by_moving_the_goal(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.trainer as trainer

    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Validation(next(losses), 1.0, 100))
    folder = go(eval_every=1, early_stopping=2).run_dir
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="early_stopping ended the run at step 3, expected"):
        resume(folder, settings={"max_steps": 20}, cache=cache)
    assert (folder / "config.json").read_bytes() == before
    outcome = resume(folder, settings={"max_steps": 5, "early_stopping": 0}, cache=cache)
    assert outcome.summary["steps"] == 5


def test_fine_tuning_a_hugging_face_folder_keeps_its_files_and_dtype(
    tmp_path: Path, auto_run: Path, text_file: Path, cache: Path
) -> None:
    """Imported on the way: GPT-2's optimizer, a usual rate, the dtype and the files it came with."""
    run = tmp_path / "bfloat16"
    shutil.copytree(auto_run, run)
    tensors = load_file(run / "model.safetensors")
    write_tensors(
        run / "model.safetensors", {name: t.bfloat16() for name, t in tensors.items()}, {}
    )
    folder = tmp_path / "hf"
    assert convert.main([str(run), "--to", "huggingface", "--out", str(folder)]) == 0
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    outcome = train(
        data=str(text_file),
        run_dir=tmp_path / "tuned",
        init_from=folder,
        settings={"max_steps": 2, "sample_tokens": 0},
        cache=cache,
    )
    tuned = tmp_path / "tuned"
    assert {t.dtype for t in load_file(tuned / "model.safetensors").values()} == {torch.bfloat16}
    assert (tuned / "chat_template.jinja").read_text() == "{{ messages }}"
    for name in ("generation_config.json", "tokenizer_config.json"):
        assert json.loads((tuned / name).read_text()) == json.loads((folder / name).read_text())
    settings = json.loads((tuned / "config.json").read_text())["train"]
    assert (settings["optimizer"], settings["learning_rate"]) == ("adamw", pytest.approx(6e-5))
    lines = read_metrics(tuned / "metrics.jsonl")
    assert next(line["step"] for line in lines if "val_loss" in line) == 0
    assert outcome.report is not None
    assert outcome.report.verified
    more = resume(tuned, settings={"max_steps": 3}, cache=cache)
    assert more.summary["steps"] == 3
    assert {t.dtype for t in load_file(tuned / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_signal_between_micro_batches_discards_the_step_and_the_resumed_run_repeats_it(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    def start(name: str) -> Any:
        options = {"gradient_accumulation": 3, "log_every": 4}
        return go(name, model=TINY_MODEL | {"dropout": dropout}, **options)

    whole = start("whole").run_dir
    tensors, passes = BatchLoader.tensors, []

    def interrupted(loader: BatchLoader, batch: Batch) -> Any:
        passes.append(divmod(len(passes), 3))
        if passes[-1] == (6, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return tensors(loader, batch)

    monkeypatch.setattr(BatchLoader, "tensors", interrupted)
    outcome = start("run")
    assert outcome.stopped_because == "SIGINT"
    assert passes[-1] == (6, 1)
    assert outcome.summary["steps"] == read_state(outcome.run_dir).progress.step == 6
    monkeypatch.undo()
    assert resume(outcome.run_dir, cache=cache).stopped_because == "max_steps"
    assert weights(outcome.run_dir) == weights(whole)
    losses = [
        [line.get("train_loss") for line in read_metrics(folder / "metrics.jsonl")]
        for folder in (outcome.run_dir, whole)
    ]
    assert losses[0] == losses[1]


def test_a_signal_in_the_sample_saves_and_the_resumed_run_makes_the_evaluation_whole(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go("whole", sample_tokens=20).run_dir
    step, tokens = Generation.step, []

    def interrupted(generation: Generation) -> dict[int, int]:
        tokens.append(1)
        if len(tokens) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(generation)

    monkeypatch.setattr(Generation, "step", interrupted)
    outcome = go("run", sample_tokens=20)
    assert outcome.stopped_because == "SIGTERM"
    assert len(tokens) == 3
    folder = outcome.run_dir
    assert not read_samples(folder / "samples.jsonl")
    assert not any("val_loss" in line for line in read_metrics(folder / "metrics.jsonl"))
    monkeypatch.undo()
    resume(folder, cache=cache)
    assert weights(folder) == weights(whole)
    assert read_samples(folder / "samples.jsonl") == read_samples(whole / "samples.jsonl")


def test_tokens_that_another_machine_lacks_are_prepared_by_all(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that finds its own would go on, and the others wait for it."""
    import minilm.training.setup as setup

    folder = go(max_steps=2, eval_every=2).run_dir
    prepared = []
    prepare = setup.DataSource.prepare

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        prepared.append(self.name)
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(setup.DataSource, "prepare", noted)
    assert resume(folder, settings={"max_steps": 3}, cache=cache).summary["steps"] == 3
    assert not prepared
    monkeypatch.setattr(World, "maximum", lambda self, *values: (1,))
    setup.resumed_run(folder, data=None, settings={"max_steps": 4}, cache=cache)
    assert len(prepared) == 1
