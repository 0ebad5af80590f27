"""Tokenizers: round trips, agreement with the tokenizers library, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from minilm.errors import TokenizerError
from minilm.generation.text_stream import TextStream
from minilm.text import tokenizer_training
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import DEFAULT_BPE_VOCAB_SIZE, build_tokenizer
from minilm.text.tokenizers import BPETokenizer, LibraryTokenizer
from tests.text.conftest import KINDS, SPECIAL, TEXT, build


@pytest.fixture(scope="module")
def saved(built, tmp_path_factory):
    """The same tokenizers as the tokenizers library reads them from their files."""
    folder = tmp_path_factory.mktemp("tokenizers")
    libraries = {}
    for kind, tokenizer in built.items():
        tokenizer.save(folder / f"{kind}.json")
        libraries[kind] = tokenizers.Tokenizer.from_file(str(folder / f"{kind}.json"))
    return libraries


# Any characters of TEXT for char; any at all for the others.
KNOWN = st.lists(
    st.sampled_from([*sorted(set(TEXT + SPECIAL)), "\r\n", " the", "  ", "'s", END_OF_TEXT[:-1]])
).map("".join)
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None)
@given(KNOWN, ANY)
def test_text_comes_back_and_the_library_agrees(built, saved, known, anything):
    for kind, text in [("byte", known), ("char", known), ("bpe", known)] + [
        (kind, anything) for kind in ("byte", "bpe")
    ]:
        tokenizer, library = built[kind], saved[kind]
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int64
        assert ids.ndim == 1
        assert tokenizer.decode(ids) == text
        if END_OF_TEXT not in text:
            assert ids.tolist() == library.encode(text).ids
        assert library.decode(ids.tolist()) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_text_as_the_library_has_it(built, saved, kind):
    tokenizer, library = built[kind], saved[kind]
    assert tokenizer.kind == kind
    assert tokenizer.encode(TEXT).tolist() == library.encode(TEXT).ids
    assert tokenizer.vocab_size == library.get_vocab_size()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == library.decode(library.encode(TEXT).ids)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == ""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_ids_in_range_decode_as_the_library_does(built, saved, data):
    for kind in KINDS:
        ids = data.draw(st.lists(st.integers(0, built[kind].vocab_size - 1), max_size=20))
        assert built[kind].decode(ids) == saved[kind].decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [-1, 10_000_000])
def test_an_id_out_of_range(built, kind, bad):
    with pytest.raises(TokenizerError, match=f"token 1: id {bad}, expected 0 <= id <"):
        built[kind].decode([0, bad])


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(built, tmp_path, kind):
    built[kind].save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(built[kind])
    for field in ("kind", "vocab_size", "end_of_text"):
        assert getattr(loaded, field) == getattr(built[kind], field)
    assert loaded.to_json() == built[kind].to_json()
    assert np.array_equal(loaded.encode(TEXT + SPECIAL), built[kind].encode(TEXT + SPECIAL))


def test_byte_ids_are_the_bytes(built):
    assert built["byte"].encode("hé\r\n").tolist() == list("hé\r\n".encode())
    assert built["byte"].vocab_size == 256
    assert built["byte"].end_of_text == 0
    alphabet = set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert set(json.loads(built["byte"].to_json())["model"]["vocab"]) == alphabet
    assert built["byte"].decode([0xC3, 0x28, 0xE2, 0x82]) == "\ufffd(\ufffd"


def test_char_ids_are_the_sorted_characters(built):
    characters = sorted(set(TEXT + SPECIAL))
    assert built["char"].encode("".join(characters)).tolist() == list(range(len(characters)))
    assert built["char"].end_of_text is None
    assert build("char", "ba\nba").vocab_size == 3


@pytest.mark.parametrize("character", ["ñ", "\U0010ffff", "\0", "\ud800"])
def test_char_names_the_character_it_has_not_seen(built, character):
    with pytest.raises(TokenizerError) as caught:
        built["char"].encode("abc" + character + character)
    message = str(caught.value)
    assert message.startswith("character 3: ")
    assert f"(U+{ord(character):04X})" in message
    # `generate` and --init-from meet this too, which do not choose a tokenizer.
    assert message.endswith("; a model trained with a byte or bpe tokenizer takes any text")


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_a_lone_surrogate_is_refused(built, kind):
    with pytest.raises(TokenizerError, match=r"character 2: the surrogate U\+DCFF"):
        built[kind].encode("ab\udcff")


def test_bpe_keeps_a_literal_end_of_text_as_text(built, saved):
    tokenizer, library = built["bpe"], saved["bpe"]
    assert tokenizer.end_of_text == 0
    ids = tokenizer.encode(SPECIAL)
    assert 0 not in ids
    assert tokenizer.decode(ids) == SPECIAL
    assert library.encode(SPECIAL).ids.count(0) == 2, "the raw library differs, as documented"
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    library.encode_special_tokens = True
    assert library.encode(SPECIAL).ids == ids.tolist()
    assert tokenizer.decode([0]) == library.decode([0]) == ""


def test_bpe_compresses_and_its_size_is_bounded(built):
    tokenizer = built["bpe"]
    assert 257 < tokenizer.vocab_size <= 400
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode()) / 2
    assert build("bpe", "abc", 5000).vocab_size == 257, "no pair occurs twice"
    assert build("bpe", vocab_size=257).vocab_size == 257
    varied = " ".join(f"{word:x}" for word in range(20_000))
    assert build("bpe", f"{varied} {varied}").vocab_size == DEFAULT_BPE_VOCAB_SIZE


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_change_the_ids(built, kind, monkeypatch):
    monkeypatch.setattr(BPETokenizer, "CHUNK_CHARACTERS", 40)
    text = TEXT.replace("\u2028", "")
    library = tokenizers.Tokenizer.from_str(built[kind].to_json())
    assert built[kind].encode(text).tolist() == library.encode(text).ids
    if kind != "bpe":
        return
    cut_elsewhere = build_tokenizer("bpe", lambda: iter([TEXT[:50], TEXT[50:], SPECIAL]), 400)
    assert cut_elsewhere.to_json() == build("bpe", TEXT + SPECIAL, 400).to_json()


def test_bpe_of_a_large_text_is_trained_on_chunks_spread_over_it(monkeypatch):
    monkeypatch.setattr(BPETokenizer, "CHUNK_CHARACTERS", 40)
    read, passed = (
        "the cat sat on the mat, and the cat sat\n",
        "0123 0123 0123 0123 0123 0123 0123 0123\n",
    )
    text = (read + passed + passed) * 20

    def trained(limit: int) -> str:
        monkeypatch.setattr(tokenizer_training, "BPE_CHARACTERS", limit)
        return build_tokenizer("bpe", lambda: iter([text]), 300, characters=len(text)).to_json()

    assert trained(len(text) // 3) == build("bpe", read * 20, 300).to_json()
    assert trained(len(text)) == build("bpe", text, 300).to_json()


FORK = """
import os
from minilm.text.tokenizer_training import build_tokenizer
text = "some words to train on, and some more words\\n" * 5000
tokenizer = build_tokenizer("bpe", lambda: iter([text]), 300)
expected = tokenizer.encode(text).tolist()
child = os.fork()
if child == 0:
    os._exit(0 if tokenizer.encode(text).tolist() == expected else 3)
