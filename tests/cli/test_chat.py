"""`generate --chat`: a conversation on a terminal, in a pipe, and in one turn."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from minilm.cli.generate import main
from minilm.generation.generate import Generation
from minilm.text.chat_template import ChatTemplate
from tests.interop.shapes import TINY, make_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with room for a few turns."""
    return make_run(tmp_path_factory.mktemp("runs") / "run", TINY | {"context_length": 64})


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the model say this; ends of text are those of its answers."""

    def script(text: str | bytes) -> None:
        tokens = iter(text.encode() if isinstance(text, str) else text)

        def step(self: Generation) -> dict[int, int]:
            token = next(tokens)
            return {0: token} if token else {}

        monkeypatch.setattr(Generation, "step", step)

    return script


def notes(errors: str) -> list[str]:
    """What is said on stderr beside the rates."""
    rate = re.compile(r"[\d,]+ tokens?, [\d.]+ tokens/s")
    return [line for line in errors.splitlines() if not rate.fullmatch(line)]


def test_one_turn_prints_the_answer_and_ends(
    run: Path, capsys: Capture, caplog: pytest.LogCaptureFixture, says: Any
) -> None:
    says("Hello\0\x1b[31m\0")
    assert main([str(run), "--chat", "--prompt", "Hi"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "Hello\n"
    assert re.fullmatch(r"5 tokens, [\d.]+ tokens/s\n", printed.err)
    assert f"{run} has no chat template: the plain one is used" in caplog.text
    caplog.clear()
    assert main([str(run), "--chat", "--prompt", "Hi", "--json", "--chat-template", "plain"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "prompt": "Hi",
        "text": "\x1b[31m",
        "tokens": [*b"\x1b[31m"],
        "dtype": "float32",
        "products": ANY,
        "attention": {},
    }
    assert caplog.text == ""


def rendered(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """Whose messages are rendered for an answer, in turn."""
    conversations: list[list[tuple[str, str]]] = []
    render_all = ChatTemplate.render_all

    def note(self: ChatTemplate, given: Any, *, add_generation_prompt: bool = False) -> Any:
        def noted() -> Any:
            for conversation in given:
                if add_generation_prompt:
                    conversations.append([(m["role"], m["content"]) for m in conversation])
                yield conversation

        return render_all(self, noted(), add_generation_prompt=add_generation_prompt)

    monkeypatch.setattr(ChatTemplate, "render_all", note)
    return conversations


def test_the_history_is_kept(
    run: Path, capsys: Capture, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations = rendered(monkeypatch)
    says("b\0d\0f\0")
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n\n  \nc\n/exit\nnot read\n"))
    options = [str(run), "--chat", "--system", "S", "--max-new-tokens", "3"]
    assert main(options) == 0
    assert capsys.readouterr().out == "b\nd\n"
    first = [("system", "S"), ("user", "a")]
    assert conversations == [first, [*first, ("assistant", "b"), ("user", "c")]]
    # Each --prompt is a turn of the same conversation.
    conversations.clear()
    says("b\0d\0")
    assert main([*options, "--prompt", "a", "--prompt", "c", "--json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["b", "d"]
    assert conversations == [first, [*first, ("assistant", "b"), ("user", "c")]]


def test_a_long_conversation_loses_its_oldest_turns_with_a_note(
    run: Path, capsys: Capture, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("x\0" * 3 + "y" * 99)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\nc\n" + "d" * 70 + "\n" + "e" * 30 + "\n"))
    assert main([str(run), "--chat", "--max-new-tokens", "20"]) == 0
    printed = capsys.readouterr()
    room = 64 - len("User:\n\n\nAssistant:\n") - 30
    assert printed.out == "x\nx\nx\n" + "y" * room + "\n"
    assert notes(printed.err) == [
        "note: the oldest turn was dropped: the context has no room for more",
        "error: message: 89 tokens with what stands around it, expected fewer than the context of 64",
        "note: the oldest 2 turns were dropped: the context has no room for more",
        "note: the answer was cut: the context is full",
    ]


@pytest.mark.parametrize(("signum", "status"), [(None, 0), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_answer_and_a_signal_the_conversation(
    run: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    signum: int | None,
    status: int,
) -> None:
    conversations = rendered(monkeypatch)
    tokens = iter("ab!c\0")

    def step(self: Generation) -> dict[int, int]:
        token = next(tokens)
        if token == "!":
            interrupt = KeyboardInterrupt()
            if signum is not None:
                interrupt.signum = signum  # type: ignore[attr-defined]
            raise interrupt
        return {0: ord(token)} if token != "\0" else {}

    monkeypatch.setattr(Generation, "step", step)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert main([str(run), "--chat", "--max-new-tokens", "4"]) == status
    assert capsys.readouterr().out == ("ab\nc\n" if status == 0 else "ab\n")
    if status == 0:
        assert conversations[1] == [("user", "one"), ("assistant", "ab"), ("user", "two")]


def test_a_terminal_is_asked_with_a_sign_and_a_bad_line_spoils_no_other(
    run: Path, capsys: Capture, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    signs, lines = [], iter(["a \udcff", "b", "/exit"])
    says("x\0")
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda sign: signs.append(sign) or next(lines))
    assert main([str(run), "--chat", "--max-new-tokens", "2"]) == 0
    assert signs == ["> "] * 3
    printed = capsys.readouterr()
    assert printed.out == "x\n"
    assert any("the surrogate U+DCFF" in line for line in notes(printed.err))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chat", "--interactive"], "--interactive: a --chat with it, expected one of the two"),
        (["--system", "S"], "--system: no --chat with it, expected both"),
        (["--chat-template", "plain"], "--chat-template: no --chat with it, expected both"),
        (["--chat", "--chat-template", "absent"], "--chat-template: absent: No such file"),
        (["--chat", "--chat-template", "plain", "--prompt", " "], "--prompt: an empty message"),
        (["--chat", "--prompt", " "], "--prompt: an empty message"),
        (["--chat", "--max-new-tokens", "-1"], "--max-new-tokens: -1"),
    ],
)
def test_bad_options(
    run: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
    options: list[str],
    message: str,
) -> None:
    assert main([str(run), *options]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert "no chat template" not in caplog.text


def test_a_template_that_cannot_be_used_is_one_line(
    run: Path, tmp_path: Path, capsys: Capture, says: Any
) -> None:
    says("x\0")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    template = copy / "chat_template.jinja"
    for source, reason in (
        ("{{ 'x' * 10**9 }}", "MemoryError"),
        ("{% for %}", "line 1: TemplateSyntaxError"),
        ("fixed", "a text without the message"),
        ("{{ raise_exception('roles\nmust alternate') }}", r"TemplateError: roles\x0amust"),
    ):
        template.write_text(source)
        assert main([str(copy), "--chat", "--prompt", "a"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"error: {template}: {reason}")
        assert errors.count("\n") == 1
    template.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    assert main([str(copy), "--chat", "--prompt", "a"]) == 0
    assert main([str(copy), "--prompt", "a", "--max-new-tokens", "0"]) == 0
