"""train() and resume(): what a run leaves, when it ends, and that it can always go on."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import minilm
from minilm.checkpoint import load
from minilm.data.batches import training_batch
from minilm.errors import ConfigError, FormatError, InputError
from minilm.runs.logs import read_metrics, read_samples
from minilm.training import resume_state as state
from minilm.training.evaluation import Validation
from minilm.training.resume_state import read_state
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text

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
    with safe_open(path, "pt") as stream:
        before = stream.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, before | metadata | {"sha256": state._digest(tensors)})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_folder_holds_what_is_documented(auto_run: Path, text_file: Path) -> None:
    assert sorted(path.name for path in auto_run.iterdir()) == [
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
        *("minilm", "torch", "seed", "val_dtype", "date"),
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
    assert set(evaluated[0]) == {*("step", "tokens", "seconds", "val_loss", "val_bits_per_byte")}
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
        with autocast:
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
def test_a_run_that_was_stopped_goes_on_exactly(go: Any, cache: Path, dropout: float) -> None:
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
    for tensor, found in (
        (torch.zeros(3), r"\('float32', 3\)"),
        (torch.zeros(16, dtype=torch.int64), r"\('int64', 16\)"),
    ):
        damage_state(newest, lambda tensors, tensor=tensor: tensors.update({name: tensor}))
        with pytest.raises(FormatError, match=rf"exp_avg {found}, expected \('float32', 16\)"):
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
    monkeypatch.setattr(trainer, "evaluate", lambda *_: Validation(next(losses), 1.0))
    outcome = go(eval_every=1, early_stopping=3)
    assert outcome.stopped_because == "early_stopping"
    assert outcome.summary["steps"] == 8
    assert outcome.summary["best_val_loss"] == 1.9


def test_patience_is_kept_over_a_stop(
    go: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minilm.training.trainer as trainer

    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *_: Validation(next(losses), 1.0))
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
    monkeypatch.setattr(trainer, "evaluate", lambda *_: Validation(next(losses), 1.0))
    outcome = go("all", schedule="constant")
    assert outcome.summary["steps"] == 12
    with safe_open(outcome.run_dir / "model.safetensors", "pt") as stream:
        assert stream.metadata() == {
            "format": "pt",
            "step": "8",
            "val_loss": "2.000000",
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
    import minilm.training.trainer as trainer

    true_loss, calls = trainer.next_token_loss, []

    def broken(model: Any, inputs: Any, targets: Any) -> torch.Tensor:
        calls.append(1)
        loss = true_loss(model, inputs, targets)
        return loss * float("nan") if len(calls) > 6 else loss

    monkeypatch.setattr(trainer, "next_token_loss", broken)
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
    with pytest.raises(FormatError, match="the weights are not those of this config"):
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
