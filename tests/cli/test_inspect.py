"""The inspect command: what it prints, what it writes, how it exits."""

import gc
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from minilm.cli import inspect as cli
from minilm.cli.inspect import main
from minilm.inspection import extras
from minilm.values import stable_rank
from tests.conftest import ROOT, clean_environment
from tests.inspection.test_inspector import change_weights, run_copy  # noqa: F401

Capture = pytest.CaptureFixture[str]

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def test_a_run_says_that_it_is_verified(tiny_run: Path, capsys: Capture) -> None:
    assert main([str(tiny_run)]) == 0
    out = capsys.readouterr().out
    total = re.search(r"formula ([\d,]+) = file ([\d,]+) = module ([\d,]+)", out)
    assert total is not None
    assert len(set(total.groups())) == 1
    assert "verified, name by name" in out
    assert len(out.splitlines()) <= 24
    assert main([str(tiny_run), "--full"]) == 0
    full = capsys.readouterr().out
    assert "Hyperparameters are set before training" in full
    assert "Parameters are what training learns" in full
    assert re.search(r"^batch_size +4$", full, re.M)


@pytest.mark.parametrize("options", [[], ["--full"]])
def test_printed_columns_add_up(options: list[str], capsys: Capture) -> None:
    assert main(["gpt2", *options]) == 0
    out = capsys.readouterr().out
    table = re.search(r"^component  .*?\n\n", out, re.M | re.S)
    assert table is not None
    rows = re.findall(r"^([a-zA-Z- ]+?) +([\d,]+) +[\d.]+%", table[0], re.M)
    counts = {name: int(count.replace(",", "")) for name, count in rows}
    total = counts.pop("total")
    assert "token embedding" in counts
    assert sum(counts.values()) == total == 124_439_808


def test_what_was_asked_is_printed_alone(tiny_run: Path, capsys: Capture) -> None:
    assert main(["gpt2", "--reconcile", "163037184", "--fits", "24GB"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "gpt2: not cross-checked: only the formula is available (124,439,808)\n\n"
    )
    assert "163037184 is explained exactly:" in out
    assert "22.4 GiB of memory" in out
    assert "token embedding" not in out
    assert main(["gpt2", "--reconcile", "163037184", "--full"]) == 0
    full = capsys.readouterr().out
    assert full.index("163037184 is explained exactly:") < full.index("token embedding")


def test_tensors_lists_every_one(tiny_run: Path, capsys: Capture) -> None:
    assert main([str(tiny_run), "--tensors"]) == 0
    out = capsys.readouterr().out
    from safetensors import safe_open

    with safe_open(tiny_run / "model.safetensors", "np") as stream:
        names = list(stream.keys())
    assert all(name in out for name in names)
    assert re.search(r"64 × 16 +float32 +1,024\n", out)
    assert "verified, name by name" in out


def test_json_to_stdout_and_to_a_file(tiny_run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tiny_run), "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main([str(tiny_run), "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == printed
    assert "verified" in capsys.readouterr().out  # the terminal report is still there
    assert main(["nano", "gpt2", "--json", "-"]) == 0
    assert [r["target"] for r in json.loads(capsys.readouterr().out)] == ["nano", "gpt2"]


@pytest.mark.parametrize("option", ["--json", "--html", "--markdown"])
def test_a_pipe_is_written_into_and_a_link_followed(
    option: str, tmp_path: Path, script: Any
) -> None:
    pipe, target, link = (tmp_path / name for name in ("pipe", "target", "link"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    texts = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    assert script("inspect", "nano", option, str(pipe)).returncode == 0
    reader.join(60)
    assert script("inspect", "nano", option, str(link)).returncode == 0
    assert texts == [target.read_text(encoding="utf-8")]
    assert "1,055,488" in texts[0] or '"total": 1055488' in texts[0]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, pipe, target]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["nano", "--json", "a", "--markdown", "a"], "--markdown"),
        (["nano", "--json", "./a", "--html", "link"], "--html"),
        (["config.json", "--html", "config.json"], "--html"),
        (["nano", "--diff", "config.json", "--json", "config.json"], "--json"),
    ],
)
def test_an_output_replaces_no_other_one_and_no_target(
    arguments: list[str],
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(LLAMA))
    Path("link").symlink_to("a")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"error: {option}: {arguments[-1]}, which is a target or another output, "
        "expected a file of its own\n"
    )
    assert sorted(os.listdir()) == ["config.json", "link"]
    assert json.loads(Path("config.json").read_text()) == LLAMA
    assert main(["nano", "--json", os.devnull, "--html", os.devnull]) == 0  # replaces nothing
    assert main(["nano", "--json", "nano"]) == 0  # the preset is no file


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "resume", "link"])
def test_a_report_replaces_no_file_of_a_run(
    name: str,
    run_copy: Path,  # noqa: F811
    capsys: Capture,
) -> None:
    path = run_copy / name
    if name == "resume":
        path = next(path.glob("step-*"))
    if name == "link":
        path.symlink_to("tokenizer.json")
    before = path.read_bytes()
    for target in (str(run_copy), "nano"):
        assert main([target, "--json", str(path)]) == 2
        assert "which is a file of a model or a run" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main(["nano", "--html", str(run_copy / "report.html")]) == 0


