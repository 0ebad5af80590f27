"""Datasets: fetched once, which rows and which column, and every refusal."""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import pytest

from minilm.errors import CorpusError, InputError, MissingExtraError
from minilm.text import hugging_face
from minilm.text.corpora import open_corpus


@pytest.fixture
def datasets(monkeypatch):
    """A stand-in for the datasets package, which is an optional extra."""
    module = types.ModuleType("datasets")
    module.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    module.calls = []
    module.rows = [{"text": "first"}, {"text": ""}, {"text": "second"}]
    module.rows_read = 0

    def load_dataset(name, configuration, *, split, streaming):
        module.calls.append((name, configuration, split, streaming))
        if name == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist\non the Hub")

        def rows():
            for row in module.rows:
                module.rows_read += 1
                yield row

        return rows()

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def texts_of(corpus) -> list[str]:
    return [chunk.text for chunk in corpus.chunks()]


def test_the_network_is_used_once(datasets, tmp_path):
    corpus = open_corpus("hf:user/stories", cache=tmp_path)
    assert datasets.calls == [], "not before the text is needed"
    for _ in range(2):
        assert texts_of(corpus) == ["first", "second"]
    assert texts_of(open_corpus("hf:user/stories", cache=tmp_path)) == ["first", "second"]
    assert corpus.name == "stories"
    assert datasets.calls == [("user/stories", None, "train", True)]


def test_configuration_split_rows_and_field(datasets, tmp_path):
    datasets.rows = [{"story": f"story {i}", "title": "x"} for i in range(10)]
    corpus = open_corpus(
        "hf:user/stories:small,split=validation,rows=3", cache=tmp_path, text_field="story"
    )
    assert texts_of(corpus) == ["story 0", "story 1", "story 2"]
    assert corpus.name == "stories-small"
    assert datasets.calls == [("user/stories", "small", "validation", True)]
    assert datasets.rows_read == 3, "streamed, and no further than asked"
    for source, field in [
        ("hf:user/stories:small,split=validation,rows=4", "story"),
        ("hf:user/stories:small,rows=3", "story"),
        ("hf:user/stories:small,split=validation,rows=3", "title"),
    ]:
        texts_of(open_corpus(source, cache=tmp_path, text_field=field))
    assert len(datasets.calls) == 4, "each is another copy"


def test_the_only_field_of_text_is_taken(datasets, tmp_path):
    datasets.rows = [{"label": 1, "content": "x"}]
    assert texts_of(open_corpus("hf:user/stories", cache=tmp_path)) == ["x"]


def test_rows_that_are_conversations(datasets, tmp_path):
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Só."}]
    datasets.rows = [{"id": object(), "messages": messages}, {"id": None, "messages": None}]
    corpus = open_corpus("hf:user/chats,rows=1", cache=tmp_path)
    assert corpus.has_conversations()
    [chat] = corpus.conversations(lambda where, text: None)
    assert list(chat.messages) == messages
    corpus = open_corpus("hf:user/chats", cache=tmp_path)
    with pytest.raises(CorpusError, match=r"hf:user/chats row 1 line 1: messages that are None"):
        list(corpus.conversations(lambda where, text: None))


def test_rows_that_are_null_are_left_out(datasets, tmp_path, caplog):
    datasets.rows = [{"id": 0, "story": None}, {"id": 1, "story": "x"}, {"id": 2, "story": None}]
    corpus = open_corpus("hf:user/stories", cache=tmp_path)
    with caplog.at_level("INFO"):
        assert texts_of(corpus) == ["x"]
    assert "null in place of a text is left out (2 rows)" in caplog.text
    datasets.rows = [{"text": None}]
    nothing = open_corpus("hf:user/nothing", cache=tmp_path)
    assert texts_of(nothing) == []
    assert not nothing.has_conversations()


def test_documents_in_a_row_are_separated(datasets, tmp_path):
    datasets.rows = [{"text": "a<|endoftext|>b\r\n"}]
    assert texts_of(open_corpus("hf:user/stories", cache=tmp_path)) == ["a", "b\n"]


def test_a_local_folder_is_read_anew_for_each_run(datasets, tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    corpus = open_corpus(f"hf:{folder}", cache=tmp_path)
    assert texts_of(corpus) == texts_of(corpus) == ["first", "second"]
    datasets.rows = [{"text": "changed"}]
    assert texts_of(open_corpus(f"hf:{folder}", cache=tmp_path)) == ["changed"]
    assert datasets.calls == [(str(folder), None, "train", True)] * 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"title": "x", "content": "y"}], "row 0: the fields title, content, .*--text-field"),
        ([{"text": "x"}, {"text": 1}], "row 1: a field text of int"),
    ],
)
def test_rows_without_text(datasets, tmp_path, rows, message):
    datasets.rows = rows
    with pytest.raises(CorpusError, match=message):
        texts_of(open_corpus("hf:user/stories", cache=tmp_path))
    assert not list(tmp_path.rglob("*.jsonl")), "no copy of a part"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:", "no dataset name"),
        ("hf:a/b,lines=3", "the options lines=3"),
        ("hf:a/b,split=", "the options split="),
        ("hf:a/b,rows=0", "rows=0"),
        ("hf:a/b,rows=-1", "rows=-1"),
        ("hf:a/b,rows=" + "9" * 5000, "rows=9"),
    ],
)
def test_other_sources_are_refused(datasets, tmp_path, source, message):
    with pytest.raises(CorpusError, match=message):
        open_corpus(source, cache=tmp_path)


def test_a_failure_is_one_line(datasets, tmp_path):
    with pytest.raises(
        CorpusError, match=r"hf:no/such: FileNotFoundError \(.*doesn't exist\)"
    ) as caught:
        texts_of(open_corpus("hf:no/such", cache=tmp_path))
    assert "on the Hub" not in str(caught.value)


def test_a_copy_that_cannot_be_written(datasets, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .*MINILM_CACHE"):
        texts_of(open_corpus("hf:user/stories", cache=tmp_path / "cache"))


@pytest.mark.parametrize("line", ["[]", "{", '{"text": 1}', '"text"'])
def test_a_damaged_copy_is_named(datasets, tmp_path, line):
    corpus = open_corpus("hf:user/stories", cache=tmp_path)
    texts_of(corpus)
    [copy] = tmp_path.rglob("*.jsonl")
    copy.write_text(copy.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=r"jsonl: line 4 is damaged.*delete this copy"):
        texts_of(corpus)


def test_a_copy_that_cannot_be_read(datasets, tmp_path, monkeypatch):
    """As one of another user in a shared cache."""
    corpus = open_corpus("hf:user/stories", cache=tmp_path)
    texts_of(corpus)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError, match=r"jsonl: cannot be read \(Permission denied\)"):
        texts_of(corpus)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minilm\[datasets\]'"):
        open_corpus("hf:user/stories", cache=tmp_path)


def test_the_real_library_reads_a_local_folder(tmp_path: Path):
    pytest.importorskip("datasets")
    folder = tmp_path / "stories"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [{"id": i, "text": f"{split} {i} é\n"} for i in range(20)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = open_corpus(f"hf:{folder}", cache=tmp_path)
    assert texts_of(corpus) == [f"train {i} é\n" for i in range(20)]
    for options, expected in [(",split=validation", 20), (",rows=5", 5)]:
        source = f"hf:{folder}{options}"
        assert len(texts_of(open_corpus(source, cache=tmp_path))) == expected
