"""What a function launches on CUDA, recorded and replayed: the card does not wait for Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def capture(
    call: Callable[[], None],
    stream: torch.cuda.Stream,
    pool: Any = None,
) -> torch.cuda.CUDAGraph | None:
    """Record ``call``, of which nothing is computed; None, with a note, where that cannot be done.

    It must have run on ``stream`` before, so that kernels are loaded and what it keeps is allocated. Its
    tensors stay where they are: in ``pool``, a `graph_pool_handle` that graphs which run in turn may share.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads, as that which saves, may use the card meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            call()
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        logger.warning(f"without CUDA graphs: {reason}")
        return None
    return graph


def run_on(stream: torch.cuda.Stream, call: Callable[[], None]) -> None:
    """``call`` on ``stream``, after what the current one has been given and before what it is given next."""
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        call()
    current.wait_stream(stream)
