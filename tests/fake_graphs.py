"""CUDA graphs as they are called, on any device: what is captured runs at each replay, and not before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minilm.generation import token_graph
from minilm.training import step_graph


class FakeGraph:
    """Counts its replays."""

    replays = 0

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def replay(self) -> None:
        self._call()
        self.replays += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """Every graph that is captured in a test."""
    captured: list[FakeGraph] = []

    def capture(call: Callable[[], None], *_: Any) -> FakeGraph:
        captured.append(FakeGraph(call))
        return captured[-1]

    for module in (step_graph, token_graph):
        monkeypatch.setattr(module, "capture", capture)
        monkeypatch.setattr(module, "run_on", lambda _, call: call())
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return captured
