"""Live modules whose parameters are easily missed, and configurations that transformers refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import minilm
from minilm.cli.inspect import main
from minilm.errors import FormatError

# torch warns that quantized tensors are deprecated; checkpoints of them stay.
quantized_modules = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def test_biases_of_recurrent_cells() -> None:
    for cell, gates in ((nn.LSTMCell(4, 3), 4), (nn.GRUCell(4, 3), 3), (nn.RNNCell(4, 3), 1)):
        parameters = minilm.inspect(cell).parameters
        assert (parameters.weights, parameters.biases) == (gates * 3 * (4 + 3), 2 * gates * 3)


class Recurrent(nn.Module):
    """What dynamic quantization replaces, and a table that it leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.cell = nn.LSTM(4, 3, 2), nn.GRU(4, 3), nn.LSTMCell(4, 3)
        self.head, self.table = nn.Linear(3, 2), nn.Embedding(5, 4)


def dynamically_quantized(module: nn.Module) -> nn.Module:
    kinds = {nn.LSTM, nn.GRU, nn.LSTMCell, nn.Linear}
    result: nn.Module = torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
    return result


@quantized_modules
def test_dynamic_quantization_leaves_the_count(tmp_path: Path) -> None:
    module = Recurrent()
    expected = minilm.inspect(module).parameters
    quantized = dynamically_quantized(module)
    report = minilm.inspect(quantized)
    counted = report.parameters
    assert (counted.total, counted.weights, counted.biases, counted.embedding) == (
        expected.total,
        expected.weights,
        expected.biases,
        20,
    )
    assert counted.trainable == 20  # the table is what training can still change
    dtypes = {row.name: row.dtype for row in report.tensors}
    assert (dtypes["lstm.weight_hh_l1"], dtypes["head.bias"]) == ("int8", "float32")
    torch.save(quantized.state_dict(), tmp_path / "x.pt")
    assert minilm.inspect(tmp_path / "x.pt").parameters.total == expected.total


@quantized_modules
def test_a_dynamically_quantized_linear_stores_its_scales_apart(tmp_path: Path) -> None:
    module = dynamically_quantized(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)))
    torch.save(module.state_dict(), tmp_path / "x.pt")
    report = minilm.inspect(tmp_path / "x.pt")
    assert (report.parameters.total, report.parameters.biases) == (676, 36)
    assert report.quantization is not None
    assert (report.quantization.parameters, report.quantization.scale_elements) == (640, 4)
    assert {row.name for row in report.tensors} == {"0.weight", "0.bias", "2.weight", "2.bias"}


@quantized_modules
def test_statically_quantized_modules_have_weights_that_are_no_parameters() -> None:
    modules = torch.ao.nn.quantized
    for module, total, stored in (
        (modules.Linear(3, 2), 8, 10),  # a scale and a zero point of the output
        (modules.Conv2d(2, 3, 1), 9, 11),
        (modules.Embedding(5, 4), 20, 20),
        (modules.BatchNorm2d(3), 6, 15),
    ):
        parameters = minilm.inspect(module).parameters
        assert (parameters.total, parameters.stored_elements) == (total, stored)
    assert minilm.inspect(modules.Embedding(5, 4)).parameters.embedding == 20


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def write_config(folder: Path, **fields: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA | fields))
    return path


def test_what_transformers_refuses_is_one_line(
    transformers: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_config(tmp_path, initializer_range="0.02")
    assert main([str(path), "--live"]) == 2
    output = capfd.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "initializer_range" in output.err
    assert output.err.startswith(f"error: {path}: transformers cannot build 'llama'")
    assert main([str(path), "--no-live"]) == 0
    # Whatever else a model's code raises.
    config = write_config(tmp_path)
    for error in (AssertionError(), ZeroDivisionError("a\nb"), RuntimeError("x")):

        def raise_error(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(transformers.AutoConfig, "for_model", raise_error)
        with pytest.raises(FormatError, match="transformers cannot build 'llama'"):
            minilm.inspect(config, live=True)


def test_infinity_as_transformers_writes_it(transformers: Any, tmp_path: Path) -> None:
    config = transformers.Mamba2Config(
        hidden_size=64,
        num_heads=8,
        head_dim=16,
        state_size=8,
        n_groups=1,
        num_hidden_layers=2,
        vocab_size=100,
    )
    config.save_pretrained(tmp_path)
    limit = [0.0, {"__float__": "Infinity"}]
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text()) | {"time_step_limit": limit}
    path.write_text(json.dumps(fields))
    model = transformers.Mamba2ForCausalLM(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert minilm.inspect(path, live=True).parameters.total == total
