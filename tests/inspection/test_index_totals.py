"""The totals in the index of a sharded checkpoint: a witness of what its shards hold."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

import minilm
from minilm.cli import inspect as command
from minilm.inspection.report import IndexTotal, Report
from tests.inspection.test_inspector import write_gpt2, write_llama
from tests.quantization.test_quantized import CASES
from tests.quantization.test_quantized import write as write_quantized

INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
TABLE_ELEMENTS = 11 * 8


def shard(folder: Path, **totals: Any) -> Path:
    """Split the folder's weights into two files under an index with ``totals``."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": totals, "weight_map": weight_map}))
    return folder


def with_totals(folder: Path, **totals: Any) -> Report:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"metadata": totals}))
    return minilm.inspect(folder)


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Path, int]:
    """A sharded folder with an untied head, and its parameters."""
    tensors = write_llama(tmp_path)
    return shard(tmp_path), sum(tensor.numel() for tensor in tensors.values())


@pytest.fixture
def tied(tmp_path: Path) -> tuple[Path, int]:
    """A sharded folder with a tied head that is not stored, and its parameters."""
    count = write_gpt2(tmp_path)
    return shard(tmp_path), count


def test_a_right_index_agrees(llama: tuple[Path, int]) -> None:
    folder, count = llama
    report = with_totals(folder, total_parameters=count, total_size=4 * count)
    assert report.index_totals == (
        IndexTotal("total_parameters", count, count, "parameters"),
        IndexTotal("total_size", 4 * count, 4 * count, "stored bytes"),
    )
    assert not any("index" in note for note in report.notes)
    assert "index" not in report.verdict.text
    markdown = report.to_markdown()
    assert "total_parameters" in markdown
    assert "stored bytes" in markdown


