"""quantize(): what it writes loads, is verified and is converted, and the table says what it cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import minilm
from minilm.checkpoint import load
from minilm.cli import generate
from minilm.cli.quantize import main
from minilm.errors import ConfigError, FormatError, InputError
from minilm.formats import gguf
from minilm.formats.safetensors import read_header
from minilm.inspection.extras import with_difference
from minilm.inspection.inspector import inspect_with_sources
from minilm.interop.convert import convert
from minilm.interop.gguf import stored_values
from minilm.operations.comparison import measure
from minilm.operations.evaluate import evaluate
from minilm.operations.prune import prune
from minilm.operations.quantize import quantize
from minilm.operations.share import share
from minilm.quantization.packing import FORMATS
from minilm.runs import files as run_files
from minilm.training.train import train
from minilm.transforms.activations import linear_layers
from minilm.transforms.quantize import QuantizedLinear
from minilm.values.difference import Difference
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text, train_tiny

Capture = pytest.CaptureFixture[str]

# 24 heads' rows do not matter, 64 inputs do: groups of 32 and 64 divide them.
MODEL = TINY_MODEL | {"d_model": 64, "num_heads": 4}
formats = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_file: Path, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "float"
    return train_tiny(folder, text_file, cache, MODEL, max_steps=30)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, run: Path, cache: Path) -> dict[str, Path]:
    """A run in each format; tests must not change them."""
    folder = tmp_path_factory.mktemp("quantized")
    for format in FORMATS:
        quantize(run, folder / format, format=format, device="cpu", cache=cache)
    return {format: folder / format for format in FORMATS}


@pytest.mark.parametrize("format", [*FORMATS, "nf4, double"])
def test_the_bytes_are_those_that_the_formula_gives(
    format: Any, run: Path, tmp_path: Path, cache: Path
) -> None:
    format, _, double = format.partition(", ")
    result = quantize(
        *(run, tmp_path / "out"),
        format=format,
        double_quantization=bool(double),
        device="cpu",
        cache=cache,
    )
    weights, storage = tmp_path / "out" / "model.safetensors", result.storage
    assert storage.file_bytes == weights.stat().st_size == result.comparison.after.bytes
    header = read_header(weights)
    assert storage.code_bytes + storage.scale_bytes + storage.left_bytes == header.data_bytes
    report = minilm.inspect(tmp_path / "out")
    assert report.quantization is not None
    assert report.quantization.value_bytes == storage.code_bytes
    assert report.quantization.scale_bytes == storage.scale_bytes
    assert report.quantization.bits_per_weight == storage.bits_per_weight
    assert report.quantization.parameters == storage.quantized
    assert result.comparison.before.parameters == result.comparison.after.parameters
    assert result.comparison.after.nonzero <= result.comparison.before.nonzero
    assert "lm_head.weight" in result.left
    assert not any(name.endswith("attention.query.weight") for name in result.left)


@formats
def test_formula_file_and_module_agree(format: str, run: Path, quantized: dict[str, Path]) -> None:
    report, before = minilm.inspect(quantized[format]), minilm.inspect(run)
    assert report.verified
    totals = report.witnesses
    assert totals.formula == totals.file == totals.module == before.parameters.total
    assert [each.by for each in report.comparisons] == ["names", "names"]
    assert report.parameters.total == before.parameters.total
    assert report.components == before.components
    assert {row.dtype for row in report.tensors} == {"float32", format}
    model, _ = load(quantized[format])
    assert minilm.inspect(model).verified


@formats
def test_it_loads_in_a_fresh_process(format: str, quantized: dict[str, Path]) -> None:
    model, tokenizer = load(quantized[format])
    text = minilm.generate(model, tokenizer, "the ", max_new_tokens=8, seed=3)
    program = (
        "import sys, minilm\nmodel, tokenizer = minilm.load(sys.argv[1])\n"
        "print(repr(minilm.generate(model, tokenizer, 'the ', max_new_tokens=8, seed=3)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(quantized[format])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == f"{text!r}\n"


@formats
def test_the_table_is_of_what_was_written(
    format: str, run: Path, quantized: dict[str, Path], cache: Path
) -> None:
    folder = quantized[format]
    summary, record = run_files.read_summary(folder), run_files.read_record(folder / "config.json")
    assert record.transforms[-1]["tool"] == "quantize"
    assert record.transforms[-1]["format"] == format
    assert summary["data"] == run_files.read_summary(run)["data"]
    dtype = summary["after"]["evaluation"]["dtype"]
    again = evaluate(folder, device="cpu", dtype=dtype, cache=cache)
    assert again.loss == pytest.approx(summary["after"]["evaluation"]["loss"], abs=1e-6)
    before, after = (summary[key]["evaluation"]["perplexity"] for key in ("before", "after"))
    assert after == pytest.approx(before, rel=0.003 if format == "int8" else 0.03)
    assert summary["parameters"] == minilm.inspect(folder).parameters.total


def test_which_layers_stay_packed(quantized: dict[str, Path]) -> None:
    """Those that the processor multiplies packed; the others are dequantized once."""
    model, _ = load(quantized["nf4"])
    assert len(linear_layers(model)) == 12
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        for format in ("int8", "int4"):
            layers = [
                m for m in load(quantized[format]).model.modules() if type(m) is QuantizedLinear
            ]
            assert len(layers) == 12


@formats
def test_an_adapter_is_trained_on_packed_layers(format: str, quantized: dict[str, Path]) -> None:
    model, _ = load(quantized[format], trainable=True)
    assert not linear_layers(model)
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    model(tokens).logsumexp(-1).sum().backward()
    assert model.blocks[0].attention_norm.weight.grad is not None  # type: ignore[union-attr]
    with torch.no_grad():
        expected = load(quantized[format]).model(tokens)
        assert torch.allclose(model.eval()(tokens), expected, atol=1e-5)


def test_double_quantization_is_loaded_and_exported(
    run: Path, quantized: dict[str, Path], tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    out = tmp_path / "double"
    arguments = ["--format", "nf4", "--double-quantization", "--device", "cpu", "--json"]
    assert main([str(run), *arguments, "--out", str(out)]) == 0
    bits = json.loads(capsys.readouterr().out)["storage"]["bits_per_weight"]
    size, single = ((f / "model.safetensors").stat().st_size for f in (out, quantized["nf4"]))
    assert bits < 8
    assert size != single
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        logits, other, before = (load(f).model(tokens) for f in (out, quantized["nf4"], run))
    assert 0 < (logits - other).norm() < 0.5 * (logits - before).norm()
    convert(out, "huggingface", tmp_path / "hf")
    convert(tmp_path / "hf", "minilm", tmp_path / "back")
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "back").model(tokens), logits)
    with pytest.raises(InputError, match="double_quantization: given for int4, expected nf4"):
        quantize(run, tmp_path / "no", format="int4", double_quantization=True, cache=cache)


def test_a_tied_table_stays_one(text_file: Path, tmp_path: Path, cache: Path) -> None:
    """And the file shrinks."""
    train_tiny(tmp_path / "run", text_file, cache, MODEL | {"tied_embeddings": True}, max_steps=2)
    result = quantize(tmp_path / "run", tmp_path / "out", format="int4", device="cpu", cache=cache)
    names = [tensor.name for tensor in read_header(tmp_path / "out" / "model.safetensors").tensors]
    assert "lm_head.weight" not in names
    assert result.comparison.after.bytes < result.comparison.before.bytes / 2
    model, _ = load(tmp_path / "out")
    assert model.lm_head.weight is model.embedding.token.weight


def test_calibration_text_is_cleaned_as_the_run_s(
    text_file: Path, tmp_path: Path, cache: Path
) -> None:
    """Else it is another text than the run's own, and the evaluated part may be in it."""
    page = tmp_path / "page.html"
    page.write_text("".join(f"<p>{line}</p>\n" for line in text_file.read_text().splitlines()))
    train(
        data=str(page),
        run_dir=tmp_path / "run",
        tokenizer="byte",
        cleaning=["html"],
        model=MODEL,
        settings=TINY_SETTINGS | {"max_steps": 2},
        cache=cache,
    )
    result = quantize(
        *(tmp_path / "run", tmp_path / "out"),
        format="int4",
        calibrate=str(page),
        device="cpu",
        cache=cache,
    )
    assert result.transform["calibrated_on"]["part"] == "the training part"


