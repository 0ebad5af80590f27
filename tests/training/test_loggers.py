"""TensorBoard: what torch's writer is asked for, and one line where the package is absent."""

import sys
from types import ModuleType
from typing import Any

import pytest

from minilm.errors import MissingExtraError
from minilm.runs.logs import read_metrics
from minilm.training.loggers import TAGS
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS


class Writer:
    instances: list["Writer"]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.instances.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def start(text_file: Any, cache: Any, tmp_path: Any) -> Any:
    def go(**settings: Any) -> Any:
        return train(
            data=str(text_file),
            run_dir=tmp_path / "run",
            tokenizer="byte",
            model=TINY_MODEL,
            settings=TINY_SETTINGS | {"tensorboard": True} | settings,
            cache=cache,
        )

    return go


def test_every_line_of_metrics_goes_to_the_board(
    start: Any, cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    Writer.instances = []
    run_dir = start().run_dir
    resume(run_dir, settings={"max_steps": 16}, cache=cache)
    first, second = Writer.instances
    assert first.folder == second.folder == str(run_dir / "tensorboard")
    assert (first.purge_step, second.purge_step) == (1, 13)
    assert first.closed
    assert second.closed
    expected = [
        (tag, line[name], line["step"])
        for line in read_metrics(run_dir / "metrics.jsonl")
        for name, tag in TAGS.items()
        if name in line
    ]
    assert first.scalars + second.scalars == expected
    assert {tag for tag, _, _ in expected} == set(TAGS.values())


def test_without_the_package_it_is_one_line_before_anything_is_written(
    start: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minilm\[tensorboard\]'"):
        start()
    assert not (tmp_path / "run").exists()
