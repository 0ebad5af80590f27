"""What fine-tuning takes over from its base beside the weights; how conversations are written for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from minilm import formats
from minilm.errors import ConfigError
from minilm.formats.huggingface import GENERATION_CONFIG
from minilm.formats.text_file import read_text
from minilm.runs import files as run_files
from minilm.text.chat_template import (
    ChatTemplate,
    end_of_turn,
    plain_template,
    read_chat_template,
    special_tokens,
)
from minilm.text.tokenizers import Tokenizer

PLAIN_TEMPLATE, OF_BASE = "plain", "base"  # values of --chat-template, and of its record


def companions(folder: Path) -> Mapping[str, bytes]:
    """The files that go with the tokenizer, by name."""
    paths = (folder / name for name in run_files.COMPANIONS)
    return {path.name: read_text(path).encode() for path in paths if path.is_file()}


def chat_template(folder: Path, option: str | None) -> tuple[ChatTemplate, str]:
    """The template for the model in ``folder``, and what it is: ``option``, PLAIN_TEMPLATE or OF_BASE.

    ``option`` is a file or PLAIN_TEMPLATE; None: the base's own, or the plain one where it has none. Raises
    FormatError.
    """
    if option not in (None, PLAIN_TEMPLATE, OF_BASE):
        try:
            source = read_text(Path(option))
        except OSError as error:
            got = f"{option}: {error.strerror or error}"
            raise ConfigError("chat_template", got, "a file with a template, or plain") from None
        return ChatTemplate(source, special_tokens(folder), option), option
    template = None if option == PLAIN_TEMPLATE else read_chat_template(folder)
    if template is None:
        return plain_template(folder), PLAIN_TEMPLATE
    return template, OF_BASE


def with_template(
    of_base: Mapping[str, bytes], template: ChatTemplate, tokenizer: Tokenizer
) -> dict[str, bytes]:
    """``companions`` of a base with ``template`` in place of its own; generation halts at its end of a turn.

    So does ``tokenizer`` from now on.
    """
    own = dict(of_base) | {run_files.CHAT_TEMPLATE: template.source.encode()}
    end = end_of_turn(template, tokenizer)
    if end is None or end in (tokenizer.end_of_text, *tokenizer.other_ends):
        return own
    if tokenizer.end_of_text is None:
        tokenizer.end_of_text = end
    else:
        tokenizer.other_ends |= {end}
    config = json.loads(of_base.get(GENERATION_CONFIG, b"{}"))
    config["eos_token_id"] = [tokenizer.end_of_text, *sorted(tokenizer.other_ends)]
    return own | {GENERATION_CONFIG: json.dumps(config, indent=2).encode() + b"\n"}


def weights_dtype(folder: Path) -> str:
    """The dtype of the weights of a run, float32 where they have several."""
    dtypes = {tensor.dtype for tensor in formats.read(folder / run_files.WEIGHTS).tensors}
    return dtypes.pop() if len(dtypes) == 1 else "float32"
