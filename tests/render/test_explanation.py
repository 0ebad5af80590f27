"""`minilm explain`: the sentences say what the report counts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import minilm
from minilm.cli import explain as verb
from minilm.render.explanation import WIDTH, Explanation
from minilm.units import format_bytes
from tests.conftest import ROOT


def text_of(explanation: Explanation) -> str:
    return " ".join(str(explanation).split())


def test_a_run_is_told_with_its_numbers(tiny_run: Path) -> None:
    explanation = minilm.explain(tiny_run)
    report, text = explanation.report, text_of(explanation)
    p = report.parameters
    assert f"has {p.total:,} parameters" in text
    assert f"{p.weights:,} of them are weights" in text
    assert f"{p.biases:,} ({p.biases / p.total:.2%}) are biases" in text
    assert report.formula is not None
    assert report.formula.pretty in text
    largest = max(report.tensors, key=lambda row: row.count)
    assert f"{largest.name} " in text
    assert f"({report.memory['weights']['stored']:,} bytes) of float32" in text
    assert "It was trained for" in text
    assert "bits for each byte" in text
    assert max(map(len, str(explanation).splitlines()[1:])) <= WIDTH


def test_what_a_model_does_not_have_is_not_told() -> None:
    text = text_of(minilm.explain(nn.Linear(4, 2)))
    assert "has 10 parameters (10)" in text
    assert "8 of them are weights" in text
    assert "FLOPs" not in text
    assert "formula" not in text
    assert "head" not in text


def test_positions_are_no_table_of_the_vocabulary() -> None:
    explanation = minilm.explain("gpt2")
    text = text_of(explanation)
    counts = {each.name: each.count for each in explanation.report.components}
    total = explanation.report.parameters.total
    tokens, positions = counts["token embedding"] / total, counts["position embedding"] / total
    assert (
        f"{tokens:.1%} are in tables with a row for each token of the vocabulary (token embedd"
        in text
    )
    assert f"{positions:.1%} are in a table with a row for each place in the context" in text
    assert "The largest part is feed-forward, with 45.5%." in text
    assert "To train it by AdamW takes 1.9 GiB" in text
    assert "positions for" not in text
    for preset, tells in (("gpt2", True), ("nano", False)):
        text = text_of(minilm.explain(preset, context=5000))
        assert ("the model has positions for 1024 tokens only" in text) == tells


def test_tables_of_ngrams_are_none_of_the_vocabulary() -> None:
    explanation = minilm.explain("nano-fast")
    counts = {each.name: each.count for each in explanation.report.components}
    total, text = explanation.report.parameters.total, text_of(explanation)
    tables = counts["token embedding"] + counts["LM head"]
    assert f"{tables / total:.1%} are in tables with a row for each token of the voc" in text
    assert "(token embedding and LM head)" in text
    assert f"{counts['n-gram embedding'] / total:.1%} are in tables of n-grams" in text


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_optimizer_is_that_of_the_run(tiny_run: Path, tmp_path: Path, optimizer: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["train"]["optimizer"] = optimizer
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    explanation = minilm.explain(run)
    variant = explanation.report.memory["training"]["variants"][f"{optimizer}_float32"]
    text = text_of(explanation)
    assert f"takes {format_bytes(variant['total'])} for weights, gradients and" in text
    assert ("The optimizer is Muon" in text) == (optimizer == "muon")


def test_experts_ties_and_frozen_parts_have_their_sentences(tmp_path: Path) -> None:
    config = {"model_type": "mixtral", "num_hidden_layers": 2, "tie_word_embeddings": True}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    explanation = minilm.explain(path)
    p, text = explanation.report.parameters, text_of(explanation)
    assert f"One token uses {p.active:,} of them ({p.active / p.total:.1%})" in text
    assert "The LM head is tied" in text
    assert "There are no weights" in text


def test_json_html_and_markdown_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {name: tmp_path / name for name in ("json", "html", "markdown")}
    options = [part for name, path in outputs.items() for part in (f"--{name}", str(path))]
    assert verb.main(["nano", *options]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{minilm.explain('nano')}\n"
    value = json.loads(outputs["json"].read_text(encoding="utf-8"))
    assert value["letters"]["d"] == {"value": 128, "meaning": "model width"}
    assert value["parameters"] == 1_055_488
    sentence = value["sections"][0]["sentences"][0]
    assert " ".join(sentence.split()) in " ".join(printed.split())
    page = outputs["html"].read_text(encoding="utf-8")
    assert sentence in re.sub(r"</?a\b[^>]*>", "", page)  # words lead to the glossary
    assert 'id="calculator"' in outputs["html"].read_text(encoding="utf-8")
    assert "1,055,488 parameters" in outputs["markdown"].read_text(encoding="utf-8")
    assert verb.main(["nano", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == value


def test_a_model_is_never_written_over(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gpt.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    for target, option, file, problem in (
        (tiny_run, "--json", tiny_run / "config.json", "a file of a model or a run"),
        (tiny_run, "--html", tiny_run / "report.html", "the report of a run"),
        ("nano", "--html", tiny_run / "report.html", "the report of a run"),
        (tmp_path / "gpt.json", "--json", tmp_path / "gpt.json", "a target or another output"),
    ):
        before = file.read_bytes()
        assert verb.main([str(target), option, str(file)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option}: {file}, which is {problem}")
        assert file.read_bytes() == before
    assert verb.main(["nano", "--json", "-", "--html", "-"]) == 2


def test_no_option_is_advised_that_explain_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "nonesuch"}', encoding="utf-8")
    assert verb.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "name its weights" in error
    assert "--live" not in error


def test_hostile_names_are_harmless() -> None:
    modules = nn.ModuleDict({"a<script>\x1b[31m": nn.Linear(2, 2)})
    explanation = minilm.explain(modules)
    assert "\x1b" not in str(explanation)
    assert "a<script>" not in explanation.to_html()


def test_a_config_is_explained_without_torch() -> None:
    code = (
        "import sys; from minilm.cli.explain import main; status = main(['nano']); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
