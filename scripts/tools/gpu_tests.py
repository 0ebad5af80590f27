"""pytest -p scripts.tools.gpu_tests --out FILE: which tests passed, failed and did not end, as JSON.

Written after each test, so that what a limit cut off is named. What compiles takes longest and comes last.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOT_ENDED = "not_ended"


class Outcomes:
    """Of each test by its name, as they come."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.outcomes: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Of the tests that were selected none has ended."""
        session.items.sort(key=lambda item: "compile" in item.nodeid)
        self.outcomes = {item.nodeid: NOT_ENDED for item in session.items}
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After setup, call and teardown of each."""
        if report.when == "call" or not report.passed:
            self.outcomes[report.nodeid] = report.outcome
            self._write()

    def _write(self) -> None:
        named = {
            outcome: [name for name, own in self.outcomes.items() if own == outcome]
            for outcome in ("passed", "failed", "skipped", NOT_ENDED)
        }
        counts = {"passed": len(named.pop("passed"))}
        self.out.write_text(json.dumps(counts | named), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file."""
    parser.addoption("--out", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch the tests of this session."""
    config.pluginmanager.register(Outcomes(config.getoption("--out")))
