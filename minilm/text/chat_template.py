"""Chat templates: a conversation as the text that a model reads, by a program in Jinja.

The template is one from a file: it runs in a process of its own with limits, `template_process`. How
templates are stored is as in huggingface/transformers, `tokenization_utils_base.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from minilm.errors import ConfigError, FormatError, TokenizerError
from minilm.formats.huggingface import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
)
from minilm.formats.json_file import read_object
from minilm.formats.text_file import read_text
from minilm.safe_text import short_repr
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

Message = dict[str, str]  # {"role": "user", "content": "Hello"}

MAX_SOURCE = 2**20  # characters; published ones have up to some 20,000
_TOKENIZER = "tokenizer.json"
_DEFAULT = "default"  # of several templates
# What it imports is what this process does, whatever is in the current folder.
_PROCESS = """
import sys
sys.path = sys.argv[1:]
from minilm.text import template_process
template_process.main()
"""


@dataclass(frozen=True)
class ChatTemplate:
    """A template's text, and the texts of the special tokens that it asks for by name, bos_token and others.

    ``name`` is for messages.
    """

    source: str
    special: Mapping[str, str] = field(default_factory=dict)
    name: str = "chat template"

    def __post_init__(self) -> None:
        if len(self.source) > MAX_SOURCE:
            got = f"{len(self.source)} characters"
            raise FormatError(self.name, got, f"a chat template of at most {MAX_SOURCE}")

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of one conversation, in a tenth of a second: several are `render_all`'s.

        ``add_generation_prompt``: up to where the model's answer begins. Raises as `render_all`.
        """
        [text] = self.render_all([messages], add_generation_prompt=add_generation_prompt)
        return text

    def check_prompt(self, text: str, message: Message) -> None:
        """Raises FormatError unless ``message``, which is to be answered, is in ``text``."""
        if message["content"].strip() not in text:
            raise FormatError(
                self.name, "a text without the message", "a chat template that writes it"
            )

    def render_all(
        self, conversations: Iterable[Sequence[Message]], *, add_generation_prompt: bool = False
    ) -> Generator[str, None, None]:
        """The text of each conversation, thousands a second: as they are asked for, all in one process.

        Raises FormatError, in one line, where the template cannot be read or refuses a conversation, and
        where it takes more time, memory or text than `template_process` has for one.
        """
        variables = {
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self.special,
        }
        with subprocess.Popen(
            [sys.executable, "-c", _PROCESS, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _write(process, self.source)
                for messages in conversations:
                    _write(process, {"messages": messages, **variables})
                    yield self._text_of_reply(process)
            finally:
                process.kill()
                with contextlib.suppress(OSError):  # what it did not read
                    _input(process).close()

    def _text_of_reply(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        reply = json.loads(line) if line.endswith(b"\n") else {"error": "too much time or memory"}
        if "error" in reply:
            expected = "a chat template that writes this conversation"
            raise FormatError(self.name, reply["error"], expected)
        text: str = reply["text"]
        return text


def _write(process: subprocess.Popen[bytes], value: Any) -> None:
    with contextlib.suppress(OSError):  # one that has ended, which gives no reply either
        _input(process).write(json.dumps(value).encode() + b"\n")
        _input(process).flush()


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


# For models that have no template: an answer ends as their texts do, which is all that they need to know.
PLAIN = ChatTemplate(
    """\
{% for message in messages %}
{{ message['role'] | capitalize }}:
{{ message['content'] | trim }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}


{% endfor %}
{% if add_generation_prompt %}
Assistant:
{% endif %}
""",
    {"eos_token": END_OF_TEXT},
    "plain",
)


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The template beside the tokenizer of ``folder``, of several the default one; None where there is none.

    Raises FormatError or OSError.
    """
    stored = stored_templates(folder)
    path = folder / CHAT_TEMPLATE
    if not path.is_file():
        path = folder / TOKENIZER_CONFIG
    if isinstance(stored, list):
        stored = {each["name"]: each["template"] for each in stored}.get(_DEFAULT)
    return None if stored is None else ChatTemplate(stored, special_tokens(folder), str(path))


def find_template(folder: Path, choice: str = "") -> ChatTemplate:
    """The template of the file ``choice``, or `PLAIN` if that is "plain"; by default that of ``folder``.

    A model without one gets `PLAIN`, with a note. Raises FormatError or OSError, ConfigError for a file that
    cannot be read, TokenizerError where `PLAIN` needs an end of text and there is none.
    """
    if choice and choice != PLAIN.name:
        try:
            source = read_text(Path(choice))
        except OSError as error:
            got = f"{choice}: {error.strerror or error}"
            raise ConfigError("chat_template", got, f"a file with one, or {PLAIN.name}") from None
        return ChatTemplate(source, special_tokens(folder), choice)
    if choice:
        return plain_template(folder)
    template = read_chat_template(folder)
    if template is None:
        template = plain_template(folder)
        logger.warning(
            "%s has no chat template: the plain one is used, `User:` and `Assistant:`", folder
        )
    return template


def plain_template(folder: Path) -> ChatTemplate:
    """`PLAIN` with the special tokens of a tokenizer. Raises TokenizerError as `find_template`."""
    special = special_tokens(folder)
    if "eos_token" not in special:
        got = "no token that ends a text"
        raise TokenizerError(folder / _TOKENIZER, got, "one, which ends an answer")
    return dataclasses.replace(PLAIN, special=special)


def end_of_turn(template: ChatTemplate, tokenizer: Tokenizer) -> int | None:
    """The special token that ``template`` writes after an answer, at which generation is to halt.

    None where it writes none. Raises as `render`.
    """
    after = _after_an_answer(template.source, tuple(template.special.items()), template.name)
    special = tokenizer.special_tokens
    names = [name for name in special if name.strip() and after.startswith(name)]
    return special[max(names, key=len)] if names else None


@functools.lru_cache  # which takes a process
def _after_an_answer(source: str, special: tuple[tuple[str, str], ...], name: str) -> str:
    question, answer = "A question?", "An answer."
    text = ChatTemplate(source, dict(special), name).render(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )
    return text.rpartition(answer)[2].lstrip()


def with_end_of_turn(
    generation: Mapping[str, Any], template: ChatTemplate, tokenizer: Tokenizer
) -> dict[str, Any]:
    """A generation_config.json whose tokens that end a text include the end of a turn. Raises as `render`."""
    saved = generation.get("eos_token_id", tokenizer.end_of_text)
    ends = saved if isinstance(saved, list) else [] if saved is None else [saved]
    end = end_of_turn(template, tokenizer)
    if end is None or end in ends:
        return dict(generation)
    return {**generation, "eos_token_id": [*ends, end] if ends else end}


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of the special tokens of a tokenizer, by the names that templates have for them.

    Raises FormatError or OSError.
    """
    special: dict[str, str] = {}
    for path in (folder / SPECIAL_TOKENS_MAP, folder / TOKENIZER_CONFIG):
        for name, token in (read_object(path) if path.is_file() else {}).items():
            text = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(text, str):
                special[name] = text
    if "eos_token" not in special:
        tokenizer = load_tokenizer(folder / _TOKENIZER)
        for text, number in tokenizer.special_tokens.items():
            if number == tokenizer.end_of_text:
                special |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), text) | special
    return special


def stored_templates(folder: Path) -> str | list[dict[str, str]] | None:
    """The template of chat_template.jinja, or of tokenizer_config.json, where it may be several."""
    if (folder / CHAT_TEMPLATE).is_file():
        return read_text(folder / CHAT_TEMPLATE)
    settings = folder / TOKENIZER_CONFIG
    template = read_object(settings).get("chat_template") if settings.is_file() else None
    are_named = isinstance(template, list) and all(
        isinstance(each, dict) and {type(each.get("name")), type(each.get("template"))} == {str}
        for each in template
    )
    if template is None or isinstance(template, str) or are_named:
        return template
    raise FormatError(settings, f"chat_template {short_repr(template)}", "a text")
