"""The benchmark of the inspector: what it generates, what it measures, what it says of who is absent."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import minilm
from tests.conftest import ROOT

checkpoints = import_module("scripts.benchmarks.checkpoints")
inspection = import_module("scripts.benchmarks.inspection")

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
    ours, theirs = result["tools"]["minilm"], result["tools"]["safetensors"]
    assert ours["count"] == theirs["count"] == 8_030_261_248
    assert ours["verified"] is True
    for tool in (ours, theirs):
        assert len(tool["runs"]) == 2
        for key in ("seconds", "cpu_seconds", "peak_mib"):
            low, high = sorted(run[key] for run in tool["runs"])
            assert low <= tool[f"median_{key}"] <= high
    ratio = theirs["median_seconds"] / ours["median_seconds"]
    assert result["times_minilm"] == {"safetensors": pytest.approx(ratio)}
    assert "SAFETENSORS" in theirs["command"]


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
    assert bench("inspcet").stderr.startswith("error: 'inspcet': no such comparison")
    assert bench("train", "--data", "missing").returncode == 2
    assert "--peer" in bench("train", "--help").stdout
