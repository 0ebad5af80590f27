"""What the tests with Flower share: skipped, with their reason, where it is not installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minilm.training.finish import Outcome
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text

# Those of the rounds are said by the rounds.
SETTINGS = {
    name: value
    for name, value in TINY_SETTINGS.items()
    if name not in ("max_steps", "eval_every", "log_every")
}
ROUNDS, LOCAL_STEPS = 3, 4
STEPS = ROUNDS * LOCAL_STEPS
# The centralised run of as many steps.
CENTRALISED = {"max_steps": STEPS, "eval_every": LOCAL_STEPS, "log_every": 4, "early_stopping": 0}
# A client keeps its random generator: dropout is as in the centralised run.
MODEL = TINY_MODEL | {"dropout": 0.1}


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, where it is installed; what it keeps goes to the test's folder."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    return pytest.importorskip("flwr", reason="the extra 'federate' is not installed")


@pytest.fixture(scope="session")
def client_texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two texts, the second three times as long."""
    folder = tmp_path_factory.mktemp("clients")
    paths = []
    for number, words in enumerate((3000, 9000)):
        path = folder / f"client-{number}.txt"
        path.write_text(make_text(words, seed=number + 1), encoding="utf-8")
        paths.append(str(path))
    return paths


Federate = Callable[..., Outcome]


@pytest.fixture
def federate(flwr: Any, text_file: Path, cache: Path, tmp_path: Path) -> Federate:
    """A federated run of the tiny byte model, into ``run`` of the test's folder."""
    from minilm.federation.federate import federate

    def run(
        checkpoint: Path | None = None, client: Sequence[str] = (), **arguments: Any
    ) -> Outcome:
        new = {"tokenizer": "byte", "model": MODEL} if checkpoint is None else {}
        common = {
            "data": str(text_file),
            "client": client,
            "rounds": ROUNDS,
            "local_steps": LOCAL_STEPS,
            "run_dir": tmp_path / "run",
            "settings": SETTINGS,
            "cache": cache,
        }
        return federate(checkpoint, **{**new, **common, **arguments})

    return run
