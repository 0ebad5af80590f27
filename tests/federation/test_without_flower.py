"""What `federate` says where Flower is not installed. Needs no Flower."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

import minilm
from minilm.cli.federate import main
from minilm.errors import InputError, MissingExtraError
from minilm.federation import flower


def test_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        flower, "find_spec", lambda name: None if name == "flwr" else find_spec(name)
    )
    monkeypatch.setattr(flower, "OLDEST_PYTHON", (3, 0))
    assert main(["--data", "nowhere.txt", "--clients", "2"]) == 2
    assert capsys.readouterr().err == (
        "error: federate: the package flwr is not installed, expected the optional extra "
        "'federate'; run: pip install 'minilm[federate]'\n"
    )
    federate: Any = minilm.federate
    with pytest.raises(MissingExtraError):
        federate(data="nowhere.txt", clients=2)
    monkeypatch.setattr(flower, "OLDEST_PYTHON", (4, 0))
    with pytest.raises(InputError, match=r"federate: Python 3\.\d+, expected 4\.0 or newer"):
        federate(data="nowhere.txt", clients=2)
