"""Stored tensors grouped into logical ones: the tensors of the model, quantized or not.

How each method packs its values is in the other files of `quantization`. Here every stored tensor is
assigned to exactly one logical tensor, and the groups are summed up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from minilm.errors import FormatError
from minilm.formats.header import Header, StoredTensor

if TYPE_CHECKING:
    from minilm.quantization.checkpoint import Decoded

Shape = tuple[int, ...]

# Scales by which runtimes quantize keys, values and queries of attention; they decode no weight.
CACHE_SCALES = (".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".k_zero_point", ".v_zero_point")


@dataclass(frozen=True)
class LogicalTensor:
    """A tensor of the model: its shape, the dtype of its values, and the stored tensors that hold them.

    ``parts`` hold the values; ``scales`` what else is needed to decode them: scales, zero points,
    codebooks, permutations. ``dtype`` is that of the values before packing: bfloat16, int4, nf4, q4_k, ...
    ``method`` packed them; empty where none did.
    """

    name: str
    shape: Shape
    dtype: str
    parts: tuple[StoredTensor, ...]
    scales: tuple[StoredTensor, ...] = ()
    method: str = ""

    @property
    def count(self) -> int:
        """Logical elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LogicalTensors:
    """All logical tensors of a checkpoint, and the method that quantized them (None: not quantized).

    ``cache_scales`` are those of the KV cache, which belong to no tensor. ``notes`` say which tensors
    could not be decoded and are counted as stored. ``assumed`` are the names of those whose shape is the
    formula's, because the file's method is not decoded.
    """

    tensors: tuple[LogicalTensor, ...]
    method: str | None = None
    notes: tuple[str, ...] = ()
    cache_scales: tuple[StoredTensor, ...] = ()
    assumed: tuple[str, ...] = ()


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
) -> LogicalTensors:
    """Group stored tensors into logical ones.

    ``quantization`` is config.json's quantization_config, or empty; ``expected`` are the shapes that
    the formula declares, which decide a packed tensor's shape where the file leaves it open. A configuration
    that contradicts the file is noted, and the file counts. Raises FormatError where two tensors
    would have one name, or one stored tensor would belong to two.
    """
    by_name, failures = _decode_by_method(header, quantization, expected)
    assumed = _assumed(header, quantization, expected, by_name)
    by_name |= assumed
    scales = {scale.name for decoded in by_name.values() for scale in decoded.scales}
    tensors, cache_scales = [], []
    for stored in header.tensors:
        decoded = by_name.get(stored.name)
        if decoded is not None:
            tensors.append(
                LogicalTensor(
                    *(decoded.name, decoded.shape, decoded.dtype),
                    *((stored,), decoded.scales, decoded.method),
                )
            )
        elif stored.name in scales:  # EXL2's q_scale is named like a query's
            continue
        elif _is_cache_scale(stored, expected):
            cache_scales.append(stored)
        else:
            tensors.append(LogicalTensor(stored.name, stored.shape, stored.dtype, (stored,)))
    if by_name:  # else nothing is decoded, and a header has each name once
        _check_unique(tensors)
    methods = sorted({decoded.method for decoded in by_name.values()})
    notes = (
        *_assumed_notes(list(assumed.values())),
        *_failure_notes(failures, by_name.keys() | scales),
        *_contradictions(quantization, by_name.values(), methods),
    )
    return LogicalTensors(
        tuple(tensors),
        " + ".join(methods) or None,
        notes,
        tuple(cache_scales),
        tuple(decoded.name for decoded in assumed.values()),
    )


def summary(logical: LogicalTensors) -> Quantization | None:
    """The quantization of a checkpoint, summed up for a report; None for one that is not quantized.

    The scales inside GGUF's blocks are bytes and not elements of their own.
    """
    from minilm.quantization.block_formats import VALUE_BITS, gguf_value_bytes

    quantized = [t for t in logical.tensors if t.scales or t.parts[0].dtype in VALUE_BITS]
    parameters = sum(tensor.count for tensor in quantized)
    if logical.method is None or parameters == 0:
        return None
    parts = [part for tensor in quantized for part in tensor.parts]
    scales = [scale for tensor in quantized for scale in tensor.scales] + list(logical.cache_scales)
    value_bytes = sum(gguf_value_bytes(part) for part in parts)
    scale_bytes = sum(part.nbytes for part in (*parts, *scales)) - value_bytes
    return Quantization(
        method=logical.method,
        parameters=parameters,
        stored_elements=sum(part.count for part in parts),
        scale_elements=sum(scale.count for scale in scales),
        value_bytes=value_bytes,
        scale_bytes=scale_bytes,
        bits_per_weight=8 * (value_bytes + scale_bytes) / parameters,
    )


