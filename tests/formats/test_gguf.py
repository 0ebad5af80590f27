"""The GGUF reader: a file by the letter of the format, one test for each way to be broken."""

import io
import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.dtypes import BITS, GGUF_BLOCKS, storage_bytes
from minilm.errors import FormatError
from minilm.formats.gguf import (
    MAX_ARRAY_DEPTH,
    MAX_NUMBERS,
    MAX_STRINGS,
    TYPES,
    parse,
    read_header,
    read_values,
)
from minilm.formats.header import whole_numbers
from tests.formats.files import ARRAY, STRING, UINT32, Entry, gguf, scalar, strings, text

F32, Q8_0, Q4_K = 0, 8, 12
NUMBERS = struct.pack("<IQ3f", 6, 3, 1, 2, 3)


def write(folder: Path, raw: bytes, name: str = "x.gguf") -> Path:
    (folder / name).write_bytes(raw)
    return folder / name


@pytest.mark.parametrize("version", [2, 3])
def test_tensors_and_metadata(tmp_path: Path, version: int) -> None:
    keys = [
        scalar("general.architecture", STRING, text("llama")),
        scalar("llama.block_count", UINT32, struct.pack("<I", 7)),
        scalar("llama.rope.freq_base", 6, struct.pack("<f", 0.5)),
        scalar("general.negative", 11, struct.pack("<q", -3)),
        scalar("general.true", 7, b"\1"),
        scalar("template", STRING, text("x" * 5000)),
        strings("tokenizer.ggml.tokens", ["a", "", "ccc"]),
        scalar("tokenizer.ggml.scores", ARRAY, NUMBERS),
        scalar("nested", ARRAY, struct.pack("<IQ", ARRAY, 2) + 2 * NUMBERS),
    ]
    tensors: list[Entry] = [
        ("a", (3, 2), F32, 0),
        ("b", (256, 5), Q4_K, 32),
        ("s", (), F32, 32 + 736),
    ]
    data = bytes(32 + 736 + 4)
    path = write(tmp_path, gguf(tensors, keys, data, version=version))
    header = read_header(path)
    start = path.stat().st_size - len(data)
    read = [(t.name, t.dtype, t.shape, t.nbytes, t.offset) for t in header.tensors]
    assert read == [
        ("a", "float32", (2, 3), 24, start),
        ("b", "q4_k", (5, 256), 5 * 144, start + 32),
        ("s", "float32", (), 4, start + 768),
    ]
    assert header.data_bytes == 24 + 720 + 4
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.block_count": "7",
        "llama.rope.freq_base": "0.5",
        "general.negative": "-3",
        "general.true": "True",
        "tokenizer.ggml.tokens.length": "3",
        "tokenizer.ggml.scores.length": "3",
        "nested.length": "2",
    }


def test_short_lists_of_whole_numbers_are_in_the_header(tmp_path: Path) -> None:
    """Such as those with a number for each layer, and not the types of all tokens."""

    def listed(key: str, kind: int, code: str, *values: int) -> bytes:
        head = struct.pack("<IQ", kind, len(values))
        return scalar(key, ARRAY, head + struct.pack(f"<{len(values)}{code}", *values))

    keys = [
        listed("heads", 5, "i", 4, 0, -1),
        listed("slides", 7, "?", True, False),
        listed("none", 4, "I"),
        listed("types", 5, "i", *[1] * (MAX_NUMBERS + 1)),
        scalar("scores", ARRAY, NUMBERS),
    ]
    metadata = read_header(write(tmp_path, gguf((), keys))).metadata
    assert metadata == {
        "heads": "[4, 0, -1]",
        "heads.length": "3",
        "slides": "[1, 0]",
        "slides.length": "2",
        "none": "[]",
        "none.length": "0",
        "types.length": str(MAX_NUMBERS + 1),
        "scores.length": "3",
    }
    assert whole_numbers(metadata, "slides") == (1, 0)
    for key in ("heads", "none", "types", "absent"):
        assert whole_numbers(metadata, key) is None


def test_the_files_alignment_is_used(tmp_path: Path) -> None:
    keys = [scalar("general.alignment", UINT32, struct.pack("<I", 64))]
    tensors: list[Entry] = [("a", (1,), F32, 0), ("b", (1,), F32, 64)]
    path = write(tmp_path, gguf(tensors, keys, bytes(68), alignment=64))
    assert [t.offset for t in read_header(path).tensors] == [
        path.stat().st_size - 68,
        path.stat().st_size - 4,
    ]


