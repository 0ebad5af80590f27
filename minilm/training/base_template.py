"""The chat template of a fine-tuned model: which one it is, and that generation ends where an answer does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from minilm.formats.huggingface import GENERATION_CONFIG
from minilm.runs import files as run_files
from minilm.text.chat_template import PLAIN, ChatTemplate, find_template, with_end_of_turn
from minilm.text.tokenizers import Tokenizer

OF_BASE = "base"  # the template of the base, as a run records it


def chat_template(folder: Path, choice: str | None) -> tuple[ChatTemplate, str]:
    """The template for the model in ``folder``, as `find_template` has it, and what it is, for the record.

    That is the path of a file, PLAIN's name, or OF_BASE. Raises FormatError, and ConfigError for a file that
    cannot be read.
    """
    template = find_template(folder, choice or "")
    return template, choice or (PLAIN.name if template.name == PLAIN.name else OF_BASE)


def with_template(
    of_base: Mapping[str, bytes], template: ChatTemplate, tokenizer: Tokenizer
) -> dict[str, bytes]:
    """``companions`` of a base with ``template`` in place of its own; generation halts at its end of a turn.

    So does ``tokenizer`` from now on.
    """
    own = dict(of_base) | {run_files.CHAT_TEMPLATE: template.source.encode()}
    generation = json.loads(of_base.get(GENERATION_CONFIG, b"{}"))
    with_end = with_end_of_turn(generation, template, tokenizer)
    if with_end == generation:
        return own
    ends = with_end["eos_token_id"]
    first, *others = ends if isinstance(ends, list) else [ends]
    tokenizer.end_of_text, tokenizer.other_ends = first, frozenset(others)
    return own | {GENERATION_CONFIG: json.dumps(with_end, indent=2).encode() + b"\n"}
