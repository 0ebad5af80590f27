"""What a finding of the fuzzer is: an exception that is no InputError, or too much time or memory."""

import time
from collections.abc import Callable
from pathlib import Path

from minilm.errors import InputError

SECONDS, MEGABYTES = 1.0, 200  # for one input


def reporting_findings(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """``parse`` that returns for what is allowed and raises for a finding."""

    def run(data: bytes) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is this input's
        before = megabytes("VmRSS")
        started = time.process_time()
        try:
            parse(data)
        except InputError as error:
            check_message(error)
        assert time.process_time() - started < SECONDS, "too slow"
        assert megabytes("VmHWM") < before + MEGABYTES, "too much memory"

    return run


def check_message(error: InputError) -> None:
    """Raises AssertionError unless it is one short line."""
    message = str(error)
    assert message.isprintable(), "no one line"
    assert len(message) < 2000, "a line that floods the terminal"


def megabytes(field: str) -> float:
    """Memory of this process, as Linux has it: now (VmRSS), or at most since the peak was reset (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024