# Bits per weight as llama.cpp prints them (`llama-quantize --help`, README of the k-quants).
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("q1_0", 1.125),
        ("q2_0", 2.25),
        ("q2_0_g128", 2.125),
        ("q4_0", 4.5),
        ("q4_1", 5.0),
        ("q5_0", 5.5),
        ("q5_1", 6.0),
        ("q8_0", 8.5),
        ("q2_k", 2.625),
        ("q3_k", 3.4375),
        ("q4_k", 4.5),
        ("q5_k", 5.5),
        ("q6_k", 6.5625),
        ("iq1_s", 1.5625),
        ("iq1_m", 1.75),
        ("iq2_xxs", 2.0625),
        ("iq2_xs", 2.3125),
        ("iq2_s", 2.5625),
        ("iq3_xxs", 3.0625),
        ("iq3_s", 3.4375),
        ("iq4_nl", 4.5),
        ("iq4_xs", 4.25),
        ("tq1_0", 1.6875),
        ("tq2_0", 2.0625),
        ("mxfp4", 4.25),
        ("nvfp4", 4.5),
    ],
)
def test_bits_of_a_block(dtype: str, bits: float) -> None:
    elements, size = GGUF_BLOCKS[dtype]
    assert size * 8 / elements == bits
    assert storage_bytes(3 * elements, dtype) == 3 * size
    assert storage_bytes(3 * elements + 1, dtype) == 4 * size


def test_every_type_has_a_size() -> None:
    assert not {t for t in TYPES.values() if t not in BITS and t not in GGUF_BLOCKS}
    assert not BITS.keys() & GGUF_BLOCKS.keys()
    assert len(set(TYPES.values())) == len(TYPES)


