"""The edge of the program: exceptions become one line on stderr and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import gc
import io
import os
import re
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from minilm.errors import ConfigError, InputError
from minilm.parallel.launcher import process_age, silence_all_but_first
from minilm.units import format_bytes

Arguments = TypeVar("Arguments")

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2
BROKEN_PIPE = 128 + 13  # SIGPIPE, which Windows does not have

MORE_MEMORY = "close other programs, or use a machine with more memory"


def run_command(
    command: Callable[[], int],
    *,
    memory_advice: str = MORE_MEMORY,
    when_full: str = "free some space",
) -> int:
    """Run ``command``; what a user can cause is one `error:` line and 2, a signal 128 + its number.

    ``memory_advice`` and ``when_full``: what to do where there is not enough, with this command's options.
    """
    _accept_any_text()
    _wait_briefly()
    try:
        silence_all_but_first()
        with _interrupts_enabled(), _collecting_rarely():
            try:
                return command()
            finally:
                sys.stdout.flush()  # a closed pipe is met here, not at exit
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader went away (`| head`): nothing to say, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (OSError, MemoryError, ImportError, RuntimeError) as error:
        if _is_out_of_memory(error):
            return _fail(str(_memory_error(error, memory_advice)))
        if not isinstance(error, OSError):
            raise
        path, reason = error.filename or "standard output", error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _fail(str(InputError(path, reason, "room to write", when_full)))
        return _fail(str(InputError(path, reason, "a path that can be read and written")))
    except KeyboardInterrupt as stopped:
        if stopped.args:
            print(stopped, file=sys.stderr)
        return 128 + int(getattr(stopped, "signum", signal.SIGINT))


# How an allocation that failed is told: by torch on the CPU, CUDA and MPS, by cuBLAS, and by the loader of
# shared libraries, whose ImportError is the first thing to fail where `ulimit -v` is low.
_OUT_OF_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|cannot allocate memory|out of memory|bad_alloc"
    r"|CUBLAS_STATUS_ALLOC_FAILED|failed to map segment from shared object",
    re.IGNORECASE,
)
_ALLOCATION = re.compile(r"(?:tried|unable) to allocate ([\d.]+) (bytes|\w+)", re.IGNORECASE)
_ON_GPU = re.compile(r"\b(CUDA|HIP|MPS)\b|CUBLAS")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def _memory_error(error: BaseException, advice: str) -> InputError:
    text = str(error)
    got = "not enough of it"
    if match := _ALLOCATION.search(text):
        size, unit = match.groups()
        got += f" for {format_bytes(int(size)) if unit == 'bytes' else f'{size} {unit}'} more"
    where = "GPU memory" if _ON_GPU.search(text) else "memory"
    return InputError(where, got, "room for all that the command computes", advice)


def _wait_briefly() -> None:
    """Before torch is loaded: OpenMP's threads spin for some 10 microseconds while they wait, then sleep.

    By default they spin for milliseconds, and where another process has one of the cores, nearly all of the
    time is lost in that (docs/performance.md, "A busy machine").
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@contextlib.contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Python looks for garbage in cycles after so many new objects.

    Those of torch's modules all stay, and so do the rows of a long report: with Python's 700 a quarter of the
    time of importing the ones went into that, and a third of that of the others.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def process_started() -> float:
    """When this process started, by time.monotonic(); now on systems without /proc."""
    return time.monotonic() - (process_age(os.getpid()) or 0.0)


@contextlib.contextmanager
def _interrupts_enabled() -> Iterator[None]:
    """Signals that end the program are exceptions while the command runs, which then removes what it began.

    Scripts let them end their imports.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminated}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}  # Python delivers signals to the main thread only
    replaced = [number for number in handlers if signal.getsignal(number) == signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in replaced:  # a process that says why it ends may ignore what ends it
            if signal.getsignal(number) is handlers[number]:
                signal.signal(number, signal.SIG_DFL)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""

    signum = signal.SIGTERM


def _terminated(*_: object) -> NoReturn:
    raise _Terminated


def _accept_any_text() -> None:
    """No character ends a program: a terminal that lacks one shows `?`; a closed stream is silent."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return BAD_INPUT


class OneLineParser(argparse.ArgumentParser):
    """argparse with one `error:` line instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise what `run_command` prints."""
        raise InputError("arguments", message, f"what {self.prog} --help lists")


