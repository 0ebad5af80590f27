"""What arrives from another machine is read only where it is exactly what was expected. Needs no Flower."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

from minilm.errors import InputError
from minilm.federation.update import from_bytes, to_bytes

SHAPES = {"weight": (3, 4), "bias": (4,), "scale": ()}


def arrays() -> list[Any]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_tensors_survive_their_way() -> None:
    sent = arrays()
    for before, after in zip(sent, from_bytes(to_bytes(sent), SHAPES), strict=True):
        assert np.array_equal(before, after)
        assert after.dtype == np.float32
    transposed = [np.asfortranarray(sent[0]), *sent[1:]]
    assert to_bytes(transposed) == to_bytes(sent)


class Unpickled:
    """Something that must never be made."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def header_alone(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + data


GOOD = np.ones((3, 4), np.float32)
HOSTILE = {
    "pickle": pickle.dumps(Unpickled()),
    "objects": saved(np.array([[Unpickled()] * 4] * 3), allow_pickle=True),
    "double": saved(GOOD.astype(np.float64)),
    "big-endian": saved(GOOD.astype(">f4")),
    "fortran": saved(np.asfortranarray(GOOD)),
    "other shape": saved(GOOD.T.copy()),
    "flat": saved(GOOD.ravel()),
    "terabytes": header_alone((10**13,)),
    "right shape of terabytes, said": header_alone((3, 4, 10**12)),
    "negative": header_alone((-3, -4), b"\0" * 48),
    "short": saved(GOOD)[:-1],
    "long": saved(GOOD) + b"\0",
    "archive": b"PK\3\4" + bytes(200),
    "empty": b"",
    "version 2": saved(GOOD).replace(b"\x01\x00", b"\x02\x00", 1),
    "deep": b"\x93NUMPY\x01\x00" + (900).to_bytes(2, "little") + b"(" * 900,
    "not a number": saved(np.full((3, 4), np.nan, np.float32)),
    "infinite": saved(np.full((3, 4), np.inf, np.float32)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_else_is_read(name: str) -> None:
    good = to_bytes(arrays())
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"^weight: "):
            from_bytes([HOSTILE[name], *good[1:]], SHAPES)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_every_tensor_is_there_once() -> None:
    good = to_bytes(arrays())
    for files in (good[:-1], [*good, good[0]], []):
        with pytest.raises(InputError, match=f"{len(files)} tensors, expected 3"):
            from_bytes(files, SHAPES)
