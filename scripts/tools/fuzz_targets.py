"""What is fuzzed: for each parser, the function that gets an input, and the inputs to begin with."""

import contextlib
import io
import json
import logging
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris
import safetensors as safetensors_library

from minilm.architectures import layout_of
from minilm.architectures.gguf_layout import gguf_layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.checkpoint import load
from minilm.cli import convert
from minilm.config import ModelConfig, from_dict
from minilm.dtypes import SAFETENSORS_NAMES
from minilm.errors import InputError
from minilm.formats import gguf, huggingface, json_file, safetensors, torch_file, torch_zip
from minilm.formats.header import Header, StoredTensor
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
from scripts.tools.fuzz_findings import check_message
from scripts.tools.fuzz_inputs import (
    PICKLE,
    Drawn,
    changed_json,
    changed_state,
    draw,
    drawn_gguf,
    drawn_safetensors,
    tiny_gguf,
    tiny_safetensors,
    tiny_zip,
)

PATH = Path("fuzzed")


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
            return printed(inspect(path))
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


def printed(report: Report) -> object:
    """What a report is for the terminal and for programs."""
    json.dumps(report.to_dict(), allow_nan=False)
    return report_lines(report, 80, full=True)


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
