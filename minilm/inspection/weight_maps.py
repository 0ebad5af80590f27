"""Which matrices of a model are drawn as heat maps, and what is drawn of each, read from the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minilm.formats.header import StoredTensor
from minilm.inspection.inspector import Inspection
from minilm.inspection.names import layer_and_matrix
from minilm.ledger import components

MAX_MAPS = 64
SIDE = 48  # blocks along a side, at most

# Whose rows are those of heads, and of which number of them.
_ROWS_OF_HEADS = {
    components.ATTENTION_QUERY: "h",
    components.ATTENTION_KEY: "g",
    components.ATTENTION_VALUE: "g",
}


@dataclass(frozen=True)
class WeightMap:
    """The root mean square of the values in each block of a matrix, row by row; None where not finite.

    ``layer`` is empty for a matrix of no layer. ``heads`` stand below one another, or with ``across`` side by
    side, in blocks of their own; 0 where the matrix has none.
    """

    layer: str
    matrix: str
    shape: tuple[int, int]
    rows: int
    columns: int
    values: tuple[float | None, ...]
    heads: int = 0
    across: bool = False


def weight_maps(inspection: Inspection) -> tuple[WeightMap, ...]:
    """Of every matrix of floating-point values; of many, those of layers that are evenly spread."""
    if inspection.header is None:
        return ()
    from minilm.values.matrix_blocks import can_be_divided
    from minilm.values.read import why_unread

    readable = [
        tensor
        for tensor in inspection.header.tensors
        if can_be_divided(tensor) and not _is_integer(tensor) and why_unread(tensor) is None
    ]
    of = {row.name: row.component for row in inspection.report.tensors}
    return tuple(
        _map(tensor, layer, matrix, *_heads(tensor, of.get(tensor.name, ""), inspection))
        for layer, matrix, tensor in _chosen(readable)
    )


def _is_integer(tensor: StoredTensor) -> bool:
    return tensor.dtype.startswith(("int", "uint", "bool"))


def _chosen(tensors: Sequence[StoredTensor]) -> list[tuple[str, str, StoredTensor]]:
    """At most `MAX_MAPS`, each with its layer and its name there; of experts the first."""
    outside: list[tuple[str, str, StoredTensor]] = []
    layers: dict[str, dict[str, StoredTensor]] = {}
    for tensor in tensors:
        cell = layer_and_matrix(tensor.name)
        if cell is None:
            outside.append(("", tensor.name.removesuffix(".weight"), tensor))
        else:
            layer, matrix = cell
            layers.setdefault(layer, {}).setdefault(matrix.removesuffix(".weight"), tensor)
    outside = outside[: MAX_MAPS // 4]
    room, names = MAX_MAPS - len(outside), sorted(layers, key=_in_numbers)
    each = max(map(len, layers.values()), default=1)
    count = min(len(names), max(1, room // each))
    spread = [names[round(n * (len(names) - 1) / max(count - 1, 1))] for n in range(count)]
    inside = [(name, matrix, t) for name in spread for matrix, t in layers[name].items()]
    return [*inside[:room], *outside]


def _in_numbers(layer: str) -> tuple[str, int]:
    """A sort key that puts layer 10 after layer 2."""
    stem, _, number = layer.rpartition(".")
    return stem, int(number)


def _heads(tensor: StoredTensor, component: str, inspection: Inspection) -> tuple[int, bool]:
    """How many heads a matrix has that is stored as (outputs, inputs), and whether they are columns.

    An output projection is taken for one of these where query, key and value are matrices of their own.
    """
    symbols = inspection.layout.symbols if inspection.layout else {}
    heads, width = symbols.get("h", 0), symbols.get("k", 0)
    if component in _ROWS_OF_HEADS:
        heads = symbols.get(_ROWS_OF_HEADS[component], 0)
        return (heads, False) if heads * width == tensor.shape[0] else (0, False)
    declared = inspection.layout.components() if inspection.layout else {}
    is_output = component == components.ATTENTION_OUTPUT and components.ATTENTION_QUERY in declared
    if is_output and heads * width == tensor.shape[1]:
        return heads, True
    return 0, False


def _map(tensor: StoredTensor, layer: str, matrix: str, heads: int, across: bool) -> WeightMap:
    from minilm.values.matrix_blocks import block_sizes

    heads = heads if heads <= SIDE else 0
    rows, columns = (
        _blocks(length, heads if is_across == across else 0)
        for is_across, length in zip((False, True), tensor.shape, strict=True)
    )
    sizes = block_sizes(tensor, rows, columns).ravel().tolist()
    values = tuple(None if size != size else size for size in sizes)
    shape = (tensor.shape[0], tensor.shape[1])
    return WeightMap(
        layer,
        matrix,
        shape,
        rows=rows,
        columns=columns,
        values=values,
        heads=heads,
        across=across,
    )


def _blocks(length: int, heads: int) -> int:
    """How many blocks a side is divided into: the same number for each of ``heads``, where there are any."""
    if not heads:
        return min(length, SIDE)
    return heads * min(length // heads, SIDE // heads)
