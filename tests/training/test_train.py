"""train() and resume(): what a run leaves, when it ends, and that it always resumes."""

import json
import logging
import math
import os
import re
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
from minilm.checkpoint import load, write_tensors
from minilm.cli import convert
from minilm.config.presets import PRESETS, Preset
from minilm.data.batches import Batch, training_batch
from minilm.errors import ConfigError, FormatError, InputError
from minilm.generation.generate import Generation
from minilm.runs.lock import run_lock
from minilm.runs.logs import read_metrics, read_samples
from minilm.training.batch_loader import BatchLoader
from minilm.training.evaluation import Validation
from minilm.training.resume_state import read_state
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text, train_tiny

pytestmark = pytest.mark.usefixtures("auto_dtype")

SETTINGS = TINY_SETTINGS | {"dtype": "auto"}


@pytest.fixture
def go(text_file: Path, cache: Path, tmp_path: Path) -> Any:
    """Train a tiny model into tmp_path/NAME with some settings replaced."""

    def start(name: str = "run", model: dict | None = None, **settings: Any) -> Any:
        return train(
            data=str(text_file),
            run_dir=tmp_path / name,
            tokenizer="byte",
            model=TINY_MODEL | (model or {}),
            settings=SETTINGS | settings,
            cache=cache,
        )

    return start


def damage_state(path: Path, change: Any, **metadata: str) -> None:
    """Change a state and give it the SHA-256 of what it then is."""
    with safe_open(path, "pt") as stream:
        before = stream.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    write_tensors(path, tensors, before | metadata, hashed=True)


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


def test_a_page_that_an_interruption_left_out_is_written_by_the_next_resume(
    go: Any, cache: Path
) -> None:
    outcome = go()
    assert outcome.report.verified
    page = outcome.run_dir / "report.html"
    page.unlink()
    assert resume(outcome.run_dir, cache=cache).report.verified
    assert "Samples through time" in page.read_text(encoding="utf-8")


