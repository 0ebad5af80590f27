"""The benchmarks: what they generate, what they measure, what they say of who is absent."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import minilm
from tests.conftest import ROOT

checkpoints = import_module("scripts.benchmarks.checkpoints")
default_text = import_module("scripts.benchmarks.default_text")
gpu = import_module("scripts.benchmarks.gpu")
inspection = import_module("scripts.benchmarks.inspection")
nanogpt = import_module("scripts.benchmarks.nanogpt")
runs = import_module("scripts.benchmarks.runs")
training = import_module("scripts.benchmarks.training")

SMALL = checkpoints.LLAMA_3_8B | {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL_COUNT = 2 * 512 * 256 + 256 + 3 * (2 * 256 + 3 * 256 * 512 + 2 * 256 * (256 + 128))


def test_the_generated_headers_are_what_they_stand_for(tmp_path: Path) -> None:
    checkpoints.write_header(tmp_path / "header", SMALL)
    checkpoints.write_shards(tmp_path / "shards", SMALL, 5)
    for name in ("header", "shards"):
        report = minilm.inspect(tmp_path / name)
        assert report.verified
        assert report.witnesses.file == report.witnesses.formula == SMALL_COUNT
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) == 5


def test_the_generated_gguf_is_what_it_stands_for(tmp_path: Path) -> None:
    path = checkpoints.write_gguf(tmp_path / "gguf", SMALL, 512)
    assert minilm.inspect(path).parameters.total == SMALL_COUNT


def test_the_generated_values_are_finite_and_as_many_as_asked(tmp_path: Path) -> None:
    path = checkpoints.write_values(tmp_path / "values", 5_000_000)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    data = path.read_bytes()[8 + length :]
    assert 4_900_000 < len(data) <= 5_000_000
    exponents = {byte & 0x7F for byte in data[1::2]}
    assert exponents == set(range(0x3C, 0x44))  # neither zero nor NaN nor infinite


def options(python: str, peers: list[str]) -> argparse.Namespace:
    return argparse.Namespace(python=python, peers=peers, repeats=2, gigabytes=0.001)


def test_a_case_has_counts_medians_and_ratios(tmp_path: Path) -> None:
    result = inspection.compare("header", options(sys.executable, ["safetensors"]), tmp_path)
    minilm_result, safetensors_result = result["tools"]["minilm"], result["tools"]["safetensors"]
    assert minilm_result["count"] == safetensors_result["count"] == 8_030_261_248
    assert minilm_result["verified"] is True
    for tool in (minilm_result, safetensors_result):
        assert len(tool["runs"]) == 2
        for key in ("seconds", "cpu_seconds", "peak_mib"):
            low, high = sorted(run[key] for run in tool["runs"])
            assert low <= tool[f"median_{key}"] <= high
    ratio = safetensors_result["median_seconds"] / minilm_result["median_seconds"]
    assert result["times_minilm"] == {"safetensors": pytest.approx(ratio)}
    assert "SAFETENSORS" in safetensors_result["command"]


def test_who_is_absent_or_fails_is_named_and_not_timed(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(
        """#!/bin/sh
case "$2" in
  *torchinfo*) echo '{"absent": "No module named torchinfo"}' ;;
  *calflops*) echo broken >&2; exit 7 ;;
  *) echo noise; echo '{"version": "1", "count": 5}' ;;
esac
"""
    )
    stand_in.chmod(0o755)
    peers = ["torchinfo", "calflops", "transformers"]
    tools = inspection.compare("gpt2", options(str(stand_in), peers), tmp_path)["tools"]
    assert tools["torchinfo"]["absent"] == "No module named torchinfo"
    assert tools["calflops"]["failed"] == "exit 7: broken"
    assert tools["torchinfo"]["runs"] == tools["calflops"]["runs"] == []
    assert tools["transformers"]["count"] == 5
    assert tools["minilm"]["count"] == 124_439_808
    assert "accelerate" not in tools


def test_a_process_is_measured_by_itself() -> None:
    child = "import sys, time; x = bytearray(80 << 20); time.sleep(0.2); sys.exit(3)"
    # From a small process, as bench.py is: Linux passes a parent's peak on to what it starts.
    program = f"""
