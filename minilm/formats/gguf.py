"""The GGUF header: scalar metadata and where each tensor lies, without a vocabulary or a weight.

Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version, the
numbers of tensors and of key-values; the key-values; name, dimensions (fastest first), type and
offset of each tensor; then, aligned, the data. A vocabulary is one array of 200,000 strings: arrays
are stepped over, and of their content only the length is kept, as ``KEY.length``.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import BinaryIO

from minilm.dtypes import BITS, GGUF_BLOCKS, storage_bytes
from minilm.errors import FormatError
from minilm.formats.checks import check_name, check_shape, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.safe_text import short_repr

# What real files stay far below; what a reader in Python steps over within a second.
LARGEST_HEADER = 64_000_000
MOST_KEYS = 4096
MOST_TENSORS = 65_536
MOST_STRINGS = 2_000_000
MOST_PARTS = 1000
DEEPEST_ARRAY = 4
LONGEST_KEY = 256  # of a tensor too; ggml allows 64
LONGEST_TEXT = 1024  # chat templates and licences are left out

# ggml's `enum ggml_type` (ggml/include/ggml.h).
TYPES: dict[int, str] = {
    0: "float32",
    1: "float16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    9: "q8_1",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    29: "iq1_m",
    30: "bfloat16",
    31: "q4_0_4_4",
    32: "q4_0_4_8",
    33: "q4_0_8_8",
    34: "tq1_0",
    35: "tq2_0",
    36: "iq4_nl_4_4",
    37: "iq4_nl_4_8",
    38: "iq4_nl_8_8",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
}

# `enum gguf_metadata_value_type`: the struct codes of the scalars, then the other two.
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``, and of its other parts where it is one part of several.

    Raises FormatError, or OSError as the file gives it.
    """
    with open_regular(path) as (stream, size):
        header = parse(stream, size, path)
    num_parts = header.metadata.get("split.count", "1")
    return header if num_parts in ("0", "1") else _with_other_parts(path, header, num_parts)