@pytest.mark.parametrize("target", [".", INDEX])
def test_a_wrong_total_of_parameters_is_told_and_no_mismatch(
    llama: tuple[Path, int], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, count = llama
    with_totals(folder, total_parameters=count + 1, total_size=4 * count)
    report = minilm.inspect(folder / target)
    note = (
        f"total_parameters of the index is {count + 1:,}, and the shards hold {count:,} parameters "
        "(+1): no way of counting them gives it"
    )
    assert report.verified
    assert report.notes[0] == note
    assert report.index_totals[0] == IndexTotal("total_parameters", count + 1, count, None)
    assert report.verdict.status == "verified"
    for text in (report.verdict.text, report.verdict.brief):
        assert text.endswith("; but not total_parameters of the index")
    assert command.main([str(folder / target)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert note in printed
    assert "; but not total_parameters of the index" in printed
    page = html.unescape(report.to_html())
    assert note in page
    assert "disagrees" in page


def test_a_wrong_size_is_told(llama: tuple[Path, int]) -> None:
    folder, count = llama
    report = with_totals(folder, total_size=2 * count)
    assert report.verified
    assert report.notes[0] == (
        f"total_size of the index is {2 * count:,}, and the shards hold {4 * count:,} bytes "
        f"({-2 * count:+,}): no way of counting them gives it"
    )
    both = with_totals(folder, total_size=2 * count, total_parameters=7).verdict.text
    assert both.endswith("; but not total_parameters and total_size of the index")


def test_a_tied_head_that_is_not_stored_may_be_counted_again(tied: tuple[Path, int]) -> None:
    folder, count = tied
    twice = count + TABLE_ELEMENTS
    report = with_totals(folder, total_parameters=twice, total_size=4 * twice)
    assert [total.agrees_with for total in report.index_totals] == [
        "parameters, with the tied head again",
        "stored bytes, with the tied head, which is not stored",
    ]
    assert report.parameters.total == count
    assert not any(total.disagrees for total in report.index_totals)


def test_a_copy_of_a_tied_head_may_be_counted_once_or_twice(tmp_path: Path) -> None:
    count = write_gpt2(tmp_path, **{HEAD: torch.zeros(11, 8)})
    folder = shard(tmp_path)
    for elements, ways in (
        (count, ["parameters", "stored bytes, without the copy of the tied head"]),
        (count + TABLE_ELEMENTS, ["parameters, with the tied head again", "stored bytes"]),
    ):
        report = with_totals(folder, total_parameters=elements, total_size=4 * elements)
        assert [total.agrees_with for total in report.index_totals] == ways
    report = with_totals(folder, total_parameters=count + 2 * TABLE_ELEMENTS)
    assert report.index_totals[0].disagrees


def test_buffers_may_be_counted(tmp_path: Path) -> None:
    count = write_gpt2(tmp_path, **{"h.0.attn.bias": torch.ones(1, 1, 5, 5)})
    report = with_totals(shard(tmp_path), total_parameters=count + 25)
    assert report.index_totals[0].agrees_with == "parameters, with buffers"
    assert report.parameters.buffers == 25


def test_an_index_of_the_whole_shows_what_its_shards_lack(llama: tuple[Path, int]) -> None:
    """Its total is the formula's, where a tensor was dropped from a file and from the weight map."""
    folder, count = llama
    index = json.loads((folder / INDEX).read_text())
    file = folder / index["weight_map"].pop("model.norm.weight")
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file)
    (folder / INDEX).write_text(json.dumps(index))
    report = with_totals(folder, total_parameters=count)
    assert not report.verified
    assert report.notes[0].endswith(
        f"hold {count - 8:,} parameters: it is the count of the formula"
    )


def test_a_type_that_is_not_declared_has_the_index_beside_its_file(
    llama: tuple[Path, int],
) -> None:
    folder, count = llama
    (folder / "config.json").unlink()
    report = with_totals(folder, total_parameters=count)
    assert report.index_totals[0].agrees_with == "parameters"
    text = f"not cross-checked: only the file is available ({count:,})"
    assert report.verdict.text == text
    wrong = with_totals(folder, total_parameters=count - 1)
    assert wrong.verdict.text == text + "; but not total_parameters of the index"


@pytest.mark.parametrize("write", [float, str])
def test_a_float_and_a_text_may_be_whole(llama: tuple[Path, int], write: type) -> None:
    folder, count = llama
    report = with_totals(folder, total_size=write(4 * count) if write is float else str(4 * count))
    assert report.index_totals[0].agrees_with == "stored bytes"


NONSENSE = [
    -1,
    1.5,
    1e300,
    10**90,
    2**63,
    True,
    "",
    "many",
    "1e3",
    "٣",
    "9" * 5000,
    [[1]],
    {"a": {}},
]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("name", ["total_parameters", "total_size"])
def test_nonsense_is_told_in_a_short_line(llama: tuple[Path, int], name: str, value: Any) -> None:
    folder, _ = llama
    report = with_totals(folder, **{name: value})
    assert report.verified
    assert report.index_totals[0].value is None
    assert report.notes[0].startswith(f"{name} of the index is no whole number: ")
    assert len(report.notes[0]) < 200
    assert "index" not in report.verdict.text
    schema = json.loads(Path("minilm/inspection/report.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(json.loads(json.dumps(report.to_dict())))
    assert "no whole number" in report.to_markdown()


def test_what_is_not_there_is_not_told(llama: tuple[Path, int]) -> None:
    folder, _ = llama
    assert with_totals(folder, total_size=None, format="pt").index_totals == ()
    assert with_totals(folder).index_totals == ()


def test_a_total_that_is_not_a_number_of_json_is_refused(llama: tuple[Path, int]) -> None:
    """As the safetensors library refuses it."""
    folder, _ = llama
    for value in (float("nan"), float("inf")):
        with pytest.raises(minilm.errors.FormatError, match="not JSON"):
            with_totals(folder, total_size=value)


def test_control_characters_do_not_reach_the_terminal(llama: tuple[Path, int]) -> None:
    folder, _ = llama
    assert "\x1b" not in str(with_totals(folder, total_size="\x1b[2J"))


def test_shards_that_share_storage_in_files_of_torch(tmp_path: Path) -> None:
    table = torch.randn(5, 3)
    torch.save({"a.weight": table, "b.weight": table}, tmp_path / "x-1.bin")
    torch.save({"c.weight": torch.zeros(2)}, tmp_path / "x-2.bin")
    weight_map = {"a.weight": "x-1.bin", "b.weight": "x-1.bin", "c.weight": "x-2.bin"}
    path = tmp_path / "pytorch_model.bin.index.json"
    for elements in (17, 32):
        metadata = {"total_parameters": elements, "total_size": 4 * elements}
        path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
        totals = minilm.inspect(path).index_totals
        assert [total.value for total in totals] == [elements, 4 * elements]
        assert not any(total.disagrees for total in totals)


def test_the_index_that_transformers_writes_agrees(tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="the extra 'transformers' is not installed"
    )
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=5)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path, max_shard_size="2KB")
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.index_totals
    assert not any(total.disagrees for total in report.index_totals)


def test_packed_integers_may_be_counted_or_not(tmp_path: Path) -> None:
    """transformers does not count what GPTQ packs, mlx-lm counts what is packed, others what is stored."""

    write_quantized(tmp_path, CASES["gptq"])
    folder = shard(tmp_path)
    report = minilm.inspect(folder)
    assert report.quantization is not None
    total, stored = report.parameters.total, report.parameters.stored_elements
    plain = total - report.quantization.parameters
    for elements, way in (
        (total, "parameters"),
        (stored, "stored elements"),
        (plain, "parameters that are not quantized"),
    ):
        assert with_totals(folder, total_parameters=elements).index_totals[0].agrees_with == way
    assert len({total, stored, plain}) == 3


def test_modules_for_several_tokens_may_be_counted_or_not(tmp_path: Path) -> None:
    tensors = {f"model.layers.{i}.proj.weight": torch.zeros(3, 5) for i in range(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "novel", "num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = shard(tmp_path)
    for elements, way in ((30, "parameters"), (45, "parameters, with MTP modules")):
        assert with_totals(folder, total_parameters=elements).index_totals[0].agrees_with == way


def test_the_index_of_one_component_is_not_that_of_a_pipeline(tmp_path: Path) -> None:
    pipeline = {name: ["transformers", "LlamaModel"] for name in ("a", "b")}
    (tmp_path / "model_index.json").write_text(json.dumps(pipeline))
    for name in pipeline:
        write_llama(tmp_path / name)
        shard(tmp_path / name, total_parameters=3, total_size=4)
    report = minilm.inspect(tmp_path)
    assert report.parameters.total > 2000
    assert report.index_totals == ()
