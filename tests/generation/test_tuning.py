"""Choices by measurement: the faster one, remembered by processor and torch; and what is not trusted."""

import json
from pathlib import Path

import pytest

from minilm.generation import tuning


class Clock:
    """A clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.calls = 0.0, 0
        monkeypatch.setattr(tuning.time, "perf_counter", lambda: self.seconds)

    def work(self, *seconds: float) -> "Work":
        return Work(self, seconds)


class Work:
    """Takes so long at each call in turn, and in the end as the last."""

    def __init__(self, clock: Clock, seconds: tuple[float, ...]) -> None:
        self.clock, self.left = clock, list(seconds)

    def __call__(self) -> None:
        self.clock.calls += 1
        self.clock.seconds += self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path / "cache"))
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("other", "chosen"),
    [
        ((0.5,), "other"),
        ((2.0,), "usual"),
        ((0.9,), "usual"),
        ((9.0, 9.0, 0.5), "other"),
        ((0.5, 0.5, 2.0), "usual"),
    ],
)
def test_the_faster_one_is_chosen(clock: Clock, other: tuple[float, ...], chosen: str) -> None:
    assert tuning.choose("q", [("usual", clock.work(1.0)), ("other", clock.work(*other))]) == chosen


def test_what_is_done_before_each_is_not_timed(clock: Clock) -> None:
    before = clock.work(10.0, 1.0, 10.0, 1.0)
    ways = [("usual", clock.work(1.0)), ("other", clock.work(0.5))]
    assert tuning.choose("q", ways, before) == "other"
    assert clock.calls == 4 * tuning.ROUNDS


def test_it_is_measured_once_for_a_question_a_processor_and_a_torch(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = ("usual", clock.work(2.0)), ("other", clock.work(1.0))
    assert tuning.choose("q", [slow, fast]) == "other"
    measured, clock.calls = clock.calls, 0
    assert tuning.choose("q", [("usual", clock.work(1.0)), ("other", clock.work(2.0))]) == "other"
    assert clock.calls == 0
    assert tuning.choose("r", [fast, slow]) == "other", "the first here"
    assert clock.calls == measured
    monkeypatch.setattr(tuning, "processor", lambda: "another")
    assert tuning.choose("q", [("usual", clock.work(1.0)), ("other", clock.work(2.0))]) == "usual"
    choices = json.loads((tmp_path / "cache" / tuning.TUNING).read_text())
    assert [*choices.values()].count({"q": "other", "r": "other"}) == 1
    assert {"q": "usual"} in choices.values()


@pytest.mark.parametrize("content", ["[1]", "{", '{"PLACE": 3}', '{"PLACE": {"q": "third"}}'])
def test_a_file_that_says_nothing_is_measured_anew(
    clock: Clock, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alternatives = [("usual", clock.work(2.0)), ("other", clock.work(1.0))]
    tuning.choose("q", alternatives)
    path = tmp_path / "cache" / tuning.TUNING
    (place,) = json.loads(path.read_text())
    path.write_text(content.replace("PLACE", place))
    assert tuning.choose("q", alternatives) == "other"
    assert json.loads(path.read_text()) == {place: {"q": "other"}}


def test_a_file_that_cannot_be_written_is_told_once(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / tuning.TUNING).mkdir()
    tuning._note_unwritten.cache_clear()
    for _ in range(2):
        tuning.choose("q", [("usual", clock.work(2.0)), ("other", clock.work(1.0))])
    reason = f"{tmp_path / 'cache' / tuning.TUNING}: Is a directory"
    assert [record.getMessage() for record in caplog.records] == [
        f"note: what is fastest here is measured anew each time: {reason}"
    ]


def test_without_a_folder_to_write_it_is_measured_each_time(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINILM_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        clock.calls = 0
        alternatives = [("usual", clock.work(2.0)), ("other", clock.work(1.0))]
        assert tuning.choose("q", alternatives) == "other"
        assert clock.calls == 2 * tuning.ROUNDS


def test_the_answer_of_the_process_that_was_first_stays(clock: Clock, tmp_path: Path) -> None:
    """Another one writes while this one measures: its answer to the same question, and one to another."""
    path = tmp_path / "cache" / tuning.TUNING
    slow, fast = ("usual", clock.work(2.0)), ("other", clock.work(1.0))
    tuning.choose("earlier", [slow, fast])
    (place,) = json.loads(path.read_text())

    def interrupted() -> None:
        clock.work(1.0)()
        path.write_text(json.dumps({place: {"q": "usual", "r": "other"}, "elsewhere": {"q": "x"}}))

    assert tuning.choose("q", [slow, ("other", interrupted)]) == "usual"
    assert tuning.choose("s", [slow, ("other", interrupted)]) == "other"
    answers = {"q": "usual", "r": "other", "s": "other"}
    assert json.loads(path.read_text()) == {place: answers, "elsewhere": {"q": "x"}}