assert os.waitpid(child, 0)[1] == 0
assert tokenizer.encode(text).tolist() == expected
"""


def test_a_fork_neither_warns_nor_hangs():
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    # Python 3.12 has a warning of its own about any fork of a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_prompt_begins_as_the_model_expects(tmp_path):
    """As Llama's: a token goes before every text, and a space before its first word."""
    backend = tokenizers.Tokenizer(
        models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("▁the", -1.0), ("▁cat", -1.0)], unk_id=0)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", None, [("<s>", 0), ("</s>", 1)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.end_of_text == 1
    assert loaded.encode("the cat").tolist() == [2, 3]
    assert loaded.encode_prompt("the cat") == [0, 2, 3]
    stream = TextStream(loaded, (), [0, 2])
    assert [stream.add(3), stream.add(2)] == [" cat", " the"]


def test_a_bpe_token_decodes_as_its_two_merged_tokens(tmp_path: Path) -> None:
    text = "the cat sat on the mat. the cat sat. " * 20
    tokenizer = build_tokenizer("bpe", lambda: iter([text]), 280)
    merges = tokenizer.merges()
    assert merges.shape == (tokenizer.vocab_size, 2)
    merged = np.flatnonzero(merges[:, 0] >= 0)
    assert len(merged) == tokenizer.vocab_size - 257 > 5  # all but the bytes and the end of a text
    for token in merged:
        left, right = merges[token]
        assert tokenizer.decode([token]) == tokenizer.decode([left]) + tokenizer.decode([right])
    tokenizer.save(tmp_path / "tokenizer.json")
    assert np.array_equal(load_tokenizer(tmp_path / "tokenizer.json").merges(), merges)
    # GPT-2's own file writes a merge as one text.
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert np.array_equal(load_tokenizer(tmp_path / "tokenizer.json").merges(), merges)


def test_a_separated_char_tokenizer_has_an_end_of_text_and_keeps_it(tmp_path):
    tokenizer = build_tokenizer("char", lambda: iter(["b\na<|"]), separated=True)
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (6, 5)
    ids = [*tokenizer.encode("<a|b").tolist(), 5]
    assert tokenizer.decode(ids) == "<a|b", "as the library decodes, without special tokens"
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert (again.kind, again.end_of_text, again.to_json()) == ("char", 5, tokenizer.to_json())
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode("<a|b<|endoftext|>").ids == ids
    assert library.decode(ids) == "<a|b"


def test_what_the_library_refuses_to_encode_is_one_line(tmp_path):
    backend = tokenizers.Tokenizer(models.WordPiece(vocab={"a": 0}))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="text: what the tokenizers library rejects"):
        load_tokenizer(tmp_path / "tokenizer.json").encode_prompt("b")


def test_a_panic_of_the_library_is_one_line(tmp_path):
    """An expression that Oniguruma gives up."""
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("(a+)+c"), "isolated")
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="text: what the tokenizers library rejects"):
        load_tokenizer(tmp_path / "tokenizer.json").encode("a" * 40)


def test_an_interrupt_within_the_library_stays_one(tmp_path):
    class Backend:
        no_truncation = no_padding = staticmethod(lambda: None)
        token_to_id = staticmethod(lambda name: None)
        get_vocab = staticmethod(lambda with_added_tokens: {"a": 0})

        def encode(self, text, add_special_tokens):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LibraryTokenizer(Backend()).encode("a")
