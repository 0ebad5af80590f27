"""Signals: noted while deferred, at once otherwise, and handlers put back."""

import os
import signal

import pytest

from minilm.training import signals as stopping
from minilm.training.signals import Stopped, stop_request


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


def test_at_once_while_nothing_is_at_stake() -> None:
    with stop_request(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup starts a program
    try:
        with stop_request() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signum is None
    finally:
        signal.signal(signal.SIGINT, before)
