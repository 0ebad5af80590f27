"""The train command as a user meets it: a whole run, signals, SIGKILL, a full disk, bad input."""

import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from minilm.cli.config_options import set_fields
from minilm.cli.entry import parse_arguments
from minilm.cli.train import Arguments, main
from minilm.cli.train_options import parse_options
from minilm.config.presets import PRESETS
from minilm.runs.logs import read_metrics
from tests.conftest import ROOT, clean_environment, make_text

TINY = [
    *("--tokenizer", "byte", "--model.context-length", "16", "--model.num-layers", "2"),
    *("--model.d-model", "16", "--model.num-heads", "2", "--train.batch-size", "4"),
    *("--compile", "off", "--device", "cpu", "--train.sample-tokens", "4"),
]
Capture = pytest.CaptureFixture[str]


def start(cache: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(cache),
        **options,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not any(line["step"] >= step for line in read_metrics(folder / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_whole_run_as_a_user_sees_it(script: Any, text_file: Path, tmp_path: Path) -> None:
    done = script("train", "--data", str(text_file), *TINY, "--max-steps", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "checkpoints" / "nano-story"  # checkpoints/PRESET-DATA
    assert json.loads((folder / "summary.json").read_text())["steps"] == 8
    assert "a sample" in done.stdout
    assert "verified, name by name" in done.stdout
    assert "validation loss" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    again = script("train", "--data", str(text_file), *TINY, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith("error: checkpoints/nano-story: a run is there already")
    page = folder / "report.html"
    page.unlink()  # as when the end was interrupted
    finished = script("train", "--data", str(text_file), "--resume", cwd=tmp_path)
    assert "Samples through time" in page.read_text()
    assert finished.returncode == 0
    assert "is finished: max_steps" in finished.stderr


def test_the_same_bytes_when_killed_and_resumed(
    cache: Path, text_file: Path, tmp_path: Path
) -> None:
    settings = [
        *("--data", str(text_file), *TINY, "--max-steps", "160", "--eval-every", "20"),
        *("--model.dropout", "0.1", "--train.log-every", "1"),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(cache, *settings, "--run-dir", str(whole))
    process.communicate(timeout=120)
    assert process.returncode == 0

    process = start(cache, *settings, "--run-dir", str(killed))
    for step in (30, 90):
        wait_for_step(killed, step, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start(cache, "--resume", "--run-dir", str(killed))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    assert not list(killed.glob(".*.tmp"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_exits(
    cache: Path, text_file: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = tmp_path / "run"
    process = start(
        cache,
        *("--data", str(text_file), *TINY, "--run-dir", str(folder), "--max-steps", "1000000"),
        *("--eval-every", "1000000", "--train.log-every", "1"),
    )
    wait_for_step(folder, 5, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stopped_because"] == number.name
    assert summary["steps"] >= 5
    assert summary["best_val_loss"] is None
    with safe_open(folder / "model.safetensors", "pt") as stream:
        assert stream.metadata()["step"] == str(summary["steps"])  # not the initial weights
    from minilm.checkpoint import load
    from minilm.training.resume_state import read_state

    assert read_state(folder).progress.step == summary["steps"]
    assert load(folder).model.config.d_model == 16


def test_a_full_disk_is_one_line_and_loses_nothing(
    cache: Path, text_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = ("--data", str(text_file), *TINY, "--run-dir", str(folder))
    process = start(cache, *settings, "--max-steps", "10", "--eval-every", "5")
    process.communicate(timeout=60)
    assert process.returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    limit = (folder / "model.safetensors").stat().st_size // 2
    process = start(
        cache,
        *("--resume", "--run-dir", str(folder), "--max-steps", "20"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        errors.splitlines()[-1]
    ]
    assert "safetensors: File too large, expected room to write; free some space" in errors
    for path, content in before.items():  # the logs may have grown
        now = path.read_bytes()
        assert now.startswith(content) if path.suffix == ".jsonl" else now == content, path
    process = start(cache, "--resume", "--run-dir", str(folder), "--max-steps", "20")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_divergence_exits_1_with_advice(cache: Path, text_file: Path, tmp_path: Path) -> None:
    process = start(
        cache,
        *("--data", str(text_file), *TINY, "--run-dir", str(tmp_path / "run")),
        *("--train.learning-rate", "1e30", "--train.gradient-clip", "0", "--max-steps", "50"),
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the weights last saved are kept: start a new run with a lower" in errors
    assert "Traceback" not in errors


def mistakes(tmp: Path) -> list[tuple[list[str], str]]:
    for name, content in (
        ("empty.txt", b""),
        ("short.txt", b"too short"),
        ("binary.bin", b"\x89PNG\r\n\x1a\n\0\0"),
        ("a-file", b"x"),
        ("\udcff.txt", make_text(3000).encode()),
    ):
        (tmp / name).write_bytes(content)
    (tmp / "text.txt").write_text(make_text(3000))
    (tmp / "no-files").mkdir()
    text = str(tmp / "text.txt")
    return [
        (["--preset", "huge"], "preset: 'huge', expected one of nano"),
        (["--data", str(tmp / "missing.txt")], "no such file or folder"),
        (["--data", str(tmp / "empty.txt")], "empty"),
        (["--data", str(tmp / "no-files")], "a folder without files"),
        (["--data", str(tmp / "binary.bin")], "binary.bin"),
        (["--data", str(tmp / "short.txt")], "--model.context-length"),
        (["--data", text, "--model.context-length", "20000"], "--model.context-length"),
        (["--data", text, "--model.num-heads", "3"], "num_heads: 3 heads do not divide d_model 16"),
        (["--data", text, "--model.d-model", "wide"], "--model.d-model"),
        (["--data", text, "--frobnicate", "1"], "--frobnicate"),
        (["--data", text, "--clean", "magic"], "magic"),
        (["--data", text, "--train.learning-rate", "-1"], "learning_rate: -1.0"),
        (["--data", text, "--val-fraction", "1.5"], "val_fraction: 1.5"),
        (["--data", text, "--device", "cuda"], "device: cuda, which torch does not find here"),
        (["--data", text, "--run-dir", str(tmp / "a-file" / "run")], "a-file"),
        (["--data", text, "--run-dir", "/proc/minilm"], "/proc/minilm"),
        (["--data", text, "--init-from", str(tmp)], "no config.json"),
        (["--resume", "--run-dir", str(tmp)], "no config.json"),
        (["--resume", "--run-dir", str(tmp), "--model.dropout", "0.5"], "no config.json"),
        (["--resume", "maybe", "--run-dir", str(tmp)], "'maybe' after --resume, expected auto"),
        (["--data", text, "--run-dir", str(tmp / "no-files" / "\udcff")], "run_dir: "),
        (["--data", str(tmp / "\udcff.txt"), "--run-dir", str(tmp / "r")], "data: "),
        (
            [*("--data", text, "--run-dir", str(tmp / "r")), "--train.batch-size", "2147483648"],
            "batch_size: 2,147,483,648 rows of ",
        ),
        (["--data", text, "--tokenizer", "byte", "--vocab-size", "300"], "--vocab-size"),
    ]


@pytest.mark.parametrize("index", range(24))
def test_a_mistake_is_one_line_and_2_and_leaves_nothing(
    index: int, tmp_path: Path, cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    cases = mistakes(tmp_path)
    assert len(cases) == 24
    arguments, message = cases[index]
    of_a_run = {"--resume", "--init-from"} & set(arguments)
    tiny = [] if of_a_run else [x for x in TINY if x not in ("--device", "cpu")]
    before = sorted(tmp_path.rglob("*"))
    assert main([*tiny, *arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ")
    assert message in errors[-1]
    assert not any("Traceback" in line for line in errors)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_time_limit_before_the_first_step_still_ends_well(
    text_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    run_dir = tmp_path / "run"
    arguments = [
        "--data",
        str(text_file),
        *TINY,
        "--run-dir",
        str(run_dir),
        "--max-seconds",
        "0.001",
    ]
    assert main(arguments) == 0
    assert "stopped by max_seconds" in " ".join(capsys.readouterr().out.split())


def test_a_field_that_is_true_or_false_is_true_where_it_stands_alone() -> None:
    for arguments, watch, tied in (
        (["--train.watch"], True, None),
        (["--train.watch", "--data", "x"], True, None),
        (["--train.watch", "false", "--model.tied_embeddings"], False, True),
        (["--train.watch=false", "--model.tied-embeddings", "true"], False, True),
    ):
        options = parse_options(arguments, "train")
        assert set_fields(options.train).get("watch") is watch
        assert set_fields(options.model).get("tied_embeddings") is tied


def test_a_flag_under_its_old_name_is_taken_with_a_note(
    text_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    run_dir = tmp_path / "run"
    arguments = [*TINY, "--data", str(text_file), "--run-dir", str(run_dir), "--max-steps", "1"]
    old = ["--train.keep-last", "1", "--train.final_learning_rate=0.25"]
    assert main([*arguments, *old]) == 0
    settings = json.loads((run_dir / "config.json").read_text())["train"]
    assert (settings["keep_states"], settings["final_lr_fraction"]) == (1, 0.25)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: --train.keep-last is now --train.keep-states",
        "note: --train.final_learning_rate is now --train.final-lr-fraction",
    ]


def test_preset_list_has_exact_counts(capsys: Capture) -> None:
    assert main(["--preset", "list"]) == 0
    lines = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert lines["gpt2"] == "124,439,808"
    assert lines["llama-3-70b"] == "70,553,706,496"
    assert int(lines["nano"].replace(",", "")) <= 2_000_000


def test_preset_list_has_shape_and_training_within_80_columns(capsys: Capture) -> None:
    assert main(["--preset", "list"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    part = text.partition("\nsmall ")[2].partition("\ngpt2 ")[0]
    assert "5 layers, width 384, 6 heads, bpe vocabulary 2,048" in part
    assert "Muon 0.03, AdamW 0.01; 5,000 steps of 64 x 256 tokens" in part
    assert "AdamW 0.0006; 20,000 steps of 64 x 1,024 tokens" in text
    assert text.count(" steps of ") == len(PRESETS)


def test_the_help_has_the_value_of_each_preset(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "Longest sequence in tokens (T). (by preset: nano* 128, small 256, gpt2* 1024, llama* 8192)",
        "(by preset: nano* 4, small 5, gpt2 12, gpt2-medium 24, gpt2-large 36, gpt2-xl 48, "
        "llama-3-8b 32, llama-3-70b 80)",
        "1: none. (by preset: nano 1, nano-fast 3, small 1, gpt2* 1, llama* 1)",
        "Base of the rotary frequencies. (by preset: nano* 10000.0, small 10000.0, ",
        "Peak learning rate of Muon. (default: 0.03)",
        "(default: none)",
        "(by preset: nano* false, small false, gpt2* true, llama* false)",
    ):
        assert part in text, part


def test_every_config_field_is_an_option_with_its_help(capsys: Capture) -> None:
    import dataclasses

    from minilm.config import ModelConfig, TrainConfig

    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for cls, prefix in ((ModelConfig, "model"), (TrainConfig, "train")):
        for field in dataclasses.fields(cls):
            assert f"--{prefix}.{field.name.replace('_', '-')} " in text
    assert "Base of the rotary frequencies." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.max-steps", "abc"], "--train.max-steps: abc, expected a whole number"),
        (["--max-steps=1.5"], "--max-steps: 1.5, expected a whole number"),
        (
            ["--data", "a.txt", "b.txt"],
            "arguments: Unrecognized options: b.txt, expected what train.py --help lists; after --data one "
            "source, or several with weights: A=0.7 B=0.3",
        ),
        (
            ["--data", "a=0", "b=1"],
            "mix:a=0;b=1: 'a=0', expected SOURCE=WEIGHT SOURCE=WEIGHT, or in quotes "
            "'mix:SOURCE=WEIGHT;SOURCE=WEIGHT', each weight a number above 0",
        ),
        (["--train.learning-rate", "fast"], "--train.learning-rate: fast, expected a number"),
        (
            ["--dtype", "foo"],
            "--dtype: foo, expected one of auto, bfloat16, float16, float32",
        ),
        (
            ["--max-step", "3"],
            "arguments: Unrecognized options: --max-step, 3, expected perhaps --max-steps, "
            "or what train.py --help lists",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_an_option_that_cannot_be_read_is_one_line(
    arguments: list[str],
    message: str,
    encoding: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # tyro draws its box with what the standard output can show.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_original_command_with_resume_goes_on_starts_or_shows_the_end(
    text_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    run_dir = tmp_path / "run"
    command = ["--data", str(text_file), *TINY, "--run-dir", str(run_dir), "--max-steps", "4"]
    command += ["--preset", "nano", "--train.batch-size", "4", "--dtype", "auto"]
    assert main([*command, "--resume"]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert (
        main([*command, "--max-seconds", "0.001", "--resume", "auto"]) == 0
    )  # a scheduler's start
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 0
    # What was given before and is left out now stays as it was: --max-seconds is changed by name.
    assert main([*command, "--max-seconds", "1e9", "--resume"]) == 0
    assert json.loads((run_dir / "summary.json").read_text())["stopped_because"] == "max_steps"
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    capsys.readouterr()
    for flag in (["--resume"], ["--resume", "auto"]):
        assert main([*command, *flag]) == 0
        assert "is finished: max_steps" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            ["--model.dropout", "0.5"],
            "model.dropout: given with --resume as 0.5, expected the run's",
        ),
        (
            ["--seed", "7"],
            "seed: given with --resume as 7, expected the run's own 0; only data and",
        ),
        (
            ["--tokenizer", "char"],
            "tokenizer: given with --resume as char, expected the run's own byte",
        ),
        (
            ["--preset", "small"],
            "preset: given with --resume as small, expected the run's own nano",
        ),
        (["--clean", "html"], "cleaning: given with --resume as html, expected the run's own none"),
        (["--vocab-size", "300"], "vocab_size: given with --resume as 300"),
        (["--init-from", "elsewhere"], "init_from: given with --resume as "),
        (["--max-steps", "11"], "max_steps: 11, expected at least the 12 steps that are done"),
    ],
)
def test_a_different_option_beside_resume_is_refused_by_name(
    changed: list[str],
    message: str,
    tiny_run: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    assert main(["--resume", "--run-dir", str(tiny_run), *changed]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()} == before


def test_without_run_dir_the_original_command_finds_its_run(
    text_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: Path
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    for arguments, name in (
        (["--data", str(text_file), *TINY, "--max-steps", "2"], "nano-story"),
        (
            ["--data", str(text_file), "--init-from", str(tiny_run), "--max-steps", "2"],
            "tiny-story",
        ),
    ):
        for _ in range(2):
            assert main([*arguments, "--resume", "auto"]) == 0
            assert (tmp_path / "checkpoints" / name / "config.json").is_file()


@pytest.mark.parametrize(("word", "value"), [("true", True), ("True", True), ("FALSE", False)])
def test_a_switch_is_true_or_false_in_any_case(word: str, value: bool, capsys: Capture) -> None:
    options = parse_arguments(Arguments, ["--model.tied-embeddings", word], "train.py")
    assert options.model.tied_embeddings is value
    assert main(["--model.tied-embeddings", "yes"]) == 2
    assert "'yes' is neither true nor false" in capsys.readouterr().err


def test_the_help_shows_no_inner_values(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--data SOURCE" in text
    assert "None" not in text
    assert "(default: )" not in text


def test_the_old_and_the_new_name_of_a_field_are_not_given_together(capsys: Capture) -> None:
    assert main(["--train.l1", "0.1", "--train.l1-weight=0.2"]) == 2
    assert capsys.readouterr().err == (
        "error: --train.l1: given beside --train.l1-weight, expected one of the two names of a field\n"
    )
