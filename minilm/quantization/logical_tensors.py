"""From stored tensors to logical ones: what a checkpoint's bytes stand for, quantized or not.

How each method packs its values is in `quantization`; here stored tensors are grouped by it, so that
each is in exactly one place, and the groups are summed up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor

if TYPE_CHECKING:
    from minilm.quantization.checkpoint import Decoded

Shape = tuple[int, ...]

# What runtimes keep beside attention to quantize its keys, values and queries; no weight is decoded by it.
CACHE_SCALES = (".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".k_zero_point", ".v_zero_point")


@dataclass(frozen=True)
class LogicalTensor:
    """A tensor as the model has it: its shape, how its values are coded, and where they are.

    ``parts`` hold the values; ``scales`` what else is needed to decode them: scales, zero points,
    codebooks, permutations. ``dtype`` is the code of the values: bfloat16, int4, nf4, q4_k, ...
    """

    name: str
    shape: Shape
    dtype: str
    parts: tuple[StoredTensor, ...]
    scales: tuple[StoredTensor, ...] = ()

    @property
    def count(self) -> int:
        """Logical elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Storage:
    """All logical tensors of a checkpoint, and by what method they are quantized (None: they are not).

    ``cache_scales`` belong to no tensor: those of the KV cache. ``notes`` say what could not be
    decoded and is counted as it is stored.
    """

    tensors: tuple[LogicalTensor, ...]
    method: str | None = None
    notes: tuple[str, ...] = ()
    cache_scales: tuple[StoredTensor, ...] = ()


@dataclass(frozen=True)
class Quantization:
    """How a quantized checkpoint stores its parameters.

    ``stored_elements`` are those that the values are packed in, ``scale_elements`` those of scales,
    zero points and codebooks; ``bits_per_weight`` has both kinds of bytes in it, over the parameters
    that are quantized.
    """

    method: str
    parameters: int
    stored_elements: int
    scale_elements: int
    value_bytes: int
    scale_bytes: int
    bits_per_weight: float


def decode(
    header: Header,
    quantization: Mapping[str, Any],
    expected: Mapping[str, Shape],
) -> Storage:
    """Group stored tensors into logical ones.

    ``quantization`` is config.json's quantization_config, or empty; ``expected`` are the shapes that
    the formula declares, which settle a packed tensor's shape where the file does not say it. The file
    decides: what a configuration says against it is noted. Raises FormatError where two tensors
    would have one name, or one tensor would belong to two.
    """
    found, failures = _ask_methods(header, quantization, expected)
    scales = {scale.name for decoded in found.values() for scale in decoded.scales}
    tensors, cache_scales = [], []
    for stored in header.tensors:
        decoded = found.get(stored.name)
        if decoded is not None:
            tensors.append(
                LogicalTensor(decoded.name, decoded.shape, decoded.dtype, (stored,), decoded.scales)
            )
        elif _is_cache_scale(stored, expected):
            cache_scales.append(stored)
        elif stored.name not in scales:
            tensors.append(LogicalTensor(stored.name, stored.shape, stored.dtype, (stored,)))
    if found:  # else each tensor is what it was, and a header has each name once
        _check_places(tensors)
    methods = sorted({decoded.method for decoded in found.values()})
    notes = (*failures, *_disagreements(quantization, found.values(), methods))
    return Storage(tuple(tensors), " + ".join(methods) or None, notes, tuple(cache_scales))


def summary(storage: Storage) -> Quantization | None:
    """What a report says of a quantized checkpoint; None for one that is not.

    The scales inside GGUF's blocks are bytes and not elements of their own.
    """
    from minilm.quantization.block_formats import VALUE_BITS, gguf_value_bytes

    quantized = [t for t in storage.tensors if t.scales or t.parts[0].dtype in VALUE_BITS]
    parameters = sum(tensor.count for tensor in quantized)
    if storage.method is None or parameters == 0:
        return None
    parts = [part for tensor in quantized for part in tensor.parts]
    scales = [scale for tensor in quantized for scale in tensor.scales] + list(storage.cache_scales)
    value_bytes = sum(gguf_value_bytes(part) for part in parts)
    scale_bytes = sum(part.nbytes for part in (*parts, *scales)) - value_bytes
    return Quantization(
        storage.method,
        parameters,
        sum(part.count for part in parts),
        sum(scale.count for scale in scales),
        value_bytes,
        scale_bytes,
        8 * (value_bytes + scale_bytes) / parameters,
    )


def _ask_methods(
    header: Header, quantization: Mapping[str, Any], expected: Mapping[str, Shape]
) -> tuple[dict[str, Decoded], list[str]]:
    """What each stored tensor of values stands for, and a note for each reason why one could not be."""
    # Here and not above: a bare config.json, which has nothing to decode, is read in a blink.
    from minilm.quantization import methods
    from minilm.quantization.checkpoint import Checkpoint, UndecodableError

    found: dict[str, Decoded] = {}
    failed: dict[str, list[str]] = {}
    with Checkpoint(header, quantization, expected) as checkpoint:
        for tensor in header.tensors:
            try:
                decoded = methods.decode_tensor(tensor, checkpoint)
            except UndecodableError as error:
                failed.setdefault(str(error), []).append(tensor.name)
                continue
            if decoded is not None:
                found[tensor.name] = decoded
    return found, [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''} cannot be decoded "
        f"({reason}): counted as stored"
        for reason, names in failed.items()
    ]


def _is_cache_scale(tensor: StoredTensor, expected: Mapping[str, Shape]) -> bool:
    return tensor.name.endswith(CACHE_SCALES) and tensor.name not in expected


def _check_places(tensors: Iterable[LogicalTensor]) -> None:
    """Every name stands for one tensor, and every stored tensor is part of one."""
    listed = list(tensors)
    for names in (
        Counter(tensor.name for tensor in listed),
        Counter(part.name for tensor in listed for part in (*tensor.parts, *tensor.scales)),
    ):
        name, times = max(names.items(), key=lambda item: item[1], default=("", 1))
        if times > 1:
            raise FormatError(
                next((t.parts[0].file for t in listed if t.parts[0].file), "the weights"),
                f"{times} tensors for {shortened(name)} once they are decoded",
                "each tensor stored once",
                "the file mixes two ways of storing it",
            )


def _disagreements(
    quantization: Mapping[str, Any], found: Iterable[Decoded], methods: list[str]
) -> list[str]:
    """What the configuration says of the method and the bits, where the file has it otherwise."""
    said, bits = quantization.get("quant_method"), quantization.get("bits")
    if not isinstance(said, str):
        said = None
    if said is not None and not methods:
        return [
            f"quant_method {shortened(said)}: no tensor is stored in a way known here, "
            "all are counted as stored"
        ]
    notes = []
    other = {"gptq", "awq"} & set(methods) - {said}
    if said in ("gptq", "awq") and other:
        notes.append(
            f"quant_method {said!r}: the tensors are packed as {' and '.join(sorted(other))}"
        )
    packed = {decoded.dtype for decoded in found if decoded.method in ("gptq", "awq")}
    if packed and bits is not None and f"int{bits}" not in packed:
        notes.append(
            f"bits {shortened(bits)}: the tensors are packed as {', '.join(sorted(packed))}"
        )
    return notes
