"""Runs that an older version wrote still load, resume and inspect.

tests/fixtures/run-0.1.0 was written by the first 0.1.0: the default recipe on a tiny byte model, stopped
at step 7 of 12 in float32 on a CPU. expected.safetensors has the weights that it then ended with when
nothing stopped it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import minilm
from minilm.errors import ConfigError
from minilm.model import dropout
from minilm.runs.history import read_history
from minilm.training.resume_state import read_state
from minilm.training.train import resume
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "run-0.1.0"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A copy of the run, whose state looks for its text beside it."""
    folder = tmp_path / "run"
    shutil.copytree(FIXTURE / "run", folder)
    shutil.copy(FIXTURE / "story.txt", tmp_path)
    (state,) = (folder / "resume").iterdir()
    with safe_open(state, "pt") as stream:
        metadata = stream.metadata()
    settings = json.loads(metadata["settings"]) | {"source": str(tmp_path / "story.txt")}
    tensors = {name: tensor.clone() for name, tensor in load_file(state).items()}
    save_file(tensors, state, metadata | {"settings": json.dumps(settings)})
    return folder


def torchs_noise(x: torch.Tensor, probability: float) -> torch.Tensor:
    """What dropout multiplied by in versions that left its random numbers to torch."""
    return torch.empty_like(x).bernoulli_(1 - probability).div_(1 - probability)


def test_an_older_run_resumes_to_the_weights_that_the_older_code_reached(
    old_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the masks of its time: dropout takes other random numbers since."""
    monkeypatch.setattr(dropout, "noise", torchs_noise)
    outcome = resume(old_run, cache=tmp_path / "cache")
    assert outcome.stopped_because == "max_steps"
    assert outcome.summary["steps"] == 12
    expected = load_file(FIXTURE / "expected.safetensors")
    weights = load_file(old_run / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        # The last bits depend on the processor.
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6)


def test_an_option_that_an_older_run_has_no_record_of_is_refused(old_run: Path) -> None:
    with pytest.raises(ConfigError, match="preset: given with --resume, expected an option that"):
        resume(old_run, options={"preset": "nano"})


def test_an_older_run_is_extended_under_the_new_names(old_run: Path, tmp_path: Path) -> None:
    changes = {"max_steps": 14, "keep_states": 3}
    assert resume(old_run, settings=changes, cache=tmp_path / "cache").summary["steps"] == 14
    train = json.loads((old_run / "config.json").read_text())["train"]
    assert (train["max_steps"], train["keep_states"]) == (14, 3)
    assert "keep_last" not in train


def test_the_running_mean_of_an_older_state_is_read_under_its_old_name(old_run: Path) -> None:
    (state,) = (old_run / "resume").iterdir()
    with safe_open(state, "pt") as stream:
        progress = json.loads(stream.metadata()["progress"])
    assert read_state(old_run).progress.running_mean_loss == progress["usual_loss"] is not None


def test_an_older_run_loads_and_is_verified() -> None:
    model, tokenizer = minilm.load(FIXTURE / "run")
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, tokenizer.vocab_size)
    report = minilm.inspect(FIXTURE / "run")
    assert report.verified
    assert report.parameters.total == 4984
    assert report.witnesses.formula == report.witnesses.file == report.witnesses.module


def test_the_curves_of_an_older_run_are_read() -> None:
    history = read_history(FIXTURE / "run")
    assert [line["step"] for line in history.metrics if "val_loss" in line] == [3, 6]