def test_calibration_is_on_other_text_than_the_evaluated(
    run: Path, text_file: Path, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = quantize(
        *(run, tmp_path / "own"),
        format="int4",
        calibrate=str(text_file),
        device="cpu",
        cache=cache,
    )
    calibrated_on = own.transform["calibrated_on"]
    assert calibrated_on["part"] == "the training part"
    assert calibrated_on["sha256"] == run_files.read_summary(run)["data"]["sha256"]
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert config["transforms"][-1]["calibrated_on"] == calibrated_on
    other = tmp_path / "other.txt"
    other.write_text(make_text(150, seed=9))
    result = quantize(
        *(run, tmp_path / "other"), format="int4", calibrate=str(other), device="cpu", cache=cache
    )
    assert result.transform["calibrated_on"]["part"] == "all"
    number = result.transform["calibrated_on"]["tokens"]
    assert f"note: calibrated on {number:,} tokens only; on fewer than 2,048" in caplog.text
    short = tmp_path / "short.txt"
    short.write_text("the cat sees\n")
    with pytest.raises(InputError, match=r"a text of 1\d tokens, expected more than the context"):
        quantize(run, tmp_path / "no", format="int4", calibrate=str(short), cache=cache)
    same = {"format": "int4", "calibrate": str(other), "device": "cpu", "cache": cache}
    with pytest.raises(InputError, match="the text that is evaluated, expected another text"):
        quantize(run, tmp_path / "same", data=str(other), **same)
    # A copy with one line more has another hash, and the same windows.
    longer = tmp_path / "longer.txt"
    longer.write_text(other.read_text() + "end\n")
    with pytest.raises(InputError, match="in the evaluated one"):
        quantize(run, tmp_path / "same", data=str(longer), **same)
    assert not (tmp_path / "same").exists()


def test_groups_that_do_not_divide_a_width(tiny_run: Path, tmp_path: Path, cache: Path) -> None:
    """Its width is 16: refused, not left in float; one scale a row fits."""
    with pytest.raises(InputError, match=r"blocks.0.attention.query.weight with 16 inputs.*int8"):
        quantize(tiny_run, tmp_path / "out", format="int4", cache=cache)
    assert not (tmp_path / "out").exists()
    result = quantize(tiny_run, tmp_path / "out", format="int8", device="cpu", cache=cache)
    assert result.storage.quantized == 2 * 12 * 16 * 16


def test_what_cannot_be_quantized(
    run: Path, quantized: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="a quantized model, expected one in float"):
        quantize(quantized["int8"], out, format="int4", cache=cache)
    with pytest.raises(InputError, match="calibrate: given for nf4"):
        quantize(run, out, format="nf4", calibrate="stdlib", cache=cache)
    with pytest.raises(InputError, match="group_size: 48"):
        quantize(run, out, format="int4", group_size=48, cache=cache)
    with pytest.raises(InputError, match="something that exists"):
        quantize(run, tmp_path, format="int8", cache=cache)
    assert not out.exists()


def test_damaged_files_are_refused(quantized: dict[str, Path], tmp_path: Path) -> None:
    for name, got, message in (
        ("config.json", b'"pack-quantized"', "as minilm does not write it"),
        ("model.safetensors", b"weight_packed", r"no such tensor|in int32"),
    ):
        copy = tmp_path / name.partition(".")[0]
        shutil.copytree(quantized["int4"], copy)
        content = (copy / name).read_bytes()
        assert got in content
        (copy / name).write_bytes(content.replace(got, got[::-1]))
        with pytest.raises((ConfigError, FormatError), match=message):
            load(copy)
        with pytest.raises((ConfigError, FormatError), match=message):
            convert(copy, "gguf", tmp_path / "model.gguf")


def test_the_remainder_keeps_its_dtype_and_other_models_are_taken(
    run: Path, tmp_path: Path, cache: Path, text_file: Path
) -> None:
    """A Hugging Face folder in bfloat16: what is not quantized is stored as it came."""
    transformers = pytest.importorskip("transformers")
    convert(run, "huggingface", tmp_path / "float32")
    source = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "float32")
    shutil.copytree(tmp_path / "float32", tmp_path / "bfloat16")
    source.bfloat16().save_pretrained(tmp_path / "bfloat16")
    result = quantize(
        *(tmp_path / "bfloat16", tmp_path / "out"),
        format="int8",
        data=str(text_file),
        device="cpu",
        cache=cache,
    )
    dtypes = {t.dtype for t in read_header(tmp_path / "out" / "model.safetensors").tensors}
    assert dtypes == {"bfloat16", "int8"}
    assert result.storage.file_bytes == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert minilm.inspect(tmp_path / "out").verified


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_transformers_opens_it_through_compressed_tensors(
    format: Any, run: Path, tmp_path: Path, cache: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "model"
    result = quantize(
        run, folder, format=format, layout="compressed-tensors", device="cpu", cache=cache
    )
    assert "GPTNeoXForCausalLM" in result.what
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert theirs.config.quantization_config.quant_method == "compressed-tensors"
    quantize(run, tmp_path / "run", format=format, device="cpu", cache=cache)
    model, _ = load(tmp_path / "run")
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(theirs(tokens).logits, model(tokens), atol=1e-4)
    assert (folder / "README.md").read_text().count("# model\n") == 1
    report = minilm.inspect(folder)
    assert report.verified
    assert report.quantization is not None
    storage, weights = result.storage, folder / "model.safetensors"
    assert report.quantization.value_bytes == storage.code_bytes
    assert report.quantization.scale_bytes == storage.scale_bytes
    assert storage.file_bytes == weights.stat().st_size == result.comparison.after.bytes


def test_transformers_opens_int8_through_torchao(
    run: Path, quantized: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    pytest.importorskip("torchao")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "model"
    result = quantize(run, folder, format="int8", layout="torchao", device="cpu", cache=cache)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs.gpt_neox.layers[0].mlp.dense_h_to_4h.weight).__name__ == "Int8Tensor"
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = load(quantized["int8"]).model(tokens)
        assert torch.allclose(theirs(tokens).logits, own, atol=1e-4)
    report = minilm.inspect(folder)
    assert report.verified
    assert report.quantization is not None
    assert report.quantization.method == "torchao"
    assert report.quantization.scale_bytes == result.storage.scale_bytes
    with pytest.raises(
        InputError, match="torchao for int4, which it stores in the order of one GPU"
    ):
        quantize(run, tmp_path / "x", format="int4", layout="torchao", cache=cache)


def test_transformers_opens_nf4_through_bitsandbytes(
    quantized: dict[str, Path], tmp_path: Path
) -> None:
    """Its CPU kernel computes in 16 bits: the matrices are compared, exactly."""
    functional = pytest.importorskip("bitsandbytes.functional")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    convert(quantized["nf4"], "huggingface", tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    weight = theirs.gpt_neox.layers[1].mlp.dense_4h_to_h.weight
    model, _ = load(quantized["nf4"])
    own = model.get_submodule("blocks.1.feed_forward.down").weight
    assert torch.equal(functional.dequantize_4bit(weight.data, weight.quant_state).float(), own)
    assert minilm.inspect(tmp_path / "model").verified


@formats
def test_it_is_dequantized_for_llama_cpp_and_back_to_a_run(
    format: str, quantized: dict[str, Path], tmp_path: Path
) -> None:
    written = convert(quantized[format], "minilm", tmp_path / "run")
    assert written == f"minilm run, dequantized from {format}"
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    packed, dequantized = load(quantized[format]).model, load(tmp_path / "run").model
    with torch.no_grad():
        assert torch.allclose(packed(tokens), dequantized(tokens), atol=1e-5)
    pytest.importorskip("gguf")
    written = convert(quantized[format], "gguf", tmp_path / "model.gguf", gguf_format="f32")
    assert written == f"gptneox, dequantized from {format}"
    assert {t.dtype for t in gguf.read_header(tmp_path / "model.gguf").tensors} == {"float32"}


def test_gptq_is_read_as_its_definition_says(run: Path, tmp_path: Path, cache: Path) -> None:
    """The integers of a packed run, as AutoGPTQ's QuantLinear unpacks them."""
    folder = tmp_path / "model"
    quantize(run, folder, format="int4", layout="gptq", device="cpu", cache=cache)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["checkpoint_format"]) == ("gptq", "gptq")
    report = minilm.inspect(folder)
    assert report.verified
    assert report.quantization is not None
    assert report.quantization.method == "gptq"
    tensors = load_file(folder / "model.safetensors")
    module = "gpt_neox.layers.0.mlp.dense_h_to_4h"
    words, zeros = tensors[f"{module}.qweight"], tensors[f"{module}.qzeros"]
    shifts = torch.arange(0, 32, 4)
    codes = (words[:, None] >> shifts[:, None] & 15).reshape(-1, words.shape[1])
    zeros = (zeros[:, :, None] >> shifts & 15).reshape(zeros.shape[0], -1)
    assert (zeros == 7).all()
    index = tensors[f"{module}.g_idx"].long()
    weight = (codes - (zeros + 1)[index]) * tensors[f"{module}.scales"].float()[index]
    quantize(run, tmp_path / "run", format="int4", device="cpu", cache=cache)
    layer = load(tmp_path / "run").model.get_submodule("blocks.0.feed_forward.up")
    own = layer.dequantized() if isinstance(layer, QuantizedLinear) else layer.weight
    assert torch.equal(weight.t(), own)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_gguf_file_and_what_its_numbers_cost(
    format: Any, run: Path, tmp_path: Path, cache: Path
) -> None:
    package = pytest.importorskip("gguf")
    path, gguf_format = tmp_path / "model.gguf", {"int8": "q8_0", "int4": "q4_0"}[format]
    result = quantize(run, path, format=format, layout="gguf", device="cpu", cache=cache)
    types = {tensor.dtype for tensor in gguf.read_header(path).tensors}
    assert types == {"float32", gguf_format}
    assert result.storage.bits_per_weight == {"int8": 8.5, "int4": 4.5}[format]
    assert result.comparison.after.bytes == path.stat().st_size
    assert "lm_head.weight" not in result.left
    assert "final_norm.weight" in result.left
    reader = package.GGUFReader(path)
    assert bytes(reader.fields["general.name"].parts[-1]).decode() == "model"
    (head,) = (tensor for tensor in reader.tensors if tensor.name == "output.weight")
    values = load(run).model.lm_head.weight.numpy()
    theirs = package.quants.dequantize(head.data, head.tensor_type)
    own, type_name = stored_values("lm_head.weight", values, gguf_format)
    assert np.array_equal(own, theirs)
    assert type_name == gguf_format
    before, after = result.comparison.before, result.comparison.after
    assert before.evaluation is not None
    assert after.evaluation is not None
    assert after.evaluation.perplexity != before.evaluation.perplexity
    assert after.evaluation.perplexity == pytest.approx(before.evaluation.perplexity, rel=0.05)


def test_layouts_refuse_what_they_have_not(
    run: Path, tiny_run: Path, tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "out"
    for message, options in (
        ("layout: gptq for nf4", {"format": "nf4", "layout": "gptq"}),
        ("layout: 'foo', expected one of compressed-tensors", {"layout": "foo"}),
        ("for gguf, which rounds to nearest", {"layout": "gguf", "calibrate": "stdlib"}),
        ("32, the blocks of q4_0", {"layout": "gguf", "group_size": 64}),
    ):
        with pytest.raises(InputError, match=message):
            quantize(run, out, **({"format": "int4", "cache": cache} | options))  # type: ignore[arg-type]
    assert not out.exists()
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    # Of its matrices those of 64 inputs are quantized, and those of 16 are named.
    result = quantize(tiny_run, out, format="int4", layout="gguf", device="cpu", cache=cache)
    assert result.storage.quantized == 2 * 64 * 16
    assert "blocks of 32 do not fill their rows: embedding.token.weight" in result.what
    assert "blocks.0.attention.query.weight" in result.left
    assert "blocks.0.feed_forward.down.weight" not in result.left


@pytest.mark.parametrize(
    ("format", "layout"),
    [
        *(("int8", "compressed-tensors"), ("int4", "compressed-tensors"), ("int4", "gptq")),
        *(("int8", "torchao"), ("nf4", None)),
    ],
)
def test_a_folder_of_packed_tensors_is_imported_dequantized(
    format: Any, layout: Any, run: Path, quantized: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "model"
    if layout is None:
        convert(quantized[format], "huggingface", folder)
    else:
        quantize(run, folder, format=format, layout=layout, device="cpu", cache=cache)
    written = convert(folder, "minilm", tmp_path / "run")
    assert written == f"minilm run, dequantized from {format}"
    convert(quantized[format], "minilm", tmp_path / "expected")
    own, expected = (load(tmp_path / name).model for name in ("run", "expected"))
    for (name, parameter), other in zip(own.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other), name


@pytest.mark.parametrize(
    ("format", "layout", "double"),
    [
        *((format, None, False) for format in FORMATS),
        ("nf4", None, True),
        *((format, "compressed-tensors", False) for format in ("int8", "int4")),
        *((format, "gptq", False) for format in ("int8", "int4")),
        ("int8", "torchao", False),
    ],
)
def test_diff_shows_the_rounding_errors_of_loading_it(
    format: Any, layout: Any, double: bool, run: Path, tmp_path: Path, cache: Path
) -> None:
    """Against the model that it was made of, as against that which convert makes of it, in float32."""
    packed, loaded, base = tmp_path / "packed", tmp_path / "loaded", run
    options = {"double_quantization": double, "layout": layout, "cache": cache}
    quantize(run, packed, format=format, device="cpu", **options)
    convert(packed, "minilm", loaded)
    if layout is not None:
        base = tmp_path / "base"
        convert(run, "huggingface", base)
        convert(loaded, "huggingface", tmp_path / "again")
        loaded = tmp_path / "again"
    inspections = {each: inspect_with_sources(each) for each in (base, packed, loaded)}

    def difference(before: Path, after: Path) -> Difference:
        report = with_difference(inspections[before], inspections[after], None)
        assert report.difference is not None
        return report.difference

    assert {each.identical for each in difference(loaded, packed).changes} == {1}
    error, expected = difference(base, packed), difference(base, loaded)
    assert (error.unread, error.added, error.removed) == ((), (), ())
    assert [(each.name, each.norm, each.max_index) for each in error.changes] == [
        (each.name, each.norm, each.max_index) for each in expected.changes
    ]
    assert error.total.norm == expected.total.norm
    assert error.total.norm


def test_packed_tensors_of_others_are_refused_by_name(run: Path, tmp_path: Path) -> None:
    convert(run, "huggingface", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    message = r"config.json: quantization_config: quant_method 'awq' as minilm does not write it"
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path / "model", "minilm", tmp_path / "run")
    packed = {"quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32}
    packed |= {"sym": True, "desc_act": False, "lm_head": False}
    path.write_text(json.dumps(config | {"quantization_config": packed}))
    # The file counts: its matrices are in float.
    assert convert(tmp_path / "model", "minilm", tmp_path / "run") == "minilm run"


def test_matrices_that_transformers_keeps_transposed_are_not_packed(
    run: Path, tmp_path: Path, cache: Path, text_file: Path
) -> None:
    """GPT-2's Conv1D: no quantized layer reads it."""
    fields = {"position": "learned", "feed_forward": "gelu_tanh", "tied_embeddings": True}
    train_tiny(tmp_path / "run", text_file, cache, MODEL | fields, max_steps=2)
    with pytest.raises(ConfigError, match=r"no quantized layer reads them.*dequantizes"):
        quantize(
            *(tmp_path / "run", tmp_path / "out"),
            format="int8",
            layout="compressed-tensors",
            device="cpu",
            cache=cache,
        )
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table_or_json(run: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = [str(run), "--format", "int4", "--group-size", "64", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "bytes of weights" in out
    assert "in 4.266 bits each" in out
    left = "embedding.token.weight, lm_head.weight, norms, biases"
    assert f"135.0 KiB are left as they were: {left}" in out
    assert f"{tmp_path / 'a'}: a run" in out
    assert main([*arguments, "--out", str(tmp_path / "b"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["group_size"] == 64
    assert result["storage"]["bits_per_weight"] == pytest.approx(4.266, abs=1e-3)
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    assert "something that exists" in capsys.readouterr().err
    assert main([str(run), "--format", "int3", "--out", str(tmp_path / "c")]) == 2
    assert capsys.readouterr().err.startswith("error: --format: int3, expected one of int4, int8")


def test_a_signal_leaves_nothing_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask for the same: what was begun is removed."""
    whole = measure

    def signalled(*arguments: Any) -> Any:
        if number is not None and (list(tmp_path.iterdir())):  # the new folder has been begun
            os.kill(os.getpid(), number)
        return whole(*arguments)

    monkeypatch.setattr("minilm.operations.quantize.measure", signalled)
    command = [str(run), "--format", "int8", "--device", "cpu", "--out", str(tmp_path / "out")]
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert main(command) == 128 + number
        assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before
    number = None
    assert main(command) == 0


def test_the_bytes_before_are_those_of_what_was_imported(
    quantized: dict[str, Path], text_file: Path, tmp_path: Path, cache: Path
) -> None:
    source = tmp_path / "source"
    convert(quantized["int8"], "huggingface", source)
    options = {"data": str(text_file), "device": "cpu", "cache": cache}
    result = quantize(source, tmp_path / "out", format="int4", **options)  # type: ignore[arg-type]
    stored = (source / "model.safetensors").stat().st_size
    assert result.comparison.before.bytes == stored
    shared = share(source, tmp_path / "shared", layers=1, **options)  # type: ignore[arg-type]
    assert shared.comparison.before.bytes == stored
    pruned = prune(source, tmp_path / "pruned", sparsity=0.5, **options)  # type: ignore[arg-type]
    assert pruned.comparison.before.bytes == stored


def test_generation_takes_every_layout(
    run: Path, quantized: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["--prompt", "the", "--temperature", "0", "--max-new-tokens", "8", "--dtype", "float32"]
    assert generate.main([str(quantized["int8"]), *fixed]) == 0
    expected = capsys.readouterr().out
    convert(quantized["int8"], "huggingface", tmp_path / "hf")
    assert generate.main([str(tmp_path / "hf"), *fixed]) == 0
    assert capsys.readouterr().out == expected
    assert generate.main([str(tmp_path)]) == 2
