"""The verdict: which witnesses were compared, and whether by names or by their totals alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import minilm
from minilm.inspection.report import Comparison, Verdict, Witnesses
from tests.inspection.test_inspector import write_gpt2

FILE_BY_NAMES = Comparison("file", "formula", "names")
MODULE_BY_TOTALS = Comparison("module", "formula", "totals")


def test_a_run_is_compared_name_by_name_with_file_and_module(tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    total = f"{report.parameters.total:,}"
    assert report.comparisons == (FILE_BY_NAMES, Comparison("module", "formula", "names"))
    assert report.verdict == Verdict(
        "verified",
        f"verified, name by name: formula {total} = file {total} = module {total}",
        f"verified, name by name: formula = file = module = {total}",
    )


def test_one_witness_is_not_cross_checked(tmp_path: Path) -> None:
    text = "not cross-checked: only the formula is available (124,439,808)"
    assert minilm.inspect("gpt2").verdict == Verdict("not_cross_checked", text, text)
    save_file({"a.b": torch.zeros(2, 3)}, tmp_path / "x.safetensors")
    assert minilm.inspect(tmp_path / "x.safetensors").verdict.text == (
        "not cross-checked: only the file is available (6)"
    )
    assert minilm.inspect(nn.Linear(4, 2)).verdict.text == (
        "not cross-checked: only the module is available (10)"
    )


def test_mismatches_are_counted(tmp_path: Path) -> None:
    write_gpt2(tmp_path, extra=torch.zeros(1))
    report = minilm.inspect(tmp_path)
    text = "NOT VERIFIED: 2 mismatches"
    assert report.verdict == Verdict("mismatch", text, text)
    one = replace(report, mismatches=report.mismatches[:1])
    assert one.verdict.text == "NOT VERIFIED: 1 mismatch"


def test_a_module_of_transformers_is_compared_by_its_total(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    count = write_gpt2(tmp_path)
    report = minilm.inspect(tmp_path, live=True)
    assert report.comparisons == (FILE_BY_NAMES, MODULE_BY_TOTALS)
    assert report.verdict.text == (
        f"verified, name by name: formula {count:,} = file {count:,}; by totals: module {count:,}"
    )
    assert report.verdict.brief == (
        f"verified, name by name: formula = file = {count:,}; by totals: module"
    )
    (tmp_path / "model.safetensors").unlink()
    report = minilm.inspect(tmp_path, live=True)
    assert report.verdict.text == f"verified by totals: formula {count:,} = module {count:,}"


def test_a_comparison_of_totals_is_not_called_name_by_name() -> None:
    report = replace(
        minilm.inspect("nano"),
        witnesses=Witnesses(file=7, module=7),
        comparisons=(Comparison("module", "file", "totals"),),
    )
    text, brief = "verified by totals: file 7 = module 7", "verified by totals: file = module = 7"
    assert report.verdict == Verdict("verified", text, brief)


def test_a_config_without_a_formula_is_counted_by_its_module(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    fields = {
        "model_type": "funnel",
        "architectures": ["FunnelForMaskedLM"],
        "block_sizes": [1],
        "d_model": 8,
        "d_head": 4,
        "n_head": 2,
        "d_inner": 12,
        "vocab_size": 11,
    }
    (tmp_path / "config.json").write_text(json.dumps(fields))
    report = minilm.inspect(tmp_path, live=True)
    total = report.parameters.total
    assert report.verdict.text == f"not cross-checked: only the module is available ({total:,})"
    assert report.parameters.embedding == 11 * 8
    assert ("lm_head.weight", "funnel.embeddings.word_embeddings.weight") in report.tied


def test_what_is_counted_where_config_json_names_no_class(tmp_path: Path) -> None:
    note = "counted as a language model alone: config.json names no class"
    for fields, noted in (({}, True), ({"architectures": ["BertLMHeadModel"]}, False)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **fields}))
        report = minilm.inspect(tmp_path)
        assert report.parameters.total == 109_514_298
        assert (note in report.notes) == noted


def test_a_config_of_quantized_files_says_that_memory_is_of_one_dtype(tmp_path: Path) -> None:
    note = "its files are quantized ('mxfp4'); memory is told of all weights in one dtype"
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    for fields, noted in (({}, False), ({"quantization_config": {"quant_method": "mxfp4"}}, True)):
        (tmp_path / "config.json").write_text(json.dumps(config | fields))
        report = minilm.inspect(tmp_path / "config.json")
        assert (note in report.notes) == noted
