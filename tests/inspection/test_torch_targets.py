"""Checkpoints of torch as targets: the option --state-dict, and what the notes say was left out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import minilm
from minilm.cli.inspect import main
from minilm.errors import InputError

STATE = torch.nn.Linear(3, 2).state_dict()


def test_the_model_is_chosen_by_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pt"
    other = {name: tensor.clone() for name, tensor in STATE.items()}
    torch.save({"student": STATE, "teacher": other, "epoch": 1}, path)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "'student' (2 tensors), 'teacher' (2 tensors)" in error
    assert error.count("\n") == 1
    for key, total in (("student", 8), ("teacher", 8), (".", 16)):
        assert main([str(path), "--state-dict", key, "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["parameters"]["total"] == total
        assert minilm.inspect(path, state_dict=key).parameters.total == total
    report = minilm.inspect(path, state_dict="teacher")
    assert "read 'teacher'; left out 'student' (2 tensors)" in report.notes


def test_the_key_needs_a_file_of_torch(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "x.safetensors")
    for target in (tmp_path / "x.safetensors", "nano"):
        with pytest.raises(InputError, match=r"^--state-dict: "):
            minilm.inspect(target, state_dict="model")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_wrappers_is_said(prefix: str, tmp_path: Path) -> None:
    wrapped = {prefix + name: tensor for name, tensor in STATE.items()}
    torch.save(wrapped, tmp_path / "x.pt")
    save_file(wrapped, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        report = minilm.inspect(tmp_path / name)
        assert {row.name for row in report.tensors} == {"weight", "bias"}
        assert f"the prefix {prefix!r} of every name is left out" in report.notes


def test_buffers_of_an_exported_program_are_no_parameters(tmp_path: Path) -> None:
    """By what the file says, not by their names."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = torch.nn.Linear(3, 2)
            self.register_buffer("offset", torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.map(x) + self.offset
            return result

    program = torch.export.export(Model(), (torch.zeros(1, 3),))
    torch.export.save(program, tmp_path / "x.pt2")
    parameters = minilm.inspect(tmp_path / "x.pt2").parameters
    assert (parameters.total, parameters.buffers, parameters.stored_elements) == (8, 2, 10)