def test_a_mismatch_exits_1_and_is_named(run_copy: Path, capsys: Capture) -> None:  # noqa: F811
    change_weights(run_copy, "one too many")
    assert main([str(run_copy)]) == 1
    out = capsys.readouterr().out
    assert "NOT VERIFIED" in out
    assert "blocks.0.extra" in out
    assert main([str(run_copy), "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: arguments: "),
        (["nano", "--context", "x"], "error: arguments: "),
        (["nano", "--context", "-3"], "error: context: -3, expected at least 1"),
        (["no-such"], "error: no-such: neither a file, a folder nor a preset"),
        (["nano", "--frobnicate"], "error: arguments: unrecognized arguments: --frobnicate"),
        (["nano", "--json", "/dev/null/x"], "error: /dev/null/x: Not a directory"),
        ([""], "error: arguments: argument TARGET: an empty name"),
        (["nano", "--diff", ""], "error: arguments: argument --diff: an empty name"),
        (["nano", "--html", ""], "error: arguments: argument --html: an empty name"),
        (
            ["nano", "--fits", "1GB", "--lora-rank", "0"],
            "error: --lora-rank: 0, expected at least 1",
        ),
        (
            ["nano", "--fits", "1GB", "--lora-rank", "129"],
            "error: --lora-rank: 129, expected from 1 to 128, the narrower side of "
            "blocks.{i}.attention.query",
        ),
        (
            ["llama-3-8b", "--fits", "1GB", "--lora-rank", "1025"],
            "error: --lora-rank: 1025, expected from 1 to 1024, the narrower side of ",
        ),
        (["nano", "--fits", "1GB", "--kv-cache", "q3"], "error: --kv-cache: 'q3', expected one of"),
        (["nano", "--kv-cache", "fp8"], "error: arguments: --lora-rank or --kv-cache alone"),
        (["nano", "--fits", "-5GiB"], "error: --fits: '-5GiB', expected a size such as 24GB"),
        (
            ["nano", "--fits", "K80"],
            "error: --fits: 'K80', expected a size such as 24GB, 80GiB or 2x",
        ),
        (
            ["nano", "--stats"],
            "error: nano: no weights for --stats, expected a run folder, a model",
        ),
        (["nano", "--fits", "24"], "error: --fits: '24' without a unit"),
        (
            ["nano", "--json", "-", "--html", "-"],
            "error: standard output: - for --json and --html, expected one of them",
        ),
    ],
)
def test_bad_usage_is_one_line_and_2(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_the_garbage_collector_is_as_before(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    thresholds = []
    inspect = cli.inspect_with_sources

    def recorded(*args: Any, **options: Any) -> Any:
        thresholds.append(gc.get_threshold()[0])
        return inspect(*args, **options)

    monkeypatch.setattr(cli, "inspect_with_sources", recorded)
    before = gc.get_threshold()
    gc.set_threshold(1234)
    try:
        assert (main([str(tiny_run)]), main([str(tiny_run / "missing")])) == (0, 2)
        assert (thresholds, gc.get_threshold()[0]) == ([100_000, 100_000], 1234)
    finally:
        gc.set_threshold(*before)


def test_two_reports_are_printed_one_below_the_other(tmp_path: Path, capsys: Capture) -> None:
    assert main(["nano", "small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("nano  minilm  1,055,488 parameters")
    (second,) = [i for i, line in enumerate(lines) if line.startswith("small  minilm  ")]
    assert lines[second - 1] == ""
    assert main(["nano", "small", "--html", str(tmp_path / "x.html")]) == 2
    assert (
        capsys.readouterr().err
        == "error: arguments: 2 targets, expected one for --html or --diff\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_values_are_described_and_compared_with_a_bar_in_a_terminal(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main([str(tiny_run), "--stats", "--json", "-"]) == 0
    captured = capsys.readouterr()
    described = json.loads(captured.out)["statistics"]["tensors"]
    assert sum(tensor["count"] for tensor in described) == 14_784
    assert ("reading" in captured.err) == terminal
    assert main([str(tiny_run), "--diff", str(tiny_run), "--json", "-"]) == 0
    captured = capsys.readouterr()
    changes = json.loads(captured.out)["difference"]["changes"]
    assert [change["identical"] for change in changes] == [1.0] * len(described)
    assert ("comparing" in captured.err) == terminal


def test_stable_ranks_that_take_long_are_left_out_with_a_note(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "MAX_STABLE_RANK_BYTES", 1000)
    for option, note in (("--stats", True), ("--stable-rank", False)):
        assert main([str(tiny_run), option, "--json", "-"]) == 0
        report = json.loads(capsys.readouterr().out)
        ranks = [each["stable_rank"] for each in report["statistics"]["tensors"]]
        assert any(rank is not None for rank in ranks) != note
        assert any("stable ranks are left out above " in x for x in report["notes"]) == note
    monkeypatch.setattr(stable_rank, "MAX_ROW", 15)
    monkeypatch.setattr(stable_rank, "MAX_LONG_ROWS", 15)
    assert main([str(tiny_run), "--stable-rank", "--json", "-"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "matrices that are too large in both dimensions have no stable rank" in notes


def test_what_has_no_formula_or_no_name_in_common_is_told(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(2, 2)}, other)
    assert main([str(other), "--fits", "24GB"]) == 2
    assert capsys.readouterr().err == (
        f"error: {other}: an architecture without a formula, expected one with a formula\n"
    )
    main([str(other), "--diff", str(tiny_run), "--json", "-"])
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "--diff: no tensor has the same name in both: here 'w', there" in " ".join(notes)


def test_only_an_explained_number_exits_0() -> None:
    statuses = {n: main(["nano", "--reconcile", n]) for n in ("1055488", "1.1M", "1M", "99")}
    assert statuses == {"1055488": 0, "1.1M": 0, "1M": 1, "99": 1}


def test_one_bad_target_does_not_silence_the_others(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"short")
    assert main([str(tmp_path / "x.safetensors"), "nano"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path}")
    assert "1,055,488" in captured.out


def test_a_wrong_field_is_told_with_its_file(tmp_path: Path, capsys: Capture) -> None:
    for name, size in (("a", -64), ("b", "64")):
        (tmp_path / name).mkdir()
        config = LLAMA | {"hidden_size": size}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "nano"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {tmp_path}/a/config.json: hidden_size: -64, expected")
    assert second.startswith(f"error: {tmp_path}/b/config.json: hidden_size: '64', expected")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_log_that_cannot_be_read_costs_the_curves_alone(
    kind: str,
    run_copy: Path,  # noqa: F811
    tmp_path: Path,
    capsys: Capture,
) -> None:
    log = run_copy / "metrics.jsonl"
    log.unlink()
    if kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to("/dev/zero")
    assert main([str(run_copy), "--no-live", "--html", str(tmp_path / "o.html")]) == 0
    assert capsys.readouterr().err.startswith(f"note: no curves: {log}: ")
    assert "<html" in (tmp_path / "o.html").read_text()


def test_of_a_log_of_any_size_the_page_has_the_curves(
    run_copy: Path,  # noqa: F811
    tmp_path: Path,
    capsys: Capture,
) -> None:
    with (run_copy / "metrics.jsonl").open("r+b") as stream:
        stream.truncate(2**40)  # the lines, and a hole in the file that is read in blocks alone
    page = tmp_path / "o.html"
    assert main([str(run_copy), "--no-live", "--html", str(page)]) == 0
    assert capsys.readouterr().err == ""
    assert '<div class="plots">' in page.read_text()


def test_the_log_of_another_programs_folder_is_not_opened(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert main([str(tmp_path), "--html", str(tmp_path / "o.html")]) == 0
    assert capsys.readouterr().err == ""


def test_hostile_names_cannot_reach_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"[red]x[/red]\x1b[31m\nnext": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert main([str(tmp_path / "x.safetensors"), "--tensors"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]x[/red]\\x1b[31m\\x0anext" in out


def test_no_colour_when_it_is_not_a_terminal(script: Any, tiny_run: Path) -> None:
    done = script("inspect", str(tiny_run))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_a_reader_that_goes_away_is_no_traceback(cache: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} {ROOT}/scripts/inspect.py gpt2-xl --tensors | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=clean_environment(cache),
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("gpt2-xl")


@pytest.mark.parametrize("arguments", [["gpt2"], ["gpt2", "--json", "-"]])
def test_a_reader_that_is_gone_ends_it_as_sigpipe_would(arguments: list[str], cache: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/inspect.py"), *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=clean_environment(cache),
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        ("inspect", "minilm.errors"),
        ("inspect", "minilm.inspection.report"),
        ("inspect", "rich.console"),
        ("train", "minilm.errors"),
        ("generate", "minilm.errors"),
    ],
)
def test_an_interrupt_while_it_imports_is_silent(script: str, stage: str, cache: Path) -> None:
    path = ROOT / "scripts" / f"{script}.py"
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", str(path), "gpt2-xl", "--tensors"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(cache),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {stage}"):
                process.send_signal(signal.SIGINT)
                break
        messages = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert messages == []


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "wide"}, {"COLUMNS": "-3"}]
)
def test_odd_terminals_are_survived(script: Any, environment: dict[str, str]) -> None:
    done = script("inspect", "gpt2", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "124,439,808" in done.stdout


def test_a_closed_stdout_is_survived(cache: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} {ROOT}/scripts/inspect.py gpt2 >&-",
        shell=True,
        capture_output=True,
        text=True,
        env=clean_environment(cache),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
