"""Files that would take time, memory or more than that: one line and exit 2 from the whole program.

Each runs as a process of its own that has 200 MB and a second of processor time beyond its start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm.errors import FormatError
from minilm.formats import read
from minilm.formats.json_file import MAX_JSON_BYTES, MAX_JSON_VALUES, parse_object
from tests.conftest import ROOT
from tests.formats.files import ARRAY, gguf, scalar, strings, torch_zip, write_safetensors

# What the interpreter may allocate, and the seconds: a start takes up to a half here.
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_DATA, (200_000_000, 200_000_000))
resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def inspect(target: Path) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / "inspect.py")
    return subprocess.run(
        [sys.executable, "-c", LIMITED, script, str(target)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def million_keys(folder: Path) -> Path:
    keys = b",".join(b'"k%d":0' % n for n in range(MAX_JSON_VALUES - 2))
    return write_safetensors(folder / "x.safetensors", b"{" + keys + b"}")


def deep_header(folder: Path) -> Path:
    return write_safetensors(folder / "x.safetensors", b'{"a":' + b"[" * 600_000)


def long_text(folder: Path) -> Path:
    return write_safetensors(
        folder / "x.safetensors", b'{"' + b"x" * (MAX_JSON_BYTES - 10) + b'":1}'
    )


def terabyte_header(folder: Path) -> Path:
    path = write_safetensors(folder / "x.safetensors", {}, length=10**12)
    os.truncate(path, 2 * 10**12)
    return path


def escapes(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}
    name = "<script>alert(1)</script>\n\x1b[2J\x1b]0;title\x07\u202e"
    return write_safetensors(folder / "x.safetensors", {name: entry}, bytes(4))


def terabyte_of_strings(folder: Path) -> Path:
    raw = gguf(keys=[scalar("a", ARRAY, b"\x08\0\0\0" + (2_000_000).to_bytes(8, "little"))])
    (folder / "x.gguf").write_bytes(raw + (900_000).to_bytes(8, "little"))
    os.truncate(folder / "x.gguf", 10**12)
    return folder / "x.gguf"


def arrays_of_arrays(folder: Path) -> Path:
    inner = b"\0\0\0\0" + bytes(8)
    many = (10**6).to_bytes(8, "little")
    raw = gguf(keys=[scalar("a", ARRAY, b"\x09\0\0\0" + many + inner * 10**6)])
    (folder / "x.gguf").write_bytes(raw)
    return folder / "x.gguf"


def many_keys(folder: Path) -> Path:
    raw = gguf(keys=[strings(f"{n:0200}", []) for n in range(4096)], counts=(1, 4096))
    (folder / "x.gguf").write_bytes(raw)
    return folder / "x.gguf"


def inflating(folder: Path) -> Path:
    (folder / "x.pt").write_bytes(torch_zip(bytes(300_000_000), compression=8))
    return folder / "x.pt"


def lists(folder: Path) -> Path:
    (folder / "x.pt").write_bytes(torch_zip(b"\x80\x02" + b"]" * 10_000_000 + b"."))
    return folder / "x.pt"


def long_number(folder: Path) -> Path:
    raw = b"\x80\x02\x8b" + (15_000_000).to_bytes(4, "little") + b"\x7f" * 15_000_000
    (folder / "x.pt").write_bytes(torch_zip(raw + b"0" + b"Pa\n."))
    return folder / "x.pt"


def code(folder: Path) -> Path:
    touch = f"touch {folder}/executed".encode()
    raw = b"\x80\x02cposix\nsystem\nX" + len(touch).to_bytes(4, "little") + touch + b"\x85R."
    (folder / "x.pt").write_bytes(torch_zip(raw))
    return folder / "x.pt"


def copied_reference(folder: Path) -> Path:
    """A persistent id of 100,000 items, 100,000 times."""
    raw = b"\x80\x02(" + b"N" * 100_000 + b"tq\0" + b"h\0Q0" * 100_000 + b"N."
    (folder / "x.pt").write_bytes(torch_zip(raw))
    return folder / "x.pt"


def copied_attributes(folder: Path) -> Path:
    """The attributes of 60,000 objects of TorchScript are one dictionary of 60,000 entries."""
    entries = b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(60_000))
    objects = b"h\1)\x81h\0b0" * 50_000
    raw = b"\x80\x02}(" + entries + b"uq\0ctorch\nScriptObject\nq\1" + objects + b"."
    (folder / "x.pt").write_bytes(torch_zip(raw))
    return folder / "x.pt"


def old_header(*pickles: bytes) -> bytes:
    """A file of torch before 1.6 up to its contents."""
    machine = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."
    return (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
        + b"\x80\x02M\xe9\3."
        + machine
        + b"".join(pickles)
    )


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\1NtQ"


def old_terabyte(folder: Path) -> Path:
    raw = old_header(b"\x80\x02" + STORAGE + b".", b"\x80\x02]X\1\0\0\0aa.")
    (folder / "x.pth").write_bytes(raw + (10**17).to_bytes(8, "little"))
    os.truncate(folder / "x.pth", 10**12)
    return folder / "x.pth"


def old_keys_that_nest(folder: Path) -> Path:
    """A key whose text would take 2**60 characters."""
    nested = b"\x80\x02]]q\0" + b"0h\0h\0\x86q\0" * 60 + b"a."
    (folder / "x.pth").write_bytes(old_header(b"\x80\x02" + STORAGE + b".", nested))
    return folder / "x.pth"


def index_to_itself(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": path.name}}))
    return path


def index_out_of_its_folder(folder: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../../x.safetensors"}}))
    return path


def index_to_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    return path


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.gguf")
    return folder / "x.gguf"


def pipe_as_config(folder: Path) -> Path:
    os.mkfifo(folder / "config.json")
    return folder / "config.json"


def device(folder: Path) -> Path:
    (folder / "x.pt").symlink_to("/dev/zero")
    return folder / "x.pt"


HOSTILE: list[Callable[[Path], Path]] = [
    million_keys,
    deep_header,
    long_text,
    terabyte_header,
    escapes,
    terabyte_of_strings,
    arrays_of_arrays,
    many_keys,
    inflating,
    lists,
    long_number,
    code,
    copied_reference,
    copied_attributes,
    old_terabyte,
    old_keys_that_nest,
    index_to_itself,
    index_out_of_its_folder,
    index_to_a_pipe,
    pipe,
    pipe_as_config,
    device,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_one_line_and_exit_2(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    done = inspect(make(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}")
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert len(done.stderr) < 1000
    assert "memory" not in done.stderr
    assert not (tmp_path / "executed").exists()


def test_a_git_lfs_pointer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(FormatError, match=r"a Git LFS pointer, .*; run: git lfs pull"):
        read(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").mkdir()
    with pytest.raises(FormatError, match="a folder, expected a file"):
        read(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b" " * (MAX_JSON_BYTES + 1), f"over {MAX_JSON_BYTES} bytes"),
        ("é".encode() * (MAX_JSON_BYTES // 8 + 1), f"over {MAX_JSON_BYTES // 4} bytes"),
        (b'{"a": [' + b"1," * MAX_JSON_VALUES, f"over {MAX_JSON_VALUES} values"),
        (b'{"a": 1' + b"0" * 100 + b"}", "over 100 digits"),
        (b'{"a": "\\udc00"}', "not JSON"),
        (b'{"\xff": 1}', "not JSON"),
        (b'{"a": {"b": 1, "b": 1}}', "a name that occurs twice: 'b'"),
        (b'{"a": NaN}', "NaN, which is no finite number"),
        (b'{"a": -0}', "not JSON (-0)"),
        (b'{"a": ' + b"[" * 127 + b"]" * 127 + b"}", "nested over 127 deep"),
        (b"3", "a JSON int, expected a JSON object"),
    ],
)
def test_json_that_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_object(Path("x"), raw, strict=True)
    assert message in str(caught.value)


def test_a_repeated_key_is_accepted_by_default() -> None:
    assert parse_object(Path("x"), b'{"a": 1, "a": 2, "b": 1' + b"0" * 99 + b"}")["a"] == 2


def test_a_number_beyond_floats_is_accepted_by_default() -> None:
    """As configurations that transformers wrote have it."""
    assert parse_object(Path("x"), b'{"time_step_limit": [-0, Infinity]}') == {
        "time_step_limit": [0, float("inf")]
    }


def test_deep_nesting_is_refused_in_any_json() -> None:
    with pytest.raises(FormatError, match="nested over 127 deep"):
        parse_object(Path("x"), b'{"a": ' + b'{"b": ' * 900 + b"1" + b"}" * 901)
