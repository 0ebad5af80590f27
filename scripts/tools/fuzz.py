"""python scripts/tools/fuzz.py PARSER --runs N: coverage-guided fuzzing of one parser of foreign bytes.

Needs atheris (https://github.com/google/atheris), which is no dependency of the package. A finding is
an exception other than InputError, a second of processor time for one input, or a growth of the
process by 200 MB; it ends the run with status 1 and leaves the input in crash-*.
"""

import argparse
import base64
import io
import json
import pkgutil
import resource
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

try:
    import atheris
except ModuleNotFoundError:
    print("error: this Python lacks atheris: run pip install atheris", file=sys.stderr)
    raise SystemExit(2) from None

with atheris.instrument_imports(include=["minilm", "pickletools", "zipfile"]):
    from minilm import architectures, quantization
    from minilm.architectures import layout_of
    from minilm.architectures.gguf_layout import gguf_layout
    from minilm.architectures.model_types import MODEL_TYPES
    from minilm.config import ModelConfig, from_dict
    from minilm.errors import InputError
    from minilm.formats import gguf, huggingface, json_file, safetensors, torch_file, torch_zip
    from minilm.formats.header import Header, StoredTensor
    from minilm.formats.torch_checkpoint import select_model
    from minilm.formats.torch_contents import name_tensors
    from minilm.formats.torch_pickle import read_pickle
    from minilm.formats.torch_tensors import build_header
    from minilm.quantization.logical_tensors import decode

    # What is imported only when it is needed must be here now, to be instrumented.
    for package in (architectures, quantization):
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")

SECONDS, MEGABYTES = 1.0, 200
PATH = Path("fuzzed")

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
        flags = [f"-runs={options.runs}", f"-seed={options.seed}", "-max_len=4096", "-timeout=10"]
        atheris.Setup(
            [sys.argv[0], *flags, "-rss_limit_mb=1024", str(corpus)], reporting_findings(parse)
        )
        atheris.Fuzz()
    return 0


def reporting_findings(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """``parse`` that returns for what is allowed and raises for a finding."""
    largest = 0

    def run(data: bytes) -> None:
        nonlocal largest
        largest = largest or peak_megabytes() + MEGABYTES
        started = time.process_time()
        try:
            parse(data)
        except InputError as error:
            message = str(error)
            assert message.isprintable(), "no one line"
            assert len(message) < 2000, "a line that floods the terminal"
        assert time.process_time() - started < SECONDS, "too slow"
        assert peak_megabytes() < largest, "too much memory"

    return run


def peak_megabytes() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


Target = tuple[Callable[[bytes], object], list[bytes]]


def safetensors_target(_: Path) -> Target:
    """Whole files; what begins as JSON is a header, and gets the length and data that belong to it."""

    def parse(data: bytes) -> object:
        if data.startswith(b"{"):
            data = struct.pack("<Q", len(data)) + data + bytes(4)
        elif data.startswith(b"\0\0"):
            data = drawn_safetensors(atheris.FuzzedDataProvider(data[2:]))
        return safetensors.parse(io.BytesIO(data), len(data), PATH)

    whole = tiny_safetensors("a")
    return parse, [whole, whole[8:-4], bytes(64), b"\0\0" + bytes(range(200))]


def gguf_target(_: Path) -> Target:
    """Whole files, and the architecture that their metadata tells."""

    def parse(data: bytes) -> object:
        return gguf_layout(gguf.parse(io.BytesIO(data), len(data), PATH))

    return parse, [tiny_gguf(False), tiny_gguf(True)]


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
        return from_dict(ModelConfig, Drawn(atheris.FuzzedDataProvider(data)).filled(), PATH)

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
        b'{"a": [1, "\\u00e9", {}]}'
    ]


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
