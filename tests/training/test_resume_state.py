"""The state of a run whose parameters differ: frozen ones beside trained ones, in dtypes of their own."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.config import TrainConfig
from minilm.config.presets import PRESETS
from minilm.data.shards import prepare
from minilm.errors import FormatError
from minilm.model.transformer import Transformer
from minilm.parallel.tensor_parts import write_tensors
from minilm.training.data_source import DataSource
from minilm.training.resume_state import Progress, read_state, write_state
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest
from minilm.training.trainer import Trainer
from tests.conftest import TINY_MODEL, TINY_SETTINGS

FROZEN = {
    "embedding.token.weight": torch.float32,
    "blocks.0.attention.query.weight": torch.bfloat16,
    "blocks.1.feed_forward.up.weight": torch.float16,
}


@pytest.fixture
def make_trainer(text_file: Path, cache: Path) -> Any:
    source = DataSource(str(text_file), (), cache)

    def build(run_dir: Path, *, frozen: dict = FROZEN, resumed: bool = False, **settings: Any):
        # Autocast multiplies every dtype as bfloat16; the decoder that makes samples takes float32 alone.
        computed = {"dtype": "bfloat16", "device": "cpu", "sample_tokens": 0}
        config = TrainConfig(**TINY_SETTINGS | computed | settings)
        model_config = PRESETS["nano"].model_config(**TINY_MODEL | {"vocab_size": 256})
        model = Transformer(model_config, torch.Generator().manual_seed(0))
        for name, dtype in frozen.items():
            parameter = model.get_parameter(name)
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype)
        dataset = prepare(
            source.open(),
            tokenizer="byte",
            vocab_size=None,
            val_fraction=0.1,
            cache=cache,
            context_length=model_config.context_length,
        )
        saved = read_state(run_dir) if resumed else None
        run_dir.mkdir(exist_ok=True)
        spec = RunSpec(run_dir, model, config, dataset, source, resolve(config, 1.0), saved)
        return Trainer(spec, StopRequest())

    return build


def newest_tensors(run_dir: Path) -> dict[str, torch.Tensor]:
    return read_state(run_dir).tensors


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_frozen_parameters_are_saved_without_optimizer_and_resume_bit_for_bit(
    make_trainer: Any, tmp_path: Path, optimizer: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert make_trainer(whole, optimizer=optimizer).run() == "max_steps"
    first = make_trainer(parts, optimizer=optimizer)
    for _ in range(5):
        first.train_step.run()
    assert first.save()
    first.checkpoints.close()
    assert make_trainer(parts, optimizer=optimizer, resumed=True).run() == "max_steps"

    expected, tensors = newest_tensors(whole), newest_tensors(parts)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name
    start = make_trainer(tmp_path / "start").model
    for name, dtype in FROZEN.items():
        assert tensors[f"model.{name}"].dtype == dtype
        assert torch.equal(tensors[f"model.{name}"], start.get_parameter(name))
        assert not [key for key in tensors if key.startswith(f"optimizer.{name}.")]
    trained = {name for name, _ in start.named_parameters()} - FROZEN.keys()
    assert {key.removeprefix("optimizer.").rpartition(".")[0] for key in tensors} >= trained


def test_a_state_of_other_frozen_parameters_is_refused(make_trainer: Any, tmp_path: Path) -> None:
    name = "final_norm.weight"
    trainer = make_trainer(tmp_path / "run", frozen={name: torch.float32})
    trainer.train_step.run()
    assert trainer.save()
    trainer.checkpoints.close()
    message = rf"model\.{name} \('float32', 16\), expected \('bfloat16', 16\)"
    with pytest.raises(FormatError, match=message):
        make_trainer(tmp_path / "run", frozen={name: torch.bfloat16}, resumed=True)
    with pytest.raises(FormatError, match=rf"optimizer\.{name}\.exp_avg absent"):
        make_trainer(tmp_path / "run", frozen={}, resumed=True)


@pytest.mark.parametrize(
    "change",
    [
        *({"weights_dtype": 3}, {"weights_dtype": "nonsense"}, {"weights_dtype": []}),
        *({"text_field": 1}, {"cleaning": "html"}, {"cleaning": [1]}, {"train": []}),
        *({"source": None}, {"sha256": 1}, {"tokens": 1}),
    ],
)
def test_a_setting_that_no_run_has_is_refused_whatever_its_hash(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    settings = {"cleaning": [], "train": {}, "source": "a", "sha256": "0"}
    write_state(tmp_path, {"a": torch.zeros(1)}, Progress(), settings, keep=1)
    assert read_state(tmp_path).settings == settings
    write_state(tmp_path, {"a": torch.zeros(1)}, Progress(), settings | change, keep=1)
    with pytest.raises(FormatError, match="no progress in its header"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *({"step": -1}, {"step": 0.0}, {"loss_count": True}, {"evaluated_step": None}),
        *({"scaler": {"scale": 1.0}}, {"scaler": [1]}, {"best_val_loss": 1.0}),
        *({"seconds": math.inf}, {"joules": math.nan}, {"seconds": "1"}, {"loss_sum": 10**400}),
    ],
)
def test_progress_that_no_run_has_is_refused_whatever_its_hash(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    settings = {"cleaning": [], "train": {}, "source": "a", "sha256": "0"}
    metadata = {
        "progress": json.dumps(asdict(Progress()) | change),
        "settings": json.dumps(settings),
    }
    (tmp_path / "resume").mkdir()
    path = tmp_path / "resume" / "step-000000000.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, metadata, hashed=True)
    with pytest.raises(FormatError, match="no progress in its header"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "num_bytes"),
    [("F6_E2M3", 6), ("F4", 4), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("C64", 64), ("U64", 64)],
)
def test_a_dtype_that_no_state_has_is_refused_without_a_hash_too(
    tmp_path: Path, dtype: str, num_bytes: int
) -> None:
    """As a damaged state of 0.1.0, which has no hash of its header."""
    settings = {"cleaning": [], "train": {}, "source": "a", "sha256": "0"}
    metadata = {"progress": json.dumps(asdict(Progress())), "settings": json.dumps(settings)}
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, num_bytes]}
    header = json.dumps({"__metadata__": metadata, "a": entry}).encode()
    header += b" " * (-len(header) % 8)
    (tmp_path / "resume").mkdir()
    path = tmp_path / "resume" / "step-000000000.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(num_bytes))
    with pytest.raises(FormatError, match=r"Dtype not understood|not the bytes that were written"):
        read_state(tmp_path)
