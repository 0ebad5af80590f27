"""The file of a study: what is refused, before anything is written, and what is said of damage."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.errors import InputError
from minilm.hyperparameters.study_locks import LOCK_SECONDS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NAME = "minilm search"
# Attributes of the study: what is searched, compared as it is, and the same for people.
IDENTITY, DETAILS = "search", "search details"
# Attributes of a trial that is made again: how often a process began it, and its place among those drawn.
ATTEMPT, INDEX = "attempt", "index"

HEADER_BYTES = 100  # of any database of SQLite that has a page
_EXPECTED = "the study of a search, or a new file"
_REMEDY = "choose another --study"


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """What Optuna and SQLite say of a damaged study, or of a full disk, in one line."""
    import optuna
    import sqlalchemy

    try:
        yield
    except InputError:
        raise
    except (
        optuna.exceptions.OptunaError,
        sqlalchemy.exc.SQLAlchemyError,
        sqlite3.Error,
        # Of what is stored:
        *(ValueError, LookupError, TypeError, AttributeError, RuntimeError),
        *(ArithmeticError, AssertionError),
    ) as error:
        cause = error if isinstance(error, LookupError) else error.__cause__ or error
        reason = f"{cause}".split("\n")[0] or "values do not fit together"
        raise InputError(path, f"cannot be used: {reason}", _EXPECTED, _REMEDY) from None


def refuse_other_databases(path: Path) -> None:
    """Raises InputError for what is no database of Optuna; it is not written to.

    Nor is one with triggers or views: SQLite would run what they say.
    """
    if path.is_dir():
        raise InputError(path, "a folder", _EXPECTED, _REMEDY)
    if path.exists() and not path.is_file():
        raise InputError(path, "a device, a pipe or a socket", _EXPECTED, _REMEDY)
    if path.exists() and 0 < path.stat().st_size < HEADER_BYTES:  # which SQLite takes for none
        raise InputError(path, "file is not a database", _EXPECTED, _REMEDY)
    objects = _read(path, "SELECT type, name FROM sqlite_master")
    tables = {name for _, name in objects}
    if tables and "studies" not in tables:
        raise InputError(path, "a database of another program", _EXPECTED, _REMEDY)
    if any(kind in ("trigger", "view") for kind, _ in objects):
        raise InputError(path, "a database with triggers or views", _EXPECTED, _REMEDY)


def refuse_other_studies(path: Path) -> None:
    """Raises InputError for studies that other programs made with Optuna."""
    if not _read(path, "SELECT name FROM sqlite_master WHERE name = 'studies'"):
        return
    names = [name for (name,) in _read(path, "SELECT study_name FROM studies")]
    if any(name != NAME for name in names):
        raise InputError(path, f"the study {names[0]!r} of another program", _EXPECTED, _REMEDY)


def refuse_damaged_trials(path: Path, trials: Sequence[FrozenTrial]) -> None:
    """Raises InputError for values that no search writes, though Optuna reads them."""
    for place, trial in enumerate(trials):
        problem = ""
        if trial.number != place:
            problem = f"trial {place} is missing"
        elif trial.state.name == "COMPLETE" and not _is_finite(trial.value):
            problem = f"the loss of trial {place} is {trial.value!r}"
        elif not all(isinstance(loss, float) for loss in trial.intermediate_values.values()):
            problem = f"a loss within trial {place} is no number"
        elif not all(map(_is_finite, trial.params.values())):
            problem = f"a parameter of trial {place} is no finite number"
        elif not all(isinstance(trial.user_attrs.get(name, 1), int) for name in (ATTEMPT, INDEX)):
            problem = f"how often trial {place} was begun is no number"
        if problem:
            raise InputError(path, f"cannot be used: {problem}", _EXPECTED, _REMEDY)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def refuse_other_search(
    path: Path, stored: Mapping[str, Any], identity: Mapping[str, Any], details: Mapping[str, Any]
) -> None:
    """Raises InputError where something else is searched there; it says what is different.

    ``stored`` are the attributes of the study. Hashes say nothing to a person: where both searches have
    ``details`` of a name, these are compared in the message.
    """
    stored_identity, stored_details = stored.get(IDENTITY), stored.get(DETAILS)
    if not isinstance(stored_identity, dict):
        raise InputError(path, "a study without what is searched", _EXPECTED, _REMEDY)
    if not isinstance(stored_details, dict):
        stored_details = {}  # of an older version
    names = list({**identity, **stored_identity})
    for name in names:
        was, now = stored_identity.get(name), identity.get(name)
        if was == now:
            continue
        if name in stored_details and name in details:
            was, now = difference(stored_details[name], details[name], was, now)
        got = f"the study of another search: {name} {was}"
        raise InputError(path, got, f"{name} {now}", f"{_REMEDY}, or the options it began with")


def difference(was: Any, now: Any, was_hash: Any, now_hash: Any) -> tuple[str, str]:
    """The two descriptions: of fields those that differ, of what reads the same the hashes too."""
    if isinstance(was, dict) and isinstance(now, dict):
        differing = [
            name
            for name in {**was, **now}
            if name not in was or name not in now or was[name] != now[name]
        ]
        was, now = (
            ", ".join(f"{name} {fields.get(name, 'as in the preset')}" for name in differing)
            for fields in (was, now)
        )
    if was == now:
        return f"{was} ({was_hash})", f"{now} ({now_hash})"
    return f"{was}", f"{now}"


def _read(path: Path, query: str) -> list[Any]:
    """The rows of a query on a database that is only read; none where there is no file."""
    if not path.exists():
        return []
    connection: sqlite3.Connection | None = None
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)
        return connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise InputError(path, f"{error}", _EXPECTED, _REMEDY) from None
    finally:
        if connection is not None:
            connection.close()
