"""Signals: noted while deferred, at once otherwise, and handlers put back."""

import contextlib
import os
import signal
import threading
import time

import pytest

from minilm.training import signals as stopping
from minilm.training.signals import Interrupted, Stopped, stop_request


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_deferred_is_noted_and_a_later_one_interrupts(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    with stop_request() as request:
        with request.deferring():
            os.kill(os.getpid(), number)
            assert request.signum == number
            os.kill(os.getpid(), number)  # delivered twice, not pressed twice
            monkeypatch.setattr(stopping, "SECOND_SIGNAL_AFTER_SECONDS", -1.0)
            with pytest.raises(Stopped) as caught:
                os.kill(os.getpid(), number)
        assert caught.value.signum == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("killed", [True, False])
def test_one_that_came_as_another_process_was_killed_interrupts(
    killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    class Others:
        def killed(self) -> bool:
            asked.set()
            return killed

    monkeypatch.setattr(stopping, "SECOND_SIGNAL_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(stopping, "world", Others)
    interrupted = pytest.raises(Stopped) if killed else contextlib.nullcontext()
    with stop_request() as request, interrupted:
        request.shared = True
        with request.deferring():
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked.wait(30)
            time.sleep(0.5)
            assert not killed


def test_at_once_while_nothing_is_at_stake() -> None:
    with stop_request(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_once_something_is_saved_the_message_says_so() -> None:
    with stop_request() as request:
        with pytest.raises(Stopped, match="before training began: nothing was saved"):
            os.kill(os.getpid(), signal.SIGTERM)
        request.saved = True
        with pytest.raises(Stopped, match="the run is as it was last saved"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup starts a program
    try:
        with stop_request() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signum is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_first_one_says_at_once_what_happens(caplog: pytest.LogCaptureFixture) -> None:
    with stop_request() as request, request.deferring():
        os.kill(os.getpid(), signal.SIGINT)
        assert [message.partition(":")[0] for message in caplog.messages] == ["Ctrl-C"]
        assert "a second one leaves now" in caplog.messages[0]
        os.kill(os.getpid(), signal.SIGINT)
        assert len(caplog.messages) == 1


def test_it_is_said_even_while_stderr_is_written(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reentered(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(stopping.logger, "warning", reentered)
    with stop_request() as request, request.deferring():
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signum == signal.SIGTERM
    assert capfd.readouterr().err.startswith("SIGTERM: stopping")


def test_what_may_take_minutes_within_a_step_is_interrupted() -> None:
    with stop_request() as request, request.deferring():
        with pytest.raises(Interrupted), request.interrupting_step():
            os.kill(os.getpid(), signal.SIGTERM)
        assert request.signum == signal.SIGTERM
        with pytest.raises(Interrupted), request.interrupting_step():
            raise AssertionError("nothing begins after a signal")