def parse_arguments(
    cls: Callable[..., Arguments], arguments: Sequence[str], program: str
) -> Arguments:
    """Read a command line with tyro; its boxed message becomes one line of InputError."""
    import tyro

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            text = " ".join((cls.__doc__ or "").split())
            # tyro joins lines, but for those that begin with no letter.
            description = textwrap.fill(text, 80, subsequent_indent="  ")
            args = with_mixture(arguments)
            return tyro.cli(cls, args=args, prog=program, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _arguments_error(captured.getvalue(), arguments, program) from None


# What is no weight, and looks like one, is refused as such.
_WEIGHTED = re.compile(r".+=[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)


def with_mixture(arguments: Sequence[str]) -> list[str]:
    """The arguments with --data A=0.7 B=0.3 as one mixture, --data mix:A=0.7;B=0.3."""
    joined: list[str] = []
    sources: list[str] = []
    for argument in [*arguments, "-"]:
        is_source = not argument.startswith("-") and _WEIGHTED.fullmatch(argument)
        if is_source and (sources or joined[-1:] == ["--data"]):
            sources.append(argument)
            continue
        joined += ["mix:" + ";".join(sources)] if len(sources) > 1 else sources
        sources = []
        joined.append(argument)
    return joined[:-1]


def option(metavar: str, **how: Any) -> Any:
    """An option whose help says itself what happens where it is not given."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint="", **how)


def options_of(cls: Any) -> list[str]:
    """The options that the fields of ``cls``, a dataclass of arguments, are."""
    return [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(cls)]


def option_names(options: Sequence[str]) -> dict[str, str]:
    """Options by the names of the arguments that they are: --model.dropout by model.dropout and dropout."""
    paths = {option.lstrip("-").replace("-", "_"): option for option in options}
    return {path.rpartition(".")[2]: option for path, option in paths.items()} | paths


@contextlib.contextmanager
def naming_options(*names: str, **others: str) -> Iterator[None]:
    """A ConfigError names options as the command line has them: --lora-rank for the argument lora_rank.

    ``names`` are the options, ``others`` those of arguments with another name. One that is no word of English
    is replaced in the text, too, and what is listed with it.
    """
    options = option_names(names) | others
    one = rf"(?:{'|'.join(re.escape(name) for name in sorted(options, key=len, reverse=True))})\b"
    listed = re.compile(rf"(?<![-\w]){one}(?:(?:, | and ){one})*")

    def with_options(match: re.Match[str]) -> str:
        if "_" not in match[0]:
            return match[0]
        return re.sub(one, lambda name: options[name[0]], match[0])

    def in_text(text: str) -> str:
        return listed.sub(with_options, text)

    try:
        yield
    except ConfigError as error:
        where = options.get(str(error.where), error.where)
        texts = (in_text(each) for each in (error.got, error.expected, error.remedy))
        raise ConfigError(where, *texts) from None


def refuse_empty(options: object, *names: str) -> None:
    """Raises InputError where an argument is empty, mostly from an unset variable of the shell.

    ``names`` are as the help has them: --run-dir, SOURCE.
    """
    for name in names:
        if getattr(options, name.removeprefix("--").replace("-", "_").lower()) == "":
            raise InputError(name, "an empty name", "the name of a file, a folder or a choice")


# tyro's messages, in a box of "─" or, where the terminal has no such character, of "-"; and the types that it
# names in them.
_TITLE = re.compile(r"\A(╭.*|.*\n *-{5,} *)\n")
_RULE = re.compile(r"─{5,}|-{5,}")
_WRONG_VALUE = re.compile(
    r"Error parsing (\S+): no type matching \{None\}\|(\w+) .* from \['(.*?)'\]"
)
_NO_NUMBER = re.compile(
    r"Error parsing (\S+): (?:invalid literal for (int)|could not convert string to (float)).*?: '(.*?)'"
)
_WRONG_CHOICE = re.compile(
    r"invalid choice '(.*?)' for argument '(\S+)'\. Expected one of \((.*?)\)"
)
_MISSING = re.compile(r"Missing from [^:]+: (.*)")
_EXPECTED = {"INT": "a whole number", "FLOAT": "a number"}


def _arguments_error(message: str, arguments: Sequence[str], program: str) -> InputError:
    """tyro's box as one line that names the option as it was given."""
    lines = [line.strip("│╰╯ ") for line in _TITLE.sub("", message).splitlines()]
    rules = [i for i, line in enumerate(lines) if _RULE.fullmatch(line)] or [len(lines)]
    first = " ".join(filter(None, lines[: rules[0]]))
    expected = f"what {program} --help lists"

    def option_name(aliases: str) -> str:
        options = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
        return next((name for name in aliases.split("/") if name in options), aliases)

    if first.startswith("Unrecognized options") and "--data" in arguments:
        expected += "; after --data one source, or several with weights: A=0.7 B=0.3"
    if match := _MISSING.match(first):
        # Each option with its help: NAME HELP (required) NAME HELP (required)
        helps = filter(str.strip, match[1].split("(required)"))
        return InputError(
            "arguments", f"{', '.join(text.split()[0] for text in helps)} missing", expected
        )
    if match := _WRONG_VALUE.search(first):
        aliases, kind, value = match.groups()
        return InputError(option_name(aliases), value, _EXPECTED.get(kind, kind))
    if match := _NO_NUMBER.search(first):
        aliases, whole, number, value = match.groups()
        return InputError(option_name(aliases), value, _EXPECTED[(whole or number).upper()])
    if match := _WRONG_CHOICE.search(first):
        value, aliases, choice_list = match.groups()
        choices = sorted(set(choice_list.replace("'", "").split(", ")) - {"None"})
        return InputError(option_name(aliases), value, f"one of {', '.join(choices)}")
    nearest = [
        line for line in lines[rules[0] :] if line.startswith("--") and not _RULE.fullmatch(line)
    ]
    if nearest:
        expected = f"perhaps {nearest[0].split()[0].rstrip(',')}, or {expected}"
    return InputError("arguments", first.rstrip(".") or "cannot be read", expected)
