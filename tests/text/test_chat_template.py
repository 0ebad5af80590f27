"""Chat templates: what they write is what transformers has them write, and none takes more than its share."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, processors

from minilm.errors import FormatError, TokenizerError
from minilm.text import chat_template, template_process
from minilm.text.chat_template import (
    MAX_SOURCE,
    PLAIN,
    ChatTemplate,
    Message,
    end_of_turn,
    find_template,
    read_chat_template,
    special_tokens,
    with_end_of_turn,
)
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import ByteTokenizer, CharTokenizer, LibraryTokenizer
from tests.interop.published_tokenizers import BEGIN, END, TURN, published_tokenizer, save_tokenizer


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


SYSTEM = message("system", " Answer <b>briefly</b>. \n")
TURNS = [
    message("user", " Grüße & 'quotes'\n\n"),
    message("assistant", "  Hello 世界\n"),
    message("user", "{{ not }} a {% template %}\t"),
]
CONVERSATIONS = [TURNS[:1], TURNS[:2], TURNS, [SYSTEM, *TURNS[:1]], [SYSTEM, *TURNS]]

# The idioms that published templates are written in, each after the manner of its name.
TEMPLATES = {
    "chatml": """\
{% for message in messages %}{% if loop.first and message.role != 'system' %}
{{ '<|start|>system\\nYou help.<|end|>\\n' }}{% endif %}
{{ '<|start|>' + message['role'] + '\\n' + message['content'] + '<|end|>' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}""",
    "llama 2": """\
{%- if messages[0]['role'] == 'system' -%}
  {%- set rest = messages[1:] -%}
  {%- set system = '<<S>>\\n' ~ messages[0]['content'].strip() ~ '\\n<</S>>\\n' -%}
{%- else -%}
  {%- set rest = messages -%}{%- set system = '' -%}
{%- endif -%}
{%- for message in rest -%}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('user and assistant take turns') }}
  {%- endif -%}
  {%- if message['role'] == 'user' -%}
    {{ bos_token + '[Q] ' + (system if loop.index0 == 0 else '') + message['content'].strip() + ' [/Q]' }}
  {%- else -%}
    {{ ' ' ~ message['content'] | trim ~ ' ' ~ eos_token }}
  {%- endif -%}
{%- endfor -%}""",
    "llama 3": """\
{{- bos_token }}
{%- if tools is not none and tools is iterable %}{{- tools | length }}{% endif %}
{%- for message in messages %}
    {%- set header = '<|h|>' + message.role + '<|/h|>\\n\\n' %}
    {{- header + (message.content | trim) + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|h|>assistant<|/h|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """\
{%- set ns = namespace(last=-1, system='') -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}
  {%- elif message.role == 'system' -%}{%- set ns.system = message.content -%}{%- endif -%}
{%- endfor -%}
{{ bos_token }}
{%- for message in messages if message.content -%}
  {%- if message.role == 'user' -%}
    {%- set system = ns.system ~ '\\n\\n' if ns.last == loop.index0 and ns.system else '' -%}
    [INST]{{ system }}{{ message.content }}[/INST]
  {%- elif message.role == 'assistant' -%}
    {{ message.content }}{{ eos_token }}
  {%- elif not loop.first -%}{{ raise_exception('no role ' ~ message.role) }}
  {%- endif -%}
{%- endfor -%}""",
    "gemma": """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] | trim + '\\n' %}
{% set messages = messages[1:] %}{% endif %}
{% for message in messages %}
    {% if message['role'] == 'assistant' %}{% set role = 'model' %}
    {% else %}{% set role = message['role'] %}{% endif %}
    {{ '<turn>' + role + '\\n' }}{% if loop.first and first is defined %}{{ first }}{% endif %}
{{ message['content'] | trim + '<end of turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}
{{ '<turn>model\\n' }}
{%- endif %}
""",
    "zephyr": """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "tools": """\
{#- a comment -#}
{%- macro show(value, indent=none) -%}{{ value | tojson(indent=indent) }}{%- endmacro -%}
{{ show(messages, 2) }}
{{ {'b': '<&>é', 'a': [1, none, true]} | tojson(sort_keys=true, separators=(',', ':')) }}
{{ messages | map(attribute='role') | join(', ') | upper | replace('USER', 'u') | indent(3, first=true) }}
{{ dict(a=1).items() | list }}{{ messages | selectattr('role', 'equalto', 'user') | list | count }}
{%- for message in messages | reverse %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.length }}
{{- loop.previtem.role if loop.previtem is defined }}
{{ message.content.split('\\n')[-1].lstrip() | default('x', true) }}
{%- if message.name is defined or 'tool_calls' in message %}!{% endif %}
{%- if loop.index > 1 %}{% break %}{% endif %}{% endfor %}{{ undefined_name }}{{ cls_token is defined }}""",
    "generation": """\
{% for message in messages %}
{% if message.role == 'system' %}{% continue %}{% endif %}
{{ message.role }}:
{%- if message.role == 'assistant' %}
{% generation %}
 {{ message.content }}{% set inside = 1 %}{{ eos_token }}
{% endgeneration %}
{{ inside is defined }}
{% else %}
 {{ message.content }}{{ inside is defined }}
{% endif %}
{% endfor %}""",
    "plain": PLAIN.source,
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A tokenizer of transformers with a beginning and an end."""
    transformers = pytest.importorskip(
        "transformers", reason="the extra 'transformers' is not installed"
    )
    backend = tokenizers.Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_writes_what_transformers_has_it_write(name: str, theirs: Any) -> None:
    source = TEMPLATES[name]
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    for is_prompt in (False, True):
        expected = [
            theirs.apply_chat_template(
                conversation,
                chat_template=source,
                tokenize=False,
                add_generation_prompt=is_prompt,
            )
            for conversation in CONVERSATIONS
        ]
        assert list(template.render_all(CONVERSATIONS, add_generation_prompt=is_prompt)) == expected
        assert len(set(expected)) >= 3


def test_the_date_is_that_of_today() -> None:
    day = time.strftime("%d %b %Y")
    text = ChatTemplate("{{ strftime_now('%d %b %Y') }}").render(TURNS)
    assert text in (day, time.strftime("%d %b %Y"))


DOUBLING = "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
HOSTILE = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "product": "{{ 'x' * 10**9 }}",
    "product that is not written": "{{ ('x' * 10**9) | length }}",
    "doubling": DOUBLING,
    "macro": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "width of %": "{{ '%1000000000d' % 1 }}",
    "width of format": "{{ '{:>1000000000}'.format(1) }}",
    "center": "{{ 'x' | center(10**9) }}",
    "indent": "{{ ('x\n' * 10**6) | indent(10**6) }}",
    "many parts": "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "class": "{{ ''.__class__.__mro__ }}",
    "format of an attribute": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "new namespace": "{% set ns = namespace(__class__=1) %}",
    "dict": "{{ dict.update(messages[0], {'role': 'x'}) }}",
    "change": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "brackets": "{{ " + "(" * 10**5 + "1" + ")" * 10**5 + " }}",
    "syntax": "{% for %}",
    "refusal": "{{ raise_exception('first\nsecond ' ~ 'x' * 9999) }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_template_takes_more_than_its_share(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(FormatError) as caught:
        ChatTemplate(HOSTILE[name], name="chat.jinja").render(TURNS)
    assert time.monotonic() - started < 10  # on a machine that has other things to do
    text = str(caught.value)
    assert text.startswith("chat.jinja: ")
    assert "\n" not in text
    assert len(text) < 1200


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
    "one call": "{{ 9 ** (9 ** 9) }}",
    "compilation": "{{ 1 }}" * 140_000,
}


@pytest.fixture(params=["POSIX", "Windows"])
def half_a_second(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time, as each system limits it."""
    change = "template_process.MAX_SECONDS = 0.5\n"
    if request.param == "Windows":
        change += "import signal; del signal.setitimer\n"
    last = "template_process.main()"
    program = chat_template._PROCESS.replace(last, change + last)
    monkeypatch.setattr(chat_template, "_PROCESS", program)


@pytest.mark.usefixtures("half_a_second")
def test_time_is_limited_and_not_that_between_conversations() -> None:
    for source in ENDLESS.values():
        started = time.monotonic()
        with pytest.raises(FormatError, match=r"chat\.jinja: too much time or memory"):
            ChatTemplate(source, name="chat.jinja").render(TURNS)
        assert time.monotonic() - started < 8  # on a machine that has other things to do
    texts = PLAIN.render_all([TURNS, TURNS])
    first = next(texts)
    time.sleep(0.7)
    assert next(texts) == first


def test_a_template_of_any_size_is_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="at most"):
        ChatTemplate("x" * (MAX_SOURCE + 1))
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"chat_template\.jinja"):
        read_chat_template(tmp_path)


def test_a_text_has_its_limit_and_a_long_conversation_is_within() -> None:
    echo = ChatTemplate("{{ messages[0].content }}")
    long = "é" * 2**20
    assert echo.render([message("user", long)]) == long
    with pytest.raises(FormatError, match="over 4194304 characters"):
        echo.render([message("user", "x" * (2**22 + 1))])


def test_one_conversation_that_is_refused_ends_the_others_with_it() -> None:
    refusal = "{% if messages[0].role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    texts = ChatTemplate(refusal + "{{ messages[0].content }}").render_all(
        [[message("user", "a")], [message("tool", "b")], [message("user", "c")]]
    )
    assert next(texts) == "a"
    with pytest.raises(FormatError, match="no tools"):
        next(texts)


def test_conversations_are_read_as_their_texts_are_asked_for() -> None:
    endless = ([message("user", str(number))] for number in itertools.count())
    texts = ChatTemplate("{{ messages[0].content }}").render_all(endless)
    assert list(itertools.islice(texts, 500)) == [str(number) for number in range(500)]
    texts.close()
    assert next(endless) == [message("user", "500")]


def test_what_is_in_the_current_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "jinja2", "datetime", "minilm"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert PLAIN.render(TURNS[:1]) == "User:\nGrüße & 'quotes'\n\n"


def test_the_plain_template_ends_an_answer_alone() -> None:
    text = PLAIN.render([SYSTEM, *TURNS], add_generation_prompt=True)
    assert text == (
        "System:\nAnswer <b>briefly</b>.\n\nUser:\nGrüße & 'quotes'\n\nAssistant:\nHello 世界"
        "<|endoftext|>\n\nUser:\n{{ not }} a {% template %}\n\nAssistant:\n"
    )


# Beside a tokenizer.


def test_a_template_is_read_with_its_special_tokens(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path) is None
    save_tokenizer(tmp_path, "llama3")
    template = read_chat_template(tmp_path)
    assert template is not None
    assert template.special == {"bos_token": BEGIN, "eos_token": END, "pad_token": END}
    assert template.name == str(tmp_path / "chat_template.jinja")
    (tmp_path / "chat_template.jinja").unlink()
    assert read_chat_template(tmp_path) is None
    settings = {"eos_token": {"content": "<e>", "special": True}, "add_bos_token": True}
    named = [{"name": "tools", "template": "T"}, {"name": "default", "template": "{{ eos_token }}"}]
    for stored in ("{{ eos_token }}", named):
        config = json.dumps(settings | {"chat_template": stored})
        (tmp_path / "tokenizer_config.json").write_text(config)
        template = read_chat_template(tmp_path)
        assert template is not None
        assert template.render([]) == "<e>"
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "no", "unk_token": "<u>"}')
    assert special_tokens(tmp_path) == {"eos_token": "<e>", "unk_token": "<u>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": [named[0]]}))
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": 7}')
    with pytest.raises(FormatError, match="chat_template 7, expected a text"):
        read_chat_template(tmp_path)


def test_a_model_without_a_template_has_the_plain_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    text = PLAIN.render(TURNS)
    assert find_template(tmp_path).render(TURNS) == text
    assert f"{tmp_path} has no chat template" in caplog.text
    caplog.clear()
    assert find_template(tmp_path, "plain").render(TURNS) == text
    (tmp_path / "other").write_text("{{ bos_token }}{{ messages | length }}")
    assert find_template(tmp_path, str(tmp_path / "other")).render(TURNS) == f"{END_OF_TEXT}3"
    assert caplog.text == ""
    save_tokenizer(tmp_path, "llama2")  # now it has one, with an end of another name
    assert find_template(tmp_path).source != PLAIN.source
    assert END in find_template(tmp_path, "plain").render(TURNS)
    (tmp_path / "tokenizer_config.json").unlink()
    assert END in find_template(tmp_path, "plain").render(TURNS)
    (tmp_path / "bare").mkdir()
    CharTokenizer("abc").save(tmp_path / "bare" / "tokenizer.json")
    with pytest.raises(TokenizerError, match="no token that ends a text, expected one"):
        find_template(tmp_path / "bare")


# As tokens.


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen2", "llama2", "gemma"])
@pytest.mark.parametrize("writes_beginning", [True, False])
def test_a_conversation_begins_once(kind: str, writes_beginning: bool, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, kind)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    begin, end, turn = (tokenizer.special_tokens[name] for name in (BEGIN, END, TURN))
    ids = tokenizer.encode_chat(f"{BEGIN * writes_beginning}{TURN}the cat{END}{TURN}")
    adds = kind != "qwen2"
    assert ids.count(begin) == (writes_beginning or adds)
    assert [i for i in ids if i in (begin, end, turn)][-3:] == [turn, end, turn]
    assert tokenizer.decode(ids).strip() == "the cat"


def test_the_end_of_text_is_one_token_of_every_tokenizer_of_ours() -> None:
    for tokenizer in (
        ByteTokenizer(),
        CharTokenizer("abc", separated=True),
        build_tokenizer("bpe", lambda: iter(["a b c abc " * 50]), 300),
    ):
        ids = tokenizer.encode_chat(f"ab{END_OF_TEXT}c")
        assert ids == [*tokenizer.encode("ab"), tokenizer.end_of_text, *tokenizer.encode("c")]
    bare = CharTokenizer("abc")
    assert bare.encode_chat("cab") == bare.encode("cab").tolist()


def chatty_tokenizer() -> LibraryTokenizer:
    """One that texts end in another token of than turns."""
    tokenizer = LibraryTokenizer(published_tokenizer("llama3"))
    tokenizer.end_of_text = tokenizer.special_tokens[BEGIN]
    return tokenizer


TURN_BY_TURN = "{% for m in messages %}" + TURN + "{{ m.content }}" + END + "\n{% endfor %}"


def test_the_end_of_a_turn_is_what_stands_after_an_answer() -> None:
    tokenizer = chatty_tokenizer()
    template = ChatTemplate(TURN_BY_TURN)
    end = tokenizer.special_tokens[END]
    assert end_of_turn(template, tokenizer) == end
    assert end_of_turn(ChatTemplate("{{ messages[1].content }} and so on"), tokenizer) is None
    assert end_of_turn(ChatTemplate("no answer"), tokenizer) is None
    first = tokenizer.end_of_text
    for saved, expected in (
        ({}, [first, end]),
        ({"eos_token_id": 3}, [3, end]),
        ({"eos_token_id": [3, end]}, [3, end]),
        ({"eos_token_id": end, "top_k": 5}, end),
        ({"eos_token_id": None}, end),
    ):
        assert with_end_of_turn(saved, template, tokenizer) == {**saved, "eos_token_id": expected}
    byte = ByteTokenizer()
    assert with_end_of_turn({}, PLAIN, byte) == {}
    assert end_of_turn(PLAIN, byte) == byte.end_of_text


def test_a_beginning_of_another_post_processor_stands_once() -> None:
    backend = published_tokenizer("llama3")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(name, backend.token_to_id(name)) for name in (BEGIN, END)],
    )
    tokenizer = LibraryTokenizer(backend)
    tokenizer.end_of_text = backend.token_to_id(END)
    begin = backend.token_to_id(BEGIN)
    for text in (f"{BEGIN}the cat", "the cat"):
        assert tokenizer.encode_chat(text) == [begin, *tokenizer.encode("the cat")]


def test_a_system_without_limits_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limits to compare")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setitem(sys.modules, "resource", None)
    template_process._limit_memory()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_process_says_no_more_than_one_line_of_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_template, "_PROCESS", "raise SystemExit(3)")
    with pytest.raises(FormatError, match="too much time or memory"):
        PLAIN.render(TURNS)