import dataclasses, json, sys
sys.path.append({str(ROOT)!r})
from scripts.benchmarks import process
print(json.dumps(dataclasses.asdict(process.run([sys.executable, "-c", {child!r}]))))
"""
    command = [sys.executable, "-c", program]
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert done["status"] == 3
    assert 80 < done["peak_mib"] < 200
    assert done["cpu_seconds"] < done["seconds"]
    assert done["seconds"] > 0.2


def test_the_command_prints_json_and_knows_its_comparisons(tmp_path: Path) -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "scripts" / "bench.py")
        command = [sys.executable, script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    done = bench("inspect", "--cases", "gpt2", "--peers", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["machine"]["cores"] >= 1
    assert value["results"]["gpt2"]["tools"]["minilm"]["count"] == 124_439_808
    assert bench("inspect", "--repeats", "0").returncode == 2
    (tmp_path / "figures.json").write_text("older")
    (tmp_path / "link").symlink_to("figures.json")
    done = bench("inspect", "--cases", "gpt2", "--peers", "--repeats", "1", "--out", "link")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "figures.json").read_text() == done.stdout
    for name in ("train", "generate", "inspect"):
        data = ["--data", str(tmp_path / "figures.json")] if name == "train" else []
        done = bench(name, *data, "--out", "missing/x.json")
        assert (done.returncode, done.stderr) == (2, "error: --out: missing: no such folder\n")
    assert bench("inspcet").stderr.startswith("error: 'inspcet': no such comparison")
    assert bench("train", "--data", "missing").returncode == 2
    assert "--peer" in bench("train", "--help").stdout


def test_the_stages_of_the_gpu_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        repeats, peer, options = 2, None, []

        def train(self, options: dict) -> dict:
            self.options.append(options)
            return {"loss": 1.0 + options["--seed"], "rate": 3.0}

    machine = Machine()
    assert gpu.gpu(machine, ["mfu"]) == {"not run": "no CUDA device"} or torch.cuda.is_available()
    monkeypatch.setattr(gpu, "_gpu_name", lambda: "a card")
    result = gpu.gpu(machine, ["best", "peer"])
    assert result.keys() == {"device", "best", "peer"}
    assert result["best"]["mean_loss"] == 1.5
    assert result["peer"] == {"not run": "no --peer"}
    assert [options["--seed"] for options in machine.options] == [0, 1]
    assert all(options["--preset"] == "small" for options in machine.options)


@pytest.mark.parametrize(
    ("option", "file"), [("--peer", "train.py"), ("--nanochat", "nanochat/gpt.py")]
)
def test_a_folder_that_is_no_checkout_is_told_before_anything_runs(
    option: str,
    file: str,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "Bench", None)
    assert training.main(["--data", str(text_file), option, str(tmp_path)]) == 2
    expected = f"error: {tmp_path / file}: no such file, expected a text and a checkout\n"
    assert capsys.readouterr().err == expected


def test_a_comparison_with_nobody_is_told_before_anything_runs(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "Bench", None)
    assert training.main(["--data", str(text_file), "--only", "default_text"]) == 2
    assert capsys.readouterr().err == "error: --peer: missing, expected for default_text\n"


def test_what_was_measured_before_a_failure_is_in_the_file(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bench: object) -> dict:
        raise SystemExit("error: nanochat: exit 1")

    parts = {"quality": lambda bench: {"target": 1.88}, "default_text": fails}
    monkeypatch.setattr(training, "PARTS", parts)
    monkeypatch.setattr(training, "Bench", lambda *_: None)
    out = tmp_path / "figures.json"
    with pytest.raises(SystemExit, match="nanochat"):
        training.main(["--data", str(text_file), "--out", str(out)])
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures.keys() == {"machine", "date", "quality"}
    assert figures["quality"] == {"target": 1.88}


# A program with the shape of nanoGPT's: what it reads, prints and leaves behind when it ends.
PREPARE = """
import numpy as np
text = open("input.txt").read()
np.array([ord(c) for c in text[:-41]], dtype=np.uint16).tofile("train.bin")
np.array([ord(c) for c in text[-41:]], dtype=np.uint16).tofile("val.bin")
open("meta.pkl", "w").close()
"""
TRAIN = """
import contextlib, sys, torch
assert sys.argv[1] == "config/train_shakespeare_char.py"
block_size, device, ctx = 8, "cpu", contextlib.nullcontext()
data_dir = "data/plain" if "--dataset=plain" in sys.argv else "data/shakespeare_char"
print("step 0: train loss 4.1000, val loss 4.2000")
for i in range(10):
    print(f"iter {i}: loss 4.0, time {100 if i < 3 else 20}.00ms, mfu -1.00%")
