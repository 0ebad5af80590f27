"""Which part of a torch.save checkpoint is the model, and what stands beside it.

Training scripts save a state dict under any key, next to states of the optimizer, of random number
generators, of an exponential moving average (EMA), or of a second model. Only the model's tensors are
its parameters; the rest is named, and where several parts could be the model, the user is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.torch_objects import PickledSubclass, PickledTensor
from minilm.safe_text import short_repr

# The keys under which a model is usual, whatever else is there.
MODEL_KEYS = (
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "model_state",
    "net",
    "network",
    "params",
    "weights",
)

# Keys of what is no model, by what it is.
OPTIMIZER, EMA = "optimizer", "EMA"
_KINDS = {
    OPTIMIZER: re.compile(r"optim|^opt$"),
    "scheduler": re.compile(r"sched"),
    EMA: re.compile(r"(^|[^a-z])(ema|swa)([^a-z]|$)|shadow|averaged"),
    "RNG": re.compile(r"(^|[^a-z])rng([^a-z]|$)|random_state"),
}

MAX_LISTED = 8

# How deep a model is looked for: model.state_dict, 0.state_dict, ...
MAX_LEVELS = 4

ALL = "."  # as a key: everything that can be a model, together


@dataclass(frozen=True)
class _Part:
    """One entry of a checkpoint that holds tensors; ``kind`` is empty where it can be a model."""

    key: str
    value: Any
    kind: str
    num_tensors: int

    @property
    def is_tensor(self) -> bool:
        return _is_tensor(self.value)

    def __str__(self) -> str:
        is_said = not self.kind or self.kind.lower()[:5] in _lower(self.key)  # optim, sched, ema
        plural = "s" if self.num_tensors > 1 else ""
        number = f"{self.num_tensors} tensor{plural}"
        return f"{short_repr(self.key)} ({number if is_said else f'{self.kind}, {number}'})"


def select_model(path: Path, content: Any, key: str | None = None) -> tuple[Any, str]:
    """The part of ``content`` that is the model, and a line about what is left out, or nothing.

    It is the part under ``key``, if given; the one under a usual key of models; or the only one that
    is no other kind of state. Raises FormatError where there are several, or none but such states.
    """
    if key is None or key == ALL:
        return _select(path, content, "", [], is_model=key == ALL)
    others = [part for part in _parts(content) if not f"{key}.".startswith(f"{part.key}.")]
    return _select(path, _part_under(path, content, key), key, others, is_model=True)


def _select(
    path: Path, content: Any, key: str, other_parts: list[_Part], *, is_model: bool
) -> tuple[Any, str]:
    """Descend to the model; ``is_model`` is set where the user or a usual key says that this is it."""
    if not key and _is_optimizer(content):
        content = {OPTIMIZER: content}
    for _ in range(MAX_LEVELS):
        parts = list(_parts(content))
        candidates = [part for part in parts if not part.kind]
        others = [part for part in parts if part.kind]
        if others and not candidates and not is_model:
            candidates = _only_states(path, others)
            others = [part for part in others if part not in candidates]
        chosen = _choose(path, content, candidates, others, is_model=is_model)
        if chosen is None:
            other_parts += others
            if others:
                content = {part.key: part.value for part in candidates}
            break
        other_parts += [part for part in parts if part is not chosen]
        is_model = is_model or chosen.key in MODEL_KEYS
        key = f"{key}.{chosen.key}" if key else chosen.key
        content = chosen.value
    return content, _describe(key, other_parts, content)


def _choose(
    path: Path,
    content: Any,
    candidates: Sequence[_Part],
    others: Sequence[_Part],
    *,
    is_model: bool,
) -> _Part | None:
    """The candidate to descend to; None where they are one state dict together."""
    nested = [part for part in candidates if not part.is_tensor]
    tensors = [part for part in candidates if part.is_tensor]
    usual = [part for part in nested if part.key in MODEL_KEYS]
    if is_model:
        return usual[0] if len(usual) == len(candidates) == 1 else None
    # A step or a best loss beside state dicts, whose own names have dots.
    loose = all(getattr(part.value, "shape", None) == () for part in tensors)
    loose = loose and not any("." in part.key for part in candidates)
    if not nested or not (others or usual or loose):
        return None
    if len(usual) == 1:
        return usual[0]
    if len(nested) == 1:
        return nested[0] if len(content) > 1 else None
    listed = ", ".join(map(str, nested[:MAX_LISTED])) + (", ..." if nested[MAX_LISTED:] else "")
    raise FormatError(
        path,
        f"several state dicts: {listed}",
        "one model",
        f"choose one with --state-dict KEY, or all together with --state-dict {ALL}",
    )


def _only_states(path: Path, parts: Sequence[_Part]) -> list[_Part]:
    """The averaged weights where nothing else can be the model. Raises FormatError without any."""
    averages = [part for part in parts if part.kind == EMA]
    if averages:
        return averages
    raise FormatError(
        path,
        f"no model but {', '.join(map(str, parts[:MAX_LISTED]))}",
        "the weights of a model",
        "--state-dict KEY counts one of these all the same",
    )


def _parts(content: Any) -> Iterator[_Part]:
    """The entries of a container that hold tensors, each container once."""
    visited = {id(content)}
    for key, value in _items(content):
        count = _count_tensors(value, visited)
        if count:
            yield _Part(key, value, _kind(key, value), count)


def _kind(key: str, value: Any) -> str:
    """What a part is if it is no model."""
    if _is_tensor(value):
        is_rng = getattr(value, "dtype", "") == "uint8" and _KINDS["RNG"].search(_lower(key))
        return "RNG" if is_rng else ""
    if _is_optimizer(value):
        return OPTIMIZER
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(_lower(key))), "")


def _is_optimizer(value: Any) -> bool:
    """Whether it is what torch's Optimizer.state_dict() returns."""
    return isinstance(value, dict) and {"state", "param_groups"} <= value.keys()


