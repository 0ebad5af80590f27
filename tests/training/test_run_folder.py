"""train() and resume(): what they refuse, what they say, and what else is in a folder."""

import json
import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import minilm
from minilm.checkpoint import load
from minilm.config.presets import PRESETS, Preset
from minilm.errors import ConfigError, FormatError, InputError
from minilm.parallel.tensor_parts import write_tensors
from minilm.runs.lock import run_lock
from minilm.training.resume_state import read_state
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text

# In one of the dtypes: what they compute is in test_train.py.
pytestmark = [
    pytest.mark.usefixtures("auto_dtype"),
    pytest.mark.parametrize("auto_dtype", ["float32"], indirect=True, scope="module"),
]


def damage_state(path: Path, change: Any, **metadata: str) -> None:
    """Change a state and give it the SHA-256 of what it then is."""
    with safe_open(path, "pt") as stream:
        before = stream.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    write_tensors(path, tensors, before | metadata, hashed=True)


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
        settings=TINY_SETTINGS,
        cache=cache,
    )
    data.write_text(make_text(3000, seed=1))
    with pytest.raises(InputError, match="the text has changed since"):
        resume(folder, settings={"max_steps": 20}, cache=cache)


def test_an_existing_run_is_never_overwritten(go: Any) -> None:
    before = (go().run_dir / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="a run is there already"):
        go(seed=5)
    assert (go("other").run_dir / "model.safetensors").read_bytes() == before


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


def test_a_length_that_grows_ends_at_the_models(go: Any) -> None:
    with pytest.raises(ConfigError, match="initial_context_length: 32, expected at most"):
        go(initial_context_length=32)
    assert go(initial_context_length=16).summary["tokens"] == 12 * 4 * 16


def test_fine_tuning_says_what_it_takes_of_a_preset_of_another_shape(
    tiny_run: Path,
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
                init_from=tiny_run,
                settings={"max_steps": 1, "batch_size": 2, "sample_tokens": 0},
                cache=cache,
            )
        lines = [text for text in caplog.messages if text.startswith("of the preset")]
        expected = [
            f"of the preset {preset}: only steps, batches and schedule; the model has the shape of "
            "tiny: 2 layers of width 16, 16 tokens of context"
        ]
        assert lines == ([] if preset == "same" else expected)


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
        settings=TINY_SETTINGS,
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
        settings=TINY_SETTINGS | settings,
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


def test_what_the_run_began_with_may_be_repeated(go: Any, cache: Path) -> None:
    folder = go().run_dir
    same = {"preset": "nano", "tokenizer": "byte", "cleaning": [], "model.num_layers": 2}
    assert resume(folder, options=same, settings=TINY_SETTINGS, cache=cache).summary["steps"] == 12
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


@pytest.mark.parametrize(("name", "value"), [("tokenizer", "char"), ("vocab_size", 300)])
def test_another_vocabulary_than_the_bases_is_refused_naming_both(
    name: str, value: Any, tiny_run: Path, text_file: Path, cache: Path, tmp_path: Path
) -> None:
    own = {"tokenizer": "byte", "vocab_size": 256}
    options = {"data": str(text_file), "init_from": tiny_run, "cache": cache}
    with pytest.raises(ConfigError, match=f"{name}: {value}, expected {own[name]}, that of the"):
        train(run_dir=tmp_path / "no", **options, **{name: value})
    settings = {"max_steps": 1, "sample_tokens": 0}
    train(run_dir=tmp_path / "same", settings=settings, **options, **{name: own[name]})


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
            settings=TINY_SETTINGS,
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
