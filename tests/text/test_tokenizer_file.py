"""Reading a tokenizer.json: minilm's, GPT-2's, any other, broken and hostile ones."""

import json
import os

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from minilm.errors import FormatError
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import build_tokenizer
from tests.text.conftest import KINDS, TEXT


def test_foreign_and_broken_files(built, tmp_path):
    char, bpe = (built[kind].to_json() for kind in ("char", "bpe"))
    files = [
        *["", "{", "[]", "null", "3", '"x"', "{}", "\ufeff{}", "[" * 100_000, bpe[:-100], "NaN"],
        changed(bpe, "model", "type", to="Unigram"),
        changed(bpe, "model", to="BPE"),
        changed(bpe, "model", "merges", to=[["no", "such"]]),
        changed(bpe, "model", "merges", to=7),
        changed(bpe, "model", "vocab", to={"a": 0}),
        changed(bpe, "model", "vocab", to=[]),
        changed(char, "model", "vocab", to={"a": 0, "b": 2}),
        changed(char, "model", "vocab", to={"a": 0, "bc": 1}),
        changed(char, "model", "vocab", to={"a": "0"}),
        changed(char, "model", "vocab", to={}),
        changed(char, "decoder", to=None),
        tokenizers.Tokenizer(models.BPE()).to_str(),
    ]
    path = tmp_path / "tokenizer.json"
    for content in files:
        path.write_text(content)
        with pytest.raises(FormatError, match=r"tokenizer\.json: ") as caught:
            load_tokenizer(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="not JSON"):
        load_tokenizer(path)
    with pytest.raises(FormatError, match=r"cannot be read \(No such file"):
        load_tokenizer(tmp_path / "missing.json")


def changed(text: str, *path: str, to: object) -> str:
    content = json.loads(text)
    section = content
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = to
    return json.dumps(content)


def test_any_other_tokenizer_is_the_librarys(built, tmp_path):
    bpe = built["bpe"].to_json()
    path = tmp_path / "tokenizer.json"
    for content in (
        changed(bpe, "pre_tokenizer", to=None),
        changed(bpe, "pre_tokenizer", "add_prefix_space", to=True),
        changed(bpe, "pre_tokenizer", "use_regex", to=False),
    ):
        path.write_text(content)
        loaded = load_tokenizer(path)
        raw = tokenizers.Tokenizer.from_file(str(path))
        assert (loaded.kind, loaded.end_of_text) == ("library", 0)
        for text in ("the cat", "  two\n\nlines é", ""):
            expected = raw.encode(text, add_special_tokens=False).ids
            assert loaded.encode(text).tolist() == loaded.encode_prompt(text) == expected
            assert loaded.decode(expected) == raw.decode(expected)


def test_another_gpt2_style_tokenizer_can_be_used(built, tmp_path):
    """As GPT-2's own file: the special token last, and no word about the regular expression."""
    content = json.loads(built["bpe"].to_json())
    del content["pre_tokenizer"]["use_regex"]
    vocabulary = content["model"]["vocab"]
    del vocabulary[END_OF_TEXT]
    content["model"]["vocab"] = {token: number - 1 for token, number in vocabulary.items()}
    content["added_tokens"][0]["id"] = len(vocabulary)
    content["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(path)
    assert tokenizer.kind == "bpe"
    assert tokenizer.end_of_text == len(vocabulary) == tokenizer.vocab_size - 1
    assert tokenizer.encode(TEXT).tolist() == (built["bpe"].encode(TEXT) - 1).tolist()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("eos", [[6], 5, -1, True, "a", 2**40, [0, 9]])
def test_an_end_of_text_outside_the_vocabulary_is_refused(tmp_path, eos):
    build_tokenizer("char", lambda: iter(["abcde"])).save(tmp_path / "tokenizer.json")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(FormatError, match=r"generation_config.json: eos_token_id .* the 5 tokens"):
        load_tokenizer(tmp_path / "tokenizer.json", 64)


@pytest.mark.parametrize("content", ["{}", '{"eos_token_id": null}', '{"eos_token_id": []}'])
def test_a_generation_config_that_names_no_end_leaves_the_tokenizers_own(built, tmp_path, content):
    built["bpe"].save(tmp_path / "tokenizer.json")
    (tmp_path / "generation_config.json").write_text(content)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert (tokenizer.end_of_text, tokenizer.other_ends) == (0, frozenset())


@pytest.mark.parametrize("kind", KINDS)
def test_an_ordinary_token_as_end_of_text_changes_no_other(built, tmp_path, kind):
    built[kind].save(tmp_path / "tokenizer.json")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 3}')
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert (tokenizer.end_of_text, tokenizer.to_json()) == (3, built[kind].to_json())


def test_an_ordinary_token_as_end_of_text_is_not_cut_off_a_prompt(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert load_tokenizer(tmp_path / "tokenizer.json").encode_prompt("ab") == [0, 1]


@pytest.mark.parametrize(
    ("section", "step"),
    [
        ("normalizer", normalizers.Sequence([normalizers.Replace("a", "aa")] * 40)),
        ("normalizer", normalizers.Replace("a", "b" * 2000)),
        ("normalizer", normalizers.Sequence([normalizers.Prepend("ab")] * 40)),
        ("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.ByteLevel()] * 40)),
        ("decoder", decoders.Sequence([decoders.Replace("a", "aa")] * 40)),
        ("decoder", decoders.Sequence([decoders.CTC(word_delimiter_token="")] * 40)),
    ],
)
def test_steps_that_multiply_a_text_are_refused(tmp_path, section, step):
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    setattr(backend, section, step)
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(FormatError, match=f"{section}.* may make a text .* times as long"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_the_steps_of_published_models_are_taken(tmp_path):
    """A SentencePiece map whose longest text is that of U+FDFA, and spaces of three bytes."""
    texts = b"\0".join([b"a", "\ufdfa".encode(), bytes(b"x" * 33)]) + b"\0"
    charsmap = (1024).to_bytes(4, "little") + bytes(1024) + texts
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap),
            normalizers.Replace(tokenizers.Regex(" {2,}"), "\u2581"),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("a").tolist() == [0]


def test_a_lone_surrogate_in_a_vocabulary_is_refused(built, tmp_path):
    path = tmp_path / "tokenizer.json"
    for kind in ("char", "bpe"):
        content = json.loads(built[kind].to_json())
        content["model"]["vocab"]["\ud800"] = len(content["model"]["vocab"])
        path.write_text(json.dumps(content))
        with pytest.raises(FormatError, match=r"not JSON .*surrogates not allowed"):
            load_tokenizer(path)


def test_what_is_no_file_or_too_large_is_refused_unread(built, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"{")
    os.truncate(tmp_path / "large", 10**12)
    for name, got in (("pipe", "a named pipe"), ("device", "a device"), ("large", "10{12} bytes")):
        with pytest.raises(FormatError, match=got):
            load_tokenizer(tmp_path / name)