def test_sizes_agree_with_the_gguf_package() -> None:
    constants = pytest.importorskip("gguf.constants", reason="the extra 'gguf' is not installed")
    for kind, layout in constants.GGML_QUANT_SIZES.items():
        dtype = TYPES[int(kind)]
        assert (GGUF_BLOCKS[dtype] if dtype in GGUF_BLOCKS else (1, BITS[dtype] // 8)) == layout


@pytest.mark.parametrize(("dtype", "elements", "size"), [("q2_0", 64, 18), ("q2_0_g128", 128, 34)])
@pytest.mark.parametrize("blocks", [9, 37])
def test_type_42_has_blocks_of_two_sizes(
    tmp_path: Path, dtype: str, elements: int, size: int, blocks: int
) -> None:
    """ggml's own, and those of the fork that had the number first: the room that they take decides."""
    padded = -(-blocks * size // 32) * 32
    tensors: list[Entry] = [
        ("a", (elements, blocks), 42, 0),
        ("n", (1,), F32, padded),
        ("b", (elements, blocks), 42, padded + 32),
    ]
    data = bytes(padded + 32 + blocks * size)
    header = read_header(write(tmp_path, gguf(tensors, data=data)))
    read = {t.name: (t.dtype, t.nbytes) for t in header.tensors if t.name != "n"}
    assert read == dict.fromkeys("ab", (dtype, blocks * size))


def test_an_unknown_type_is_reported(tmp_path: Path) -> None:
    tensors: list[Entry] = [("a", (7,), 77, 0), ("b", (1,), F32, 96), ("c", (5,), 99, 128)]
    header = read_header(write(tmp_path, gguf(tensors, data=bytes(130))))
    read = [(t.dtype, t.count, t.nbytes) for t in header.tensors]
    assert read == [("ggml type 77", 7, 96), ("float32", 1, 4), ("ggml type 99", 5, 2)]


def splits(folder: Path, count: int = 3, missing: int = 0, total: int = 3) -> Path:
    keys = [
        scalar("split.count", 2, struct.pack("<H", count)),
        scalar("split.tensors.count", 5, struct.pack("<i", total)),
    ]
    for number in range(1, 4):
        if number != missing:
            raw = gguf([(f"t{number}", (number,), F32, 0)], keys, bytes(4 * number))
            write(folder, raw, f"m-{number:05}-of-00003.gguf")
    return folder / "m-00002-of-00003.gguf"


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    header = read_header(splits(tmp_path))
    assert [(t.name, t.file and t.file.name) for t in header.tensors] == [
        ("t1", "m-00001-of-00003.gguf"),
        ("t2", "m-00002-of-00003.gguf"),
        ("t3", "m-00003-of-00003.gguf"),
    ]
    assert header.data_bytes == 4 + 8 + 12


def test_splits_that_do_not_match(tmp_path: Path) -> None:
    for options, message in [
        ({"missing": 3}, "no m-00003-of-00003.gguf beside it"),
        ({"total": 4}, "3 tensors in all splits, expected 4"),
        ({"count": 2}, "one split of '2'"),
    ]:
        folder = tmp_path / message[:3]
        folder.mkdir()
        with pytest.raises(FormatError, match=message):
            read_header(splits(folder, **options))


def test_one_tensor_in_two_splits(tmp_path: Path) -> None:
    path = splits(tmp_path)
    (tmp_path / "m-00003-of-00003.gguf").write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match="a tensor that is in two splits"):
        read_header(path)


def test_a_file_that_is_truncated_while_it_is_read() -> None:
    raw = gguf([("a", (1,), F32, 0)], data=bytes(4))
    with pytest.raises(FormatError, match="is being truncated"):
        parse(io.BytesIO(raw[:30]), len(raw), Path("x"))


def array(*lengths: int, kind: int = 0) -> bytes:
    """Arrays of these lengths, each of the next."""
    kinds = [*itertools.repeat(ARRAY, len(lengths) - 1), kind]
    return b"".join(struct.pack("<IQ", k, n) for k, n in zip(kinds, lengths, strict=True))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes, expected at least 4"),
        (b"GGML" + bytes(40), "no GGUF magic"),
        (gguf(version=1), "early draft"),
        (gguf(version=4), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (gguf(counts=(2**63, 0)), "9223372036854775808 tensors"),
        (gguf(counts=(0, 2**64 - 1)), "18446744073709551615 keys"),
        (gguf(counts=(5, 0)), "bytes, expected at least"),
        (gguf(keys=[scalar("a", 13, b"")]), "a value of type 13"),
        (gguf(keys=[scalar("a", 13, b""), b"\xff" * 40]), "a value of type 13"),
        (gguf(keys=[scalar(b"\xff", 0, b"1")]), "a key that is not UTF-8"),
        (gguf(keys=[scalar("a" * 257, 0, b"1")]), "a key that is not UTF-8 of at most 256"),
        (gguf(keys=[scalar("a", 0, b"1")] * 2), "the key 'a' twice"),
        (gguf(keys=[struct.pack("<Q", 2**64 - 1)]), "a header of at least"),
        (gguf(keys=[scalar("a", STRING, struct.pack("<Q", 2**63))]), "a header of at least"),
        (gguf(keys=[scalar("a", ARRAY, array(2**64 - 1))]), "a header of at least"),
        (gguf(keys=[scalar("a", ARRAY, array(2**64 - 1, kind=12))]), "a header of at least"),
        (gguf(keys=[scalar("a", ARRAY, array(2**64 - 1, kind=STRING))]), f"over {MAX_STRINGS}"),
        (gguf(keys=[scalar("a", ARRAY, array(2**63, 0))]), f"over {MAX_STRINGS}"),
        (gguf(keys=[scalar("a", ARRAY, array(99, kind=STRING))]), "bytes, expected at least"),
        (gguf(keys=[scalar("a", ARRAY, array(1, kind=77))]), "a value of type 77"),
        (gguf(keys=[scalar("a", ARRAY, array(*[1] * 9))]), f"at most {MAX_ARRAY_DEPTH} deep"),
        (gguf(keys=[scalar("general.alignment", 4, bytes(4))]), "general.alignment '0'"),
        (gguf(keys=[scalar("general.alignment", 4, b"\3\0\0\0")]), "general.alignment '3'"),
        (gguf(keys=[scalar("general.alignment", STRING, text("²"))]), "general.alignment '²'"),
        (gguf([("a", (1,) * 9, F32, 0)], data=bytes(4)), "9 dimensions"),
        (gguf([("a", (2**40, 2**40), F32, 0)], data=bytes(4)), "product is below"),
        (gguf([("a", (2**64 - 1,), F32, 0)], data=bytes(4)), "product is below"),
        (gguf([("a", (1,), F32, 0)] * 2, data=bytes(64)), "occurs twice"),
        (gguf([("a", (2,), F32, 0)], data=bytes(7)), "up to byte 8 of 7"),
        (gguf([("a", (1,), F32, 4)], data=bytes(8)), "'a' at byte 4, expected byte 0"),
        (gguf([("a", (1,), F32, 2**64 - 1)], data=bytes(8)), "at byte 18446744073709551615"),
        (gguf([("a", (9,), F32, 0), ("b", (1,), F32, 32)], data=bytes(99)), "expected byte 64"),
        (gguf([("a", (1,), F32, 0), ("b", (1,), F32, 64)], data=bytes(99)), "expected byte 32"),
        (gguf([("a", (31,), Q8_0, 0)], data=bytes(99)), "rows of 31, expected whole blocks of 32"),
        (gguf([("a", (16, 2), Q8_0, 0)], data=bytes(99)), "rows of 16"),
        (
            gguf([("a", (1,), 77, 0), ("b", (1,), F32, 500)], data=bytes(99)),
            "expected a whole file",
        ),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, raw: bytes, message: str) -> None:
    path = write(tmp_path, raw)
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_a_large_vocabulary_is_skipped(tmp_path: Path) -> None:
    keys = [
        scalar("general.architecture", STRING, text("nothing")),
        strings("tokenizer.ggml.tokens", [f"token {i}" for i in range(200_000)]),
        scalar("tokenizer.ggml.scores", ARRAY, array(200_000, kind=6) + bytes(800_000)),
        strings("tokenizer.ggml.merges", [f"a {i}" for i in range(200_000)]),
    ]
    path = write(tmp_path, gguf([("a", (1,), F32, 0)], keys, bytes(4)))
    program = (
        "import sys, resource, json, time\n"
        "from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (60_000_000, 60_000_000))\n"
        "from minilm.formats import read\n"
        "before = time.process_time()\n"
        "header = read(Path(sys.argv[1]))\n"
        "seconds = time.process_time() - before\n"
        "print(json.dumps([len(header.tensors), dict(header.metadata), seconds]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, timeout=60
    )
    count, metadata, seconds = json.loads(done.stdout)
    assert count == 1
    assert metadata["tokenizer.ggml.tokens.length"] == "200000"
    assert metadata["tokenizer.ggml.merges.length"] == "200000"
    assert seconds < 0.5


def test_values_are_read_whole(tmp_path: Path) -> None:
    keys = [
        scalar("a.size", 4, struct.pack("<I", 7)),
        scalar("b.scale", 6, struct.pack("<f", 0.5)),
        scalar("a.flag", 7, b"\1"),
        scalar("a.text", STRING, text("x" * 5000)),
        strings("a.tokens", ["the", "", "été"]),
        scalar("a.scores", ARRAY, struct.pack("<IQ2f", 6, 2, 0.25, -1)),
        scalar("a.nested", ARRAY, array(1, 2) + b"\3\4"),
    ]
    values = {
        "a.size": 7,
        "a.flag": True,
        "a.text": "x" * 5000,
        "a.tokens": ["the", "", "été"],
        "a.scores": [0.25, -1.0],
        "a.nested": [[3, 4]],
    }
    path = write(tmp_path, gguf(keys=keys))
    assert read_values(path, "a.") == values
    assert read_values(path, "") == values | {"b.scale": 0.5}
    assert read_values(path, "c.", "b.s") == {"b.scale": 0.5}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (array(2**63, kind=0), f"over {MAX_STRINGS}"),
        (array(2_000_000, kind=10), "bytes, expected at least"),
        (array(2_000_000, kind=STRING), "bytes, expected at least"),
        (array(1, 1, 1, 1, 1, 1), "arrays in arrays"),
        (array(1, kind=99), "a value of type 99"),
        (array(1, kind=STRING) + text(b"\xff"), "a text that is not UTF-8"),
        (array(1, kind=STRING) + struct.pack("<Q", 2**60), "a header of at least"),
    ],
)
def test_values_that_are_not_there(tmp_path: Path, raw: bytes, message: str) -> None:
    path = write(tmp_path, gguf(keys=[scalar("a", ARRAY, raw)]))
    with pytest.raises(FormatError, match=message):
        read_values(path, "")
