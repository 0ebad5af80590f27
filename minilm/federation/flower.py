"""Flower (Beutel et al. 2020, arXiv:2007.14390), imported where it is used, and quiet.

Of its interfaces those with gRPC between server and clients: `flwr.server.Server` with a strategy, and
`flwr.client.start_client`. A strategy, a client and its proxy are whatever has their methods.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from minilm.errors import InputError, MissingExtraError

OLDEST_PYTHON = (3, 11)
ARRAYS = "numpy.ndarray"  # as it names .npy files


def check_installed() -> None:
    """Raises MissingExtraError without the package, InputError where it cannot be had."""
    if find_spec("flwr") is None:
        if sys.version_info < OLDEST_PYTHON:
            python, oldest = (".".join(map(str, v)) for v in (sys.version_info[:2], OLDEST_PYTHON))
            raise InputError("federate", f"Python {python}", f"{oldest} or newer, as Flower needs")
        raise MissingExtraError("flwr", "federate", "federate")


def quiet() -> None:
    """Import it: it reports its use to nobody, and logs nothing beside the messages of minilm."""
    check_installed()
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    import_module("flwr.common")  # which sets the level of its logger
    logging.getLogger("flwr").setLevel(logging.CRITICAL)


def fit_result(
    arrays: list[bytes], tokens: int, metrics: dict[str, Any], *, failure: str | None = None
) -> Any:
    """A client's reply (`flwr.common.FitRes`); with a ``failure`` it counts as none, for that reason."""
    from flwr.common import Code, FitRes, Parameters, Status

    code = Code.OK if failure is None else Code.FIT_NOT_IMPLEMENTED  # it has no other that is no OK
    status = Status(code, failure or "")
    return FitRes(status, Parameters(arrays, ARRAYS), tokens, metrics)
