"""The edge: what a script arranges for its imports is undone while its command runs."""

import signal

from minilm.cli.entry import run_command


def test_a_command_hears_interrupts_that_its_script_let_pass() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert run_command(lambda: int(signal.getsignal(signal.SIGINT) is before)) == 1
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_interrupts_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command(lambda: int(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)) == 1
    finally:
        signal.signal(signal.SIGINT, before)