print("step 10: train loss 2.1000, val loss 2.2000")
class Model:
    def eval(self):
        return self
    def parameters(self):
        return [torch.zeros(3, 4), torch.zeros(2)]
    def __call__(self, x, y):
        assert torch.equal(x[:, 1:], y[:, :-1]) and x.shape[1] <= 8
        return None, y.double().mean()
raw_model = Model()
"""


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "data" / "shakespeare_char").mkdir(parents=True)
    (folder / "data" / "shakespeare_char" / "prepare.py").write_text(PREPARE)
    (folder / "train.py").write_text(TRAIN)
    return folder


def test_the_peer_is_timed_to_its_end_and_its_loss_is_over_every_target(
    peer: Path, tmp_path: Path
) -> None:
    data = tmp_path / "text"
    text = "".join(chr(40 + n * n % 70) for n in range(200))
    data.write_text(text)
    copy = nanogpt.prepare(peer, data, tmp_path)
    for flags in ("", "--dataset=plain"):
        done = nanogpt.train(copy, flags, tokens_per_step=50)
        assert [loss for _, loss in done.curve] == [4.2, 2.2]
        assert 0 < done.curve[0][0] <= done.curve[1][0] <= done.seconds < 60
        assert done.rate == 50 / 0.02
        assert done.parameters == 14
        targets = [ord(c) for c in text[-40:]]  # 40 of them: five windows of 8
        assert done.loss == pytest.approx(sum(targets) / 40)
    assert not (copy / "data" / "plain" / "meta.pkl").exists()
    (copy / "train.py").write_text("raise ValueError('no')")
    with pytest.raises(SystemExit, match="ValueError: no"):
        nanogpt.train(copy, "", 50)


def test_every_benchmarked_option_is_one_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    from minilm.cli.train import main
    from minilm.config.presets import PRESETS

    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    on_a_cpu = (training.REACH, training.REACH_ANY, training.BEST, training.PEER_MODEL)
    on_a_card = (gpu.GPU_BEST, gpu.GPU_124M)
    for table in on_a_cpu + on_a_card:
        for option, value in table.items():
            assert f"{option} " in known, option
            assert option != "--preset" or value in PRESETS


def test_the_commands_that_are_printed_of_the_rates_are_those_that_ran() -> None:
    class Machine:
        repeats, peer = 1, Path("checkout")

        def train(self, options: dict) -> dict:
            commands.add(frozenset(runs.command_line(options).split()))
            return {"rate": 2.0, "utilisation": 0.5, "peak_flops": 1e9}

        def train_peer(self, flags: str, tokens: int) -> dict:
            commands.add(frozenset(f"train.py config/train_shakespeare_char.py {flags}".split()))
            return {"rate": 1.0}

    commands: set[frozenset[str]] = set()
    performance = runpy.run_path(str(ROOT / "scripts" / "tools" / "performance.py"))
    text = performance["rates"]({"rates": training.rates(Machine())})
    printed = re.findall("^    python (.+)$", text, re.M)
    assert len(printed) == 4
    assert {frozenset(line.split()) for line in printed} <= commands
    assert len(commands) == 7  # nanoGPT's larger shape is not compiled


def test_the_run_of_the_peers_length_ends_within_it() -> None:
    class Machine(runs.Bench):
        def __init__(self) -> None:
            pass

        def train(self, options: dict) -> dict:
            return {"seconds": 7.0 + 0.05 * options["--max-steps"]}

    steps = Machine().steps_within({}, 130.0)
    assert 110 < 7.0 + 0.05 * steps <= 130
    options = {"--max-steps": 3000}
    assert 110 < Machine().ending_within(options, 130.0)["seconds"] <= 130


@pytest.mark.parametrize("train_tokens", [901, 950])
def test_the_peer_predicts_the_same_tokens(train_tokens: int) -> None:
    """nanoGPT's script divides the characters at nine tenths: there the validation tokens begin."""
    train, val = np.arange(train_tokens) % 7, 100 + np.arange(100)
    text = default_text._as_characters(argparse.Namespace(train=train, val=val))
    tokens = [ord(character) - default_text.FIRST_CHARACTER for character in text]
    begin = int(len(text) * 0.9)
    assert tokens[begin:] == val.tolist()
    assert tokens[:begin] == train[-begin:].tolist()
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["plants"], ["train", "--plants"], ["generate", "--plants"]])
def test_a_wrong_option_is_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
    assert import_module("scripts.benchmarks.main").main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
