"""An adapter is inspected with its base: three witnesses, and what is trained of both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from minilm.checkpoint import load
from minilm.cli.inspect import main
from minilm.config.lora import LoraConfig
from minilm.errors import InputError
from minilm.inspection.inspector import inspect
from tests.interop.shapes import SHAPES, TINY, make_run
from tests.transforms.adapters import ALL, make_adapter_run


@pytest.mark.parametrize("name", ["llama", "neox", "gpt2-tied", "qwen2"])
def test_formula_file_and_module_agree(name: str, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    model = make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3, targets=ALL))
    report = inspect(tmp_path / "run")
    total = sum(p.numel() for p in model.parameters())
    frozen = inspect(base).parameters.total
    assert report.verified, report.mismatches
    assert report.witnesses.available() == dict.fromkeys(("formula", "file", "module"), total)
    assert {c.by for c in report.comparisons} == {"names"}
    assert (report.parameters.total, report.parameters.trainable) == (total, total - frozen)
    assert sum(component.share for component in report.components) == pytest.approx(1)
    # Its memory: a frozen base has weights, and neither gradients nor moments.
    training, trained = report.memory["training"], 4 * (total - frozen)
    assert training["weights"] == 4 * total
    assert (training["gradients"], training["optimizer"]) == (trained, 2 * trained)
    assert any(f"trainable: {total - frozen:,} of {total:,}" in note for note in report.notes)


def test_a_loaded_adapter_is_a_module_with_a_formula(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["gpt2-tied"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2, targets=("query", "lm_head")))
    report, of_file = (
        inspect(load(tmp_path / "run", trainable=True).model),
        inspect(tmp_path / "run"),
    )
    assert report.verified, report.mismatches
    assert report.witnesses.formula == report.witnesses.module == of_file.parameters.total
    assert report.parameters.trainable == of_file.parameters.trainable
    assert report.tied == (("lm_head.weight", "embedding.token.weight"),)


def test_the_names_of_a_shape_without_export_are_said(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", TINY | {"ngram": 2})
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    report = inspect(tmp_path / "run")
    assert report.verified
    assert any(n.startswith("its names are minilm's own: model.ngram: 2") for n in report.notes)


def test_zeros_beside_one_of_joined_matrices_are_said(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["neox"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2, targets=("query", "down")))
    notes = inspect(tmp_path / "run").notes
    assert any("zeros beside the adapters of query_key_value are not counted" in n for n in notes)


def test_json_has_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    base = make_run(tmp_path / "base", SHAPES["neox"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    assert main([str(tmp_path / "run"), "--json", "-", "--tensors", "--stats"]) == 0
    report = json.loads(capsys.readouterr().out)
    schema = Path("minilm/inspection/report.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(report, json.loads(schema))
    names = {tensor["name"]: tensor["count"] for tensor in report["tensors"]}
    assert names["blocks.0.attention.query.lora_A.weight"] == 2 * 32


def test_a_damaged_adapter_is_not_verified(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    path = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({n: t for n, t in tensors.items() if "layers.0.self_attn.q" not in n}, path)
    with pytest.raises(InputError, match=r"q_proj\.lora_A\.weight absent"):
        inspect(tmp_path / "run")
    shutil.rmtree(base)
    with pytest.raises(InputError, match=r"no model\.safetensors in its base"):
        inspect(tmp_path / "run")


def test_the_folder_of_pefts_files_tells_the_share(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    report, run = inspect(tmp_path / "run" / "adapter"), inspect(tmp_path / "run")
    assert report.parameters.total == run.parameters.trainable
    share = f"trainable: {run.parameters.trainable:,} of {run.parameters.total:,} parameters"
    assert any(note.startswith(share) for note in report.notes)
