"""The stable rank of a stored matrix; its largest singular value by Lanczos iteration over its rows.

Golub and Van Loan, Matrix Computations, chapter 10: the three-term recurrence on W^T W from a random
vector. Without reorthogonalization, converged eigenvalues reappear, but the largest stays correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt

from minilm.formats.header import StoredTensor
from minilm.values.read import Floats, Reader, chunks

WORKERS = 2
# Small enough that BLAS starts no threads of its own besides the WORKERS.
CHUNK_ELEMENTS = 1 << 17
# Matrices of up to this many elements stay in memory as float32 between the passes.
MAX_CACHED = 1 << 24
# A chunk is at least one row. If rows are longer than MAX_ROW but at most MAX_LONG_ROWS, all rows are
# read together, a range of columns at a time.
MAX_ROW = 1 << 21
MAX_LONG_ROWS = 512

TOLERANCE = 0.002
# A start nearly orthogonal to the largest singular vector converges first to another value.
CHECKS = 2
PASSES_PER_CHECK = 4
MAX_PASSES = 60

Matrix = npt.NDArray[np.float32]


def stable_rank_of(
    tensor: StoredTensor, norm: float, largest: float, pool: ThreadPoolExecutor
) -> float | None:
    """|W|_F^2 / sigma_max^2 of a finite matrix with Frobenius norm ``norm`` and magnitude ``largest`` > 0.

    The iteration ends when the residual of sigma_max^2 is within `TOLERANCE` in `CHECKS` checks. The
    result is then at most 0.1% too large; for about one in a hundred matrices without a gap below
    sigma_max (random ones), a few percent. None if `is_too_large`.
    """
    columns = tensor.shape[1]
    if is_too_large(tensor):
        return None
    if columns > MAX_ROW:
        return 1 / _largest_eigenvalue_of_long_rows(tensor, norm)
    workers = WORKERS if tensor.count > CHUNK_ELEMENTS else 1
    # The squares of extreme values would be out of float32's range.
    scale = 1.0 if 1e-12 < largest < 1e12 else largest
    shares = [_WorkerRows(tensor, worker, workers, scale) for worker in range(workers)]

    def multiply(vector: Floats) -> Floats:
        vector32 = vector.astype(np.float32)
        return sum(pool.map(lambda rows: rows.multiply(vector32), shares), np.zeros(columns))

    return (norm / scale) ** 2 / _largest_eigenvalue(multiply, columns)


def is_too_large(tensor: StoredTensor) -> bool:
    """Whether a matrix has too many rows that are too long: its stable rank is not computed."""
    rows, columns = tensor.shape
    return columns > MAX_ROW and rows > MAX_LONG_ROWS


def _largest_eigenvalue_of_long_rows(tensor: StoredTensor, norm: float) -> float:
    """(sigma_max / norm)^2 from W W^T, in one pass over ranges of columns."""
    rows, columns = tensor.shape
    # A multiple of the block sizes of quantized types.
    step = max(CHUNK_ELEMENTS // rows // 256, 1) * 256
    gram = np.zeros((rows, rows))
    buffer = np.empty((rows, step))
    with Reader(tensor, step) as reader:
        for start in range(0, columns, step):
            count = min(step, columns - start)
            for row in range(rows):
                buffer[row, :count] = reader.values(row * columns + start, count)
            normalized = buffer[:, :count] / norm
            gram += normalized @ normalized.T
    return float(np.linalg.eigvalsh(gram)[-1])


class _WorkerRows:
    """One worker's share of the chunks of W: kept in memory if W is small, else read in every pass."""

    def __init__(self, tensor: StoredTensor, worker: int, workers: int, scale: float) -> None:
        self.tensor, self.worker, self.workers, self.scale = tensor, worker, workers, scale
        self.is_cached = tensor.count <= MAX_CACHED
        self.cache = list(self._read()) if self.is_cached else None

    def multiply(self, vector: npt.NDArray[np.float32]) -> Floats:
        """These rows' part of the sum W^T W v."""
        result = np.zeros(len(vector))
        for matrix in self._read() if self.cache is None else self.cache:
            result += (matrix @ vector) @ matrix
        return result

    def _read(self) -> Iterator[Matrix]:
        columns = self.tensor.shape[1]
        size = max(CHUNK_ELEMENTS, columns)
        with Reader(self.tensor, min(size, self.tensor.count)) as reader:
            share = islice(chunks(self.tensor, size), self.worker, None, self.workers)
            for start, count in share:
                values = reader.values(start, count)
                if self.scale != 1.0:
                    values = values / np.float64(self.scale)
                # The next read overwrites the buffer, so cached chunks are copies.
                yield values.astype(np.float32, copy=self.is_cached).reshape(-1, columns)


def _largest_eigenvalue(multiply: Callable[[Floats], Floats], size: int) -> float:
    """The largest eigenvalue of a symmetric positive semidefinite operator that is not zero."""
    vector = np.random.default_rng(0).standard_normal(size)
    vector /= np.linalg.norm(vector)
    previous, beta = np.zeros(size), 0.0
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    num_converged = 0
    while True:
        product = multiply(vector)
        diagonal.append(float(vector @ product))
        product -= diagonal[-1] * vector + beta * previous
        beta = float(np.linalg.norm(product))
        off_diagonal.append(beta)
        previous, vector = vector, product / (beta or 1.0)
        if len(diagonal) % PASSES_PER_CHECK and beta:
            continue
        tridiagonal = (
            np.diag(diagonal) + np.diag(off_diagonal[:-1], 1) + np.diag(off_diagonal[:-1], -1)
        )
        values, vectors = np.linalg.eigh(tridiagonal)
        num_converged += bool(beta * abs(vectors[-1, -1]) <= TOLERANCE * values[-1])
        if num_converged == CHECKS or beta == 0 or len(diagonal) == MAX_PASSES:
            return float(values[-1])
