"""Which tokens are answers: by the text, in one encoding of the whole, to the end of the turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from minilm.errors import FormatError
from minilm.text.answers import Answered, answered
from minilm.text.chat_template import PLAIN, ChatTemplate
from minilm.text.conversations import Conversation
from minilm.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    LibraryTokenizer,
    Tokenizer,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (  # each question begins with a beginning of text, an answer with a space
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
TEXT = ["user assistant Question Answer one two INST the end\nand a new line\n\n"] * 20


def backend(*, beginning: bool) -> Backend:
    """Byte-level BPE whose pre-tokenizer does not cut before a space, so that merges cross any seam."""
    tokenizer = Backend(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    # Trimmed, a token of a space alone covers nothing.
    steps: list[Any] = [processors.ByteLevel(trim_offsets=True)]
    if beginning:
        pieces = [("<s>", tokenizer.token_to_id("<s>"))]
        steps.append(processors.TemplateProcessing(single="<s> $A", special_tokens=pieces))
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer


def library(*, beginning: bool = False) -> LibraryTokenizer:
    return LibraryTokenizer(backend(beginning=beginning))


def conversation(*contents: str) -> Conversation:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return Conversation(tuple(messages), "chat.jsonl line 1")


def one(template: ChatTemplate, tokenizer: Tokenizer, *contents: str) -> Answered:
    [result] = answered([conversation(*contents)], template, tokenizer)
    return result


def names(tokenizer: LibraryTokenizer, ids: Any) -> list[str]:
    return [tokenizer._backend.id_to_token(int(number)) for number in ids]


def labels(tokenizer: Tokenizer, result: Answered) -> str:
    """The text of what is learned, special tokens included."""
    if isinstance(tokenizer, ByteTokenizer):
        return bytes(result.ids[result.are_answers].astype(np.uint8)).decode()
    assert isinstance(tokenizer, LibraryTokenizer)
    return tokenizer._backend.decode(
        result.ids[result.are_answers].tolist(), skip_special_tokens=False
    )


DIALOGUE = ("Question é one", "Answer\n\n one ", "two", "the end")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, "Answer\n\n one <|im_end|>the end<|im_end|>"),
        (LLAMA_2, " Answer\n\n one  </s> the end </s>"),
    ],
)
@pytest.mark.parametrize("beginning", [False, True])
def test_the_labels_are_the_answers_and_their_ends(
    source: str, expected: str, beginning: bool
) -> None:
    tokenizer = library(beginning=beginning)
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    result = one(template, tokenizer, *DIALOGUE)
    assert labels(tokenizer, result) == expected
    assert result.are_answers[-1], "nothing after the last answer teaches anything"
    assert result.masked == 0
    written = expected.replace("<|im_end|>", "").replace("</s>", "")
    assert result.answer_bytes == len(written.encode())
    # The whole is encoded as `generate --chat` encodes it, and decodes to what the template wrote.
    whole = template.render(conversation(*DIALOGUE).messages)
    assert result.ids.tolist() == tokenizer.encode_chat(whole)[: len(result.ids)]
    assert result.text_bytes == len(whole.encode())


@pytest.mark.parametrize("source", [CHATML, LLAMA_2])
@pytest.mark.parametrize("beginning", [False, True])
def test_a_text_begins_once(source: str, beginning: bool) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer = library(beginning=beginning)
    ids = names(tokenizer, one(template, tokenizer, "Question", "Answer").ids)
    assert ids.count("<s>") == (1 if beginning or source == LLAMA_2 else 0)
    assert ("<s>" in ids) == (ids[0] == "<s>")


def test_the_plain_template_ends_an_answer_as_texts_end() -> None:
    tokenizer = ByteTokenizer()
    result = one(PLAIN, tokenizer, *DIALOGUE)
    # The id of the end is also that of empty places in a row, which have no label.
    assert labels(tokenizer, result) == "Answer\n\n one\0the end\0"
    assert result.ids[-1] == tokenizer.end_of_text == 0
    characters = CharTokenizer(sorted({*"User:Assistant\n", *"".join(DIALOGUE)}), separated=True)
    same = one(PLAIN, characters, *DIALOGUE)
    assert same.ids[-1] == characters.end_of_text
    assert characters.decode(same.ids[same.are_answers]) == "Answer\n\n onethe end"


def test_without_a_token_that_ends_it_an_answer_has_the_text_that_does() -> None:
    tokenizer = CharTokenizer(sorted({*"User:Assistant\n", *"".join(DIALOGUE)}))
    template = ChatTemplate(PLAIN.source, {})
    result = one(template, tokenizer, "Question", "one", "two", "the end")
    assert tokenizer.decode(result.ids[result.are_answers]) == "one\n\nthe end\n\n"


def test_a_token_on_both_sides_of_the_seam_is_of_the_answer() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    tokenizer = library()
    question, answer = "Question the", " end\nand"
    result = one(template, tokenizer, question, answer)
    prompt = tokenizer.encode_chat(question)
    assert result.ids[: len(prompt)].tolist() != prompt, "the prompt alone is no prefix of the row"
    learned = labels(tokenizer, result)
    assert learned.endswith(answer)
    before = learned.removesuffix(answer)
    assert before
    assert question.endswith(before)
    unlearned = result.ids[~result.are_answers]
    assert tokenizer.decode(unlearned) == question.removesuffix(before)


def test_a_header_that_the_prompt_lacks_is_no_answer() -> None:
    source = CHATML.partition("{% if add_generation_prompt")[0]
    tokenizer = library()
    assert labels(tokenizer, one(ChatTemplate(source), tokenizer, *DIALOGUE)) == (
        "Answer\n\n one <|im_end|>the end<|im_end|>"
    )
    thought = "('<think>\n\n</think>' if loop.last and message['role'] == 'assistant' else '')"
    thinks = CHATML.replace("message['content'] ", f"{thought} + message['content'] ")
    result = one(ChatTemplate(thinks), tokenizer, *DIALOGUE)
    assert labels(tokenizer, result) == "the end<|im_end|>"
    assert result.masked == 1, "what was the last answer is written otherwise once others follow"


def test_earlier_answers_that_the_template_drops_are_not_learned() -> None:
    source = (
        "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}{{ '[' + m['role'] + ']' "
        "+ m['content'] + '</s>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = library()
    result = one(ChatTemplate(source), tokenizer, *DIALOGUE)
    assert labels(tokenizer, result) == "the end</s>"
    assert result.masked == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ messages | length }} messages{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "a template whose prompt does not begin what it writes with the answer",
        ),
        (
            "{{ raise_exception('no such role') }}",
            "TemplateError: no such role, expected a chat template that writes this conversation",
        ),
    ],
)
def test_what_the_template_cannot_write_is_named(source: str, message: str) -> None:
    template = ChatTemplate(source, {}, "t.jinja")
    with pytest.raises(FormatError) as caught:
        one(template, ByteTokenizer(), "a", "b")
    assert str(caught.value).startswith(f"chat.jsonl line 1: t.jinja: {message}")


def test_a_special_token_inside_an_answer_does_not_end_it() -> None:
    tokenizer = library()
    result = one(ChatTemplate(CHATML), tokenizer, "one", "a </s> b")
    assert labels(tokenizer, result) == "a </s> b<|im_end|>"


def test_spans_cover_the_text_of_every_tokenizer() -> None:
    gpt2 = backend(beginning=False)
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "one é\n\n two<|im_end|> the end</s>\n"
    for tokenizer in (BPETokenizer(gpt2), library(beginning=True), ByteTokenizer()):
        ids, starts, ends = tokenizer.chat_spans(text)
        assert ids.tolist() == tokenizer.encode_chat(text)
        covered = {place for a, b in zip(starts, ends, strict=True) for place in range(a, b)}
        assert covered == set(range(len(text)))
        assert (np.diff(starts) >= 0).all()
