"""`minilm finetune`: the same as the Python function; what is missing or does not go together is one line."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.architectures.minilm import layout
from minilm.cli.entry import BAD_INPUT, DONE
from minilm.cli.evaluate import main as evaluate
from minilm.cli.finetune import main
from minilm.cli.generate import main as generate
from minilm.config import ModelConfig
from tests.conftest import ROOT, clean_environment

Capture = pytest.CaptureFixture[str]
SHORT = [
    *("--max-steps", "6", "--eval-every", "3", "--device", "cpu", "--dtype", "float32"),
    *("--train.batch-size", "4", "--train.sample-tokens", "4"),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for name, value in clean_environment(cache).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def tuned(tiny_run: Path, text_file: Path, tmp_path: Path, capsys: Capture) -> list[str]:
    """The command that has made the adapter tmp_path/run."""
    command = [
        *(str(tiny_run), "--data", str(text_file), "--run-dir", str(tmp_path / "run")),
        *("--lora-rank", "3", "--lora-alpha", "5", "--targets", "query,value,down", *SHORT),
    ]
    assert main(command) == DONE
    capsys.readouterr()
    return command


def test_an_adapter_is_trained_and_used(tuned: list[str], tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    record = json.loads((run / "config.json").read_text())
    assert record["transforms"] == [
        {
            "tool": "lora",
            "rank": 3,
            "alpha": 5.0,
            "dropout": 0.0,
            "targets": ["query", "value", "down"],
            "rank_stabilised": False,
            "dora": False,
        }
    ]
    assert generate([str(run), "--prompt", "the", "--max-new-tokens", "5"]) == DONE
    assert capsys.readouterr().out.startswith("the")
    assert evaluate([str(run), "--device", "cpu", "--json"]) == DONE
    loss = json.loads(capsys.readouterr().out)["loss"]
    assert main([str(run), "--merge", "--out", str(tmp_path / "out"), "--json"]) == DONE
    merged = json.loads(capsys.readouterr().out)
    assert merged["dtype"] == "float32"
    assert merged["after"]["evaluation"]["loss"] == pytest.approx(loss, abs=0.01)
    done = subprocess.run(
        [sys.executable, "-m", "minilm", "inspect", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verified, name by name" in done.stdout


def test_the_command_repeated_with_resume_goes_on(
    tuned: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main([*tuned, "--resume"]) == DONE
    assert "is finished" in capsys.readouterr().err
    assert main([*tuned, "--resume", "--max-steps", "8"]) == DONE
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 8
    capsys.readouterr()
    assert main([*tuned, "--resume", "--lora-rank", "2"]) == BAD_INPUT
    refusal = "error: --lora-rank: given with --resume as 2, expected the run's own 3;"
    assert refusal in capsys.readouterr().err
    for option, message in (
        (
            ["--dora"],
            "--dora: given with --resume, expected a run that began with it; only --data and",
        ),
        (
            ["--train.deterministic", "true"],
            "--train.deterministic: given with --resume as true, expected the run's own false; only "
            "--data and --max-steps, --max-seconds, --target-val-loss, --early-stopping, --device, "
            "--parallel, --tensor-parallel, --compile, --train.cuda-graphs, "
            "--train.save-every-seconds, --train.keep-states, --train.sample-tokens, "
            "--train.watch, --log-to, --dtype may change",
        ),
        (["--quantize-base", "nf4"], "as nf4, expected the run's own none"),
        (["--targets", "query,up"], "as query,up, expected the run's own query,value,down"),
    ):
        assert main([*tuned, "--resume", *option]) == BAD_INPUT
        assert message in capsys.readouterr().err
    same = ["--lora-rank", "3", "--targets", "down,value,query"]
    assert main(["--run-dir", str(tmp_path / "run"), "--resume", *same]) == DONE
    assert main(["--run-dir", str(tmp_path / "run"), "--resume", "--max-steps", "9"]) == DONE
    said = capsys.readouterr().err
    assert "resuming a LoRA adapter of rank 3, alpha 5 of query, value, down, on" in said
    assert "modules" not in said
    shutil.rmtree(tmp_path / "run")
    assert main([*tuned, "--resume", "auto"]) == DONE
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 6


def test_a_killed_adapter_resumes_bit_for_bit(
    tiny_run: Path, text_file: Path, tmp_path: Path, cache: Path
) -> None:
    def command(name: str) -> list[str]:
        arguments = ["--data", str(text_file), "--run-dir", str(tmp_path / name)]
        options = ["--lora-rank", "3", "--max-steps", "100", "--eval-every", "25"]
        fixed = ["--device", "cpu", "--dtype", "float32", "--train.save-every-seconds", "0.05"]
        script = [sys.executable, str(ROOT / "scripts" / "finetune.py"), str(tiny_run)]
        return [*script, *arguments, *options, *fixed]

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=clean_environment(cache),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    states = tmp_path / "killed" / "resume"
    process = start(command("killed"))
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if states.is_dir() and any(int(p.name[5:14]) for p in states.glob("step-*.safetensors")):
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert start([*command("killed"), "--resume"]).wait(120) == DONE
    assert start(command("whole")).wait(120) == DONE
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        killed, whole = (tmp_path / run / name for run in ("killed", "whole"))
        assert killed.read_bytes() == whole.read_bytes()
    newest = "resume/step-000000100.safetensors"
    killed, whole = (load_file(tmp_path / run / newest) for run in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in killed.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "error: --data: missing"),
        (["--data", "TEXT"], "error: CHECKPOINT: missing"),
        (
            ["RUN", "--data", "TEXT", "--lora-alpha", "3"],
            "error: --lora-alpha: given without --lora-rank",
        ),
        (["RUN", "--data", "TEXT", "--lora-rank", "x"], "error: --lora-rank: x, expected a whole"),
        (["RUN", "--data", "TEXT", "--lora-rank", "200"], "error: --lora-rank: 200, expected from"),
        (["RUN", "--data", "TEXT", "--lora-rank", "2", "--targets", "q"], "error: --targets: 'q'"),
        (["RUN", "--data", "TEXT", "--lora-rank", "0"], "error: --lora-rank: 0, expected at least"),
        (
            ["RUN", "--data", "TEXT", "--lora-rank", "2", "--lora-alpha", "0"],
            "error: --lora-alpha: 0.0, expected above 0",
        ),
        (
            ["RUN", "--data", "TEXT", "--lora-rank", "2", "--lora-dropout", "1"],
            "error: --lora-dropout: 1.0, expected at least 0",
        ),
        (["RUN", "--data", "TEXT", "--train.batch-size", "0"], "error: --train.batch-size: 0"),
        (["RUN", "--data", "TEXT", "--model.d-model", "12"], "error: --model.d-model: not to be"),
        (["--merge"], "error: CHECKPOINT and --out: missing beside --merge"),
        (["RUN", "--data", "TEXT", "--out", "DIR"], "error: --out: given without --merge"),
        (["RUN", "--data", "TEXT", "--resume"], "error: --run-dir: missing beside --resume"),
        (["RUN", "--merge"], "error: --out: missing beside --merge"),
        (
            ["RUN", "--merge", "--out", "DIR", "--lora-rank", "2"],
            "error: --merge: given with --lora-rank",
        ),
        (
            ["RUN", "--merge", "--out", "DIR", "--dora", "--seed", "1", "--model.dropout", "0"],
            "error: --merge: given with --dora, --model.dropout, --seed, expected",
        ),
        (
            ["RUN", "--merge", "b c", "--out", "DIR"],
            "b c after it, expected all runs after it; finetune --merge RUN 'b c' --out DIR",
        ),
        (["RUN", "--merge", "--out", "DIR"], "a whole model, expected a run that is an adapter"),
        (["RUN", "--data", "TEXT", "--freeze", "x", "--run-dir", "DIR"], "error: --freeze: 'x'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tiny_run: Path,
    text_file: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    names: dict[str, Any] = {"RUN": tiny_run, "TEXT": text_file, "DIR": tmp_path / "new"}
    assert main([str(names.get(each, each)) for each in arguments]) == BAD_INPUT
    printed = capsys.readouterr()
    assert message in printed.err.replace(str(tiny_run), "RUN")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["quantize", "prune", "share", "evaluate", "finetune"])
def test_the_help_shows_what_applies(verb: str, capsys: Capture) -> None:
    command = importlib.import_module(f"minilm.cli.{verb}").main
    with pytest.raises(SystemExit):
        command(["--help"])
    text = capsys.readouterr().out
    assert "None" not in text
    assert "STR" not in text
    if verb == "finetune":
        fields = re.findall(r"--model\.([a-z-]+)", text)
        assert {"dropout", "rope-factor"} < set(fields)
        base = ModelConfig()
        for name in fields:  # none changes a tensor
            values = {"rope-scaling": "linear", "dropout": 0.5, "rope-low-factor": 2}
            value = values.get(name, 8)
            config = dataclasses.replace(base, **{name.replace("-", "_"): value})
            assert tensors_of(config) == tensors_of(base)


def tensors_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in layout(config).named_tensors()}
