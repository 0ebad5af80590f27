"""Reading metrics.jsonl back: whole lines of numbers, from a file and nothing else."""

import itertools
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from minilm.errors import FormatError
from minilm.render.line_chart import run_charts
from minilm.render.terminal import curve
from minilm.runs import logs
from minilm.runs.diagnosis import findings, overfitting_since
from minilm.runs.logs import (
    MOST_POINTS,
    JsonLines,
    metrics_log,
    read_metrics,
    read_parameters,
    read_points,
    read_samples,
    samples_log,
)

GOOD = {"step": 1, "train_loss": 2.5}


@pytest.mark.parametrize(
    "bad",
    [
        *("", "{", "[]", "1", '{"step": 1.0}', '{"train_loss": 1}', '{"step": 2, "x": "y"}'),
        *('{"step": 2, "x": NaN}', '{"step": 2, "x": 1e999}', '{"step": 1' + "0" * 400 + "}"),
        *("[" * 9000, '{"step": 2}' + " " * 20_000, '{"step": true}'),
    ],
)
def test_a_line_that_is_not_ours_is_left_out(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{json.dumps(GOOD)}\n{bad}\n\xff\n{json.dumps(GOOD)}\n{{"step": 3, "tr')
    assert read_metrics(path) == read_points(path) == [GOOD, GOOD]


def test_samples_are_lines_with_a_step_and_a_text(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    good = {"step": 10, "text": 'he said "no"\n'}
    lines = [good, {"step": 20}, {"text": "x"}, {"step": 30, "text": 4}, good | {"step": 40}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "torn")
    assert read_samples(path) == [good, good | {"step": 40}]
    log = samples_log(tmp_path, from_step=30, evaluated=True)  # of a run that goes on from step 30
    log.write({"step": 35, "text": "new"})
    log.close()
    assert read_samples(path) == [good, {"step": 35, "text": "new"}]


@pytest.mark.parametrize("evaluated", [True, False])
def test_an_evaluation_that_was_written_but_not_saved_is_made_again(
    tmp_path: Path, evaluated: bool
) -> None:
    lines = [
        {"step": 10, "val_loss": 3.0},
        *({"step": step, "train_loss": 2.0} for step in (10, 20, 30)),
        {"step": 20, "val_loss": 2.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = [{"step": 10, "text": "a"}, {"step": 20, "text": "b"}]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    for log in (metrics_log, samples_log):
        log(tmp_path, from_step=20, evaluated=evaluated).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == lines[:3] + (lines[4:] if evaluated else [])
    assert read_samples(tmp_path / "samples.jsonl") == samples[: 2 if evaluated else 1]


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e299, 1e308, 1.7e308, 10**299, -1e299, 0.5])
def test_any_number_can_be_drawn_and_spoken_of(value: float, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines: list[dict[str, float]] = []
    for step in range(12):
        line = {"step": step, "tokens": step + 0.5, "seconds": value}
        lines.append(line | {"train_loss": (0, value, 3)[step % 3], "lr": value})
        lines.append(line | {"val_loss": value if step % 2 else 1, "tokens": value})
    lines.append({"step": 10**299, "tokens": 1, "val_loss": 2})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = read_points(path)
    assert findings(metrics, {"parameters": 10**400, "data": {"train_tokens": 10**400}})
    assert findings(metrics, {"parameters": 1, "data": {"train_tokens": 1}})
    assert run_charts(metrics, overfitting_since(metrics))
    losses = [line["train_loss"] for line in metrics if "train_loss" in line]
    assert not losses or curve(losses)


def test_a_full_disk_names_the_log(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits of file sizes")
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        for action in (
            lambda: log.write({"step": 100}),
            log.close,
        ):  # what was not written is tried again
            with pytest.raises(OSError, match="File too large") as raised:
                action()
            assert raised.value.filename == str(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_long_sample_is_kept(tmp_path: Path) -> None:
    line = {"step": 10, "text": 10_000 * "длинно "}
    for _ in range(2):
        log = samples_log(tmp_path, from_step=10, evaluated=True)
        log.write(line)
        log.close()
    assert read_samples(tmp_path / "samples.jsonl") == [line, line]


def test_nothing_but_a_file_is_read(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for read in (read_metrics, read_points, read_samples, read_parameters):
        assert read(tmp_path / "none") == []
        for path in (pipe, device, tmp_path):
            with pytest.raises(FormatError, match="expected a file"):
                read(path)


def test_of_a_very_large_log_an_even_sample_is_read_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 160_000)
    metrics, samples = tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl"
    with metrics.open("w") as stream:
        for step in range(100_000):
            key = "val_loss" if step % 10 == 0 else "train_loss"
            stream.write(json.dumps({"step": step, key: 1.0}) + "\n")
    samples.write_text(
        "".join(json.dumps({"step": n, "text": "x" * 500}) + "\n" for n in range(20_000))
    )
    tracemalloc.start()
    points, texts = read_points(metrics), read_samples(samples)
    assert tracemalloc.get_traced_memory()[1] < 6_000_000
    tracemalloc.stop()
    for lines, last in ((points, 99_999), (texts, 19_999)):
        steps = [line["step"] for line in lines]
        assert steps == sorted(steps)
        assert steps[-1] == last
        assert steps[0] <= last / 1000
        gaps = [after - before for before, after in itertools.pairwise(steps)]
        assert max(gaps) < last / 12
    assert sum("val_loss" in line for line in points) > 300


def test_a_log_larger_than_any_page_does_not_block_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"step": 1, "train_loss": 2.5}\n')
        stream.truncate(logs.MOST_BYTES + 1)  # zeros without an end of line
        stream.seek(0, os.SEEK_END)
        stream.write(b'\n{"step": 2, "train_loss": 2.5}\n{"step": 3, "train_loss": 2.5}\n')
    assert [line["step"] for line in read_points(path)] == [1, 2, 3]
    tracemalloc.start()
    metrics_log(tmp_path, from_step=2, evaluated=False).close()
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    assert path.stat().st_size < 100


def test_a_long_log_is_thinned_with_its_ends_and_its_evaluations(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": step} | ({"val_loss": 1.0} if step % 100 == 0 else {"train_loss": 2.0})
        for step in range(1, 20_001)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    points = read_points(path)
    evaluations = [line["step"] for line in points if "val_loss" in line]
    assert evaluations == list(range(100, 20_001, 100))
    others = [line["step"] for line in points if "val_loss" not in line]
    assert MOST_POINTS * 0.8 < len(others) <= MOST_POINTS
    assert others == sorted(others)
    assert others[0] < 10
    assert others[-1] == 19_999
    assert read_metrics(path) == lines
