"""The process in which a chat template runs: conversations in, their texts out, a line of JSON for each.

A template is a program from a file. jinja2's sandbox keeps it from Python's own objects, this process from
more time and memory than a conversation needs: a product such as `'x' * 10**9` is one call of C, which
nothing in the process that asks for the text could interrupt.

What a template finds here is what it finds in huggingface/transformers, `utils/chat_template_utils.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser, sandbox, utils

MAX_SECONDS = 2.0  # to read the template, and for each conversation
MAX_MEMORY = 200_000_000  # bytes; on macOS and Windows the time alone is limited
MAX_CHARACTERS = 2**22  # of the text of a conversation
_LONGEST_MESSAGE = 1000  # characters of an error


def main() -> None:
    """Answer the lines of standard input: first the template, then the variables of each conversation."""
    _limit_memory()
    requests = (json.loads(line) for line in sys.stdin.buffer)
    template, reply = None, {}
    source = next(requests)
    try:
        with _limited_time():
            template = _environment().from_string(source)
    except Exception as error:
        reply = {"error": _problem(error)}
    for variables in requests:
        try:
            if template is not None:
                with _limited_time():
                    reply = {"text": _render(template, variables)}
            line = json.dumps(reply)
        except Exception as error:
            line = json.dumps({"error": _problem(error)})
        sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """End this process if it takes more seconds: by the system, which no call of C holds up.

    Of the processor's time where that is counted, so that a busy machine or a stopped job ends nothing.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return
    with open(os.devnull, "w", encoding="utf-8") as silence:  # Windows
        faulthandler.dump_traceback_later(MAX_SECONDS, exit=True, file=silence)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Of addresses some systems give every process more: files of their language.
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))


def _render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    parts, characters = [], 0
    for part in template.generate(variables):
        characters += len(part)
        if characters > MAX_CHARACTERS:
            raise ValueError(f"over {MAX_CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)


def _problem(error: Exception) -> str:
    """What went wrong, and in which line of a template that does not parse."""
    line = getattr(error, "lineno", None)
    text = str(error)[:_LONGEST_MESSAGE]
    return ": ".join(filter(None, (line and f"line {line}", type(error).__name__, text)))


def _environment() -> sandbox.ImmutableSandboxedEnvironment:
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda text: datetime.datetime.now().strftime(text),
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


class _Generation(ext.Extension):
    """`{% generation %}` marks an answer: what stands in it, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Namespace(utils.Namespace):
    """jinja2's, without names that begin with an underscore, which those of Python's own objects do."""

    def __init__(*args: Any, **attributes: Any) -> None:
        for name in dict(*args[1:], **attributes):
            _check_name(name)
        utils.Namespace.__init__(*args, **attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace with {name!r}")


class _Dict:
    """Python's dict as a function, without the class."""

    def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
        return dict(*args, **items)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes what HTML does not take."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
