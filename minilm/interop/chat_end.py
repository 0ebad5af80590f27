"""Where an answer ends is saved with a model, so that whatever runs it halts there.

A chat template may end a turn with another token than the one that ends a text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.errors import InputError
from minilm.text.chat_template import read_chat_template, with_end_of_turn
from minilm.text.tokenizers import Tokenizer

logger = logging.getLogger(__name__)


def with_chat_end(
    generation: Mapping[str, Any], folder: Path, tokenizer: Tokenizer
) -> dict[str, Any]:
    """A generation_config.json that has it, where the chat template of ``folder`` says so.

    A template that cannot be used is the model's all the same, with a note.
    """
    try:
        template = read_chat_template(folder)
        return (
            dict(generation)
            if template is None
            else with_end_of_turn(generation, template, tokenizer)
        )
    except InputError as error:
        logger.warning("the chat template cannot be used: %s", error)
        return dict(generation)
