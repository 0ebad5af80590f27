"""A chat template, and the token at which it ends an answer, go wherever the model goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.text.chat_template import PLAIN, ChatTemplate, read_chat_template
from minilm.text.tokenizer_file import load_tokenizer
from tests.interop.published_tokenizers import BEGIN, END, TURN, save_tokenizer
from tests.interop.shapes import GATED, NO_BIASES, TINY, make_run

# What it writes after an answer is not what ends a text.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}" + TURN + "\n{% endfor %}"
)
CONVERSATION = [
    {"role": "user", "content": "the cat "},
    {"role": "assistant", "content": " a é\n"},
]


@pytest.fixture
def chatty(tmp_path: Path) -> Path:
    """A Hugging Face model of whose template's end of turn generation_config.json says nothing."""
    run = make_run(tmp_path / "run", GATED | NO_BIASES | {"vocab_size": 484})
    save_tokenizer(run, "llama3")
    (run / "chat_template.jinja").unlink()
    minilm.convert(run, "huggingface", tmp_path / "source")
    (tmp_path / "source" / "chat_template.jinja").write_text(TEMPLATE)
    saved = json.loads((tmp_path / "source" / "generation_config.json").read_text())
    assert [saved["eos_token_id"]] == ends(run, END)
    return tmp_path / "source"


def ends(folder: Path, *names: str) -> list[int]:
    special = load_tokenizer(folder / "tokenizer.json").special_tokens
    return [special[name] for name in names]


def check(folder: Path) -> None:
    """The template, and that generation halts at its end of turn."""
    template = read_chat_template(folder)
    assert template is not None
    assert template.source == TEMPLATE
    assert template.render(CONVERSATION).startswith(f"{BEGIN}user:the cat {TURN}\n")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ends(folder, END, TURN)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    stops = {tokenizer.end_of_text, *tokenizer.other_ends}
    assert stops == set(ends(folder, END, TURN))


def test_from_and_to_huggingface(chatty: Path, tmp_path: Path) -> None:
    minilm.convert(chatty, "minilm", tmp_path / "imported")
    check(tmp_path / "imported")
    minilm.convert(tmp_path / "imported", "huggingface", tmp_path / "exported")
    check(tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["eos_token_id"] == ends(chatty, END, TURN)


def test_from_and_to_gguf(chatty: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    minilm.convert(chatty, "gguf", tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    keys = ("tokenizer.chat_template", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    values = [fields[key].contents() for key in keys]
    assert values == [TEMPLATE, *ends(chatty, END, TURN)]
    minilm.convert(tmp_path / "model.gguf", "minilm", tmp_path / "imported")
    check(tmp_path / "imported")


def test_a_model_of_ours_with_a_template_is_one_of_theirs(
    tmp_path: Path, transformers: Any
) -> None:
    run = make_run(tmp_path / "run", TINY)
    (run / "chat_template.jinja").write_text(PLAIN.source)
    minilm.convert(run, "huggingface", tmp_path / "exported")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    template = read_chat_template(run)
    assert template is not None
    text = template.render(CONVERSATION)
    assert theirs.apply_chat_template(CONVERSATION, tokenize=False) == text
    ids = theirs.apply_chat_template(CONVERSATION)["input_ids"]
    tokenizer = load_tokenizer(run / "tokenizer.json")
    assert ids == tokenizer.encode_chat(text)
    assert ids.count(tokenizer.end_of_text) == 1
    generation = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.end_of_text


def test_a_template_that_cannot_be_used_is_kept_with_a_note(
    chatty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = ChatTemplate("{{ 'x' * 10**9 }}")
    (chatty / "chat_template.jinja").write_text(hostile.source)
    minilm.convert(chatty, "minilm", tmp_path / "imported")
    [note] = caplog.messages
    assert note.startswith(f"the chat template cannot be used: {chatty / 'chat_template.jinja'}: ")
    assert (tmp_path / "imported" / "chat_template.jinja").read_text() == hostile.source
    generation = json.loads((tmp_path / "imported" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ends(chatty, END)[0]
