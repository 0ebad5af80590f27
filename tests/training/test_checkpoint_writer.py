"""Saving beside the training: copies, the order of writing, what is kept, errors that are raised."""

import contextlib
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.config import ModelConfig, TrainConfig
from minilm.errors import FormatError
from minilm.model.transformer import Transformer
from minilm.training import checkpoint_writer
from minilm.training.checkpoint_writer import CheckpointWriter
from minilm.training.optimizers import make_optimizers
from minilm.training.resume_state import Progress, read_state, state_files

METADATA = {"format": "pt", "step": "3", "val_loss": "1.0", "val_dtype": "float32"}
SETTINGS = {"source": "x", "cleaning": [], "sha256": "0", "train": {}}


@pytest.fixture
def model() -> Transformer:
    return Transformer(ModelConfig(num_layers=1, d_model=8, num_heads=2))


@pytest.fixture
def writer(model: Transformer) -> Any:
    writer = CheckpointWriter(model, make_optimizers(model, TrainConfig(), torch.float32), keep=2)
    yield writer
    writer.close()


def test_what_is_written_is_what_was_there_when_it_was_asked(
    writer: CheckpointWriter, model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), checkpoint_writer.write_tensors

    def slow(*arguments: Any) -> None:
        assert may_write.wait(10)
        write(*arguments)

    monkeypatch.setattr(checkpoint_writer, "write_tensors", slow)
    before = model.final_norm.weight.detach().clone()
    progress = Progress(step=3)
    writer.save(tmp_path, progress, SETTINGS, weights_metadata=METADATA)
    with torch.no_grad():  # training goes on while the thread waits
        model.final_norm.weight += 1
    progress.step = 4
    may_write.set()
    writer.wait()
    saved = read_state(tmp_path)
    assert saved.progress.step == 3
    assert torch.equal(saved.tensors["model.final_norm.weight"], before)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["final_norm.weight"], before)


def test_weights_are_on_the_disk_before_the_state_that_chose_them(
    writer: CheckpointWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    weights, state = checkpoint_writer.write_tensors, checkpoint_writer.write_state
    monkeypatch.setattr(
        checkpoint_writer, "write_tensors", lambda *a: (order.append("weights"), weights(*a))
    )
    monkeypatch.setattr(
        checkpoint_writer, "write_state", lambda *a, **k: (order.append("state"), state(*a, **k))
    )
    writer.save(tmp_path, Progress(step=1), SETTINGS, weights_metadata=METADATA)
    writer.save(tmp_path, Progress(step=2), SETTINGS, weights_metadata=None)
    writer.wait()
    assert order == ["weights", "state", "state"]


def test_the_newest_states_are_kept(writer: CheckpointWriter, tmp_path: Path) -> None:
    for step in (0, 9, 10, 100):
        writer.save(tmp_path, Progress(step=step), SETTINGS, weights_metadata=None)
    writer.wait()
    assert [path.name for path in state_files(tmp_path)] == [
        "step-000000100.safetensors",
        "step-000000010.safetensors",
    ]


def test_a_damaged_state_gives_way_to_the_one_before(
    writer: CheckpointWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 6):
        writer.save(tmp_path, Progress(step=step), SETTINGS, weights_metadata=None)
    writer.wait()
    newest, older = state_files(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert read_state(tmp_path).progress.step == 5
    assert "resuming from step-000000005.safetensors" in caplog.text
    older.write_bytes(b"")
    with pytest.raises(FormatError, match=r"step-000000006\.safetensors"):
        read_state(tmp_path)


def test_a_failure_in_the_thread_is_raised_by_the_next_call(
    writer: CheckpointWriter, tmp_path: Path
) -> None:
    writer.save(tmp_path / "missing", Progress(), SETTINGS, weights_metadata=METADATA)
    with pytest.raises(FileNotFoundError, match=r"missing"):
        writer.wait()
    writer.save(tmp_path, Progress(), SETTINGS, weights_metadata=METADATA)  # and it can go on
    writer.wait()
    assert read_state(tmp_path).progress.step == 0


def test_copies_are_allocated_once(writer: CheckpointWriter, tmp_path: Path) -> None:
    writer.save(tmp_path, Progress(), SETTINGS, weights_metadata=None)
    places = {name: copy.data_ptr() for name, copy in writer._copies.items()}
    writer.save(tmp_path, Progress(step=1), SETTINGS, weights_metadata=None)
    assert {name: copy.data_ptr() for name, copy in writer._copies.items()} == places


def test_with_one_state_kept_the_good_one_outlives_a_damaged_newer_one(
    model: Transformer, tmp_path: Path
) -> None:
    optimizers = make_optimizers(model, TrainConfig(), torch.float32)
    with contextlib.closing(CheckpointWriter(model, optimizers, keep=1)) as writer:
        for step in (5, 6):
            writer.save(tmp_path, Progress(step=step), SETTINGS, weights_metadata=None)
        writer.wait()
        (tmp_path / "resume" / "step-000000009.safetensors").write_bytes(b"damaged")
        writer.save(tmp_path, Progress(step=7), SETTINGS, weights_metadata=None)
        writer.wait()
    assert [path.name[:14] for path in state_files(tmp_path)] == [
        "step-000000009",
        "step-000000007",
    ]
    saved = read_state(tmp_path)
    assert saved.progress.step == 7
    assert saved.damaged == (tmp_path / "resume" / "step-000000009.safetensors",)


def test_every_single_change_of_a_state_is_noticed(
    writer: CheckpointWriter, tmp_path: Path
) -> None:
    writer.save(
        tmp_path, Progress(step=200, tokens=9, best_step=3), SETTINGS, weights_metadata=None
    )
    writer.wait()
    (path,) = state_files(tmp_path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    choose = random.Random(0)
    changes = [(choose.randrange(header), choose.randrange(1, 256)) for _ in range(1500)]
    changes += [(choose.randrange(header, len(whole)), 1) for _ in range(50)]
    for position, bits in changes:
        damaged = bytearray(whole)
        damaged[position] ^= bits
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            read_state(tmp_path)
    for old, new in ((b"200,", b"100,"), (b'tokens\\": 9', b'tokens\\": 8'), (b"F32", b"I32")):
        assert old in whole
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(FormatError, match="not the bytes that were written"):
            read_state(tmp_path)
    path.write_bytes(whole)
    path.rename(path.with_name("step-000000201.safetensors"))
    with pytest.raises(FormatError, match=r"a state of step 200, expected the name"):
        read_state(tmp_path)


def test_odd_things_among_the_states_are_passed_over(
    writer: CheckpointWriter, tmp_path: Path
) -> None:
    writer.save(tmp_path, Progress(step=5), SETTINGS, weights_metadata=None)
    writer.wait()
    (tmp_path / "resume" / "step-000000007.safetensors").mkdir()
    (tmp_path / "resume" / "step-000000006.safetensors").symlink_to("nowhere")
    saved = read_state(tmp_path)
    assert saved.progress.step == 5
    assert len(saved.damaged) == 2
