"""Dropout by the sample: a row is dropped the same whichever process has it, and however many there are.

Every process draws the mask of the whole batch from the same generator, and uses its own rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from minilm.model.dropout import drop_for


class RowsOfDropout(TorchFunctionMode):
    """Within it, dropout of ``rows`` of a batch of ``total`` is that of these rows in the whole batch.

    The first dimension of every input is the batch, or a multiple of it (heads of attention). A backward pass
    is without it: what is recomputed there needs `recomputation`.
    """

    _active: RowsOfDropout | None = None

    def __init__(self, rows: slice, total: int) -> None:
        super().__init__()
        self._rows, self._total = rows, total

    def __enter__(self) -> RowsOfDropout:
        RowsOfDropout._active = self
        drop_for((self._rows, self._total))
        entered: RowsOfDropout = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(self, *error: object) -> None:
        RowsOfDropout._active = None
        drop_for(None)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def recomputation(cls) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        """For torch's checkpoint: what a block is computed in, and recomputed in."""
        active = cls._active
        return contextlib.nullcontext(), active or contextlib.nullcontext()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Dropout is computed here, and attention with it from its parts; all else as it is."""
        kwargs = kwargs or {}
        if function is F.dropout:
            return self._dropout(*args, **kwargs)
        if function is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        assert not inplace
        if not training or p == 0:
            return x
        count = self._rows.stop - self._rows.start
        per_row = x.shape[0] // count
        whole = torch.empty((per_row * self._total, *x.shape[1:]), dtype=x.dtype, device=x.device)
        whole.bernoulli_(1 - p)
        return x * whole[self._rows.start * per_row : self._rows.stop * per_row] / (1 - p)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> Tensor:
        """(b, h, t, k) three times -> (b, h, t, k), as torch's own fallback computes it."""
        if is_causal:
            t = query.shape[-2]
            visible = torch.ones(t, t, dtype=torch.bool, device=query.device).tril()
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value