def parse(stream: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is where its tensors will say they are."""
    source = _Source(stream, size, path)
    if source.take(4) != b"GGUF":
        raise source.broken("no GGUF magic", "a GGUF file")
    version = source.integer("I")
    if version not in (2, 3):
        came = f"version {version}"
        if version == 1 or version & 0xFFFF == 0:
            came += " (an early draft)" if version == 1 else " (big-endian)"
        raise source.broken(came, "little-endian version 2 or 3", "convert the model again")
    num_tensors, num_keys = source.integer("Q"), source.integer("Q")
    if num_tensors > MOST_TENSORS or num_keys > MOST_KEYS:
        came = f"{num_tensors} tensors and {num_keys} keys"
        raise source.broken(came, f"at most {MOST_TENSORS} and {MOST_KEYS}")
    metadata = _read_metadata(source, num_keys)
    entries = [_read_entry(source) for _ in range(num_tensors)]
    if len({name for name, *_ in entries}) < len(entries):
        raise source.broken("a tensor name that occurs twice", "each name once")
    alignment = metadata.get("general.alignment", "32")
    # A power of two; the length keeps the number small.
    if not re.fullmatch(r"[0-9]{1,10}", alignment) or int(alignment).bit_count() != 1:
        raise source.broken(f"general.alignment {short_repr(alignment)}", "a power of two")
    data_start = _aligned(source.position, int(alignment))
    tensors = _placed(source, entries, data_start, int(alignment))
    return Header(tensors, metadata, sum(tensor.nbytes for tensor in tensors))


class _Source:
    """A stream read forward through a window, so that memory stays the same whatever is skipped."""

    WINDOW = 1 << 20

    def __init__(self, stream: BinaryIO, size: int, path: Path) -> None:
        self.stream, self.size, self.path = stream, size, path
        self.start, self.window = 0, b""  # what is in memory, and where it begins
        self.position = 0
        self.items_left = MOST_STRINGS

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        begin = self.position - self.start
        if begin + count > len(self.window):
            self._need(count)
            begin = 0
        self.position += count
        return self.window[begin : begin + count]

    def integer(self, code: str) -> int:
        """The next whole number."""
        return int.from_bytes(self.take(4 if code == "I" else 8), "little")

    def text(self, longest: int) -> bytes | None:
        """The next string; None, and stepped over, where it is longer than that."""
        length = self.integer("Q")
        if length > longest:
            self.skip(length)
            return None
        return self.take(length)

    def skip(self, count: int) -> None:
        """Step over bytes that must be there."""
        self.position += count
        self._check_position()

    def skip_strings(self, count: int) -> None:
        """Step over strings; only their lengths are read."""
        self.count_items(count)
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self._need(8)
            window, offset, last = self.window, 0, len(self.window) - 8
            while count and offset <= last:
                offset += 8 + length_at(window, offset)[0]
                count -= 1
            self.skip(offset)

    def count_items(self, count: int) -> None:
        """Keep the number of steps through arrays within reason."""
        self.items_left -= count
        if self.items_left < 0:
            raise self.broken(f"over {MOST_STRINGS} strings", "fewer")

    def broken(self, came: str, expected: str, remedy: str = "") -> FormatError:
        return FormatError(
            self.path, came, expected, remedy or "the file is cut short or is not GGUF"
        )

    def _need(self, count: int) -> None:
        """Move the window to the position; at least ``count`` bytes of it are there."""
        self._check_position()
        if self.position + count > self.size:
            came = f"{self.size} bytes"
            raise self.broken(came, f"at least {self.position + count}")
        self.stream.seek(self.position)
        self.start, self.window = self.position, self.stream.read(max(count, self.WINDOW))
        if len(self.window) < count:
            raise self.broken("a file that shrinks", "one that stays as it is")

    def _check_position(self) -> None:
        if self.position > min(self.size, LARGEST_HEADER):
            came = f"a header that goes on to byte {self.position}"
            raise self.broken(came, f"one within {min(self.size, LARGEST_HEADER)} bytes")


# Name, dimensions (fastest first), type, offset in the data.
_Entry = tuple[str, tuple[int, ...], int, int]


def _read_metadata(source: _Source, count: int) -> dict[str, str]:
    """Scalars and short strings as text; of an array its length."""
    metadata: dict[str, str] = {}
    seen: set[str] = set()
    for _ in range(count):
        key = _name(source, "a key")
        if key in seen:
            raise source.broken(f"the key {short_repr(key)} twice", "each key once")
        seen.add(key)
        kind = source.integer("I")
        if kind == ARRAY:
            metadata[f"{key}.length"] = str(_skip_array(source, 1))
        elif kind == STRING:
            text = source.text(4 * LONGEST_TEXT)
            if text is not None:
                metadata[key] = text.decode("utf-8", "replace")
        else:
            code = "<" + _scalar(source, kind)
            metadata[key] = str(struct.unpack(code, source.take(struct.calcsize(code)))[0])
    return metadata


def _skip_array(source: _Source, depth: int) -> int:
    kind, length = source.integer("I"), source.integer("Q")
    if kind == STRING:
        source.skip_strings(length)
    elif kind != ARRAY:
        source.skip(length * struct.calcsize("<" + _scalar(source, kind)))
    elif depth == DEEPEST_ARRAY:
        raise source.broken("arrays in arrays", f"at most {DEEPEST_ARRAY} deep")
    else:
        source.count_items(10 * length)  # a step into an array takes that much longer
        for _ in range(length):
            _skip_array(source, depth + 1)
    return length


def _scalar(source: _Source, kind: int) -> str:
    if kind not in SCALARS:
        raise source.broken(f"a value of type {kind}", "one of GGUF's types 0 to 12")
    return SCALARS[kind]


def _name(source: _Source, what: str) -> str:
    raw = source.text(LONGEST_KEY)
    try:
        if raw is not None:
            return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise source.broken(f"{what} that is not UTF-8 of at most {LONGEST_KEY} bytes", "a name")


def _read_entry(source: _Source) -> _Entry:
    name = check_name(source.path, _name(source, "a tensor name"))
    num_dimensions = source.integer("I")
    if num_dimensions > 8:  # ggml has four
        raise source.broken(
            f"tensor {short_repr(name)} of {num_dimensions} dimensions", "at most 8"
        )
    dimensions = struct.unpack(f"<{num_dimensions}Q", source.take(8 * num_dimensions))
    kind, offset = source.integer("I"), source.integer("Q")
    return name, check_shape(source.path, name, dimensions), kind, offset


def _placed(
    source: _Source, entries: list[_Entry], data_start: int, alignment: int
) -> tuple[StoredTensor, ...]:
    """The tensors in the order of their data, each behind the other's padding and inside the file."""
    entries.sort(key=lambda entry: (entry[3], 0 not in entry[1]))
    data_size = max(0, source.size - data_start)
    ends = [*(offset for *_, offset in entries[1:]), data_size][: len(entries)]
    tensors, expected = [], 0
    for (name, dimensions, kind, offset), next_offset in zip(entries, ends, strict=True):
        if offset != expected:
            raise source.broken(f"tensor {short_repr(name)} at byte {offset}", f"byte {expected}")
        dtype = TYPES.get(kind, f"ggml type {kind}")
        size = max(0, next_offset - offset)  # of an unknown type: all there is up to the next
        if dtype in BITS or dtype in GGUF_BLOCKS:
            if dimensions and dimensions[0] % GGUF_BLOCKS.get(dtype, (1, 0))[0]:
                came = f"tensor {short_repr(name)} with rows of {dimensions[0]}"
                raise source.broken(came, f"whole blocks of {GGUF_BLOCKS[dtype][0]}")
            size = storage_bytes(math.prod(dimensions), dtype)
        expected = _aligned(offset + size, alignment)
        if offset + size > data_size:
            came = f"tensor {short_repr(name)} up to byte {offset + size} of {data_size}"
            raise source.broken(came, "a whole file")
        tensors.append(
            StoredTensor(name, dtype, dimensions[::-1], size, data_start + offset, source.path)
        )
    return tuple(tensors)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _with_other_parts(path: Path, header: Header, num_parts: str) -> Header:
    """What all the files hold that llama.cpp split one model into: NAME-00001-of-00003.gguf, ..."""
    named = re.fullmatch(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", path.name, re.DOTALL)
    if named is None or str(int(named[3])) != num_parts or not 0 < int(named[3]) <= MOST_PARTS:
        came = f"one part of {short_repr(num_parts)}"
        raise FormatError(path, came, "a name like model-00001-of-00003.gguf", "keep the names")
    headers = []
    for number in range(1, int(named[3]) + 1):
        part = path.with_name(f"{named[1]}-{number:05}-of-{named[3]}.gguf")
        if part.name == path.name:
            headers.append(header)
            continue
        try:
            with open_regular(part) as (stream, size):
                headers.append(parse(stream, size, part))
        except FileNotFoundError:
            raise FormatError(path, f"no {part.name} beside it", "all parts of the model") from None
    tensors = tuple(tensor for part in headers for tensor in part.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise FormatError(path, "a tensor that is in two parts", "each name once")
    wanted = header.metadata.get("split.tensors.count", str(len(tensors)))
    if wanted != str(len(tensors)):
        raise FormatError(
            path, f"{len(tensors)} tensors in all parts", f"{short_repr(wanted)[1:-1]}"
        )
    return Header(tensors, headers[0].metadata, sum(part.data_bytes for part in headers))
