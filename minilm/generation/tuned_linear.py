"""Products of few rows with a matrix, each in the way that is measured to be fastest here.

Shapes: m rows, i inputs and o outputs of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from minilm.costs.hardware import physical_memory
from minilm.generation.tuning import choose

CACHE_BYTES = 2**27  # more than a processor's caches hold
AS_TORCH_DOES = "linear"
AS_VECTOR = "vector"
PACKED = "packed"
BY_COLUMNS = "columns"
MOST_COPIED = 0.25  # of the machine's memory: larger models are not held twice


class TunedLinear:
    """(m, i) -> (m, o): times a matrix (o, i), plus a bias; in one of several ways, torch's own first.

    On a CPU, torch gives a product of few rows to one thread. Split into parts of its outputs it goes to all
    threads, by another implementation: twice as fast on some processors, half as fast on others. One row in
    16 bits is a vector for which torch has a kernel of its own. A copy of the matrix may be faster: stored by
    columns, or, in bfloat16, in oneDNN's own order, to the same bits (docs/performance.md).
    """

    MAX_ROWS = 32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._ways = self._all_ways()
        self.chosen: dict[int, str] = {}  # the names of ways, by number of rows
        self._packed: dict[int, Tensor] = {}  # the matrix in oneDNN's order, by number of rows
        self._columns: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.computed(x, self.chosen.get(x.shape[0], AS_TORCH_DOES))

    def ways(self, rows: int) -> list[str]:
        """The names of the ways in which so many rows can be multiplied."""
        return [name for name in self._ways if rows == 1 or name != AS_VECTOR]

    def computed(self, x: Tensor, way: str) -> Tensor:
        """In one of the `ways`."""
        return self._ways[way](x)

    def choose(self, rows: int, way: str) -> None:
        """Compute products of so many rows in one of the `ways` from now on."""
        self.chosen[rows] = way
        if way != PACKED:
            self._packed.pop(rows, None)
        if BY_COLUMNS not in self.chosen.values():
            self._columns = None

    def _all_ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """In parts: two a thread or one, where there are so many outputs."""
        ways: dict[str, Callable[[Tensor], Tensor]] = {AS_TORCH_DOES: self._linear}
        if self.weight.device.type != "cpu":
            return ways
        if self.weight.dtype == torch.bfloat16 and packs_bfloat16():
            ways[PACKED] = self._by_packed
        if self.weight.dtype != torch.float32:
            return ways | {AS_VECTOR: self._vector}
        threads = max(2, torch.get_num_threads())
        counts = [parts for parts in (2 * threads, threads) if self.weight.shape[0] >= parts]
        in_parts = {f"{parts} parts": self._in_parts(parts) for parts in counts}
        return ways | in_parts | {BY_COLUMNS: self._by_columns}

    def _linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def _vector(self, x: Tensor) -> Tensor:
        row = x.view(-1)
        if self.bias is None:
            return torch.mv(self.weight, row).view(1, -1)
        return torch.addmv(self.bias, self.weight, row).view(1, -1)

    def _by_columns(self, x: Tensor) -> Tensor:
        if self._columns is None:
            self._columns = self.weight.t().contiguous()  # o i -> i o
        if self.bias is None:
            return torch.mm(x, self._columns)
        return torch.addmm(self.bias, x, self._columns)

    def _by_packed(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows not in self._packed:
            self._packed[rows] = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed[rows], self.bias, "none", [], ""
        )
        return product

    def _in_parts(self, parts: int) -> Callable[[Tensor], Tensor]:
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        split = weight.shape[0] // parts * parts
        matrices = weight[:split].view(parts, -1, weight.shape[1])
        times = torch.bmm
        if bias is not None:
            times = partial(torch.baddbmm, bias[:split].view(parts, -1, 1))

        def product(x: Tensor) -> Tensor:
            m = x.shape[0]
            columns = x.t().expand(parts, -1, m)  # parts i m
            y = times(matrices, columns)  # parts o/parts m
            y = y.view(1, -1) if m == 1 else y.view(-1, m).t()  # m o
            if split == weight.shape[0]:
                return y
            # The outputs that do not divide are a product of their own.
            remainder = F.linear(x, weight[split:], None if bias is None else bias[split:])
            return torch.cat((y, remainder), dim=1)

        return product


def packs_bfloat16() -> bool:
    """Whether this torch has oneDNN, and the processor what that needs for bfloat16."""
    return bool(
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def choose_ways(products: Iterable[TunedLinear], rows: int, packed: Sequence[Tensor] = ()) -> None:
    """In which way products of so many rows are computed, one choice for each shape of a model's matrices.

    Each shape is timed after the model's other matrices, ``packed`` ones too, which leave of it in the
    processor's caches what they do when a text is generated. A matrix that is read from memory gains most.
    """
    every = list(products)
    by_shape: dict[torch.Size, list[TunedLinear]] = {}
    for product in every:
        by_shape.setdefault(product.weight.shape, []).append(product)
    total = sum(each.nbytes for each in (*packed, *(product.weight for product in every)))
    memory = physical_memory()
    without = (PACKED, BY_COLUMNS) if memory is None or total > MOST_COPIED * memory else ()
    for shape, alike in by_shape.items():
        names = [name for name in alike[0].ways(rows) if name not in without]
        if len(names) == 1 or rows in alike[0].chosen:
            continue
        x = torch.ones(rows, shape[1], dtype=alike[0].weight.dtype)
        question = (
            f"{rows} x {shape[1]} by {shape[1]} x {shape[0]}, {len(alike)} matrices of "
            f"{len(every) + len(packed)}, {total:,} bytes, {x.dtype}: {', '.join(names)}"
        )
        floats = [each.weight for each in every if each.weight.shape != shape]
        others = _first([*floats, *packed], CACHE_BYTES)
        ways = [(name, partial(_run, alike, x, name)) for name in names]
        chosen = choose(question, ways, partial(_read, others))
        for product in alike:
            product.choose(rows, chosen)


def _run(products: list[TunedLinear], x: Tensor, way: str) -> None:
    for each in products:
        each.computed(x, way)


def _read(matrices: list[Tensor]) -> None:
    for each in matrices:
        each.sum()


def _first(matrices: list[Tensor], size: int) -> list[Tensor]:
    """As many of them as have so many bytes."""
    total = 0
    for count, matrix in enumerate(matrices):
        if total >= size:
            return matrices[:count]
        total += matrix.nbytes
    return matrices
