"""The largest singular value of a stored matrix, by Lanczos iteration in passes over its rows.

Golub and Van Loan, Matrix Computations, chapter 10: the three-term recurrence on W^T W from a random
start. Without orthogonalization known values come up again, the largest one stays right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt

from minilm.formats.header import StoredTensor
from minilm.values.read import Floats, Reader, pieces

WORKERS = 2
# Small enough that the linear algebra library starts no threads of its own: there are two already.
PIECE = 1 << 17
# A matrix of up to this many elements is kept in memory as float32 between the passes.
KEPT = 1 << 24
# A piece is whole rows, longer than that if it must be; of matrices with still longer ones, few enough
# rows are taken all at once, a run of columns at a time.
LONGEST_ROW = 1 << 21
FEW_ROWS = 512

TOLERANCE = 0.002
# A second check: another value may have come first, where the start knew little of the largest.
CHECKS = 2
PASSES_A_CHECK = 4
MOST_PASSES = 60

Matrix = npt.NDArray[np.float32]


def stable_rank_of(
    tensor: StoredTensor, norm: float, largest: float, pool: ThreadPoolExecutor
) -> float | None:
    """|W|_F^2 / sigma_max^2 of a finite matrix with this Frobenius norm and largest magnitude > 0.

    The iteration ends when the residual of sigma_max^2 is below 0.2% of it, twice. The result is then
    within 0.1%, towards too large; of matrices without any gap below sigma_max (random ones), one
    in some hundred may be a few percent too large. None for what `is_too_large`.
    """
    columns = tensor.shape[1]
    if is_too_large(tensor):
        return None
    if columns > LONGEST_ROW:
        return 1 / _largest_of_few_rows(tensor, norm)
    workers = WORKERS if tensor.count > PIECE else 1
    # float32 has no room for the squares of extreme values.
    scale = 1.0 if 1e-12 < largest < 1e12 else largest
    parts = [_Part(tensor, worker, workers, scale) for worker in range(workers)]

    def multiply(vector: Floats) -> Floats:
        narrow = vector.astype(np.float32)
        return sum(pool.map(lambda part: part.multiply(narrow), parts), np.zeros(columns))

    return (norm / scale) ** 2 / _largest_eigenvalue(multiply, columns)


def is_too_large(tensor: StoredTensor) -> bool:
    """Whether a matrix is too large for both ways: no stable rank is told of it."""
    rows, columns = tensor.shape
    return columns > LONGEST_ROW and rows > FEW_ROWS


def _largest_of_few_rows(tensor: StoredTensor, norm: float) -> float:
    """(sigma_max / norm)^2 through W W^T, in one pass over runs of all rows' columns."""
    rows, columns = tensor.shape
    # Whole blocks of quantized types.
    step = max(PIECE // rows // 256, 1) * 256
    gram = np.zeros((rows, rows))
    run = np.empty((rows, step))
    with Reader(tensor, step) as reader:
        for start in range(0, columns, step):
            count = min(step, columns - start)
            for row in range(rows):
                run[row, :count] = reader.values(row * columns + start, count)
            part = run[:, :count] / norm
            gram += part @ part.T
    return float(np.linalg.eigvalsh(gram)[-1])


class _Part:
    """Every workers-th piece of W: read again for every pass, or kept where W is small."""

    def __init__(self, tensor: StoredTensor, worker: int, workers: int, scale: float) -> None:
        self.tensor, self.worker, self.workers, self.scale = tensor, worker, workers, scale
        self.keep = tensor.count <= KEPT
        self.kept = list(self._read()) if self.keep else None

    def multiply(self, vector: npt.NDArray[np.float32]) -> Floats:
        """What these rows add to W^T W v."""
        result = np.zeros(len(vector))
        for matrix in self._read() if self.kept is None else self.kept:
            result += (matrix @ vector) @ matrix
        return result

    def _read(self) -> Iterator[Matrix]:
        columns = self.tensor.shape[1]
        piece = max(PIECE, columns)
        with Reader(self.tensor, min(piece, self.tensor.count)) as reader:
            mine = islice(pieces(self.tensor, piece), self.worker, None, self.workers)
            for start, count in mine:
                values = reader.values(start, count)
                if self.scale != 1.0:
                    values = values / np.float64(self.scale)
                # A copy where pieces are kept: the next read would overwrite it.
                yield values.astype(np.float32, copy=self.keep).reshape(-1, columns)


def _largest_eigenvalue(multiply: Callable[[Floats], Floats], size: int) -> float:
    """Of a symmetric operator with eigenvalues >= 0 that is not zero."""
    vector = np.random.default_rng(0).standard_normal(size)
    vector /= np.linalg.norm(vector)
    previous, beta = np.zeros(size), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    settled = 0
    while True:
        product = multiply(vector)
        diagonal.append(float(vector @ product))
        product -= diagonal[-1] * vector + beta * previous
        beta = float(np.linalg.norm(product))
        beside.append(beta)
        previous, vector = vector, product / (beta or 1.0)
        if len(diagonal) % PASSES_A_CHECK and beta:
            continue
        small = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        values, vectors = np.linalg.eigh(small)
        settled += bool(beta * abs(vectors[-1, -1]) <= TOLERANCE * values[-1])
        if settled == CHECKS or beta == 0 or len(diagonal) == MOST_PASSES:
            return float(values[-1])
