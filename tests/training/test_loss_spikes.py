"""Jumps of the training loss."""

import pytest

from minilm.training.loss_spikes import watch_for_spikes
from minilm.training.resume_state import Progress


def test_a_jump_of_the_loss_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "minilm")
    progress = Progress()
    for loss in (3.0, 2.9, 2.8, 2.9, 4.5, 2.8, 2.8):
        watch_for_spikes(progress, loss)
    assert progress.loss_spikes == 1
    assert caplog.text.count("loss spike: 4.500 after 2.9") == 1