def test_old_names_of_settings_are_taken_with_a_note(
    go: Any, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = go(keep_last=1, l1=0.125).run_dir
    trained = json.loads((folder / "config.json").read_text())["train"]
    assert (trained["keep_states"], trained["l1_weight"]) == (1, 0.125)
    assert len(list((folder / "resume").iterdir())) == 1
    resume(folder, settings={"max_steps": 13, "save_seconds": 1.0}, cache=cache)
    for old, new in (
        ("keep_last", "keep_states"),
        ("l1", "l1_weight"),
        ("save_seconds", "save_every_seconds"),
    ):
        assert f"note: the setting {old} is now {new}" in caplog.messages


def test_resume_refuses_what_would_change_the_run(go: Any, cache: Path, tmp_path: Path) -> None:
    folder = go().run_dir
    with pytest.raises(ConfigError, match="learning_rate: given with --resume"):
        resume(folder, settings={"learning_rate": 1.0}, cache=cache)
    with pytest.raises(InputError, match=r"no config\.json"):
        resume(tmp_path, cache=cache)
    older, newest = sorted((folder / "resume").iterdir())
    older.unlink()
    whole = newest.read_bytes()
    damage_state(newest, lambda tensors: tensors.pop("rng.cpu"))
    with pytest.raises(FormatError, match=r"rng\.cpu absent"):
        resume(folder, settings={"max_steps": 20}, cache=cache)
    newest.write_bytes(whole)
    name = "optimizer.final_norm.weight.exp_avg"
    for tensor, dtype_and_size in (
        (torch.zeros(3), r"\('float32', 3\)"),
        (torch.zeros(16, dtype=torch.int64), r"\('int64', 16\)"),
    ):
        damage_state(newest, lambda tensors, tensor=tensor: tensors.update({name: tensor}))
        with pytest.raises(
            FormatError, match=rf"exp_avg {dtype_and_size}, expected \('float32', 16\)"
        ):
            resume(folder, settings={"max_steps": 20}, cache=cache)
    for progress in (
        *('{"step": "5"}', '{"step": -5}', '{"seconds": null}', "[]", "{"),
        '{"seconds": 1' + 400 * "0" + "}",
        '{"best_val_loss": 2.0, "best_val_bits_per_byte": "2"}',
        '{"best_val_loss": 2.0}',
        '{"scaler": {"scale": 2.0}}',
    ):
        newest.write_bytes(whole)
        damage_state(newest, lambda tensors: None, progress=progress)
        with pytest.raises(FormatError, match="no progress in its header"):
            resume(folder, settings={"max_steps": 20}, cache=cache)
    flipped = bytearray(whole)
    flipped[-5000] ^= 1
    newest.write_bytes(flipped)
    with pytest.raises(FormatError, match="not the bytes that were written"):
        resume(folder, settings={"max_steps": 20}, cache=cache)
    newest.write_bytes(b"cut short")
    with pytest.raises(FormatError, match=r"step-000000012\.safetensors"):
        resume(folder, settings={"max_steps": 20}, cache=cache)


def test_resume_notices_that_the_data_changed(tmp_path: Path, cache: Path) -> None:
    data = tmp_path / "d.txt"
    data.write_text(make_text(3000))
    folder = tmp_path / "run"
    train(
        data=str(data),
        run_dir=folder,
        tokenizer="byte",
        model=TINY_MODEL,
        settings=SETTINGS,
        cache=cache,
    )
    data.write_text(make_text(3000, seed=1))
    with pytest.raises(InputError, match="the text has changed since"):
        resume(folder, settings={"max_steps": 20}, cache=cache)


def test_an_existing_run_is_never_overwritten(go: Any) -> None:
    before = weights(go().run_dir)
    with pytest.raises(InputError, match="a run is there already"):
        go(seed=5)
    assert weights(go("other").run_dir) == before


def test_a_folder_with_other_files_is_left_alone(go: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("precious")
    with pytest.raises(InputError, match="something is there already"):
        go("mine")
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    assert (folder / "metrics.jsonl").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert go("empty").stopped_because == "max_steps"


def test_a_run_inside_its_data_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.txt").write_text(make_text(3000))
    with pytest.raises(InputError, match="a run inside the data folder would become data"):
        train(data=str(tmp_path), run_dir=tmp_path / "checkpoints" / "x", cache=cache)


def test_a_model_that_this_machine_cannot_hold_is_refused_at_once(
    text_file: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"model: 70,\d+,\d+,\d+ parameters, which take 1\.0 TiB"):
        train(
            "llama-3-70b",
            data=str(text_file),
            run_dir=tmp_path / "x",
            settings={"device": "cpu"},
            cache=cache,
        )


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


def test_a_length_that_grows_ends_at_the_models(go: Any) -> None:
    with pytest.raises(ConfigError, match="initial_context_length: 32, expected at most"):
        go(initial_context_length=32)
    assert go(initial_context_length=16).summary["tokens"] == 12 * 4 * 16


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


def test_fine_tuning_says_what_it_takes_of_a_preset_of_another_shape(
    auto_run: Path,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(PRESETS, "same", Preset("", TINY_MODEL))
    monkeypatch.setitem(PRESETS, "longer", Preset("", TINY_MODEL | {"context_length": 32}))
    for preset in ("small", "longer", "same"):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="minilm"):
            train(
                preset,
                data=str(text_file),
                run_dir=tmp_path / preset,
                init_from=auto_run,
                settings={"max_steps": 1, "batch_size": 2, "sample_tokens": 0},
                cache=cache,
            )
        lines = [text for text in caplog.messages if text.startswith("of the preset")]
        expected = [
            f"of the preset {preset}: only steps, batches and schedule; the model has the shape of "
            "auto: 2 layers of width 16, 16 tokens of context"
        ]
        assert lines == ([] if preset == "same" else expected)


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


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_other_tokenizers_train_too(
    text_file: Path, cache: Path, tmp_path: Path, kind: str
) -> None:
    outcome = train(
        data=str(text_file),
        run_dir=tmp_path / "run",
        tokenizer=kind,
        vocab_size=300 if kind == "bpe" else None,
        model=TINY_MODEL,
        settings=SETTINGS,
        cache=cache,
    )
    model, tokenizer = load(outcome.run_dir)
    assert model.config.vocab_size == tokenizer.vocab_size
    # Nats a token are bits a byte times the bytes of a token: 1 for ASCII characters, more for bpe.
    best = outcome.summary
    bytes_per_token = best["best_val_loss"] / math.log(2) / best["best_val_bits_per_byte"]
    low, high = {"char": (0.99, 1.01), "bpe": (3.0, 8.0)}[kind]
    assert low < bytes_per_token < high


def test_a_folder_that_is_being_trained_is_left_to_its_owner(
    go: Any, cache: Path, tmp_path: Path
) -> None:
    folder = go().run_dir
    half_written = folder / "resume" / ".step-000000013.safetensors.0123abcd.tmp"
    half_written.write_bytes(b"half")
    (tmp_path / ".other.new").mkdir()  # a folder of the user's beside the runs
    (tmp_path / "other").mkdir()
    with run_lock(folder), run_lock(tmp_path / "other"):
        with pytest.raises(InputError, match="is training in it"):
            resume(folder, settings={"max_steps": 14}, cache=cache)
        with pytest.raises(InputError, match="is training in it"):
            go("other")
    assert half_written.exists()
    assert not list((tmp_path / "other").iterdir())
    assert (tmp_path / ".other.new").is_dir()
    assert resume(folder, settings={"max_steps": 14}, cache=cache).summary["steps"] == 14
    assert not half_written.exists()
    assert not (folder / ".minilm.lock").exists()


def test_of_two_new_runs_in_one_folder_the_second_changes_nothing(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.train as module

    check = module._write_beginning

    def slow_start(trainer: Any) -> None:  # the other one begins while this one prepares its files
        check(trainer)
        with pytest.raises(InputError, match="there already"):
            go()
        with pytest.raises(InputError, match="is training in it"):
            resume(tmp_path / "run")

    monkeypatch.setattr(module, "_write_beginning", slow_start)
    outcome = go()
    assert (outcome.run_dir / "tokenizer.json").is_file()
    assert load(outcome.run_dir).tokenizer.vocab_size == 256


def test_a_start_that_fails_leaves_the_folder_as_it_was(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilm.runs import files as run_files

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(run_files, "write_record", full)
    for name in ("mount", "made"):
        with pytest.raises(OSError, match="No space"):
            go(name)
    assert [path.name for path in tmp_path.iterdir()] == ["mount"]
    assert not list((tmp_path / "mount").iterdir())


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


def test_odd_leftovers_do_not_block_a_resume(go: Any, cache: Path) -> None:
    folder = go().run_dir
    (folder / "summary.json").write_text("[]")
    (folder / ".x.tmp").mkdir()
    (folder / ".model.safetensors.0123abcd.tmp").mkdir()
    (folder / "resume" / "step-000000099.safetensors").symlink_to("nowhere")
    (folder / "report.html").unlink()
    assert resume(folder, settings={"max_steps": 14}, cache=cache).summary["steps"] == 14
    assert (folder / ".x.tmp").is_dir()
    assert json.loads((folder / "summary.json").read_text())["steps"] == 14


def run_on(data: Path, folder: Path, cache: Path, **settings: Any) -> Path:
    train(
        data=str(data),
        run_dir=folder,
        tokenizer="bpe",
        vocab_size=300,
        model=TINY_MODEL,
        settings=SETTINGS | settings,
        cache=cache,
    )
    return folder


def test_a_resumed_run_takes_the_tokens_that_were_stored_before(
    text_file: Path, tmp_path: Path
) -> None:
    folder = run_on(text_file, tmp_path / "run", tmp_path / "cache")
    resume(folder, settings={"max_steps": 13}, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1
    shutil.rmtree(tmp_path / "cache")  # or pruned: then they are made again
    resume(folder, settings={"max_steps": 14}, cache=tmp_path / "cache")
    resume(folder, settings={"max_steps": 15}, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


def test_a_text_that_moved_is_found_by_its_tokens_or_by_data(
    text_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there, other, cache = (tmp_path / n for n in ("here", "there", "other", "cache"))
    shutil.copy(text_file, here)
    other.write_text(make_text(3000, seed=5))
    folder = run_on(here, tmp_path / "run", cache)
    here.rename(there)
    resume(folder, settings={"max_steps": 13}, cache=cache)
    assert "its tokens are still in the cache" in caplog.text
    resume(folder, data=str(here), settings={"max_steps": 14}, cache=cache)  # the original command
    with pytest.raises(InputError, match="say with --data where it is now"):
        resume(folder, settings={"max_steps": 15}, cache=tmp_path / "empty")
    with pytest.raises(InputError, match="expected the run's own data"):
        resume(folder, data=str(other), settings={"max_steps": 15}, cache=cache)
    with pytest.raises(InputError, match="no such file"):
        resume(folder, data=str(tmp_path / "nowhere"), settings={"max_steps": 15}, cache=cache)
    resume(folder, data=str(there), settings={"max_steps": 15}, cache=tmp_path / "empty")
    assert read_state(folder).settings["source"] == str(there)
    resume(folder, settings={"max_steps": 16}, cache=tmp_path / "empty")


def test_an_extended_run_says_so_in_its_config_and_that_the_rate_rises(
    go: Any, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = go(schedule="linear", final_lr_fraction=0.0, max_steps=8).run_dir
    before = json.loads((folder / "config.json").read_text())
    resume(folder, settings={"max_steps": 16}, cache=cache)
    assert "the learning rate rises again, from " in caplog.text
    assert "falls until step 16 instead of 8" in caplog.text
    after = json.loads((folder / "config.json").read_text())
    assert after["train"]["max_steps"] == 16
    after["train"]["max_steps"] = 8
    assert after == before
    caplog.clear()
    resume(folder, settings={"keep_states": 1}, cache=cache)
    assert "the learning rate rises" not in caplog.text
    constant = go("constant", schedule="constant").run_dir
    resume(constant, settings={"max_steps": 14}, cache=cache)
    assert "the learning rate rises" not in caplog.text
    with pytest.raises(ConfigError, match="max_steps: 15, expected at least the 16 steps"):
        resume(folder, settings={"max_steps": 15}, cache=cache)


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


def test_what_the_run_began_with_may_be_repeated(go: Any, cache: Path) -> None:
    folder = go().run_dir
    same = {"preset": "nano", "tokenizer": "byte", "cleaning": [], "model.num_layers": 2}
    assert resume(folder, options=same, settings=SETTINGS, cache=cache).summary["steps"] == 12
    with pytest.raises(ConfigError, match=r"model\.num_layers: given with --resume as 3"):
        resume(folder, options=same | {"model.num_layers": 3}, cache=cache)
    with pytest.raises(ConfigError, match="settings: unknown field 'max_step'"):
        resume(folder, settings={"max_step": 3}, cache=cache)
    assert resume(folder, options={"cleaning": ()}, cache=cache).summary["steps"] == 12


def test_what_fine_tuning_began_with_may_be_repeated(
    go: Any, text_file: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go("base", max_steps=2)
    monkeypatch.chdir(tmp_path)
    options = {"init_from": "base", "tokenizer": "byte", "vocab_size": 256}
    settings = {"max_steps": 2, "sample_tokens": 0}
    train(data=str(text_file), run_dir="tuned", settings=settings, cache=cache, **options)
    for init_from in ("base", Path("base"), "./base/"):
        same = options | {"init_from": init_from, "preset": "nano"}
        assert resume("tuned", options=same, settings=settings, cache=cache).summary["steps"] == 2
    for name, value in {"tokenizer": "char", "vocab_size": 300, "init_from": "other"}.items():
        with pytest.raises(ConfigError, match=f"{name}: given with --resume as "):
            resume("tuned", options={name: value}, cache=cache)


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


@pytest.mark.parametrize(("name", "value"), [("tokenizer", "char"), ("vocab_size", 300)])
def test_another_vocabulary_than_the_bases_is_refused_naming_both(
    name: str, value: Any, auto_run: Path, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    own = {"tokenizer": "byte", "vocab_size": 256}
    options = {"data": str(text_file), "init_from": auto_run, "cache": cache}
    with pytest.raises(ConfigError, match=f"{name}: {value}, expected {own[name]}, that of the"):
        train(run_dir=tmp_path / "no", **options, **{name: value})
    settings = {"max_steps": 1, "sample_tokens": 0}
    train(run_dir=tmp_path / "same", settings=settings, **options, **{name: own[name]})


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


def test_before_the_first_step_no_rate_is_said(
    go: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = go("base").run_dir
    (tmp_path / "text.txt").write_text(make_text(3000))
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="minilm"):
        train(
            data=str(tmp_path / "text.txt"),
            run_dir=tmp_path / "tuned",
            init_from=base,
            settings=SETTINGS,
            cache=tmp_path / "cache",
        )
    lines = [text for text in caplog.messages if "validation loss" in text]
    first, *others = [text for text in lines if text.startswith("step")]
    assert first.startswith("step      0 ")
    assert first.endswith(" bits a byte")
    assert others
    assert all(text.endswith(" tokens/s") for text in others)


def test_an_empty_folder_name_is_refused(text_file: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="run_dir: an empty name"):
        train(data=str(text_file), run_dir="", cache=cache)


def test_an_outcome_prints_as_one_line(tiny_run: Path) -> None:
    outcome = minilm.resume(tiny_run)  # finished: left as it is
    assert str(outcome) == repr(outcome)
    loss = outcome.summary["best_val_loss"]
    assert re.fullmatch(
        rf"<{tiny_run}: 12 steps in [\w. ]+, best validation loss {loss:.4f} "
        r"\(\d\.\d{3} bits a byte\), stopped by max_steps>",
        str(outcome),
    )
    outcome.summary["best_val_loss"] = None  # as of a run that was interrupted at once
    assert "loss" not in str(outcome)


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


def test_the_messages_say_what_will_be_done_how_long_it_takes_and_why_it_ends(
    go: Any, auto_dtype: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "minilm")
    options = {"eval_tokens": 100, "early_stopping": 2, "learning_rate": 1e-30}
    outcome = go(eval_every=1, log_every=2, muon_learning_rate=1e-30, **options)
    data = outcome.summary["data"]
    train, val = data["train_tokens"], data["val_tokens"]
    assert caplog.messages[:4] == [
        f"14,784 parameters, on cpu in {auto_dtype}",
        f"12 steps of 64 tokens: {12 * 64 / train:.0%} of the {train:,} training tokens",
        f"an evaluation after each step, over 100 of {val:,} validation tokens, over all at the end",
        "early stopping after 2 evaluations without a better loss",
    ]
    (duration,) = [each for each in caplog.messages if each.startswith("about ")]
    assert duration.endswith(" s for the 9 steps left, evaluations included")
    assert caplog.messages[-1].startswith(
        "early stopping: 2 evaluations without a better loss than"
    )
    caplog.clear()
    go("short", max_seconds=1e-9)
    caplog.clear()
    resume(outcome.run_dir.parent / "short", settings={"max_seconds": 1e9}, cache=cache)
    assert caplog.messages[1:3] == [
        "resuming after step 0",
        f"12 steps of 64 tokens: {12 * 64 / train:.0%} of the {train:,} training tokens",
    ]
    (duration,) = [each for each in caplog.messages if each.startswith("about ")]
    assert duration.endswith(" s for the 9 steps left, evaluations included")
