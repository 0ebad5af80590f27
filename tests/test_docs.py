"""What the documents print, name and promise is so."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from minilm.architectures.model_types import MODEL_TYPES
from minilm.cli import evaluate, finetune
from minilm.text.answers import answered
from minilm.text.chat_template import PLAIN
from minilm.text.conversations import Conversation
from minilm.text.tokenizers import ByteTokenizer
from minilm.training.finetune import FINE_TUNING_RATE
from minilm.training.resume_options import RESUMABLE_OVERRIDES
from scripts.experiments import parameter_cases, parameters_page
from tests.conftest import ROOT
from tests.test_architecture import FLOORS, WITH_TORCH, WITHOUT_TORCH

DOCS = runpy.run_path(str(ROOT / "scripts" / "tools" / "docs.py"))
DOCUMENTS: list[Path] = DOCS["DOCUMENTS"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_printed_output_is_what_the_command_prints(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert DOCS["refreshed"](text) == text, "run: python scripts/tools/docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", text) if not x.startswith("http")]
    named = re.findall(r"`((?:minilm|scripts|tests|docs)/[\w./]+\.\w+)`", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tests_that_a_document_names_exist() -> None:
    named = [
        test
        for document in DOCUMENTS
        for test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text("utf-8"))
    ]
    assert len(named) > 50, "docs/scaling.md has a table of them"
    files = {
        name: (ROOT / name).read_text(encoding="utf-8") for name in {name for name, _ in named}
    }
    missing = [(name, test) for name, test in named if f"\ndef {test}(" not in files[name]]
    assert missing == []


def test_the_measured_figures_are_those_of_the_benchmark() -> None:
    performance = runpy.run_path(str(ROOT / "scripts" / "tools" / "performance.py"))
    figures = performance["read_figures"]()
    for page in performance["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert "from training.json -->" in text
        assert performance["filled"](text, figures) == text, (
            "run: python scripts/tools/performance.py"
        )


def test_the_plans_are_those_that_are_computed() -> None:
    scaling = runpy.run_path(str(ROOT / "scripts" / "tools" / "scaling.py"))
    text = scaling["PAGE"].read_text(encoding="utf-8")
    assert text.count("| GPT-2 124M, 10.0B tokens |") == 3
    assert scaling["filled"](text) == text, "run: python scripts/tools/scaling.py"


def test_the_ablations_are_those_of_the_runs(tmp_path: Path) -> None:
    ablate = runpy.run_path(str(ROOT / "scripts" / "experiments" / "ablate.py"))
    ablate["write_page"](tmp_path / "page.md", ablate["read_results"]())
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert ablate["PAGE"].read_text(encoding="utf-8") == written, "run: ablate.py --write-only"
    page = ablate["PARAMETERS_PAGE"].read_text(encoding="utf-8")
    table = ablate["with_sharing_table"](page, ablate["read_results"]())
    assert "blocks shared by 4 layers" in table
    assert page == table, "run: ablate.py --write-only"


def test_the_rates_of_fine_tuning_are_those_of_the_runs() -> None:
    name = ROOT / "scripts" / "experiments" / "fine_tuning.py"
    experiment = runpy.run_path(str(name))
    text = experiment["PAGE"].read_text(encoding="utf-8")
    table = experiment["table"](experiment["read_results"]())
    assert table in text, "run: python scripts/experiments/fine_tuning.py"
    assert f"the rates times {FINE_TUNING_RATE:g}," in text


def test_the_tables_of_changed_parameters_are_those_of_the_runs() -> None:
    name = ROOT / "scripts" / "experiments" / "parameters.py"
    experiment = runpy.run_path(str(name))
    text = parameters_page.PAGE.read_text(encoding="utf-8")
    results = experiment["read_results"]()
    assert results.keys() <= {case.name for case in parameter_cases.CASES}
    for mark, table in (
        ("quantized", parameters_page.quantized_table(results)),
        ("pruned", parameters_page.pruned_table(results)),
        ("others", parameters_page.others_table(results)),
    ):
        assert f"<!-- {mark} -->\n{table}<!-- end -->" in text, f"run: python {name.name} RUN"
    assert parameters_page.front([(4, 1), (2, 3), (3, 3), (1, 9), (5, 1)]) == [
        (1, 9),
        (2, 3),
        (4, 1),
    ]


def test_the_losses_of_federated_averaging_are_those_of_the_runs() -> None:
    experiment = ROOT / "scripts" / "experiments" / "federated.py"
    names = runpy.run_path(str(experiment))
    table = names["table"](names["read_results"]())
    text = names["PAGE"].read_text(encoding="utf-8")
    assert f"<!-- federated -->\n{table}<!-- end -->" in text, f"run: python {experiment.name}"


def test_the_losses_of_the_search_are_those_of_the_runs() -> None:
    experiment = ROOT / "scripts" / "experiments" / "search_against_preset.py"
    names = runpy.run_path(str(experiment))
    table = names["table"](names["read_results"]())
    text = names["PAGE"].read_text(encoding="utf-8")
    assert f"<!-- search -->\n{table}<!-- end -->" in text, f"run: python {experiment.name}"


def test_what_a_resumed_run_may_change_is_listed() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"These may change: (.*?), with a note", text, re.S)
    assert re.findall(r"`(\w+)`", sentence) == list(RESUMABLE_OVERRIDES)


def test_the_floors_are_those_that_are_tested_and_every_part_has_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \|", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(FLOORS) + 1))
    floors = [set(parts.split()) for _, parts in rows]
    assert floors == FLOORS
    entries = (ROOT / "minilm").iterdir()
    parts = {path.stem for path in entries if path.is_dir() or path.suffix == ".py"}
    assert set().union(*floors) == {part for part in parts if not part.startswith("_")}


def test_the_parts_without_torch_are_those_that_are_tested() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (parts, exceptions) = re.findall(r"`([\w ]+)` never import torch, but for(.*?):", text, re.S)[0]
    assert set(parts.split()) == WITHOUT_TORCH
    assert set(re.findall(r"`minilm/(\S+)`", exceptions)) == WITH_TORCH


def test_the_number_of_architectures() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (number,) = re.findall(r"`config.json` of (\d+)\s+architectures", text)
    assert int(number) == len(MODEL_TYPES) + 1  # and minilm's own


def test_the_table_of_declared_architectures() -> None:
    table = runpy.run_path(str(ROOT / "scripts" / "tools" / "architectures.py"))
    text = table["PAGE"].read_text(encoding="utf-8")
    assert table["page"]() == text, "run: python scripts/tools/architectures.py"
    assert set(re.findall(r"^\| (\S+) \|", text, re.M)) == MODEL_TYPES.keys() | {"model_type"}


def test_the_readme_has_one_short_printed_example() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^```console$", text, re.M)) == 1


def test_the_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make (\w+)", text, re.M):
            assert f"\n{target}:" in makefile, f"{document.name}: make {target}"


def test_the_example_of_instructions_runs_and_learns_what_is_in_brackets(
    tiny_run: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    section = page.partition("### Instructions\n")[2].partition("\n###")[0]
    (records,) = re.findall(r"```json\n(.*?)```", section, re.S)
    (tmp_path / "chat.jsonl").write_text(records, encoding="utf-8")
    shutil.copytree(tiny_run, tmp_path / "checkpoints" / "nano-stdlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    commands = re.findall(r"^    minilm (\w+) (.*)$", section, re.M)
    assert [verb for verb, _ in commands] == ["finetune", "evaluate"]
    sizes = ["--max-steps", "2", "--train.sample-tokens", "0", "--model.context-length", "128"]
    for (_, arguments), main, more in zip(
        commands, (finetune.main, evaluate.main), (sizes, []), strict=True
    ):
        assert main([*arguments.split(), *more]) == 0
    assert " tokens of answers, all of chat (its chat template)" in capsys.readouterr().out
    (shown,) = re.findall(r"```text\n(.*?)\n```", section, re.S)
    messages = tuple(json.loads(records.splitlines()[1])["messages"])
    [result] = answered([Conversation(messages, "")], PLAIN, ByteTokenizer())
    learned = "".join(
        f"[{chr(number)}]" if is_answer else chr(number)
        for number, is_answer in zip(result.ids, result.are_answers, strict=True)
    )
    assert learned.replace("][", "").replace("\0", "<|endoftext|>") == shown
