"""Processes that share a study, what is killed, and files that are no study."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minilm.errors import InputError
from minilm.hyperparameters.study import make_sampler, open_study, trials_folder
from tests.conftest import ROOT

IDENTITY = {"data": "a text", "budget": "params 1000"}
PROGRAM = Path(__file__).with_name("sharing.py")

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def share(path: Path, *phases: str) -> list[tuple[list[Any], dict[str, int]]]:
    """Of each phase of sharing.py: what was trained, and the states of all trials after it."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(path), *phases],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    results = []
    trained: list[Any] = []
    for line in map(json.loads, done.stdout.splitlines()):
        if "worker" in line:
            trained.append(line)
        else:
            results.append((trained, line))
            trained = []
    return results


@forks
def test_eight_processes_make_each_trial_once_and_after_a_restart_the_rest(
    optuna: Any, study_file: Path
) -> None:
    (lines, states), (more, all_states) = share(study_file, "9,8,,", "11,2,,")
    assert sorted(line["number"] for line in lines) == list(range(9))
    assert states == {"COMPLETE": 9}
    points = [(line["x"], line["n"]) for line in lines]
    assert len(set(points)) == 9, "the same seed, and no two trials alike"
    assert (0.5, 2) in points, "the first is the one that was given"
    assert sorted(line["number"] for line in more) == [9, 10]
    assert all_states == {"COMPLETE": 11}
    assert sorted(path.name for path in trials_folder(study_file).iterdir()) == ["lock"]


@forks
def test_a_killed_trial_is_made_again_and_a_slow_one_is_left_alone(
    optuna: Any, study_file: Path
) -> None:
    (none, states), (lines, all_states) = share(study_file, "4,1,0,", "4,2,,0")
    assert (none, states) == ([], {"RUNNING": 1})
    assert all_states == {"COMPLETE": 4, "FAIL": 1}
    assert sorted(line["number"] for line in lines) == list(range(1, 5))
    assert [(line["x"], line["n"]) for line in lines if line["attempt"] == 2] == [(0.5, 2)]


def test_what_ends_its_process_each_time_is_given_up(optuna: Any, study_file: Path) -> None:
    point = {"x": 0.25}

    def suggest(trial: Any) -> dict[str, float]:
        return {"x": trial.suggest_float("x", 0, 1)}

    with open_study(study_file, IDENTITY, sampler="random", seed=0) as study:
        for attempt in (1, 2, 3):
            claimed = study.claim(2, suggest, point)
            assert claimed is not None
            assert (claimed.attempt, claimed.parameters) == (attempt, point)
            claimed.lock.close()  # as the system does where a process is killed
        other = study.claim(2, suggest, point)
        assert other is not None
        assert other.parameters != point
        assert study.counts() == {
            "complete": 0,
            "pruned": 0,
            "running": 1,
            "fail": 3,
            "finished": 0,
        }
        study.fail(other, again=True)
        again = study.claim(2, suggest, point)
        assert again is not None
        assert again.parameters == other.parameters


def test_a_trial_worse_than_the_median_is_told_to_end(optuna: Any, study_file: Path) -> None:
    def suggest(trial: Any) -> dict[str, float]:
        return {"x": trial.suggest_float("x", 0, 1)}

    def losses(study: Any, level: float) -> list[bool]:
        claimed = study.claim(99, suggest, {"x": 0.5})
        answers = [study.report(claimed, part, level + 4 - part) for part in (1, 2, 3)]
        assert not study.report(claimed, 3, level + 9.0), "an evaluation that is told twice"
        study.run_folder(claimed.number).mkdir()
        study.complete(claimed, level, {})
        return answers

    with open_study(study_file, IDENTITY, sampler="random", seed=0) as study:
        for level in (3, 1, 2, 5, 4):
            assert losses(study, level) == [False] * 3, "there is no median yet"
        assert losses(study, 2.5) == [False] * 3
        assert losses(study, 6) == [True] * 3
        best = study.best()
        assert best is not None
        assert (best.number, best.value) == (1, 1)
        folders = {path.name for path in study.folder.glob("trial-*")}
        assert folders == {"trial-1"}, "the best run alone is kept"


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_what_is_drawn_follows_from_seed_and_number(optuna: Any, kind: Any) -> None:
    def draw(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=make_sampler(kind, seed, number))
        return float(study.ask().suggest_float("x", 0, 1))

    assert draw(1, 5) == draw(1, 5)
    assert len({draw(1, 5), draw(1, 6), draw(2, 5)}) == 3


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_search_that_is_stopped_and_goes_on_has_the_trials_of_one_that_is_not(
    optuna: Any, tmp_path: Path, kind: Any
) -> None:
    first = {"x": 0.5, "y": 0.5}

    def suggest(trial: Any) -> dict[str, float]:
        return {name: trial.suggest_float(name, 0, 1) for name in first}

    def stopped(trial: Any) -> dict[str, float]:
        trial.suggest_float("x", 0, 1)
        raise KeyboardInterrupt

    def trials(study: Any, made: list[Any], ways: dict[int, str]) -> None:
        """Make trials until one of them ends in the way that its place has, or all are made."""
        while len(made) < 7:
            way = ways.pop(len(made), "")
            if way == "killed while it draws":
                with pytest.raises(KeyboardInterrupt):
                    study.claim(7, stopped, first)
                return
            claimed = study.claim(7, suggest, first)
            for _ in range(4 if way == "stopped" else 0):
                study.fail(claimed, again=True)
                claimed = study.claim(7, suggest, first)
            if way == "killed":
                claimed.lock.close()  # as the system does
                return
            made.append(claimed.parameters)
            study.complete(claimed, claimed.parameters["x"] - claimed.parameters["y"], {})

    def search(path: Path, ways: dict[int, str]) -> list[dict[str, float]]:
        made: list[dict[str, float]] = []
        while len(made) < 7:
            with open_study(path, IDENTITY, sampler=kind, seed=0) as study:
                trials(study, made, ways)
        return made

    drawing = "killed while it draws"
    ways = {0: drawing, 2: drawing, 3: "stopped", 6: "killed"}
    assert search(tmp_path / "a.db", ways) == search(tmp_path / "b.db", {})
    assert not ways