def _part_under(path: Path, content: Any, key: str) -> Any:
    """The part under the dotted ``key``, whose own keys may have dots. Raises FormatError."""
    value = _look_up(content, key)
    if value is None or not _count_tensors(value, set()):
        listed = ", ".join(short_repr(part.key) for part in islice(_parts(content), 20))
        raise FormatError(path, f"no tensors under {short_repr(key)}", f"one of {listed}")
    return value


def _look_up(content: Any, key: str) -> Any:
    for name, value in _items(content):
        if name == key:
            return value
        if key.startswith(f"{name}."):
            inner = _look_up(value, key[len(name) + 1 :])
            if inner is not None:
                return inner
    return None


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a container that have a name."""
    if isinstance(content, dict):
        yield from ((str(k), v) for k, v in content.items() if isinstance(k, (str, int)))
    elif isinstance(content, (list, tuple)):
        yield from ((str(i), value) for i, value in enumerate(content))


def _describe(key: str, other_parts: Sequence[_Part], model: Any) -> str:
    """The line about what is left out; empty where nothing is."""
    visited = {id(model)}
    entries = []
    for part in other_parts:
        count = _count_tensors(part.value, visited)
        if count:
            entries.append(str(_Part(part.key, part.value, part.kind, count)))
    if not entries:
        return ""
    more = len(entries) - MAX_LISTED
    listed = ", ".join(entries[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    read = f"read {short_repr(key)}; " if key else ""
    return f"{read}left out {listed}"


def _count_tensors(value: Any, visited: set[int]) -> int:
    count, stack = 0, [value]
    while stack:
        inner = stack.pop()
        if _is_tensor(inner):
            count += 1
        elif isinstance(inner, (dict, list, tuple)) and id(inner) not in visited:
            visited.add(id(inner))
            stack += inner.values() if isinstance(inner, dict) else inner
    return count


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (PickledTensor, PickledSubclass))


def _lower(key: str) -> str:
    return key[:200].lower()
