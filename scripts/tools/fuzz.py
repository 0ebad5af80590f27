"""python scripts/tools/fuzz.py PARSER --runs N: coverage-guided fuzzing of what reads foreign bytes.

Needs atheris (https://github.com/google/atheris), which is no dependency of the package. A finding is
an exception other than InputError, a second of processor time for one input, a growth of the process
by 200 MB, or a header that the safetensors library refuses; it ends the run with status 1 and leaves the
input in crash-*.
"""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import logging
import math
import pkgutil
import random
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import safetensors as safetensors_library  # noqa: E402

try:
    import atheris
except ModuleNotFoundError:
    print("error: this Python lacks atheris: run pip install atheris", file=sys.stderr)
    raise SystemExit(2) from None

with atheris.instrument_imports(include=["minilm", "pickletools", "zipfile"]):
    from minilm import architectures, quantization
    from minilm.architectures import layout_of
    from minilm.architectures.gguf_layout import gguf_layout
    from minilm.architectures.gguf_names import KEYS
    from minilm.architectures.model_types import MODEL_TYPES
    from minilm.checkpoint import load
    from minilm.cli import convert
    from minilm.config import ModelConfig, from_dict
    from minilm.dtypes import SAFETENSORS_NAMES
    from minilm.errors import InputError
    from minilm.formats import gguf, huggingface, json_file, safetensors, torch_file, torch_zip
    from minilm.formats.header import Header, StoredTensor
    from minilm.formats.tensor_io import HASH, NO_HASH
    from minilm.formats.torch_checkpoint import select_model
    from minilm.formats.torch_contents import name_tensors
    from minilm.formats.torch_pickle import read_pickle
    from minilm.formats.torch_tensors import build_header
    from minilm.generation.generate import generate
    from minilm.inspection.inspector import inspect
    from minilm.inspection.report import Report
    from minilm.quantization.logical_tensors import decode
    from minilm.render.terminal import report_lines
    from minilm.training.setup import resumed_run
    from minilm.training.signals import StopRequest
    from minilm.training.train import train
    from minilm.training.trainer import Trainer

    # What is imported only when it is needed must be here now, to be instrumented.
    for package in (architectures, quantization):
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")

SECONDS, MEGABYTES = 1.0, 200
PATH = Path("fuzzed")

# Of the shapes that were once met, as libFuzzer writes a dictionary.
WORDS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"2147483648", b"18446744073709551615"),
    *(b"9" * 101, b"[" * 128, b'{"a":' * 128, b"\\ud800", b'"eos_token_id": 257', b"10000"),
    *(b'{"type":"Replace","pattern":{"String":"a"},"content":"aaaa"}', b'{"type":"ByteLevel"}'),
    *(b"general.architecture", b"tokenizer.ggml.tokens.length", b"token_embd.weight", b"lora_a"),
    *(b"blk.0.attn_q.weight", b"llama.attention.head_count", b"split.count", b"general.alignment"),
)

# data.pkl of torch.save({"a": tensor, "b": that tensor's transpose, "n": 3}).
PICKLE = base64.b64decode(
    "gAJ9cQAoWAEAAABhcQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MgpxAigoWAcAAABzdG9yYWdlcQNj"
    "dG9yY2gKRmxvYXRTdG9yYWdlCnEEWAEAAAAwcQVYAwAAAGNwdXEGSwZ0cQdRSwBLAksDhnEISwNLAYZxCYljY29s"
    "bGVjdGlvbnMKT3JkZXJlZERpY3QKcQopUnELdHEMUnENWAEAAABicQ5oAigoaANoBGgFaAZLBnRxD1FLAEsDSwKG"
    "cRBLAUsDhnERiWgKKVJxEnRxE1JxFFgBAAAAbnEVSwN1Lg=="
)


