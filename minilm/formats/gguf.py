"""The GGUF header: scalar metadata, and the type, shape and offset of each tensor.

Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version,
number of tensors, number of key-value pairs; the pairs; name, dimensions (fastest first), type and
offset of each tensor; padding; the data. In a header, arrays such as a vocabulary of 200,000 strings are
skipped: only their length is there, as ``KEY.length``, and short ones of whole numbers; `read_values`
reads all.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from minilm.dtypes import BITS, GGUF_BLOCKS, storage_bytes
from minilm.errors import FormatError
from minilm.formats.checks import check_name, check_shape, open_regular
from minilm.formats.header import Header, StoredTensor
from minilm.safe_text import short_repr

# Far above what real files have, and low enough to be read in Python within a second.
MAX_HEADER_BYTES = 64_000_000
MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_STRINGS = 2_000_000
MAX_SPLITS = 1000
MAX_ARRAY_DEPTH = 4
MAX_KEY_BYTES = 256  # of a tensor's name too; ggml allows 64
MAX_STRING_LENGTH = 1024  # longer ones, chat templates and licences, are skipped
MAX_NUMBERS = 1024  # of an array in a header

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
    42: "q2_0",
}

# Files of PrismML's fork of llama.cpp have the number of Q2_0 for blocks of another size.
Q2_0, OTHER_Q2_0 = 42, "q2_0_g128"

# `enum gguf_metadata_value_type`: the scalars with their struct codes, then the other two types.
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, FLOATS = 8, 9, (6, 12)


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``, and those of the other files of a split model.

    Raises FormatError or OSError.
    """
    with open_regular(path) as (stream, size):
        header = parse(stream, size, path)
    num_splits = header.metadata.get("split.count", "1")
    return header if num_splits in ("0", "1") else _read_splits(path, header, num_splits)


def read_values(path: Path, *prefixes: str) -> dict[str, Any]:
    """The metadata under the keys that begin with one of ``prefixes``: numbers, texts, lists of them.

    Raises FormatError or OSError.
    """
    values = {}
    with open_regular(path) as (stream, size):
        reader = _Reader(stream, size, path)
        for _ in range(_read_counts(reader)[1]):
            key, value_type = _read_name(reader, "a key"), reader.integer("I")
            if key.startswith(prefixes):
                values[key] = _read_value(reader, value_type, 1)
            elif value_type == ARRAY:
                _skip_items(reader, reader.integer("I"), reader.integer("Q"), 1)
            elif value_type == STRING:
                reader.skip(reader.integer("Q"))
            else:
                reader.skip(struct.calcsize("<" + _scalar_code(reader, value_type)))
    return values


