"""Which part of a checkpoint is the model: the layouts of training scripts, and what is left out."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.errors import FormatError
from minilm.formats import torch_contents
from minilm.formats.torch_file import read_header

MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
STATE = MODEL.state_dict()


def optimizer_state() -> dict[str, Any]:
    optimizer = torch.optim.Adam(MODEL.parameters())
    for parameter in MODEL.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


ADAM = optimizer_state()  # 12 tensors: step and two moments of each parameter


def read(folder: Path, value: Any, key: str | None = None) -> tuple[list[str], str]:
    """The names of the model's tensors, and the line about the others."""
    torch.save(value, folder / "x.pt")
    header = read_header(folder / "x.pt", key)
    return [tensor.name for tensor in header.tensors], "\n".join(header.omissions)


def other() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (STATE, ""),
        (
            {"net": STATE, "optimizer": ADAM, "epoch": 3},
            "read 'net'; left out 'optimizer' (12 tens",
        ),
        ({"generator": STATE, "g_opt": ADAM}, "left out 'g_opt' (optimizer, 12 tensors)"),
        (
            {"model_state": STATE, "optimizer_state": ADAM},
            "left out 'optimizer_state' (12 tensors)",
        ),
        (
            {"model": {"model_args": {"x": 1}, "state_dict": STATE}, "optimizer": ADAM},
            "read 'model.state_dict'; left out 'optimizer' (12 tensors)",
        ),
        ({"state_dict": STATE, "optimizer_states": [ADAM]}, "left out 'optimizer_states' (12 tens"),
        ([STATE, ADAM], "read '0'; left out '1' (optimizer, 12 tensors)"),
        (
            {"model": STATE, "opt": {"state": [{"a": torch.ones(1)}]}},
            "left out 'opt' (optimizer, 1 tensor)",
        ),
        ({"state_dict": STATE, "state_dict_ema": other()}, "left out 'state_dict_ema' (4 tensors)"),
        ({"params": STATE, "params_ema": other()}, "left out 'params_ema' (4 tensors)"),
        (
            {"encoder": STATE, "ema": {"shadow_params": [torch.ones(2)]}},
            "left out 'ema' (1 tensor)",
        ),
        ({"unet": STATE, "shadow": [torch.ones(2)]}, "left out 'shadow' (EMA, 1 tensor)"),
        ({"ema_model": STATE, "optimizer": ADAM}, "read 'ema_model'; left out 'optimizer'"),
        ({"net": STATE, "best_loss": torch.tensor(0.5)}, "left out 'best_loss' (1 tensor)"),
        ({"net": STATE, "lr_scheduler": {"base": torch.ones(1)}}, "left out 'lr_scheduler' (1 t"),
        (
            {"net": STATE, "rng": {"torch": torch.get_rng_state(), "cuda": []}},
            "left out 'rng' (1 tensor)",
        ),
        (STATE | {"optimizer": ADAM}, "left out 'optimizer' (12 tensors)"),
        (STATE | {"cpu_rng_state": torch.get_rng_state()}, "left out 'cpu_rng_state' (1 tensor)"),
    ],
)
def test_the_model_under_any_key_and_depth(tmp_path: Path, value: Any, line: str) -> None:
    names, skipped = read(tmp_path, value)
    assert names == list(STATE)
    assert line in skipped if line else not skipped


def test_several_models_are_asked_for(tmp_path: Path) -> None:
    value = {"student": STATE, "teacher": other(), "optimizer": ADAM}
    with pytest.raises(FormatError, match=r"'student' \(4 tensors\), 'teacher'.*--state-dict KEY"):
        read(tmp_path, value)
    left_out = "left out 'student' (4 tensors), 'optimizer' (12 tensors)"
    assert read(tmp_path, value, "teacher") == (list(STATE), f"read 'teacher'; {left_out}")
    both = [f"{model}.{name}" for model in ("student", "teacher") for name in STATE]
    assert read(tmp_path, value, ".") == (both, "left out 'optimizer' (12 tensors)")
    assert len(read(tmp_path, value, "optimizer")[0]) == 12
    with pytest.raises(FormatError, match="no tensors under 'pupil', expected one of 'student'"):
        read(tmp_path, value, "pupil")
    with pytest.raises(FormatError, match="several state dicts: 'model'"):
        read(tmp_path, {"model": STATE, "module": other()})
    with pytest.raises(FormatError, match="several state dicts: 'ema'"):
        read(tmp_path, {"ema": STATE, "model_ema": other(), "optimizer": ADAM})


def test_a_key_of_several_names(tmp_path: Path) -> None:
    value = {"models": {"a.b": STATE, "c": other()}, "list": [STATE, other()]}
    for key in ("models.a.b", "models.c", "list.1"):
        assert read(tmp_path, value, key)[0] == list(STATE)


def test_parts_of_one_state_dict_stay_together(tmp_path: Path) -> None:
    parts = {"encoder": STATE, "decoder": other(), "bias": torch.ones(2)}
    names = [f"{part}.{name}" for part in ("encoder", "decoder") for name in STATE]
    assert read(tmp_path, parts)[0] == [*names, "bias"]
    assert read(tmp_path, {"state_dict": {"encoder": STATE, "decoder": other()}})[0] == names
    assert read(tmp_path, {"encoder": STATE})[0] == names[:4]


def test_states_without_a_model_are_no_parameters(tmp_path: Path) -> None:
    for value in (ADAM, {"optimizer": ADAM}, [ADAM, ADAM], {"rng_state": torch.get_rng_state()}):
        with pytest.raises(FormatError, match="no model but"):
            read(tmp_path, value)
    assert read(tmp_path, {"n": 1}) == ([], "")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_packed_linear_is_weight_and_bias(tmp_path: Path) -> None:
    """As torch.ao's dynamic quantization saves its modules, whose tensors are packed in tuples."""
    quantized = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    value = {
        "a.scale": torch.tensor(1.0),
        "a.zero_point": torch.tensor(0),
        "a._packed_params._packed_params": (quantized, torch.nn.Parameter(torch.zeros(2))),
        "b._packed_params._packed_params": (quantized, None),
        "c._packed_params._packed_weight": quantized,
        "_packed_params._packed_params": (quantized, torch.zeros(2)),
    }
    names = ["a.scale", "a.zero_point", "a.weight", "a.bias", "b.weight", "c.weight"]
    assert read(tmp_path, value)[0] == [*names, "weight", "bias"]
    assert read(tmp_path, dict(list(value.items())[:4]))[0] == names[:5]  # scalars beside tuples


def test_many_paths_to_one_list_take_no_time(tmp_path: Path) -> None:
    """20,000 entries that hold one list of 20,000 entries."""
    inner = [{"n": n} for n in range(20_000)]
    names, _ = read(tmp_path, {f"{n}": [inner, n] for n in range(20_000)} | {"a": torch.ones(1)})
    assert names == ["a"]


def test_names_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has the outer key once, and each of its tensors has it in its name."""
    value = {"a" * 100: {str(n): torch.ones(1) for n in range(8)}}
    monkeypatch.setattr(torch_contents, "MAX_NAMES_LENGTH", 8 * 102)
    assert len(read(tmp_path, value)[0]) == 8
    monkeypatch.setattr(torch_contents, "MAX_NAMES_LENGTH", 8 * 102 - 1)
    with pytest.raises(FormatError, match="names of over 815 characters together"):
        read(tmp_path, value)