def _text(path: Path) -> None:
    path.write_text("not a database, but a text of some length\n" * 100)


def _other_program(path: Path) -> None:
    _sql(path, "CREATE TABLE accounts (id)")


def _sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _begin(path: Path, **other: str) -> None:
    with open_study(path, IDENTITY | other, sampler="tpe", seed=0):
        pass


def _other_study(path: Path) -> None:
    _begin(path)
    _sql(path, "UPDATE studies SET study_name = 'another'")


def _trigger(path: Path) -> None:
    _begin(path)
    _sql(
        path,
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
    )


def _other_text(path: Path) -> None:
    _begin(path, data="another text")


def _other_budget(path: Path) -> None:
    _begin(path, budget="params 2000")


def _damaged(path: Path) -> None:
    _begin(path)
    _sql(path, "UPDATE study_user_attributes SET value_json = '{not json'")


def _no_search(path: Path) -> None:
    _begin(path)
    _sql(path, "UPDATE study_user_attributes SET value_json = '[1, 2]'")


def _trial_with(*statements: str) -> Any:
    """Two trials of a search, and what somebody does to them."""

    def make(path: Path) -> None:
        with open_study(path, IDENTITY, sampler="tpe", seed=0) as study:
            for loss in (1.0, 2.0):
                claimed = study.claim(2, _suggest_one, {"x": 2.0})
                assert claimed is not None
                study.report(claimed, 1, loss)
                study.complete(claimed, loss, {})
        _sql(path, *statements)

    return make


def _suggest_one(trial: Any) -> dict[str, float]:
    return {"x": float(trial.suggest_int("x", 1, 9))}


def _set(table: str, column: str, value: str) -> Any:
    return _trial_with(
        "PRAGMA ignore_check_constraints = 1", f"UPDATE {table} SET {column} = {value}"
    )


def _truncated(path: Path) -> None:
    _begin(path)
    path.write_bytes(path.read_bytes()[:8192])


def _short_text(path: Path) -> None:
    path.write_text("x")


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _newer(path: Path) -> None:
    _begin(path)
    _sql(path, "UPDATE alembic_version SET version_num = 'v99.0.0'")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_text, "file is not a database"),
        (_other_program, "a database of another program"),
        (_other_study, "the study 'another' of another program"),
        (_trigger, "a database with triggers or views"),
        (_other_text, "the study of another search: data another text"),
        (_other_budget, "the study of another search: budget params 2000"),
        (_damaged, "cannot be used: "),
        (_no_search, "a study without what is searched"),
        (_newer, "cannot be used: "),
        (_set("trial_params", "param_value", "1e999"), "cannot be used: "),
        (_set("trial_params", "param_value", "NULL"), "cannot be used: "),
        (_set("trial_values", "value", "NULL"), "cannot be used: values do not fit together"),
        (_set("trial_values", "value", "'a'"), "cannot be used: the loss of trial 0 is 'a'"),
        (
            _set("trial_values", "value_type = 'INF_POS', value", "NULL"),
            "cannot be used: the loss of trial 0 is inf",
        ),
        (
            _set("trial_intermediate_values", "intermediate_value", "'a'"),
            "cannot be used: a loss within trial 0 is no number",
        ),
        (_set("trials", "state", "'NOPE'"), "cannot be used: 'NOPE' is not among"),
        (_trial_with("DELETE FROM trials WHERE number = 0"), "cannot be used: trial 0 is missing"),
        (
            _trial_with(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'attempt', '\"x\"')"
            ),
            "cannot be used: how often trial 0 was begun is no number",
        ),
        (_truncated, "database disk image is malformed"),
        (_short_text, "file is not a database"),
        (_folder, "a folder, expected the study of a search"),
        pytest.param(
            _pipe,
            "a device, a pipe or a socket, expected",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes"),
        ),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_another_file_is_refused_in_one_line_and_left_as_it_is(
    optuna: Any, study_file: Path, make: Any, problem: str
) -> None:
    make(study_file)
    before = _bytes_of(study_file)
    with pytest.raises(InputError) as error:
        _begin(study_file)
    assert str(error.value).startswith(f"{study_file}: {problem}")
    assert "\n" not in str(error.value)
    assert _bytes_of(study_file) == before


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
