"""The study: an SQLite database of Optuna (Akiba et al. 2019, arXiv:1907.10902) that processes share.

    FILE                    trials, their parameters and losses, and what is searched
    FILE.trials/lock        held while a process reads or writes the study
    FILE.trials/N.lock      held by the process that trains trial N
    FILE.trials/trial-N     the run of the best trial, and of those that are being trained

Optuna's own counting of trials is not atomic between processes, and SQLite refuses what two of them write
at once; here one process at a time uses the study, so that n trials are n, however many processes make them.
A lock is an open transaction of SQLite: the system ends it with its process, so that a trial whose lock is
free was killed. No clock is involved: a process that was only stopped for an hour still has its trial.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from minilm.errors import MissingExtraError
from minilm.hyperparameters.study_file import (
    ATTEMPT,
    DETAILS,
    IDENTITY,
    INDEX,
    NAME,
    readable,
    refuse_damaged_trials,
    refuse_other_databases,
    refuse_other_search,
    refuse_other_studies,
)
from minilm.hyperparameters.study_locks import LOCK_SECONDS, exclusive, is_held

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "random"]
Parameters = dict[str, float]

MOST_ATTEMPTS = 3
# Trials without a median to compare with, and parts of a trial before it is compared.
STARTUP_TRIALS, WARMUP_PARTS = 5, 1
FEWEST_FOR_IMPORTANCE = 4
POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


def check_installed() -> None:
    """Raises MissingExtraError."""
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search", "search")


def trials_folder(path: Path) -> Path:
    """What is kept beside the study."""
    return path.with_name(f"{path.name}.trials")


@dataclass
class Claimed:
    """A trial that this process trains, as long as its lock is held."""

    number: int
    parameters: Parameters
    trial: Trial
    lock: contextlib.ExitStack
    index: int
    attempt: int = 1
    reported: set[int] = field(default_factory=set)


class Study:
    """The trials of one search. Make it by `open_study`."""

    def __init__(self, path: Path, study: Any, sampler: Sampler, seed: int) -> None:
        self.path, self.folder = path, trials_folder(path)
        self._study, self._sampler, self._seed = study, sampler, seed

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """A fact of this machine that all processes share: the first one measures it."""
        with self._alone():
            if name not in self._study.user_attrs:
                self._study.set_user_attr(name, measure())
            return self._study.user_attrs[name]

    def claim(
        self, number_of_trials: int, suggest: Callable[[Trial], Parameters], first: Parameters
    ) -> Claimed | None:
        """The next trial; None where all are finished. Waits while other processes train the last ones.

        The study begins with the trial ``first``. Trials of processes that were killed are marked as failed,
        and their parameters come again.
        """
        waiting = False
        while True:
            with self._alone():
                self._fail_dead(first)
                if not self.trials():
                    self._study.enqueue_trial(first)
                count = self.counts()
                if count["finished"] + count["running"] < number_of_trials:
                    return self._claim(suggest)
            if not count["running"]:
                return None
            if not waiting:
                logger.info(f"waiting for other processes: {count['running']} of the trials run")
                waiting = True
            time.sleep(POLL_SECONDS)

    def report(self, claimed: Claimed, part: int, loss: float) -> bool:
        """Record the loss after a part of a trial, once; whether the median of the others is better."""
        if part in claimed.reported:
            return False
        claimed.reported.add(part)
        with self._alone():
            claimed.trial.report(loss, part)
            return bool(claimed.trial.should_prune())

    def complete(self, claimed: Claimed, loss: float, facts: Mapping[str, Any]) -> bool:
        """Record a trial's loss; whether it is the best so far, whose folder alone is kept."""
        with self._alone():
            best = self._best()
            is_best = best is None or loss < best.value
            self._tell(claimed, facts, values=loss)
            if not is_best:
                self._remove_run(claimed.number)
            elif best is not None:
                self._remove_run(best.number)
        return is_best

    def prune(self, claimed: Claimed, facts: Mapping[str, Any]) -> None:
        """Record that a trial ended early; it counts."""
        from optuna.trial import TrialState

        with self._alone():
            self._tell(claimed, facts, state=TrialState.PRUNED)
            self._remove_run(claimed.number)

    def fail(self, claimed: Claimed, *, again: bool) -> None:
        """Record that a trial has no result; it does not count. ``again``: its parameters come once more."""
        from optuna.trial import TrialState

        with self._alone():
            self._tell(claimed, {}, state=TrialState.FAIL)
            self._remove_run(claimed.number)
            if again:
                self._repeat(claimed.parameters, claimed.attempt, claimed.index)

    def counts(self) -> dict[str, int]:
        """Trials by what became of them; ``finished`` are those that count."""
        states = [trial.state.name for trial in self.trials()]
        names = ("COMPLETE", "PRUNED", "RUNNING", "FAIL")
        numbers = {name.lower(): states.count(name) for name in names}
        return {**numbers, "finished": numbers["complete"] + numbers["pruned"]}

    def trials(self) -> list[FrozenTrial]:
        """All of them, in order."""
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def best(self) -> FrozenTrial | None:
        """The completed trial with the lowest loss."""
        with self._alone():
            return self._best()

    def importance(self) -> dict[str, float]:
        """The share of each parameter in what makes a trial good (PED-ANOVA, arXiv:2304.10255)."""
        from optuna.importance import get_param_importances

        if self.counts()["complete"] < FEWEST_FOR_IMPORTANCE:
            return {}
        with self._alone(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are few trials: the page has their number
            return {
                name: float(share) for name, share in get_param_importances(self._study).items()
            }

    def run_folder(self, number: int) -> Path:
        """Where a trial is trained."""
        return self.folder / f"trial-{number}"

    def _claim(self, suggest: Callable[[Trial], Parameters]) -> Claimed:
        index = self._next_index()
        # Of its own for each trial: what is drawn follows from the seed and the trials before, whichever
        # process draws it, and whether or not the search was stopped between.
        self._study.sampler = make_sampler(self._sampler, self._seed, index)
        trial = self._study.ask()
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of parameters out of range: they are priced like others
            stack.enter_context(exclusive(self._lock(trial.number)))
            parameters = suggest(trial)
            lock = stack.pop_all()
        attempt = trial.user_attrs.get(ATTEMPT, 1)
        return Claimed(trial.number, parameters, trial, lock, index, attempt)

    def _next_index(self) -> int:
        """How many were drawn before the next trial: one that is made again keeps its place."""
        for trial in self.trials():
            if trial.state.name == "WAITING":
                return self._index(trial)
        return sum(ATTEMPT not in trial.user_attrs for trial in self.trials())

    def _index(self, trial: FrozenTrial) -> int:
        if INDEX in trial.user_attrs:
            return int(trial.user_attrs[INDEX])
        earlier = self.trials()[: trial.number]
        return sum(ATTEMPT not in each.user_attrs for each in earlier)

    def _best(self) -> FrozenTrial | None:
        complete = [trial for trial in self.trials() if trial.state.name == "COMPLETE"]
        return min(complete, key=lambda trial: (trial.value, trial.number), default=None)

    def _tell(self, claimed: Claimed, facts: Mapping[str, Any], **result: Any) -> None:
        for name, value in facts.items():
            claimed.trial.set_user_attr(name, value)
        self._study.tell(claimed.trial, **result)
        claimed.lock.close()
        self._lock(claimed.number).unlink(missing_ok=True)

    def _fail_dead(self, first: Parameters) -> None:
        """Mark the trials whose processes are gone as failed, and have their parameters tried again."""
        from optuna.trial import TrialState

        for trial in self.trials():
            if trial.state is not TrialState.RUNNING or is_held(self._lock(trial.number)):
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._lock(trial.number).unlink(missing_ok=True)
            self._remove_run(trial.number)
            logger.warning(f"trial {trial.number}: its process is gone; it is made again")
            attempt, index = trial.user_attrs.get(ATTEMPT, 1), self._index(trial)
            # Not for ever: what ends its process each time would end every process.
            if attempt < MOST_ATTEMPTS:
                parameters = trial.params if index else first
                if parameters.keys() != first.keys():
                    parameters = {}  # the process ended while it drew them: they are drawn anew
                self._repeat(parameters, attempt + 1, index)

    def _repeat(self, parameters: Mapping[str, Any], attempt: int, index: int) -> None:
        attributes = {ATTEMPT: attempt, INDEX: index}
        self._study.enqueue_trial(dict(parameters), user_attrs=attributes)

    def _remove_run(self, number: int) -> None:
        shutil.rmtree(self.run_folder(number), ignore_errors=True)

    def _lock(self, number: int) -> Path:
        return self.folder / f"{number}.lock"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process uses the study within the block."""
        with readable(self.path), exclusive(self.folder / "lock", LOCK_SECONDS):
            yield


@contextlib.contextmanager
def open_study(
    path: Path,
    identity: Mapping[str, Any],
    *,
    sampler: Sampler,
    seed: int,
    details: Mapping[str, Any] | None = None,
) -> Iterator[Study]:
    """The study in ``path``, new where there is none.

    ``identity`` is what is searched, ``details`` says it to people. Raises InputError, and leaves the file
    as it is, where that is the study of another search, or none.
    """
    import optuna

    refuse_other_databases(path)
    refuse_other_studies(path)
    folder = trials_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_optuna(), contextlib.ExitStack() as stack:
        with readable(path), exclusive(folder / "lock", LOCK_SECONDS):
            storage = optuna.storages.RDBStorage(
                "sqlite:///study",  # the connection is made below, by a path with any characters
                {"creator": lambda: sqlite3.connect(path, timeout=LOCK_SECONDS)},
            )
            stack.callback(storage.engine.dispose)
            stack.callback(storage.remove_session)
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                direction="minimize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_PARTS),
            )
            refuse_damaged_trials(path, study.get_trials())  # every value is read once
            if study.user_attrs.get(IDENTITY) is None:
                study.set_user_attr(IDENTITY, dict(identity))
                study.set_user_attr(DETAILS, dict(details or {}))
            else:
                refuse_other_search(path, study.user_attrs, identity, details or {})
        yield Study(path, study, sampler, seed)


def make_sampler(kind: Sampler, seed: int, number: int) -> Any:
    """What draws a trial: a function of seed, number, and, for tpe, the trials before it."""
    import numpy as np
    import optuna

    [own_seed] = np.random.SeedSequence([seed, number]).generate_state(1)
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=int(own_seed))
    return optuna.samplers.TPESampler(seed=int(own_seed), n_startup_trials=STARTUP_TRIALS)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing beside the messages of minilm within the block."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # failed trials are told by minilm
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