def main() -> int:
    """Fuzz until ``--runs`` inputs passed; libFuzzer prints the progress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parser", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs to try")
    parser.add_argument(
        "--corpus", type=Path, help="a folder of inputs to begin with and to add to"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary) / "corpus"
        corpus.mkdir(exist_ok=True, parents=True)
        parse, seeds = TARGETS[options.parser](Path(temporary))
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(temporary) / "words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        longest = max(4096, *map(len, seeds))
        flags = [f"-runs={options.runs}", f"-seed={options.seed}", f"-max_len={longest}"]
        flags += ["-timeout=10", f"-dict={words}"]
        atheris.Setup(
            [sys.argv[0], *flags, "-rss_limit_mb=4096", str(corpus)], reporting_findings(parse)
        )
        atheris.Fuzz()
    return 0


def reporting_findings(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """``parse`` that returns for what is allowed and raises for a finding."""

    def run(data: bytes) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is this input's
        before = megabytes("VmRSS")
        started = time.process_time()
        try:
            parse(data)
        except InputError as error:
            check_message(error)
        assert time.process_time() - started < SECONDS, "too slow"
        assert megabytes("VmHWM") < before + MEGABYTES, "too much memory"

    return run


def check_message(error: InputError) -> None:
    """Raises AssertionError unless it is one short line."""
    message = str(error)
    assert message.isprintable(), "no one line"
    assert len(message) < 2000, "a line that floods the terminal"


def megabytes(field: str) -> float:
    """Memory of this process, as Linux has it: now (VmRSS), or at most since the peak was reset (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


Target = tuple[Callable[[bytes], object], list[bytes]]


def safetensors_target(_: Path) -> Target:
    """Whole files; what begins as JSON is a header, and gets the length and data that belong to it."""

    def parse(data: bytes) -> object:
        if data.startswith(b"{"):
            data = struct.pack("<Q", len(data)) + data + bytes(4)
        elif data.startswith(b"\0\0"):
            data = drawn_safetensors(atheris.FuzzedDataProvider(data[2:]))
        header = safetensors.parse(io.BytesIO(data), len(data), PATH)
        if all(tensor.dtype in SAFETENSORS_NAMES.values() for tensor in header.tensors):
            safetensors_library.deserialize(data)  # raises for what the library refuses
        return header

    whole = tiny_safetensors("a")
    text = whole[8:-4]
    extras = (b"NaN", b"1e999", b"-0", b"[" * 130 + b"]" * 130, b'{"b":' * 130 + b"1" + b"}" * 130)
    seeds = [text.replace(b'"F32"', b'"F32", "x": ' + value) for value in extras]
    seeds += [
        text.replace(b"[0, 4]", b"[-0, 4]"),
        text.replace(b"[1]", b"[4611686018427387904, 8, 0]"),
    ]
    return parse, [whole, text, bytes(64), b"\0\0" + bytes(range(200)), *seeds]


def gguf_target(folder: Path) -> Target:
    """Whole files, and the architecture that their metadata tells; of those drawn, the whole report."""
    path = folder / "x.gguf"

    def parse(data: bytes) -> object:
        if data.startswith(b"\0\0"):
            path.write_bytes(drawn_gguf(atheris.FuzzedDataProvider(data[2:])))
            return printed(inspect(path)), gguf.read_values(path, "")
        return gguf_layout(gguf.parse(io.BytesIO(data), len(data), PATH))

    drawn = [b"\0\0" + bytes(range(256)), b"\0\0" + bytes(200), b"\0\0" + b"\3\1" * 200]
    return parse, [tiny_gguf(False), tiny_gguf(True), *drawn]


def torch_zip_target(_: Path) -> Target:
    """Whole files; the checksums of the zip keep most changes from the pickle."""
    return lambda data: torch_file.parse(io.BytesIO(data), len(data), PATH), [tiny_zip(PICKLE)]


def torch_pickle_target(_: Path) -> Target:
    """data.pkl, in a zip that is whole; the zip is read once, which is what takes the time."""
    whole = io.BytesIO(tiny_zip(PICKLE))
    with zipfile.ZipFile(whole) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    size = len(whole.getvalue())

    def parse(data: bytes) -> object:
        locator = torch_zip.StorageLocator(whole, size, PATH, "x/data", entries)
        model, _ = select_model(PATH, read_pickle(PATH, data))
        return build_header(PATH, name_tensors(PATH, model), locator)

    return parse, [PICKLE]


def index_target(folder: Path) -> Target:
    """The text of an index beside two shards."""
    for name in "ab":
        (folder / f"{name}.safetensors").write_bytes(tiny_safetensors(name))
    path = folder / "model.safetensors.index.json"
    files = ["a.safetensors", "b.safetensors", "../a.safetensors", path.name, "c.bin", "/dev/zero"]

    def parse(data: bytes) -> object:
        if data.startswith(b"\0"):
            provider = atheris.FuzzedDataProvider(data[1:])
            weight_map = {
                provider.PickValueInList(["a", "b", "c", ""]): provider.PickValueInList(files)
                for _ in range(provider.ConsumeIntInRange(0, 4))
            }
            data = json.dumps({"metadata": draw(provider), "weight_map": weight_map}).encode()
        return huggingface.parse(data, path)

    weight_map = {"a": files[0], "b": files[1]}
    seeds = [
        {"metadata": {"total_size": 8}, "weight_map": weight_map},
        {"weight_map": {"a": "../a"}},
    ]
    return parse, [b"\0" + bytes(range(64)), *(json.dumps(s).encode() for s in seeds)]


def config_target(_: Path) -> Target:
    """Every family's declaration, on fields drawn as it asks for them."""
    model_types = sorted(MODEL_TYPES)

    def parse(data: bytes) -> object:
        provider = atheris.FuzzedDataProvider(data)
        config = Drawn(provider)
        config["model_type"] = provider.PickValueInList(model_types)
        layout = layout_of(config)
        return layout.count(), layout.count(active=True), layout.components()

    return parse, [bytes(range(256)), b"\0" * 256, b"\3" * 256]


def run_target(_: Path) -> Target:
    """The model of a run's config.json."""

    def parse(data: bytes) -> object:
        return from_dict(ModelConfig, dict(Drawn(atheris.FuzzedDataProvider(data)).filled()), PATH)

    return parse, [bytes(range(256))]


def storage_target(_: Path) -> Target:
    """Which stored tensors make up a quantized one, by names, shapes and quantization_config."""
    endings = ["weight", "qweight", "qzeros", "scales", "g_idx", "weight_scale", "weight_packed"]
    endings += ["weight_scale_inv", "weight.absmax", "weight.quant_map", "weight_shape", "bias"]
    endings += [
        "weight.quant_state.bitsandbytes__nf4",
        "SCB",
        "down_proj_blocks",
        "down_proj_scales",
    ]
    dtypes = [
        "float32",
        "bfloat16",
        "uint8",
        "int8",
        "int32",
        "float8_e4m3fn",
        "q4_k",
        "X",
        "int64",
    ]

    def parse(data: bytes) -> object:
        provider = atheris.FuzzedDataProvider(data)
        names = {f"m.{provider.PickValueInList(endings)}" for _ in range(6)}
        tensors = tuple(
            StoredTensor(
                name,
                provider.PickValueInList(dtypes),
                tuple(
                    provider.ConsumeIntInRange(0, 300)
                    for _ in range(provider.ConsumeIntInRange(0, 3))
                ),
            )
            for name in sorted(names)
        )
        methods = [
            "gptq",
            "awq",
            "bitsandbytes",
            "fp8",
            "compressed-tensors",
            "mxfp4",
            "torchao",
            "",
        ]
        config = Drawn(provider)
        config["quant_method"] = provider.PickValueInList(methods)
        expected = {"m.weight": (provider.ConsumeIntInRange(0, 300), 64)}
        return decode(Header(tensors, {}, 0), config, expected)

    return parse, [bytes(range(256)), bytes(256)]


def json_target(_: Path) -> Target:
    """config.json as text."""
    return lambda data: json_file.parse_object(PATH, data, strict=True), [
        b'{"a": [1, "\\u00e9", {}]}',
        b'{"a": [NaN, Infinity, 1e999, -0, "\\ud800"]}',
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    ]


def folder_target(folder: Path) -> Target:
    """A run folder with one file replaced: inspected, loaded, sampled, opened to resume, converted.

    The first byte of an input is the number of the file. The rest takes its place, or, above 127, chooses
    one value of its JSON and another one for it; a state then gets the hash of its new bytes, so that
    the check lets it pass. Nothing is trained: a trainer is made from the state, and dropped.
    """
    template, run, cache, out = (folder / name for name in ("template", "run", "cache", "out"))
    text = folder / "text.txt"
    text.write_text("the cat sat on the mat. " * 100)
    model = {"context_length": 8, "num_layers": 1, "d_model": 8, "num_heads": 2}
    settings = {"max_steps": 2, "batch_size": 2, "eval_every": 1, "compile": "off"}
    with contextlib.redirect_stdout(io.StringIO()):
        train(
            data=str(text),
            run_dir=template,
            tokenizer="byte",
            model=model,
            settings=settings | {"dtype": "float32"},
            cache=cache,
        )
    (template / "generation_config.json").write_text('{"eos_token_id": 0}')
    (template / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (template / "report.html").unlink(missing_ok=True)
    names = sorted(str(p.relative_to(template)) for p in template.rglob("*") if p.is_file())
    states = [name for name in names if name.startswith("resume")]
    with_values = [*states, *(name for name in names if name.endswith(".json"))]
    logging.disable()

    def attempt(step: Callable[[], object]) -> None:
        """Every part must do without the others; what a user would read is checked."""
        try:
            step()
        except InputError as error:
            check_message(error)
        except OSError:
            pass  # a line at the edge of the program

    def parse(data: bytes) -> None:
        number, data = (data[0], data[1:]) if data else (0, b"")
        if number < 128:
            name = names[number % len(names)]
        else:
            name = with_values[number % len(with_values)]
            provider = atheris.FuzzedDataProvider(data)
            raw = (template / name).read_bytes()
            data = (changed_state if name in states else changed_json)(raw, provider)
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(template, run)
        (run / name).write_bytes(data)
        attempt(lambda: printed(inspect(run)))
        attempt(lambda: generate(*load(run), "the", max_new_tokens=2))
        attempt(resume)
        for to in ("huggingface", "minilm"):
            shutil.rmtree(out, ignore_errors=True)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                convert.main([str(run), "--to", to, "--out", str(out)])

    def resume() -> None:
        spec = resumed_run(run, data=None, settings={}, cache=cache)
        Trainer(spec, StopRequest(), time.monotonic()).checkpoints.close()

    seeds = [bytes([i]) + (template / name).read_bytes() for i, name in enumerate(names)]
    seeds += [bytes([128 + i]) + random.Random(i).randbytes(64) for i in range(128)]
    return parse, seeds


def changed_json(raw: bytes, provider: Any) -> bytes:
    """A JSON object with one of its values, at any depth, replaced by a drawn one."""
    content = json.loads(raw)
    outer, key = content, provider.PickValueInList(sorted(content))
    while isinstance(outer[key], (dict, list)) and outer[key] and provider.ConsumeIntInRange(0, 7):
        outer = outer[key]
        keys = sorted(outer) if isinstance(outer, dict) else list(range(len(outer)))
        key = provider.PickValueInList(keys[:300])
    outer[key] = draw(provider)
    return json.dumps(content).encode()


def changed_state(raw: bytes, provider: Any) -> bytes:
    """A training state with one value of its progress or settings replaced, and the hash that it then has."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    metadata = header["__metadata__"]
    name = provider.PickValueInList(["progress", "settings"])
    metadata[name] = changed_json(metadata[name].encode(), provider).decode()
    metadata[HASH] = NO_HASH
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = len(text).to_bytes(8, "little") + text + raw[end:]
    return whole.replace(NO_HASH.encode(), hashlib.sha256(whole).hexdigest().encode(), 1)


def printed(report: Report) -> object:
    """What a report is for the terminal and for programs."""
    json.dumps(report.to_dict(), allow_nan=False)
    return report_lines(report, 80, full=True)


class Drawn(dict[str, Any]):
    """A config.json whose fields come into being when they are asked for."""

    def __init__(self, provider: Any) -> None:
        super().__init__()
        self.provider = provider

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self.keys():
            self[name] = draw(self.provider)
        value = super().__getitem__(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def filled(self) -> "Drawn":
        """With some fields of ModelConfig and one that it does not have."""
        for name in [*ModelConfig.__dataclass_fields__, "other"]:
            if self.provider.ConsumeBool():
                self.get(name)
        return self

    def __contains__(self, name: object) -> bool:
        return self.get(str(name)) is not None


def draw(provider: Any, depth: int = 0) -> Any:
    """A value of JSON, most often one that a field could have."""
    kind = provider.ConsumeIntInRange(0, 15)
    if kind < 4:
        return None
    if kind < 9:
        return provider.ConsumeIntInRange(1, 300)
    if kind == 9:
        return provider.ConsumeBool()
    if kind == 10:
        return provider.ConsumeInt(8)
    if kind == 11:
        return provider.ConsumeFloat()
    if kind == 12:
        names = ["gelu", "silu", "rope", "full_attention", "sliding_attention", "fp8", "", "\x1b["]
        return provider.PickValueInList(names)
    if kind == 13 and depth < 3:
        return [draw(provider, depth + 1) for _ in range(provider.ConsumeIntInRange(0, 6))]
    if kind == 14 and depth < 3:
        return Drawn(provider)
    return provider.ConsumeUnicode(8)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "safetensors": safetensors_target,
    "gguf": gguf_target,
    "torch_zip": torch_zip_target,
    "torch_pickle": torch_pickle_target,
    "index": index_target,
    "config": config_target,
    "run": run_target,
    "storage": storage_target,
    "json": json_target,
    "folder": folder_target,
}


def tiny_safetensors(name: str) -> bytes:
    """One tensor of one number."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def drawn_safetensors(provider: Any) -> bytes:
    """A file whose header has the fields that it should, with values that it may not."""
    entries = {}
    end = 0
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        shape = [provider.ConsumeIntInRange(0, 3) for _ in range(provider.ConsumeIntInRange(0, 3))]
        entry = {
            "dtype": provider.PickValueInList(["F32", "U8", "F4", "BOOL", "X"]),
            "shape": shape,
        }
        begin, end = end, end + provider.ConsumeIntInRange(0, 12)
        entry["data_offsets"] = [begin, end]
        if provider.ConsumeIntInRange(0, 5) == 0:
            entry[provider.PickValueInList(["dtype", "shape", "data_offsets"])] = draw(provider)
        entries[provider.PickValueInList(["a", "b", "c", "__metadata__", "\x1b"])] = entry
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def tiny_gguf(is_llama: bool) -> bytes:
    """Two tensors, a scalar, a string and arrays of numbers and of strings."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.5),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("nested") + struct.pack("<IIQIQB", 9, 9, 1, 0, 1, 7),
    ]
    if is_llama:
        sizes = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
        keys += [text(f"llama.{size}") + struct.pack("<II", 4, 2) for size in sizes]
    tensors = [
        text("a") + struct.pack("<IQQIQ", 2, 2, 3, 0, 0),
        text("b") + struct.pack("<IQIQ", 1, 32, 2, 32),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32) + bytes(32 + 18)


def drawn_gguf(provider: Any) -> bytes:
    """A file that is whole, with keys of any type and tensors of any shape under names that are read."""

    def text(value: str) -> bytes:
        raw = value.encode("utf-8", "replace")
        return struct.pack("<Q", len(raw)) + raw

    architecture = provider.PickValueInList(["llama", "qwen3moe", "gpt2", "deepseek2", "clip", ""])
    names = [f"{architecture}.{key}" for key in (*KEYS, "nextn_predict_layers")]
    names += ["general.type", "split.count", "tokenizer.ggml.tokens.length", "adapter.lora.alpha"]
    keys = {"general.architecture": struct.pack("<I", 8) + text(architecture)}
    for _ in range(provider.ConsumeIntInRange(0, 12)):
        kind = provider.ConsumeIntInRange(0, 5)
        number = provider.PickValueInList([0, 1, 2, 4, 64, 2**31, 2**32 - 1, 3])
        value = {
            0: struct.pack("<IQ", 10, number * provider.PickValueInList([1, 1, 2**32])),
            1: struct.pack("<Ii", 5, -1),
            2: struct.pack("<Id", 12, provider.ConsumeFloat()),
            3: struct.pack("<I", 8)
            + text(provider.PickValueInList(["9" * 4000, "x", "7", "adapter"])),
            4: struct.pack("<IIQ", 9, 4, 0),
        }.get(kind, struct.pack("<II", 4, number))
        keys[provider.PickValueInList(names)] = value
    stems = [
        "token_embd",
        "output",
        "blk.0.attn_q",
        "blk.0.ffn_up_exps",
        "blk.1.attn_k_b",
        "a.lora_a",
    ]
    tensors, data = [], b""
    for stem in stems[: provider.ConsumeIntInRange(0, len(stems))]:
        dimensions = range(provider.ConsumeIntInRange(0, 3))
        shape = [provider.PickValueInList([0, 1, 2, 32, 64]) for _ in dimensions]
        tensors.append(
            text(f"{stem}.weight")
            + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            + struct.pack("<IQ", 0, len(data))
        )
        data += bytes(-(-4 * math.prod(shape) // 32) * 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(key) + value for key, value in keys.items()) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def tiny_zip(pickle: bytes) -> bytes:
    """A checkpoint around data.pkl."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("x/data.pkl", pickle)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", bytes(24))
        archive.writestr("x/version", "3\n")
    return whole.getvalue()


if __name__ == "__main__":
    sys.exit(main())