def parse(stream: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of ``size`` bytes; ``path`` is the file of its tensors."""
    reader = _Reader(stream, size, path)
    num_tensors, num_keys = _read_counts(reader)
    metadata = _read_metadata(reader, num_keys)
    entries = [_read_entry(reader) for _ in range(num_tensors)]
    if len({name for name, *_ in entries}) < len(entries):
        raise reader.error("a tensor name that occurs twice", "each name once")
    alignment = metadata.get("general.alignment", "32")
    # Bounding the digits bounds the number.
    if not re.fullmatch(r"[0-9]{1,10}", alignment) or int(alignment).bit_count() != 1:
        raise reader.error(f"general.alignment {short_repr(alignment)}", "a power of two")
    data_start = _align(reader.position, int(alignment))
    tensors = _locate_tensors(reader, entries, data_start, int(alignment))
    return Header(tensors, metadata, sum(tensor.nbytes for tensor in tensors))


def _read_counts(reader: _Reader) -> tuple[int, int]:
    """Read what a file begins with; the numbers of tensors and of keys."""
    if reader.read(4) != b"GGUF":
        raise reader.error("no GGUF magic", "a GGUF file")
    version = reader.integer("I")
    if version not in (2, 3):
        got = f"version {version}"
        if version == 1 or version & 0xFFFF == 0:
            got += " (an early draft)" if version == 1 else " (big-endian)"
        raise reader.error(got, "little-endian version 2 or 3", "convert the model again")
    num_tensors, num_keys = reader.integer("Q"), reader.integer("Q")
    if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
        got = f"{num_tensors} tensors and {num_keys} keys"
        raise reader.error(got, f"at most {MAX_TENSORS} and {MAX_KEYS}")
    return num_tensors, num_keys


class _Reader:
    """Reads a stream forward through a buffer of fixed size, whatever is skipped."""

    WINDOW = 1 << 20

    def __init__(self, stream: BinaryIO, size: int, path: Path) -> None:
        self.stream, self.size, self.path = stream, size, path
        self.start, self.window = 0, b""  # the buffered bytes and their offset in the file
        self.position = 0
        self.items_left = MAX_STRINGS

    def read(self, count: int) -> bytes:
        """Read ``count`` bytes."""
        begin = self.position - self.start
        if begin + count > len(self.window):
            self._fill_window(count)
            begin = 0
        self.position += count
        return self.window[begin : begin + count]

    def integer(self, code: str) -> int:
        """Read an unsigned integer: ``code`` I has 32 bits, Q has 64."""
        return int.from_bytes(self.read(4 if code == "I" else 8), "little")

    def string(self, max_bytes: int) -> bytes | None:
        """Read a string; one of more than ``max_bytes`` is skipped and None."""
        length = self.integer("Q")
        if length > max_bytes:
            self.skip(length)
            return None
        return self.read(length)

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes, which must exist."""
        self.position += count
        self._check_position()

    def skip_strings(self, count: int) -> None:
        """Skip ``count`` strings, reading only their lengths."""
        self.count_items(count)
        unpack_length = struct.Struct("<Q").unpack_from
        while count:
            self._fill_window(8)
            window, offset, last_offset = self.window, 0, len(self.window) - 8
            while count and offset <= last_offset:
                offset += 8 + unpack_length(window, offset)[0]
                count -= 1
            self.skip(offset)

    def count_items(self, count: int) -> None:
        """Limit the total number of array elements that are visited one by one."""
        self.items_left -= count
        if self.items_left < 0:
            raise self.error(f"over {MAX_STRINGS} items in arrays", "fewer")

    def error(self, got: str, expected: str, remedy: str = "") -> FormatError:
        return FormatError(
            self.path, got, expected, remedy or "the file is truncated or is not GGUF"
        )

    def _fill_window(self, count: int) -> None:
        """Refill the buffer from the current position, with at least ``count`` bytes."""
        self._check_position()
        if self.position + count > self.size:
            got = f"{self.size} bytes"
            raise self.error(got, f"at least {self.position + count}")
        self.stream.seek(self.position)
        self.start, self.window = self.position, self.stream.read(max(count, self.WINDOW))
        if len(self.window) < count:
            raise self.error("a file that is being truncated", "an unchanged file")

    def _check_position(self) -> None:
        if self.position > min(self.size, MAX_HEADER_BYTES):
            got = f"a header of at least {self.position} bytes"
            raise self.error(got, f"at most {min(self.size, MAX_HEADER_BYTES)}")


# Name, dimensions (fastest first), ggml type, offset from the start of the data.
_Entry = tuple[str, tuple[int, ...], int, int]


def _read_metadata(reader: _Reader, count: int) -> dict[str, str]:
    """Scalars, short strings and short arrays of whole numbers as text, and the lengths of all arrays."""
    metadata: dict[str, str] = {}
    keys: set[str] = set()
    for _ in range(count):
        key = _read_name(reader, "a key")
        if key in keys:
            raise reader.error(f"the key {short_repr(key)} twice", "each key once")
        keys.add(key)
        value_type = reader.integer("I")
        if value_type == ARRAY:
            item_type, length = reader.integer("I"), reader.integer("Q")
            metadata[f"{key}.length"] = str(length)
            if item_type in SCALARS and item_type not in FLOATS and length <= MAX_NUMBERS:
                code = f"<{length}{SCALARS[item_type]}"
                raw = reader.read(struct.calcsize(code))
                metadata[key] = str(list(map(int, struct.unpack(code, raw))))
            else:
                _skip_items(reader, item_type, length, 1)
        elif value_type == STRING:
            text = reader.string(4 * MAX_STRING_LENGTH)
            if text is not None:
                metadata[key] = text.decode("utf-8", "replace")
        else:
            code = "<" + _scalar_code(reader, value_type)
            metadata[key] = str(struct.unpack(code, reader.read(struct.calcsize(code)))[0])
    return metadata


def _read_value(reader: _Reader, value_type: int, depth: int) -> Any:
    """A whole value; no array is longer than the bytes that the header may have."""
    if value_type == STRING:
        try:
            return (reader.string(MAX_HEADER_BYTES) or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise reader.error("a text that is not UTF-8", "UTF-8") from None
    if value_type == ARRAY:
        item_type, length = reader.integer("I"), reader.integer("Q")
        reader.count_items(length)
        if item_type in SCALARS:
            code = f"<{length}{SCALARS[item_type]}"
            return list(struct.unpack(code, reader.read(struct.calcsize(code))))
        if item_type == ARRAY and depth == MAX_ARRAY_DEPTH:
            raise reader.error("arrays in arrays", f"at most {MAX_ARRAY_DEPTH} deep")
        return [_read_value(reader, item_type, depth + 1) for _ in range(length)]
    code = "<" + _scalar_code(reader, value_type)
    return struct.unpack(code, reader.read(struct.calcsize(code)))[0]


def _skip_items(reader: _Reader, value_type: int, length: int, depth: int) -> None:
    if value_type == STRING:
        reader.skip_strings(length)
    elif value_type != ARRAY:
        reader.skip(length * struct.calcsize("<" + _scalar_code(reader, value_type)))
    elif depth == MAX_ARRAY_DEPTH:
        raise reader.error("arrays in arrays", f"at most {MAX_ARRAY_DEPTH} deep")
    else:
        reader.count_items(10 * length)  # an inner array takes that much longer than a string
        for _ in range(length):
            _skip_items(reader, reader.integer("I"), reader.integer("Q"), depth + 1)


def _scalar_code(reader: _Reader, value_type: int) -> str:
    if value_type not in SCALARS:
        raise reader.error(f"a value of type {value_type}", "one of GGUF's types 0 to 12")
    return SCALARS[value_type]


def _read_name(reader: _Reader, what: str) -> str:
    raw = reader.string(MAX_KEY_BYTES)
    try:
        if raw is not None:
            return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise reader.error(f"{what} that is not UTF-8 of at most {MAX_KEY_BYTES} bytes", "a name")


def _read_entry(reader: _Reader) -> _Entry:
    name = check_name(reader.path, _read_name(reader, "a tensor name"))
    num_dimensions = reader.integer("I")
    if num_dimensions > 8:  # ggml has four
        raise reader.error(f"tensor {short_repr(name)} of {num_dimensions} dimensions", "at most 8")
    dimensions = struct.unpack(f"<{num_dimensions}Q", reader.read(8 * num_dimensions))
    ggml_type, offset = reader.integer("I"), reader.integer("Q")
    return name, check_shape(reader.path, name, dimensions), ggml_type, offset


def _locate_tensors(
    reader: _Reader, entries: list[_Entry], data_start: int, alignment: int
) -> tuple[StoredTensor, ...]:
    """The tensors in the order of their data, checked to be contiguous and within the file."""
    entries.sort(key=lambda entry: (entry[3], 0 not in entry[1]))
    data_size = max(0, reader.size - data_start)
    ends = [*(offset for *_, offset in entries[1:]), data_size][: len(entries)]
    types, tensors, expected = _types(entries, ends, alignment), [], 0
    for (name, dimensions, ggml_type, offset), next_offset in zip(entries, ends, strict=True):
        if offset != expected:
            raise reader.error(f"tensor {short_repr(name)} at byte {offset}", f"byte {expected}")
        dtype = types.get(ggml_type, f"ggml type {ggml_type}")
        size = max(0, next_offset - offset)  # of an unknown type: all bytes up to the next tensor
        if dtype in BITS or dtype in GGUF_BLOCKS:
            if dimensions and dimensions[0] % GGUF_BLOCKS.get(dtype, (1, 0))[0]:
                got = f"tensor {short_repr(name)} with rows of {dimensions[0]}"
                raise reader.error(got, f"whole blocks of {GGUF_BLOCKS[dtype][0]}")
            size = storage_bytes(math.prod(dimensions), dtype)
        expected = _align(offset + size, alignment)
        if offset + size > data_size:
            got = f"tensor {short_repr(name)} up to byte {offset + size} of {data_size}"
            raise reader.error(got, "a whole file")
        tensors.append(
            StoredTensor(name, dtype, dimensions[::-1], size, data_start + offset, reader.path)
        )
    return tuple(tensors)


def _types(entries: list[_Entry], ends: list[int], alignment: int) -> dict[int, str]:
    """The types by number; the room that the tensors take decides which Q2_0 they are."""
    rooms = [
        (max(0, end - offset), dimensions)
        for (_, dimensions, ggml_type, offset), end in zip(entries, ends, strict=True)
        if ggml_type == Q2_0
    ]
    for dtype in (TYPES[Q2_0], OTHER_Q2_0):
        if all(_fills(room, dimensions, dtype, alignment) for room, dimensions in rooms):
            return TYPES | {Q2_0: dtype}
    return TYPES


def _fills(size: int, dimensions: tuple[int, ...], dtype: str, alignment: int) -> bool:
    """Whether rows of whole blocks take ``size`` bytes, or so much once padded."""
    exact = storage_bytes(math.prod(dimensions), dtype)
    is_whole = bool(dimensions) and dimensions[0] % GGUF_BLOCKS[dtype][0] == 0
    return is_whole and size in (exact, _align(exact, alignment))


def _align(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _read_splits(path: Path, header: Header, num_splits: str) -> Header:
    """The header of a model that llama.cpp split into NAME-00001-of-00003.gguf, ..."""
    match = re.fullmatch(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", path.name, re.DOTALL)
    if match is None or str(int(match[3])) != num_splits or not 0 < int(match[3]) <= MAX_SPLITS:
        got = f"one split of {short_repr(num_splits)}"
        raise FormatError(path, got, "a name like model-00001-of-00003.gguf", "keep the names")
    headers = []
    for number in range(1, int(match[3]) + 1):
        split = path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf")
        if split.name == path.name:
            headers.append(header)
            continue
        try:
            with open_regular(split) as (stream, size):
                headers.append(parse(stream, size, split))
        except FileNotFoundError:
            raise FormatError(path, f"no {split.name} beside it", "all splits") from None
    tensors = tuple(tensor for split in headers for tensor in split.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise FormatError(path, "a tensor that is in two splits", "each name once")
    expected = header.metadata.get("split.tensors.count", str(len(tensors)))
    if expected != str(len(tensors)):
        raise FormatError(
            path, f"{len(tensors)} tensors in all splits", f"{short_repr(expected)[1:-1]}"
        )
    return Header(tensors, headers[0].metadata, sum(split.data_bytes for split in headers))
