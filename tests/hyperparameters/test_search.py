"""A search from the command line: trials, the best one's command, the page, stopping and going on."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

import minilm
from minilm.cli import train
from minilm.cli.search import main
from minilm.errors import MissingExtraError
from minilm.hyperparameters import search as searching
from minilm.hyperparameters import study as studies
from minilm.runs.logs import read_points
from tests.conftest import TINY_MODEL

# The model's depth and width are searched, all else is small.
FIXED = (
    *("--model.context-length", str(TINY_MODEL["context_length"])),
    *("--train.dtype", "float32", "--train.sample-tokens", "0", "--train.device", "cpu"),
    *("--train.eval-tokens", "256"),
    *("--tokenizer", "byte", "--tokens", "2000", "--params", "30K"),
)

ABSENT_DEVICE = "mps" if torch.cuda.is_available() else "cuda"


@pytest.fixture
def arguments(text_file: Path, study_file: Path, cache: Path, monkeypatch: Any) -> list[str]:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    return ["--data", str(text_file), "--study", str(study_file), *FIXED]


def test_the_best_trial_is_trained_again_by_its_command_and_more_trials_go_on(
    optuna: Any, arguments: list[str], study_file: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main([*arguments, "--trials", "3"]) == 0
    output, messages = capsys.readouterr()
    [command] = [line for line in output.splitlines() if line.startswith("minilm train")]
    lines = [line for line in messages.splitlines() if line.startswith("trial ")]
    assert [line.split(":")[0] for line in lines] == ["trial 0", "trial 1", "trial 2"]
    assert all("parameters, batch" in line and ": loss " in line for line in lines)

    assert main([*arguments, "--trials", "4"]) == 0
    output, messages = capsys.readouterr()
    assert "Of 4 trials these shares of 5 parameters say little" in " ".join(output.split())
    assert main([*arguments, "--trials", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert messages.startswith("4 trials of ")
    assert "; 3 are finished" in messages
    assert messages.count("\ntrial ") == 1
    assert [row["number"] for row in result["trials"]] == [0, 1, 2, 3]
    assert all(row["candidate"]["price"]["params"] <= 30_000 for row in result["trials"])
    best = min(result["trials"], key=lambda row: row["loss"])
    assert result["best"] == best
    assert best["number"] in result["front"]
    assert result["flops"] == sum(row["flops"] for row in result["trials"])
    assert 0 < result["flops"] <= 4 * 1.5 * result["trial_flops"]
    assert sum(result["importance"].values()) == pytest.approx(1)
    assert {path.name for path in studies.trials_folder(study_file).iterdir()} == {
        "lock",
        "report.html",
        f"trial-{best['number']}",
    }

    run = tmp_path / "again"
    assert shlex.split(command)[:2] == ["minilm", "train"]
    for name in ("--train.early-stopping", "--train.eval-every", "--model.dropout"):
        assert name in command, "what train would derive where it is not given"
    assert train.main([*result["command"][2:], "--run-dir", str(run)]) == 0
    losses = [line["val_loss"] for line in read_points(run / "metrics.jsonl") if "val_loss" in line]
    assert min(losses) == best["loss"]
    again, own = (load_file(Path(each) / "model.safetensors") for each in (run, result["run_dir"]))
    assert sum(values.size for values in own.values()) == best["candidate"]["price"]["params"]
    assert own.keys() == again.keys()
    assert all((own[name] == again[name]).all() for name in own)

    page = Path(result["report"]).read_text(encoding="utf-8")
    assert shlex.join(result["command"]).replace("'", "&#39;") in page
    assert page.count('class="trials markers"') == page.count('class="front"') == 1
    assert "<script" not in page
    assert "budget_share" in page

    text, longer = Path(arguments[1]), tmp_path / "longer.txt"
    longer.write_bytes(text.read_bytes() + b"and more")
    size = text.stat().st_size
    for change, was, now in (
        (("30K", "40K"), "budget params 30000", "budget params 40000"),
        (("256", "512"), "settings eval_tokens 256", "settings eval_tokens 512"),
        (
            (str(text), str(longer)),
            f"data {text}, {size:,} bytes",
            f"data {longer}, {size + 8:,} bytes",
        ),
    ):
        other = [each if each != change[0] else change[1] for each in arguments]
        assert main([*other, "--trials", "4"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        problem = f"error: {study_file}: the study of another search: {was}, expected {now}"
        assert error.startswith(problem), error


def test_a_search_that_is_stopped_begins_the_trial_again(
    optuna: Any, arguments: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = searching.train_trial

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "train_trial", stopped)
    assert main([*arguments, "--trials", "1"]) == 130
    assert capsys.readouterr().err.endswith("a {study}?#%41.db\n")
    monkeypatch.setattr(searching, "train_trial", original)
    assert main([*arguments, "--trials", "1", "--json"]) == 0
    output, messages = capsys.readouterr()
    assert messages.startswith("1 trial of ")
    result = json.loads(output)
    assert result["counts"] == {
        "complete": 1,
        "pruned": 0,
        "running": 0,
        "fail": 1,
        "finished": 1,
    }
    assert result["best"]["number"] == 1
    assert result["best"]["candidate"]["parameters"]["learning_rate"] == 0.02


def test_a_pruned_trial_ends_early_and_leaves_no_run(
    optuna: Any, arguments: list[str], study_file: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(studies.Study, "report", lambda *_: True)
    assert main([*arguments, "--trials", "1", "--json"]) == 1
    output, messages = capsys.readouterr()
    result = json.loads(output)
    [row] = result["trials"]
    assert (row["state"], result["best"], result["command"]) == ("pruned", None, [])
    assert "15 steps: pruned after 27%" in messages, "4 of 15 steps"
    assert row["flops"] < 0.5 * result["trial_flops"]
    assert not list(studies.trials_folder(study_file).glob("trial-*"))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--params", "many"], "--params: 'many'"),
        (["--params", "100"], "--params: 100 parameters, expected room for a model"),
        (["--trials", "0"], "--trials: 0, expected 1 or more"),
        (["--max-steps", "9"], "--max-steps: 9, expected nothing"),
        (["--data", "nowhere.txt"], "nowhere.txt"),
        (["--tokens", "5"], "--tokens: 5, expected 128, one step of a trial, or more"),
        (["--joules", "1e-30"], "--params: 30.0K parameters, 1e-30 J a token, expected room"),
        (
            ["--train.device", ABSENT_DEVICE],
            f"--device: {ABSENT_DEVICE}, which torch does not find",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_options_are_one_line(
    optuna: Any, arguments: list[str], tmp_path: Path, capsys: Any, more: Any, problem: str
) -> None:
    before = set(tmp_path.iterdir())
    assert main([*arguments, "--study", str(tmp_path / "new" / "folder" / "file"), *more]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {problem}")
    made = {path.name for path in set(tmp_path.iterdir()) - before}
    assert "new" not in made, "a corrected command would find the study of another search"


def test_without_a_budget_and_without_optuna(
    arguments: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        studies, "find_spec", lambda name: None if name == "optuna" else find_spec(name)
    )
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: search: the package optuna is not installed, expected the optional extra 'search'; "
        "run: pip install 'minilm[search]'\n"
    )
    search: Any = minilm.search
    with pytest.raises(MissingExtraError):
        search(study="nowhere.db", params=1000)
