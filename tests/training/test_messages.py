"""Messages: on stderr unless logging was configured, and only while a run is there."""

from __future__ import annotations

import logging
import sys

import pytest
from tqdm import tqdm

from minilm.training.messages import LOGGER, messages_on_stderr, messages_shown

Capture = pytest.CaptureFixture[str]


def test_where_logging_is_not_configured_messages_are_printed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", False)  # pytest has handlers at the root
    with messages_shown():
        logging.getLogger("minilm.training.trainer").info("a loss: 100%")
        with messages_shown():  # as resume() in the command: once all the same
            logging.getLogger("minilm.data").warning("a note")
        logging.getLogger("minilm").debug("not this")
    assert capsys.readouterr() == ("", "a loss: 100%\na note\n")
    assert LOGGER.handlers == []
    assert LOGGER.level == logging.NOTSET


def test_where_logging_is_configured_that_says_where_they_go(
    capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    with messages_shown():
        LOGGER.warning("a note")
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["a note"]


def test_a_message_goes_above_the_progress_bar(capsys: Capture) -> None:
    with messages_on_stderr(), tqdm(total=3, file=sys.stderr, mininterval=0.0) as bar:
        bar.update(1)
        LOGGER.info("a message")
        bar.update(1)
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert "a message" in [line.strip() for line in lines]  # alone on its line
    assert any("2/3" in line for line in lines[lines.index("a message") :])


@pytest.mark.parametrize(("is_terminal", "longest"), [(True, 80), (False, 118)])
def test_a_message_is_wrapped_between_words_on_a_terminal_alone(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, longest: int
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "80")
    message = "step      2   " + " ".join(["well-known"] * 9 + ["words"]) + "\nand more"
    with messages_on_stderr():
        LOGGER.info(message)
    first, *rest = capsys.readouterr().err.splitlines()
    assert max(map(len, (first, *rest))) <= longest
    assert " ".join((first, *rest)) == message.replace("\n", " ")
    assert first.startswith("step      2   well-known ")
    assert len(rest) == (2 if is_terminal else 1)