def _decode_by_method(
    header: Header, quantization: Mapping[str, Any], expected: Mapping[str, Shape]
) -> tuple[dict[str, Decoded], dict[str, list[str]]]:
    """Decoded by the name of the tensor that holds the values; other names by the reason of failure."""
    # Imported here: a bare config.json has nothing to decode and should start fast.
    from minilm.quantization import methods
    from minilm.quantization.checkpoint import Checkpoint, UndecodableError

    by_name: dict[str, Decoded] = {}
    failures: dict[str, list[str]] = {}
    with Checkpoint(header, quantization, expected) as checkpoint:
        for tensor in header.tensors:
            try:
                decoded = methods.decode_tensor(tensor, checkpoint)
            except UndecodableError as error:
                failures.setdefault(str(error), []).append(tensor.name)
                continue
            if decoded is not None:
                by_name[tensor.name] = decoded
    return by_name, failures


def _failure_notes(failures: Mapping[str, Sequence[str]], known: Container[str]) -> Iterator[str]:
    """A note for each reason of failure; a scale in a packing dtype, which is ``known``, is none."""
    for reason, names in failures.items():
        stored = [name for name in names if name not in known]
        if stored:
            more = f" and {len(stored) - 1} more" if stored[1:] else ""
            yield f"{stored[0]}{more} cannot be decoded ({reason}): counted as stored"


def _assumed(
    header: Header,
    quantization: Mapping[str, Any],
    expected: Mapping[str, Shape],
    by_name: Mapping[str, Decoded],
) -> dict[str, Decoded]:
    """For a method that is not decoded: the formula's matrices, each by the largest tensor stored for it.

    What is stored for one are the tensors of its module that the formula does not have, and itself where it
    is packed. At least one of them holds integers, or floats of 8 bits or fewer.
    """
    method = quantization.get("quant_method")
    if not isinstance(method, str) or not expected:
        return {}
    from minilm.quantization.checkpoint import Decoded
    from minilm.quantization.methods import DECODED_METHODS, WIDE_DTYPES

    if method in DECODED_METHODS:
        return {}
    known = {name for d in by_name.values() for name in (d.name, *(t.name for t in d.scales))}
    known |= by_name.keys()
    known |= {
        tensor.name
        for tensor in header.tensors
        if tensor.name in expected
        and (tensor.shape == expected[tensor.name] or tensor.dtype in WIDE_DTYPES)
    }
    missing = {name.removesuffix(".weight"): name for name in expected if name not in known}
    stored: dict[str, list[StoredTensor]] = {}
    for tensor in header.tensors:
        module = tensor.name
        while module and module not in missing:
            module = module.rpartition(".")[0]
        if module and tensor.name not in known:
            stored.setdefault(missing[module], []).append(tensor)
    assumed = {}
    for name, tensors in stored.items():
        values, *others = sorted(tensors, key=lambda tensor: -tensor.nbytes)
        bits = 8 * sum(tensor.nbytes for tensor in tensors) / max(1, math.prod(expected[name]))
        is_packed = any(tensor.dtype not in WIDE_DTYPES for tensor in tensors)
        if is_packed and 0.5 <= bits <= 16:
            assumed[values.name] = Decoded(name, expected[name], method, method, tuple(others))
    return assumed


def _assumed_notes(tensors: Sequence[Decoded]) -> tuple[str, ...]:
    if not tensors:
        return ()
    more = f" and {len(tensors) - 1} more" if tensors[1:] else ""
    return (
        f"not decoded: {tensors[0].name}{more}, packed by {shortened(tensors[0].method)}: the shapes "
        "are the formula's, the file's are not checked",
    )


def _is_cache_scale(tensor: StoredTensor, expected: Mapping[str, Shape]) -> bool:
    return tensor.name.endswith(CACHE_SCALES) and tensor.name not in expected


def _check_unique(tensors: Sequence[LogicalTensor]) -> None:
    """Every name is that of one tensor, and every stored tensor belongs to one."""
    for names in (
        Counter(tensor.name for tensor in tensors),
        Counter(part.name for tensor in tensors for part in (*tensor.parts, *tensor.scales)),
    ):
        name, times = max(names.items(), key=lambda item: item[1], default=("", 1))
        if times > 1:
            raise FormatError(
                next((t.parts[0].file for t in tensors if t.parts[0].file), "the weights"),
                f"{times} tensors for {shortened(name)} once they are decoded",
                "each tensor stored once",
                "the file mixes two ways of storing it",
            )


def _contradictions(
    quantization: Mapping[str, Any], tensors: Iterable[Decoded], methods: list[str]
) -> list[str]:
    """A note for each of the configured method and bits that the file contradicts."""
    configured, bits = quantization.get("quant_method"), quantization.get("bits")
    if not isinstance(configured, str):
        configured = None
    if configured is not None and not methods:
        return [
            f"quant_method {shortened(configured)}: no tensor is stored by a known method, "
            "all are counted as stored"
        ]
    notes = []
    other = {"gptq", "awq", "marlin"} & set(methods) - {configured}
    if configured in ("gptq", "awq") and other:
        notes.append(
            f"quant_method {configured!r}: the tensors are packed as {' and '.join(sorted(other))}"
        )
    packed = {decoded.dtype for decoded in tensors if decoded.method in ("gptq", "awq")}
    if packed and bits is not None and f"int{bits}" not in packed:
        notes.append(
            f"bits {shortened(bits)}: the tensors are packed as {', '.join(sorted(packed))}"
        )
    return notes
